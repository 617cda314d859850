"""Helm's release of the chart on a real API server, from its installation to its removal."""

import json

from rendering import CHART, NAMESPACE, Failed, charted


def lives(test, server, *values):
    """Installs, upgrades and removes it with these values, and looks for each of its objects."""
    helm, kubectl = server.helm, server.kubectl
    here = ["--namespace", NAMESPACE]

    def setting():
        text = kubectl("get", "configmap", "lifeboat", "-o", "json", *here)
        return json.loads(text)["data"].get("LIFEBOAT_MARGIN")
    helm("install", "lifeboat", CHART, *here, *values)
    test.assertIsNone(setting())
    made = [(each["kind"], each["metadata"]["name"]) for each in charted(*values)]
    for kind, name in made:
        kubectl("get", kind, name, *here)
    helm("upgrade", "lifeboat", CHART, *here, *values, "--set", "settings.LIFEBOAT_MARGIN=7s")
    test.assertEqual(setting(), "7s")
    with test.assertRaisesRegex(Failed, "LIFEBOAT_MARGN"):
        helm("upgrade", "lifeboat", CHART, *here, *values, "--set", "settings.LIFEBOAT_MARGN=7s")
    test.assertEqual(setting(), "7s")
    helm("uninstall", "lifeboat", *here)
    for kind, name in made:
        with test.assertRaisesRegex(Failed, "not found", msg=f"{kind} {name} is left"):
            kubectl("get", kind, name, *here)
