"""Each right of manifests/base is one without which something would have been refused that an agent or the fleet role did in a
scenario of tests/nodes, and nothing was refused that they asked: a right that is taken away shows as the second, one that
nothing needs, or that is granted twice, as the first.

`tests/run nodes` runs this after the scenarios: `python3 tests/manifests used`, with LIFEBOAT_RIGHTS_USED. That folder has a
file for each testbed, with what its API server noted of the accounts' requests (tests/testbed/src/audit.rs).
"""

import json
import pathlib
import re
import unittest
from typing import NamedTuple

from rendering import NAMESPACE, kustomized, tool
from rights import rules

# Itself, and neither a person who asked by the same binary nor the thieves of the scenarios (agent/src/kube/access.rs).
ITSELF = re.compile(r"lifeboat/\S+")
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:"
# 404 and 409 are answers to what is allowed: a pod that is gone, a Lease that another one made first.
DONE = {200, 201, 404, 409}

# NodeRestriction looks pods up in the API server's own cache, which a pod that was bound in the same 150 ms has not
# reached. The agent then asks again, or deletes the pod if that was its last moment: another pod shows the right.
LATE = "can only evict pods with spec.nodeName set to itself"


class Right(NamedTuple):
    account: str
    verb: str
    group: str
    resource: str
    namespace: str | None = None
    name: str | None = None

    def __str__(self):
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        named = f" {self.name}" if self.name else ""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.account} may {self.verb} {resource}{named}{where}"

    def covers(self, asked):
        """A right that names no namespace or no name is one to all of them."""
        return self[:4] == asked[:4] and all(mine in (None, theirs) for mine, theirs in zip(self[4:], asked[4:]))


def rights(found):
    """What the roles grant, one by one."""
    return [Right(account, verb, group, resource, namespace, name)
            for account, namespace, rule in rules(found)
            for verb in rule["verbs"] for group in rule["apiGroups"] for resource in rule["resources"]
            for name in rule.get("resourceNames") or [None]]


def asked(entry):
    """The rights that a request needs: as an impersonated node two, to be it and to do this as it."""
    account, verb = entry["user"]["username"].removeprefix(ACCOUNT), entry["verb"]
    of = entry.get("objectRef", {})
    group, resource = of.get("apiGroup", ""), "/".join(filter(None, [of.get("resource"), of.get("subresource")]))
    if constraint := entry.get("authenticationMetadata", {}).get("impersonationConstraint"):
        way = constraint.removeprefix("impersonate:")
        return [Right(account, constraint, "authentication.k8s.io", "nodes"),
                Right(account, f"impersonate-on:{way}:{verb}", group, resource, of.get("namespace"), of.get("name"))]
    return [Right(account, verb, group, resource, of.get("namespace"), of.get("name"))]


def kinds(entry):
    """The same, of any object."""
    return [right._replace(name=None) for right in asked(entry)]


class EveryRight(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.entries = []
        for path in sorted(pathlib.Path(tool("LIFEBOAT_RIGHTS_USED")).glob("*.jsonl")):
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                if entry["user"]["username"].startswith(ACCOUNT) and ITSELF.fullmatch(entry.get("userAgent", "")):
                    cls.entries.append((path.stem.split(" ")[0], entry))

    def test_without_any_one_right_of_the_base_something_that_was_done_would_have_been_refused(self):
        used = {right for _, entry in self.entries if entry["responseStatus"]["code"] in DONE for right in asked(entry)}
        granted = rights(kustomized("base"))
        self.assertGreater(len(granted), 20)
        needed = set()
        for one in used:
            allowing = [right for right in granted if right.covers(one)]
            needed.update(allowing if len(allowing) == 1 else [])
        unneeded = [str(right) for right in granted if right not in needed]
        why = "no scenario needs these, or another rule grants them too: test what does, or take them away"
        self.assertEqual(unneeded, [], why)

    def test_nothing_that_an_agent_or_the_fleet_role_asked_by_itself_was_refused(self):
        refused = {}
        done = {(scenario, *kinds(entry)) for scenario, entry in self.entries if entry["responseStatus"]["code"] in DONE}
        for scenario, entry in self.entries:
            answer, rights = entry["responseStatus"], asked(entry)
            said = answer.get("message", "")
            if answer["code"] not in (401, 403) or LATE in said and (scenario, *kinds(entry)) in done:
                continue
            for right in rights:
                refused.setdefault(str(right._replace(namespace=None, name=None)), f"{scenario}: {said}")
        self.assertEqual(refused, {}, "a right is missing, or a policy is too narrow")
