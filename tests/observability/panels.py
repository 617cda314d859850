#!/usr/bin/env python3
"""Shows the rules and the dashboard what real agents tell.

    tests/observability/panels.py PROMETHEUS LIFEBOAT FOLDER

A real Prometheus with manifests/observability/rules.yaml scrapes the agents of two drills at once: the lifeboat binary in
processes of its own, on loopback, without a cluster. One drill goes well; the other's store is gone, so that its state is
lost. Then every rule must have been evaluated, every query of the dashboard must have an answer, every name must be in
docs/metrics.md, and of the alerts that need no waiting those must have fired that the drills' own reports ask for.

What it does not show: the operator's PodMonitor, and Grafana itself; the label `node` is given here as the PodMonitor would.
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "manifests/observability"
SCRAPE = 0.5
DRILLS = {
    # Long enough before the notice: Prometheus tells its scrapers of new targets every 5 s.
    "well": ["--fault", "rebalance=first:8s"],
    # Nothing of any state can be saved.
    "lost": ["--fault", "store=gone", "--window", "15s"],
}
# What an alert says, by the report of the evacuation.
TOLD = {
    "LifeboatStateLost": lambda report: any(pod["state"] == "lost" for pod in report["pods"]),
    "LifeboatStateIncomplete": lambda report: any(
        pod["state"] in ("partial", "saved_without_evidence", "earlier") for pod in report["pods"]
    ),
    "LifeboatEvacuationIncomplete": lambda report: not report["complete"],
}
# Queries that rightly have no answer: nothing went wrong in an agent itself, and a drill has no fleet role.
MAY_BE_EMPTY = {"Engine errors", "Effects that failed", "Fleet role", "Evacuations by their reports", "Spot nodes that went"}
VARIABLES = {"$node": ".*", "$__rate_interval": "5s", "$__range": "1m"}

failures = 0


def check(what, problem):
    global failures
    failures += bool(problem)
    print(f"check {what} ... {'FAILED' if problem else 'ok'}")
    if problem:
        print(f"  {problem}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    def __init__(self, program, folder):
        self.targets = folder / "targets.json"
        self.targets.write_text("[]")
        self.log = folder / "prometheus.log"
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(OBSERVABILITY / "rules.yaml")],
            "scrape_configs": [
                {"job_name": "lifeboat", "file_sd_configs": [{"files": [str(self.targets)], "refresh_interval": "1s"}]}
            ],
        }
        path = folder / "prometheus.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [program, f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=warn",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=self.log.open("w"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )
        self.found = {}

    def ask(self, path, **arguments):
        query = urllib.parse.urlencode(arguments)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def wait(self):
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=1)
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        sys.exit(f"Prometheus does not come up:\n{self.log.read_text()[-3000:]}")

    def scrape(self, folder):
        """Every agent that has told its admin address, and no longer than it lives."""
        for log in folder.glob("*/lifeboat-drill-*/node-?/agent.log"):
            for line in log.read_text(errors="replace").splitlines():
                if "probes and metrics" in line and (address := re.search(r'"address":"([^"]+)"', line)):
                    drill, node = log.parts[-4], log.parts[-2]
                    self.found[address[1]] = {"drill": drill, "node": f"{drill}-{node}"}
        now = json.dumps([{"targets": [address], "labels": labels} for address, labels in self.found.items()])
        if now != self.targets.read_text():
            new = self.targets.with_suffix(".new")
            new.write_text(now)
            new.rename(self.targets)


def hold_drills(lifeboat, folder, prometheus):
    """The exit code of each drill; from where to where they went."""
    drills = {}
    began = time.time()
    for name, arguments in DRILLS.items():
        place = folder / name
        place.mkdir()
        drills[name] = subprocess.Popen(
            [lifeboat, "drill", "--keep", *arguments], stdin=subprocess.DEVNULL,
            stdout=(place / "out").open("w"), stderr=subprocess.STDOUT, env={"TMPDIR": str(place), "PATH": "/usr/bin:/bin"},
        )
    try:
        while any(drill.poll() is None for drill in drills.values()) and time.time() < began + 90:
            prometheus.scrape(folder)
            time.sleep(0.1)
    finally:
        for drill in drills.values():
            if drill.poll() is None:
                drill.kill()
    for name, drill in drills.items():
        out = (folder / name / "out").read_text()
        check(f"drill that is scraped: {name}", None if drill.wait() == 0 else out[-3000:])
    time.sleep(3 * SCRAPE)
    return began, time.time()


def rules(prometheus):
    groups = prometheus.ask("rules")["data"]["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    written = len(re.findall(r"^ *- (?:alert|record): ", (OBSERVABILITY / "rules.yaml").read_text(), re.M))
    broken = {rule["name"]: rule.get("lastError") for rule in found if rule["health"] != "ok"}
    check(f"{written} rules are evaluated by a real Prometheus",
          broken or (None if len(found) == written else f"{len(found)} of {written} were loaded"))


def panels(prometheus, began, ended):
    """Every query, over the whole time; what each came to."""
    drawn = []
    for panel in json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]:
        problems = []
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            answer = prometheus.ask("query_range", query=query, start=began, end=ended, step=SCRAPE)
            if answer["status"] != "success":
                problems.append(f"{query}: {answer['error']}")
                continue
            if answer.get("warnings"):
                problems.append(f"{query}: {answer['warnings']}")
            if not answer["data"]["result"] and panel["title"] not in MAY_BE_EMPTY:
                problems.append(f"{query}: no answer")
            drawn.append((panel, target, answer["data"]["result"]))
        if panel["type"] != "row":
            check(f"panel {panel['title']}", "; ".join(problems))
    return drawn


def names(prometheus):
    documented = set(re.findall(r"^\| `(lifeboat_[a-z_]+)`", (ROOT / "docs/metrics.md").read_text(), re.M))
    seen = [name for name in prometheus.ask("label/__name__/values")["data"] if name.startswith("lifeboat_")]
    bare = {name: re.sub(r"_(bucket|sum|count)$", "", name) for name in seen}
    unknown = sorted(name for name in seen if name not in documented and bare[name] not in documented)
    check(f"{len(set(bare.values()))} metrics that agents told are documented", unknown or (None if len(seen) > 50 else seen))


def told(prometheus, query, began, ended):
    return prometheus.ask("query_range", query=query, start=began, end=ended, step=SCRAPE)["data"]["result"]


def last_report(folder, drill):
    """As the leaving node's journal has it: it is there, also without a store."""
    journal = next((folder / drill).glob("lifeboat-drill-*/node-a/state/journal.jsonl"))
    found = None

    def look(value):
        nonlocal found
        if isinstance(value, dict):
            if {"pods", "complete", "deadline"} <= value.keys():
                found = value
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    for line in journal.read_text().splitlines():
        look(json.loads(line))
    return found


def outcomes(prometheus, folder, began, ended):
    """What must have been seen of the drills. On a busy machine the first may lose a state, too: its report says so."""
    fired = told(prometheus, 'count by (alertname, drill) (ALERTS{alertstate="firing"})', began, ended)
    for drill in DRILLS:
        alerts = {one["metric"]["alertname"] for one in fired if one["metric"].get("drill") == drill} & TOLD.keys()
        wanted = {name for name, says in TOLD.items() if says(last_report(folder, drill))}
        check(f"the alerts of the drill {drill} are those of its report: {', '.join(sorted(wanted)) or 'none'}",
              None if alerts == wanted else f"these fired: {sorted(alerts)}")
        if drill == "lost":
            check("a state that is lost is an alert", None if "LifeboatStateLost" in wanted else "nothing was lost")
    pods = {one["metric"]["pod"] for one in told(prometheus, "lifeboat:pod_disrupted:recent", began, ended)}
    stems = {re.match(r"[a-z]+", pod)[0] for pod in pods}
    # The DaemonSet's pod stays, and the replacements are on another node.
    wanted = {"gold", "silver", "web", "mirror", "nightly"}
    check("the pods that left with their node are marked, and no others", None if stems == wanted else f"{sorted(pods)}")


def main():
    program, lifeboat, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    folder.mkdir(parents=True)
    prometheus = Prometheus(program, folder)
    try:
        prometheus.wait()
        began, ended = hold_drills(lifeboat, folder, prometheus)
        rules(prometheus)
        drawn = panels(prometheus, began, ended)
        names(prometheus)
        outcomes(prometheus, folder, began, ended)
    finally:
        prometheus.process.terminate()
        prometheus.process.wait()
    if len(sys.argv) > 4:
        import picture  # matplotlib, only where a picture is wanted

        picture.draw(drawn, pathlib.Path(sys.argv[4]))
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
