"""What every build of manifests/ promises, whatever overlay or chart it comes from."""

import unittest

from rendering import COMPONENTS, MANIFESTS, OVERLAYS, charted, kustomized, objects, one, with_component

# Base and overlays, each component on top of both bases, and the chart.
BUILDS = {"base": lambda: kustomized("base"), "chart": charted}
BUILDS |= {f"overlays/{name}": lambda name=name: kustomized(f"overlays/{name}") for name in OVERLAYS}
for base in ["base", "overlays/before-1.36"]:
    BUILDS |= {f"{base} with {name}": lambda name=name, base=base: with_component(name, base) for name in COMPONENTS}


def tolerates(toleration, key, effect):
    """As the scheduler compares them, for a taint without a value."""
    if toleration.get("effect") not in (None, "", effect):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    return toleration["key"] == key


class EveryBuild(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.builds = {name: build() for name, build in BUILDS.items()}

    def agents(self):
        return [(name, one(found, "DaemonSet")["spec"]["template"]["spec"]) for name, found in self.builds.items()]

    def test_every_overlay_and_component_builds(self):
        for folder in ["eks-pod-identity", "eks-irsa", "bottlerocket", "gpu", "before-1.36", "drill"]:
            self.assertIn(folder, OVERLAYS)
        for name, found in self.builds.items():
            with self.subTest(name):
                self.assertGreater(len(found), 10)

    def test_an_agent_is_evicted_last_and_has_time_to_finish_a_save(self):
        for name, pod in self.agents():
            with self.subTest(name):
                self.assertEqual(pod["priorityClassName"], "system-node-critical")
                self.assertEqual(pod["terminationGracePeriodSeconds"], 110)

    def test_an_agent_never_tolerates_karpenters_taint(self):
        for name, pod in self.agents():
            with self.subTest(name):
                at_fault = [one for one in pod["tolerations"] if tolerates(one, "karpenter.sh/disrupted", "NoSchedule")]
                self.assertEqual(at_fault, [])
                self.assertIn({"operator": "Exists", "effect": "NoExecute"}, pod["tolerations"])
                unnamed = [one for one in pod["tolerations"] if not one.get("key") and one.get("effect") != "NoExecute"]
                self.assertEqual(unnamed, [])

    def test_an_agents_memory_is_reserved_and_its_cpu_is_not_limited(self):
        for name, pod in self.agents():
            with self.subTest(name):
                resources = pod["containers"][0]["resources"]
                self.assertEqual(resources["limits"], {"memory": resources["requests"]["memory"]})

    def test_an_agent_is_restricted_as_far_as_it_goes(self):
        for name, pod in self.agents():
            with self.subTest(name):
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                context = pod["containers"][0]["securityContext"]
                self.assertIs(context["readOnlyRootFilesystem"], True)
                self.assertIs(context["allowPrivilegeEscalation"], False)
                self.assertIs(context["privileged"], False)
                self.assertEqual(context["capabilities"], {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "CHOWN", "FOWNER"]})
                self.assertIs(pod.get("hostNetwork"), False)
                for forbidden in ["hostPID", "hostIPC"]:
                    self.assertNotIn(forbidden, pod)

    def test_an_agent_is_probed_and_one_at_a_time_is_replaced(self):
        for name, found in self.builds.items():
            with self.subTest(name):
                spec = one(found, "DaemonSet")["spec"]
                update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
                self.assertEqual(spec["updateStrategy"], update)
                container = spec["template"]["spec"]["containers"][0]
                self.assertEqual(container["livenessProbe"]["httpGet"], {"path": "/livez", "port": "admin"})
                self.assertEqual(container["readinessProbe"]["httpGet"], {"path": "/readyz", "port": "admin"})

    def test_the_right_to_evict_and_the_way_of_evicting_agree(self):
        for name, found in self.builds.items():
            with self.subTest(name):
                impersonates = one(found, "ConfigMap")["data"]["LIFEBOAT_IMPERSONATE_NODE"]
                rules = one(found, "ClusterRole", "lifeboat-agent-eviction")["rules"]
                verbs = sorted(verb for rule in rules for verb in rule["verbs"])
                as_node = ["impersonate-on:associated-node:create", "impersonate:associated-node"]
                self.assertEqual(verbs, {"true": as_node, "false": ["create"]}[impersonates])

    def test_the_policies_name_the_account_that_the_agent_has(self):
        for name, found in self.builds.items():
            with self.subTest(name):
                agent = one(found, "DaemonSet")
                account = agent["spec"]["template"]["spec"]["serviceAccountName"]
                user = f"system:serviceaccount:{agent['metadata']['namespace']}:{account}"
                about = [each for each in found if each["kind"] == "ValidatingAdmissionPolicy"
                         and each["metadata"]["name"].startswith("lifeboat-agent")]
                self.assertGreaterEqual(len(about), 3)
                for policy in about:
                    conditions = [one["expression"] for one in policy["spec"]["matchConditions"]]
                    self.assertIn(f"request.userInfo.username == '{user}'", conditions)

    def test_network_policy_and_pod_monitor_select_the_agent(self):
        labels = one(self.builds["base"], "DaemonSet")["spec"]["template"]["metadata"]["labels"]
        policy = one(self.builds["base with network-policy"], "NetworkPolicy", "lifeboat-agent")["spec"]
        self.assertEqual(policy["podSelector"]["matchLabels"], labels)
        monitor = one(kustomized("observability"), "PodMonitor")["spec"]
        self.assertEqual(monitor["selector"]["matchLabels"], labels)
        ports = one(self.builds["base"], "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["ports"]
        used = [one["port"] for rule in policy["ingress"] for one in rule["ports"]]
        self.assertEqual({*used, *(one["port"] for one in monitor["podMetricsEndpoints"])}, {ports[0]["name"]})

    def test_the_readme_names_every_overlay_and_component(self):
        readme = (MANIFESTS / "README.md").read_text()
        for name in [f"overlays/{name}/" for name in OVERLAYS] + [f"components/{name}/" for name in COMPONENTS]:
            self.assertIn(f"`{name}`", readme)

    def test_the_examples_are_objects(self):
        for path in (MANIFESTS / "examples").glob("*.yaml"):
            self.assertTrue(objects(path.read_text()), path)
