"""The chart renders what kustomize builds, and takes every setting of the binary and no other."""

import filecmp
import json
import os
import pathlib
import re
import tempfile
import unittest

import yaml

from rendering import CHART, MANIFESTS, OVERLAYS, ROOT, Failed, charted, kustomized, named, one, rendered, run, tool

SUM = "lifeboat.dev/settings"


def settings():
    help_text = run(tool("LIFEBOAT_BIN"), "run", "--help", env={"PATH": os.environ["PATH"]})
    return sorted(set(re.findall(r"\[env: (LIFEBOAT_\w+)=", help_text)))


def comparable(found):
    """Without what only one of the two has: the Namespace, and the annotation by which the chart rolls its pods."""
    objects = named(found)
    objects.pop(("Namespace", "lifeboat-system"), None)
    for each in objects.values():
        if each["kind"] in ("DaemonSet", "Deployment"):
            annotations = each["spec"]["template"]["metadata"].get("annotations", {})
            annotations.pop(SUM, None)
            if not annotations:
                each["spec"]["template"]["metadata"].pop("annotations", None)
    return objects


class Chart(unittest.TestCase):
    maxDiff = None

    def assert_same(self, kustomize, helm):
        ours, theirs = comparable(kustomize), comparable(helm)
        self.assertEqual(sorted(theirs), sorted(ours))
        for key, value in ours.items():
            self.assertEqual(theirs[key], value, key)

    def assert_refused(self, *arguments, because):
        with self.assertRaises(Failed) as refused:
            rendered(*arguments)
        for word in because:
            self.assertIn(word, str(refused.exception))

    def test_what_the_chart_has_from_kustomize_and_from_the_binary_is_up_to_date(self):
        with tempfile.TemporaryDirectory() as folder:
            run(MANIFESTS / "generate", "--into", folder)
            for made in (path for path in pathlib.Path(folder).rglob("*") if path.is_file()):
                kept = CHART / made.relative_to(folder)
                same = filecmp.cmp(made, kept, shallow=False)
                self.assertTrue(same, f"{kept} is out of date: run manifests/generate")
            made = {path.name for path in pathlib.Path(folder, "files").iterdir()}
            self.assertEqual(made, {path.name for path in (CHART / "files").iterdir()})

    def test_the_chart_by_default_is_the_base(self):
        self.assert_same(kustomized("base"), charted())

    def test_the_chart_with_observability_adds_that_folder(self):
        both = charted("--set", "observability.enabled=true")
        self.assert_same(kustomized("base") + kustomized("observability"), both)

    def test_each_overlay_has_values_that_make_the_same_objects(self):
        self.assertEqual(OVERLAYS, sorted(path.stem for path in (CHART / "values").glob("*.yaml")))
        for name in OVERLAYS:
            with self.subTest(name):
                self.assert_same(kustomized(f"overlays/{name}"), charted("--values", CHART / f"values/{name}.yaml"))

    def test_helm_lint_has_nothing_to_say(self):
        for values in [[], *(["--values", CHART / f"values/{name}.yaml"] for name in OVERLAYS)]:
            run(tool("HELM"), "lint", CHART, "--strict", "--quiet", "--namespace", "lifeboat-system", "--kube-version",
                "1.36.3", *values)

    def test_another_namespace_is_another_one_everywhere(self):
        self.assertNotIn("lifeboat-system", rendered(namespace="spot"))
        policy = one(charted(namespace="spot"), "ValidatingAdmissionPolicy", "lifeboat-agent-nodes")
        self.assertIn("system:serviceaccount:spot:lifeboat-agent", policy["spec"]["matchConditions"][0]["expression"])

    def test_the_schema_knows_the_settings_of_the_binary_and_no_others(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        self.assertEqual(sorted(schema["properties"]["settings"]["properties"]), settings())
        self.assertGreater(len(settings()), 20)

    def test_every_setting_reaches_the_agent(self):
        schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]["properties"]
        chosen = {name: schema[name].get("enum", ["some/where:1"])[0] for name in settings()}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"settings": chosen}, file)
            file.flush()
            found = charted("--values", file.name)
        self.assertEqual(one(found, "ConfigMap")["data"], chosen)
        sources = one(found, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["envFrom"]
        self.assertIn({"configMapRef": {"name": "lifeboat"}}, sources)

    def test_a_changed_setting_rolls_the_agents_and_the_fleet_role(self):
        def rolled(named, *arguments):
            return one(charted(*arguments), *named)["spec"]["template"]["metadata"]["annotations"][SUM]
        for named in [("DaemonSet", "lifeboat"), ("Deployment", "lifeboat-fleet")]:
            self.assertNotEqual(rolled(named), rolled(named, "--set", "settings.LIFEBOAT_MARGIN=7s"), named)

    def test_a_folder_that_is_set_moves_with_its_mount(self):
        moved = "settings.LIFEBOAT_KUBELET_ROOT=/data/kubelet,settings.LIFEBOAT_STATE_DIR=/data/journal"
        pod = one(charted("--set", moved), "DaemonSet")["spec"]["template"]["spec"]
        self.assertEqual([one["hostPath"]["path"] for one in pod["volumes"]], ["/data/kubelet/pods", "/data/journal"])
        self.assertEqual([one["mountPath"] for one in pod["containers"][0]["volumeMounts"]],
                         ["/data/kubelet/pods", "/data/journal"])

    def test_a_digest_wins_over_a_tag(self):
        digest = "sha256:" + "0" * 64
        agent = one(charted("--set", f"image.repository=r/lifeboat,image.digest={digest}"), "DaemonSet")
        container = agent["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["image"], f"r/lifeboat@{digest}")

    def test_a_wrong_value_is_refused_by_name(self):
        for argument, because in {
            "settings.LIFEBOAT_STOER=s3://bucket": ["LIFEBOAT_STOER"],
            "settings.LIFEBOAT_REBALANCE=perhaps": ["LIFEBOAT_REBALANCE", "'drain'"],
            "settings.LIFEBOAT_SHED_BELOW=5": ["LIFEBOAT_SHED_BELOW", "string"],
            "image.digest=latest": ["digest", "sha256"],
            "replicas=3": ["replicas"],
            "hostNetwork=perhaps": ["hostNetwork", "boolean"],
            "serviceAccountAnnotations.default.a=b": ["serviceAccountAnnotations", "default"],
        }.items():
            with self.subTest(argument):
                self.assert_refused("--set", argument, because=because)

    def test_values_that_contradict_each_other_are_refused_with_the_way_out(self):
        for argument, because in {
            "settings.LIFEBOAT_IMPERSONATE_NODE=false": ["set kubernetesBefore136"],
            "tolerations[0].operator=Exists": ["karpenter.sh/disrupted", "your own taint"],
            "tolerations[0].key=karpenter.sh/disrupted": ["karpenter.sh/disrupted"],
            "resources.limits.memory=1Gi,resources.requests.memory=512Mi": ["memory limit must be the memory request"],
        }.items():
            with self.subTest(argument):
                strings = "--set-string" if "IMPERSONATE" in argument else "--set"
                self.assert_refused(strings, argument, because=because)

    def test_an_older_cluster_is_refused_unless_the_values_are_for_it(self):
        with self.assertRaises(Failed) as refused:
            rendered(version="1.35.0")
        self.assertIn("set kubernetesBefore136=true", str(refused.exception))
        rendered("--set", "kubernetesBefore136=true", version="1.35.0")

    def test_the_chart_has_the_version_of_the_workspace(self):
        workspace = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (workspace, workspace))
