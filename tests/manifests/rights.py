"""manifests/README.md names every right and its reason, and no right that is not there."""

import re
import unittest

from rendering import MANIFESTS, kustomized


def rules(found):
    """(account, namespace, rule): what each binding gives to whom, and where; in all namespaces if it is None."""
    kinds = ("Role", "ClusterRole")
    roles = {(one["kind"], one["metadata"]["name"]): one["rules"] for one in found if one["kind"] in kinds}
    for binding in (one for one in found if one["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        for rule in roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]:
            for subject in binding["subjects"]:
                yield subject["name"], binding["metadata"].get("namespace"), rule


def granted(found):
    """(verb, resource) by account: what its bindings give it."""
    rights = {}
    for account, _, rule in rules(found):
        pairs = {(verb, resource) for verb in rule["verbs"] for resource in rule["resources"]}
        rights.setdefault(account, set()).update(pairs)
    return rights


def documented(readme):
    """The same by the tables whose first heading is `ACCOUNT may`, one right and its reason each row."""
    rights = {}
    account = None
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            account = None
        elif heading := re.fullmatch(r"([\w-]+) may", cells[0]):
            account = heading[1]
            rights[account] = set()
        elif account and not set(cells[0]) <= set("- :"):
            words = re.sub(r", in .*|\(.*\)", "", cells[0]).replace("`", "").strip()
            *verbs, resource = re.split(r",\s+|\s+", words)
            if not all(cells[1:]):
                raise ValueError(f"manifests/README.md: a cell is empty: {line}")
            resource = re.sub(r"\..*", "", resource)
            rights[account] |= {(verb, resource) for verb in verbs}
    return rights


class EveryRight(unittest.TestCase):
    maxDiff = None

    def test_each_right_of_the_base_has_its_reason_in_the_readme(self):
        readme = documented((MANIFESTS / "README.md").read_text())
        for account, rights in granted(kustomized("base")).items():
            self.assertEqual(readme.get(account), rights, account)

    def test_before_1_36_nothing_but_the_right_to_evict_differs(self):
        now, before = (granted(kustomized(folder)) for folder in ["base", "overlays/before-1.36"])
        self.assertEqual(before["lifeboat-agent"] - now["lifeboat-agent"], {("create", "pods/eviction")})
        lost = now["lifeboat-agent"] - before["lifeboat-agent"]
        self.assertEqual(lost, {("impersonate:associated-node", "nodes"),
                                ("impersonate-on:associated-node:create", "pods/eviction")})

    def test_no_account_may_anything_at_all(self):
        for account, rights in granted(kustomized("base")).items():
            for verb, resource in rights:
                self.assertNotIn("*", (verb, resource), account)
                self.assertNotIn(resource, ["secrets", "pods/exec"], account)
                self.assertFalse(verb in ("escalate", "bind", "impersonate"), (account, verb, resource))
