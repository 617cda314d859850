"""Kubernetes 1.34: its API server takes the overlay before-1.36 and keeps what is promised of the accounts there, and what is
made for 1.36 does not pass for installed.

No kubelet and no controller is part of it: nodes and pods are objects, and tokens are bound to pods as a kubelet's are.
"""

import json
import time
import unittest

import release
from apiserver import ApiServer
from rendering import CHART, COMPONENTS, NAMESPACE, Failed, kustomized, one, with_component

OVERLAY = "overlays/before-1.36"
BEFORE = ("--set", "kubernetesBefore136=true")
RBAC, POLICY = "cannot ", "denied request: "
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
GATE = "lifeboat.dev/restored"

server = ApiServer("KUBERNETES_1_34")


def setUpModule():
    unittest.enterModuleContext(server)
    # A dry run makes no namespace for the objects that come after it.
    server.apply([one(kustomized(OVERLAY), "Namespace", NAMESPACE)])


# Classes run in the order of their names, and only the second leaves something.
class AnOlderServer(unittest.TestCase):
    def test_an_api_server_of_1_34_takes_the_overlay_before_1_36_and_each_component_on_it(self):
        self.assertIn('"minor": "34"', server.raw("/version"))
        server.dry(kustomized(OVERLAY))
        for name in COMPONENTS:
            with self.subTest(name):
                server.dry(with_component(name, OVERLAY))

    def test_on_1_34_helm_installs_upgrades_and_removes_the_chart_that_is_told_so(self):
        release.lives(self, server, *BEFORE)

    def test_on_1_34_what_is_made_for_1_36_is_refused_with_the_way_out(self):
        with self.assertRaisesRegex(Failed, 'no matches for kind "MutatingAdmissionPolicy"'):
            server.dry(kustomized("base"))
        with self.assertRaisesRegex(Failed, "set kubernetesBefore136=true"):
            server.helm("install", "lifeboat", CHART, "--namespace", NAMESPACE)


class TheAccountsOfThatServer(unittest.TestCase):
    """What a token of node-a's agent, and one of the fleet role, may do: each request also where it is refused."""

    @classmethod
    def setUpClass(cls):
        # Nothing is dry here, and nobody has to run.
        server.apply(kustomized(OVERLAY))
        server.apply([cls.account("default")])
        server.apply([{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"zone": "a"}},
                       "spec": {"taints": [{"key": "theirs", "effect": "NoSchedule"}]}} for name in ["node-a", "node-b"]])
        server.apply([cls.pod("agent", "node-a", NAMESPACE, "lifeboat-agent"),
                      cls.pod("fleet", "node-a", NAMESPACE, "lifeboat-fleet")])
        cls.agent = cls.token("lifeboat-agent", "agent")
        cls.fleet = cls.token("lifeboat-fleet", "fleet")
        server.apply([cls.pod(name, node) for node, names in {
            "node-a": ["mine", "mine-too", "gated", "kept"], "node-b": ["theirs", "theirs-too"]}.items() for name in names])
        # What a kubelet has written before, which must stay as it is.
        status = '{"status":{"phase":"Running","podIP":"10.0.0.7","conditions":[{"type":"Ready","status":"False"}]}}'
        for name in ["mine", "theirs", "gated", "kept"]:
            server.kubectl("patch", "pod", name, "--subresource=status", "-p", status)
        # Each policy and each role comes into force a moment after it was made.
        for token, request in [(cls.agent, cls.node("node-b", metadata={"annotations": {"lifeboat.dev/x": "x"}})),
                               (cls.agent, cls.status("theirs", {"type": GATE})),
                               (cls.agent, cls.event("Node", "node-b", "It", "node-b")),
                               (cls.agent, ("POST", cls.leases(), cls.lease("lifeboat-fleet"))),
                               (cls.fleet, cls.status("theirs", {"type": GATE}))]:
            cls.until_refused(token, *request)

    @classmethod
    def until_refused(cls, token, method, path, *rest):
        until = time.monotonic() + 30
        while True:
            code, message = server.ask(token, method, f"{path}?dryRun=All", *rest)
            if code == 403 and POLICY in message:
                return
            if time.monotonic() > until:
                raise AssertionError(f"{method} {path} is not refused by a policy after 30 s: {code} {message}")
            time.sleep(0.2)

    @staticmethod
    def account(name):
        return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}}

    @staticmethod
    def pod(name, node, namespace="default", account="default"):
        gates = [{"conditionType": GATE}] if name == "gated" else []
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
                "spec": {"nodeName": node, "serviceAccountName": account, "readinessGates": gates,
                         "automountServiceAccountToken": False, "containers": [{"name": "it", "image": "it"}]}}

    @staticmethod
    def token(account, pod):
        bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod}"] if pod else []
        return server.kubectl("create", "token", account, "--namespace", NAMESPACE, *bound).strip()

    def done(self, token, *request, code=(200, 201), **options):
        answer = server.ask(token, *request, **options)
        self.assertIn(answer[0], code, f"{request}: {answer}")

    def refused(self, token, by, *request, **options):
        code, message = server.ask(token, *request, **options)
        self.assertEqual(code, 403, f"{request}: {message}")
        self.assertIn(by, message, request)

    @staticmethod
    def node(name, **change):
        return "PATCH", f"/api/v1/nodes/{name}", change, MERGE

    @staticmethod
    def at(pod, below=""):
        return f"/api/v1/namespaces/default/pods/{pod}{below}"

    @classmethod
    def status(cls, pod, *conditions, **more):
        conditions = [{"status": "True", "reason": "NoAgent", "message": "x", **each} for each in conditions]
        status = {"conditions": conditions, **more.pop("status", {})}
        return "PATCH", cls.at(pod, "/status"), {"status": status, **more}, STRATEGIC

    def evict(self, pod):
        return "POST", self.at(pod, "/eviction"), {"apiVersion": "policy/v1", "kind": "Eviction",
                                                   "metadata": {"name": pod, "namespace": "default"}}

    @staticmethod
    def event(kind, name, reason, source, instance="agent"):
        about = {"kind": kind, "apiVersion": "v1", "name": name, "namespace": "default"}
        moment = "2026-01-01T00:00:00Z"
        return "POST", "/api/v1/namespaces/default/events", {
            "metadata": {"generateName": "it-", "namespace": "default"}, "involvedObject": about, "reason": reason,
            "message": "x", "type": "Normal", "action": "It", "count": 1, "firstTimestamp": moment, "lastTimestamp": moment,
            "reportingComponent": "lifeboat", "reportingInstance": instance,
            "source": {"component": "lifeboat", "host": source}}

    @staticmethod
    def leases(name="", namespace=NAMESPACE):
        return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases{name}"

    @staticmethod
    def lease(name):
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}

    def test_on_1_34_an_agent_changes_its_own_node_and_pods_and_no_others(self):
        done, refused = self.done, self.refused
        # The API server itself adds one to a new node.
        taints = json.loads(server.kubectl("get", "node", "node-a", "-o", "json"))["spec"]["taints"]
        taints.append({"key": "lifeboat.dev/interruption", "effect": "NoSchedule"})
        cordon = {"spec": {"unschedulable": True, "taints": taints},
                  "metadata": {"annotations": {"lifeboat.dev/evacuation": "x"}}}
        done(self.agent, *self.node("node-a", **cordon))
        refused(self.agent, POLICY, *self.node("node-b", **cordon))
        refused(self.agent, POLICY, *self.node("node-a", spec={"taints": taints[1:]}))
        refused(self.agent, POLICY, *self.node("node-a", metadata={"labels": {"zone": "b"}}))

        conditions = [{"type": GATE}, {"type": "DisruptionTarget"}]
        for condition in conditions:
            done(self.agent, *self.status("mine", condition))
            refused(self.agent, POLICY, *self.status("theirs", condition))
        refused(self.agent, POLICY, *self.status("mine", {"type": "Ready"}))
        refused(self.agent, POLICY, *self.status("mine", status={"podIP": "10.0.0.8"}))
        refused(self.agent, POLICY, *self.status("mine", metadata={"labels": {"app": "x"}}))
        refused(self.agent, POLICY, "DELETE", self.at("theirs"))
        done(self.agent, "DELETE", self.at("mine-too"), {"gracePeriodSeconds": 0})

        done(self.agent, *self.event("Node", "node-a", "It", "node-a"))
        done(self.agent, *self.event("Pod", "mine", "It", "node-a"))
        refused(self.agent, POLICY, *self.event("Node", "node-b", "It", "node-a"))
        refused(self.agent, POLICY, *self.event("Pod", "mine", "It", "node-b"))

        done(self.agent, "POST", self.leases(), self.lease("lifeboat-x"))
        done(self.agent, "GET", self.leases("/lifeboat-x"))
        refused(self.agent, POLICY, "POST", self.leases(), self.lease("lifeboat-fleet"))
        refused(self.agent, RBAC, "GET", self.leases())
        refused(self.agent, RBAC, "GET", self.leases("/node-b", "kube-node-lease"))
        for path in ["/api/v1/secrets", "/api/v1/namespaces/default/configmaps"]:
            refused(self.agent, RBAC, "GET", path)
        for path in ["/api/v1/nodes/node-a", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-a", self.at("mine")]:
            done(self.agent, "GET", path)

        nobodys = self.token("lifeboat-agent", None)
        refused(nobodys, "names no node", *self.node("node-a", **cordon))
        refused(nobodys, "names no node", "DELETE", self.at("mine"))

    def test_on_1_34_an_agent_evicts_as_itself_any_pod_that_a_budget_lets_go(self):
        # As the README says: what nothing there can bound.
        for pod in ["mine", "theirs-too"]:
            self.refused(self.agent, "cannot impersonate", *self.evict(pod), impersonated="system:node:node-a")
        self.done(self.agent, *self.evict("theirs-too"))
        server.apply([{"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                       "metadata": {"name": "kept", "namespace": "default"},
                       "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}}}])
        self.done(self.agent, *self.evict("kept"), code=[429])
        self.refused(self.fleet, RBAC, *self.evict("kept"))

    def test_on_1_34_the_fleet_role_opens_gates_and_nothing_else(self):
        done, refused = self.done, self.refused
        done(self.fleet, *self.status("gated", {"type": GATE}))
        refused(self.fleet, POLICY, *self.status("theirs", {"type": GATE}))
        refused(self.fleet, POLICY, *self.status("gated", {"type": GATE, "status": "False"}))
        refused(self.fleet, POLICY, *self.status("gated", {"type": "Ready"}))
        refused(self.fleet, POLICY, *self.status("gated", status={"phase": "Failed"}))
        done(self.fleet, *self.event("Pod", "gated", "GateOpenedByFleet", "node-a", "fleet"))
        refused(self.fleet, POLICY, *self.event("Pod", "gated", "GateOpenedByFleet", "node-a", "another"))
        done(self.fleet, "POST", self.leases(), self.lease("lifeboat-fleet"))
        done(self.fleet, "GET", self.leases("/lifeboat-fleet"))
        refused(self.fleet, POLICY, "POST", self.leases(), self.lease("lifeboat-y"))
        refused(self.fleet, RBAC, "GET", "/api/v1/nodes/node-a")
        refused(self.fleet, RBAC, "DELETE", self.at("gated"))
        nobodys = self.token("lifeboat-fleet", None)
        refused(nobodys, "names no pod", *self.status("gated", {"type": GATE, "reason": "NoAgent", "message": "y"}))
