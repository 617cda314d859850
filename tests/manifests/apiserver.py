"""A real API server on 127.0.0.1, with its etcd and nothing else: no controllers, no nodes, no root."""

import contextlib
import json
import pathlib
import secrets
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import yaml

from rendering import Failed, run, tool


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ApiServer:
    """`with ApiServer() as server:` … `server.kubectl("get", "ns")`. Its programs are in the folder that the variable names,
    of which those of another version than 1.36 have the API server alone."""

    def __init__(self, programs="KUBERNETES"):
        self.program = f"{tool(programs)}/kube-apiserver"

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        try:
            self.folder = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="lifeboat-api.")))
            self.start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def spawn(self, program, *options):
        log = self.stack.enter_context((self.folder / f"{pathlib.Path(program).name}.log").open("wb"))
        child = subprocess.Popen([program, *options], stdout=log, stderr=log, cwd=self.folder)
        self.stack.callback(child.wait)
        self.stack.callback(child.kill)
        return child

    def start(self):
        clients, peers, port = free_port(), free_port(), free_port()
        store = f"http://127.0.0.1:{clients}"
        self.spawn(f"{tool('KUBERNETES')}/etcd", f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=error",
                   f"--listen-client-urls={store}", f"--advertise-client-urls={store}",
                   f"--listen-peer-urls=http://127.0.0.1:{peers}")
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        run("openssl", "genrsa", "-out", self.folder / "sa.key", "2048")
        server = self.spawn(
            self.program, f"--etcd-servers={store}", f"--secure-port={port}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
            f"--cert-dir={self.folder}/certificates", f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction,Priority",
            "--service-cluster-ip-range=10.96.0.0/24", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/sa.key",
            f"--service-account-signing-key-file={self.folder}/sa.key", "--allow-privileged=true")
        self.kubeconfig = self.folder / "kubeconfig"
        # Its certificate is its own; nobody else listens on this port of this machine.
        self.url = f"https://127.0.0.1:{port}"
        named = {"cluster": {"server": self.url, "insecure-skip-tls-verify": True}, "name": "it"}
        self.kubeconfig.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "it", "clusters": [named],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]}))
        began = time.monotonic()
        while True:
            try:
                self.kubectl("get", "--raw", "/readyz")
                return
            except Failed as failed:
                if server.poll() is not None or time.monotonic() - began > 240:
                    log = (self.folder / "kube-apiserver.log").read_text()[-2000:]
                    raise Failed(f"the API server does not answer: {failed}\n{log}") from None
                time.sleep(0.3)

    def kubectl(self, *arguments, stdin=None):
        return run(f"{tool('KUBERNETES')}/kubectl", "--kubeconfig", self.kubeconfig, *arguments, stdin=stdin)

    def helm(self, *arguments):
        return run(tool("HELM"), "--kubeconfig", self.kubeconfig, *arguments)

    def apply(self, objects, *options):
        """Server-side; a field that the API server does not know, or knows twice, is refused."""
        text = yaml.safe_dump_all(objects)
        return self.kubectl("apply", "--server-side", "--validate=strict", *options, "-f", "-", stdin=text)

    def dry(self, objects):
        return self.apply(objects, "--dry-run=server")

    def raw(self, path):
        return self.kubectl("get", "--raw", path)

    def ask(self, token, method, path, body=None, kind="application/json", impersonated=None):
        """(code, message) of what somebody with a token asks. A refusal is an answer."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        headers |= {"Impersonate-User": impersonated} if impersonated else {}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60, context=ssl._create_unverified_context()) as answer:
                return answer.status, ""
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read()).get("message", "")
