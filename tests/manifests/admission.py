"""A real API server judges every build and the chart, and helm installs, upgrades and removes it."""

import copy
import pathlib
import tempfile
import unittest

import yaml

import release
import schemas
from apiserver import ApiServer
from rendering import CHART, COMPONENTS, OVERLAYS, Failed, charted, kustomized, one, rendered, run, tool, with_component

server = ApiServer()


def setUpModule():
    unittest.enterModuleContext(server)
    # A dry run makes no namespace for the objects that come after it.
    server.apply([one(kustomized("base"), "Namespace", "lifeboat-system")])


# Classes run in the order of their names.
class BeforeAnyCrd(unittest.TestCase):
    maxDiff = None

    def test_the_server_takes_base_overlays_and_components_without_any_crd(self):
        for name in ["base"] + [f"overlays/{name}" for name in OVERLAYS]:
            with self.subTest(name):
                server.dry(kustomized(name))
        for name in COMPONENTS:
            with self.subTest(name):
                server.dry(with_component(name))

    def test_the_server_takes_the_chart_with_each_file_of_values(self):
        server.dry(charted())
        for name in OVERLAYS:
            with self.subTest(name):
                server.dry(charted("--values", CHART / f"values/{name}.yaml"))

    def test_the_server_refuses_a_misspelt_field_and_a_policy_that_does_not_compile(self):
        agent = copy.deepcopy(one(kustomized("base"), "DaemonSet"))
        agent["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 1
        with self.assertRaisesRegex(Failed, "terminationGracePeriodSecond"):
            server.dry([agent])
        policy = copy.deepcopy(one(kustomized("base"), "ValidatingAdmissionPolicy", "lifeboat-agent-nodes"))
        policy["spec"]["validations"][0]["expression"] = "variables.nobody != ''"
        with self.assertRaisesRegex(Failed, "nobody"):
            server.dry([policy])

    def test_the_server_refuses_a_pod_monitor(self):
        with self.assertRaisesRegex(Failed, "no matches for kind"):
            server.dry([one(kustomized("observability"), "PodMonitor")])

    def test_helm_installs_upgrades_and_removes_all_of_it(self):
        release.lives(self, server)


class OnceTheCrdIsThere(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        for path in pathlib.Path(tool("CRDS")).glob("*.yaml"):
            server.kubectl("apply", "--server-side", "-f", path)
        server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        # Established is not published: the API server adds them to its OpenAPI documents some seconds later.
        schemas.published(server, "apis/monitoring.coreos.com/v1", {"PodMonitor", "PrometheusRule"})

    def test_the_server_takes_observability(self):
        server.dry(kustomized("observability"))
        server.dry(charted("--set", "observability.enabled=true"))

    def test_kubeconform_finds_nothing_by_the_servers_own_schemas(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            schemas.write(server, folder)
            location = f"{folder}/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json"
            core = f"{folder}/{{{{.ResourceKind}}}}-{{{{.ResourceAPIVersion}}}}.json"

            def conforms(text):
                places = ["-schema-location", location, "-schema-location", core]
                return run(tool("KUBECONFORM"), "-strict", "-summary", *places, "-", stdin=text)
            builds = [kustomized(f"overlays/{name}") for name in OVERLAYS] + [kustomized("base"), kustomized("observability")]
            for objects in builds + [with_component(name) for name in COMPONENTS]:
                said = conforms(yaml.safe_dump_all(objects))
                self.assertIn(f"{len(objects)} resources found", said)
                self.assertIn("Errors: 0, Skipped: 0", said)
            conforms(rendered())
            wrong = copy.deepcopy(one(kustomized("base"), "DaemonSet"))
            wrong["spec"]["template"]["spec"]["tolerations"][0]["efect"] = "NoSchedule"
            with self.assertRaisesRegex(Failed, "efect"):
                conforms(yaml.safe_dump(wrong))
