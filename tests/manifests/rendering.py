"""What kustomize and helm make of manifests/, as objects."""

import os
import pathlib
import re
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
CHART = MANIFESTS / "chart"
NAMESPACE = "lifeboat-system"
# What `helm template` is told, since there is no cluster that it could ask.
VERSION = "1.36.3"

OVERLAYS = sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml"))


class Failed(Exception):
    """A command did not do it; its own words."""


def run(*command, stdin=None, env=None):
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, env=env, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {(done.stderr + done.stdout).strip()}")
    return done.stdout


def tool(name):
    """The path of one of tests/real, as tests/run found it."""
    return os.environ[name]


def objects(text):
    return [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one]


def kustomized(folder):
    """The build of a folder of manifests/."""
    return objects(run(tool("KUSTOMIZE"), "build", MANIFESTS / folder))


def with_component(name, base="base"):
    """The build of an overlay that adds one component, as a user makes it: below manifests/, by relative paths."""
    with tempfile.TemporaryDirectory(dir=MANIFESTS / "overlays", prefix=".test-") as folder:
        kustomization = {"resources": [f"../../{base}"], "components": [f"../../components/{name}"]}
        (pathlib.Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return kustomized(folder)


def rendered(*arguments, namespace=NAMESPACE, version=VERSION):
    """The text of `helm template`."""
    options = ["--namespace", namespace, "--kube-version", version]
    return run(tool("HELM"), "template", "lifeboat", CHART, *options, *arguments)


def charted(*arguments, **options):
    return objects(rendered(*arguments, **options))


def named(found):
    """Objects by kind and name; a ConfigMap without the hash in its name, and everywhere where the name is used."""
    text = yaml.safe_dump_all(found)
    for one in found:
        name = one["metadata"]["name"]
        if one["kind"] == "ConfigMap" and re.fullmatch(r".*-[a-z0-9]{10}", name):
            text = text.replace(name, name.rsplit("-", 1)[0])
    return {(one["kind"], one["metadata"]["name"]): one for one in objects(text)}


def one(found, kind, name="lifeboat"):
    return named(found)[kind, name]
