"""Medians, tables, and the goals of the checkpoint store held against what was measured in this run."""

import os
import platform
import statistics
import sys

GB = 1e9
MIB = 1024 * 1024
OURS, FAST = "lifeboat", "lifeboat-fast"


def sweep_line(name, operation, run, size):
    concurrency, part = run["setting"]
    part = "      " if part is None else f"{part:2} MiB"
    line = f"sweep {name:13} {operation:8} {concurrency:3} x {part}  {size / GB / run['seconds']:5.2f} GB/s  "
    print(line + f"{run['cpu'] / (size / GB):5.2f} CPU-s/GB  {run['peak_rss'] / MIB:5.0f} MiB", file=sys.stderr)


def result(comparison, peaks):
    """Everything that was measured, as one JSON object."""
    floors = {"streams": comparison.floors[0]["streams"]}
    for floor in ("memcpy", "tcp", "tls"):
        measured = [run[floor] for run in comparison.floors]
        floors[floor] = {
            name: statistics.median(run[name] for run in measured)
            for name, value in measured[0].items()
            if value is not None
        }
    tls = floors["tls"]["gb_per_second"]
    operations = {}
    for operation, contestants in comparison.runs.items():
        operations[operation] = {}
        for name, runs in contestants.items():
            size = runs[0].get("dirtied", comparison.size) / GB
            median = lambda key: statistics.median(run[key] for run in runs)  # noqa: E731
            summary = {
                "setting": runs[0]["setting"],
                "gb_per_second": size / median("seconds"),
                "cpu_per_gb": median("cpu") / size,
                "peak_rss": median("peak_rss"),
                "of_loopback_tls": size / median("seconds") / tls,
                "runs": runs,
            }
            operations[operation][name] = summary
    measured = {
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
        "quick": comparison.quick,
        "state_bytes": comparison.size,
        "rounds": comparison.rounds,
        "contestants": {who.name: who.what for who in [*comparison.contestants, comparison.fast]},
        "floors": floors,
        "operations": operations,
        "peak_memory": peaks,
        "sweep": comparison.sweep,
    }
    return measured | {"goals": goals(measured)}


def goals(measured):
    """The goals that this run can speak of. `met` is null for what was not measured."""
    operations = measured["operations"]
    ours = {operation: contestants[OURS] for operation, contestants in operations.items()}
    said = [run["said"] for run in ours["delta"]["runs"]]
    sent = statistics.median(
        run["said"]["bytes_sent"] / run["dirtied"] for run in ours["delta"]["runs"]
    )
    commits = said + [run["said"] for run in ours["save from memory"]["runs"]]
    commit = statistics.median(answer["last_pack_to_commit"] for answer in commits)
    fast = {operation: contestants[FAST] for operation, contestants in operations.items() if FAST in contestants}
    memory, files = "save from memory", "save from files"
    rows = [
        at_most("save from memory with block identity hashing, CPU-s/GB", ours[memory]["cpu_per_gb"], 0.6),
        at_most("save from memory without, CPU-s/GB", fast[memory]["cpu_per_gb"], 0.6),
        at_most("save from files with block identity hashing, CPU-s/GB", ours[files]["cpu_per_gb"], 1.05),
        at_most("save from files without, CPU-s/GB", fast[files]["cpu_per_gb"], 0.9),
        at_least("save from memory with it, of loopback TLS", ours[memory]["of_loopback_tls"], 0.9),
        at_least("save from memory without, of loopback TLS", fast[memory]["of_loopback_tls"], 0.9),
    ]
    for operation in ("save from memory", "save from files", "restore"):
        peers = {name: summary for name, summary in operations[operation].items() if name not in (OURS, FAST)}
        fastest = max(peers, key=lambda name: peers[name]["gb_per_second"])
        cheapest = min(peers, key=lambda name: peers[name]["cpu_per_gb"])
        best, least = peers[fastest]["gb_per_second"], peers[cheapest]["cpu_per_gb"]
        rows.append(at_least(f"{operation}, GB/s; ahead of {fastest}", ours[operation]["gb_per_second"], best))
        rows.append(at_most(f"{operation}, CPU-s/GB; ahead of {cheapest}", ours[operation]["cpu_per_gb"], least))
    rows.append(at_most("final flush, bytes sent of bytes dirtied (fixed blocks)", sent, 1.1))
    # On loopback the two round trips are nothing.
    rows.append(at_most("from the last pack to the commit, s", commit, 0.3))
    peaks = measured["peak_memory"]
    if peaks is None:
        rows.append(unknown("peak memory of 20 GB against 100 MB", "at most 1.1", "needs --large and 20 GB of disk"))
    else:
        ratio = peaks["large"]["peak_rss"] / peaks["small"]["peak_rss"]
        rows.append(at_most("peak memory of 20 GB against 100 MB (save)", ratio, 1.1))
    return rows


def at_most(goal, value, limit):
    return {"goal": goal, "measured": value, "limit": f"at most {limit:.3g}", "met": value <= limit}


def at_least(goal, value, limit):
    return {"goal": goal, "measured": value, "limit": f"at least {limit:.3g}", "met": value >= limit}


def unknown(goal, limit, why):
    return {"goal": goal, "measured": None, "limit": limit, "met": None, "why": why}


def show(measured):
    size, floors = measured["state_bytes"], measured["floors"]
    kind = "--quick: for a first look only" if measured["quick"] else "interleaved"
    print(f"\n{size / MIB:.0f} MiB of noise, TLS 1.3 over loopback, median of {measured['rounds']} rounds ({kind})")
    machine = measured["machine"]
    print(f"{machine['cores']} cores, load {machine['load'][0]:.1f}; 1 GB is 10^9 bytes; the CPU is the client's alone,")
    print("the time that of its whole process, from its start to its end")
    print('"from memory" is a file on /dev/shm, "from files" one on a disk, in the page cache')
    for name, what in measured["contestants"].items():
        print(f"  {name:13} {what}")
    print(f"\n{'this machine':28} {'GB/s':>7} {'CPU-s/GB':>9} {'sending':>9}")
    titles = {"memcpy": "memcpy, one thread", "tcp": "loopback TCP, both ends", "tls": "loopback TLS, both ends"}
    for floor, title in titles.items():
        figures = floors[floor]
        sending = figures.get("sending_cpu_per_gb")
        sending = "" if sending is None else f"{sending:9.2f}"
        print(f"{title:28} {figures['gb_per_second']:7.2f} {figures['cpu_per_gb']:9.2f} {sending:>9}")
    for operation, contestants in measured["operations"].items():
        if operation == "delta":
            operation = "delta, of the dirtied bytes"
        print(f"\n{operation:28} {'GB/s':>7} {'CPU-s/GB':>9} {'peak MiB':>9} {'of TLS':>7}   setting")
        for name, figures in contestants.items():
            concurrency, part = figures["setting"]
            setting = f"{concurrency}" + ("" if part is None else f" x {part} MiB")
            print(
                f"  {name:26} {figures['gb_per_second']:7.2f} {figures['cpu_per_gb']:9.2f}"
                f" {figures['peak_rss'] / MIB:9.0f} {figures['of_loopback_tls']:7.0%}   {setting}"
            )
    show_goals(measured["goals"])


def show_goals(rows):
    print(f"\n{'goal (issue 5)':62} {'measured':>9}  {'':14} in this run")
    for row in rows:
        value = "" if row["measured"] is None else f"{row['measured']:.3f}"
        verdict = {True: "met", False: "MISSED", None: "not measured: " + row.get("why", "")}[row["met"]]
        print(f"{row['goal']:62} {value:>9}  {row['limit']:14} {verdict}")
