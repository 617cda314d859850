"""Compares lifeboat's checkpoint store with other S3 clients, and both with what this machine can do.

    store.py --programs FOLDER --disk FOLDER [--quick] [--large] [--json FILE]

`tests/bench store` runs it. A sweep first finds each contestant's best setting; then everything is run in turns
(A B C A B C …), and the median of the rounds is reported.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import report
from arena import Arena, Failed, Running, noise
from contestants import KEY, MIB, Lifeboat, all_of

# Of the blocks of the state, this share is overwritten before a delta is saved.
DIRTY_SHARE = 0.1
BLOCK = MIB
# State, restored state, and a sink with both layouts of it, and room for the programs.
MEMORY_FACTOR = 6
SMALL_STATE, LARGE_STATE = 100 * 1000 * 1000, 20 * 1000 * 1000 * 1000


class Comparison:
    def __init__(self, programs, memory, disk, quick):
        self.quick = quick
        self.size = (256 if quick else 1024) * MIB
        self.rounds = 3 if quick else 5
        self.programs, self.memory, self.disk = programs, memory, disk
        self.arena = Arena(programs, memory)
        self.contestants = all_of(programs)
        self.ours, self.fast = self.contestants[0], Lifeboat(programs, "fast")
        self.runs, self.sweep, self.floors, self.best = {}, [], [], {}

    def prepare(self):
        """The state, in memory and in a file, and a sink that holds it for the restores."""
        noise(self.memory / "state" / KEY, self.size)
        (self.disk / "state").mkdir()
        shutil.copyfile(self.memory / "state" / KEY, self.disk / "state" / KEY)
        (self.memory / "restored").mkdir()
        self.sink = Running(self.programs, self.memory, "sink")
        self.keeper = Running(self.programs, self.memory, "keeper", keep=True)
        for contestant in self.contestants[:2]:
            self.arena.run(contestant, "save", self.keeper, self.memory / "state", (4, 16), self.size)

    def close(self):
        for sink in ("sink", "keeper"):
            if hasattr(self, sink):
                getattr(self, sink).close()

    def save(self, contestant, source, setting):
        return self.arena.run(contestant, "save", self.sink, source / "state", setting, self.size)

    def restore(self, contestant, setting, compare=False):
        restored = self.memory / "restored"
        run = self.arena.run(contestant, "restore", self.keeper, restored, setting, self.size)
        if (restored / KEY).stat().st_size != self.size:
            raise Failed(f"{contestant.name}: the restored file has {(restored / KEY).stat().st_size} bytes")
        if compare and subprocess.call(["cmp", "--quiet", restored / KEY, self.memory / "state" / KEY]) != 0:
            raise Failed(f"{contestant.name}: the restored file has other bytes")
        shutil.rmtree(restored)
        restored.mkdir()
        return run

    def delta(self, setting):
        """Overwrites some blocks of a saved state in place, and saves what changed."""
        folder = self.memory / "dirtied"
        folder.mkdir()
        shutil.copyfile(self.memory / "state" / KEY, folder / KEY)
        self.arena.run(self.ours, "save", self.sink, folder, setting, self.size)
        blocks = self.size // BLOCK
        dirtied = random.sample(range(blocks), max(1, int(blocks * DIRTY_SHARE)))
        with open(folder / KEY, "r+b") as file:
            for block in dirtied:
                file.seek(block * BLOCK)
                file.write(os.urandom(BLOCK))
        run = self.arena.run(self.ours, "delta", self.sink, folder, setting, len(dirtied) * BLOCK)
        shutil.rmtree(folder)
        return run | {"dirtied": len(dirtied) * BLOCK}

    def find_best(self):
        for contestant in self.contestants:
            for operation in ("save", "restore"):
                tried = []
                for setting in contestant.grid(operation, self.quick):
                    if operation == "save":
                        run = self.save(contestant, self.memory, setting)
                    else:
                        run = self.restore(contestant, setting, compare=not tried)
                    tried.append(run)
                    report.sweep_line(contestant.name, operation, run, self.size)
                best = min(tried, key=lambda run: run["seconds"])
                self.best[contestant.name, operation] = best["setting"]
                self.sweep.append({"contestant": contestant.name, "operation": operation, "runs": tried})

    def measure(self):
        def note(operation, contestant, run):
            self.runs.setdefault(operation, {}).setdefault(contestant.name, []).append(run)

        for number in range(self.rounds):
            print(f"round {number + 1} of {self.rounds}", file=sys.stderr)
            self.floors.append(self.arena.floors(self.size // MIB))
            for source, operation in ((self.memory, "save from memory"), (self.disk, "save from files")):
                for contestant in self.contestants:
                    note(operation, contestant, self.save(contestant, source, self.best[contestant.name, "save"]))
                note(operation, self.fast, self.save(self.fast, source, self.best[self.ours.name, "save"]))
            note("delta", self.ours, self.delta(self.best[self.ours.name, "save"]))
            for contestant in self.contestants:
                setting = self.best[contestant.name, "restore"]
                note("restore", contestant, self.restore(contestant, setting))

    def peak_memory(self):
        """Peak resident memory of a small and of a large state, both from files, with the same setting."""
        peaks = {}
        for name, size in (("small", SMALL_STATE), ("large", LARGE_STATE)):
            folder = self.disk / name
            noise(folder / KEY, size)
            run = self.arena.run(self.ours, "save", self.sink, folder, self.best[self.ours.name, "save"], size)
            peaks[name] = {"bytes": size, "peak_rss": run["peak_rss"]}
            shutil.rmtree(folder)
        return peaks


def available(name):
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--disk", type=pathlib.Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()

    with (
        tempfile.TemporaryDirectory(prefix="lifeboat-bench-", dir="/dev/shm") as memory,
        tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.disk) as disk,
    ):
        comparison = Comparison(arguments.programs, pathlib.Path(memory), pathlib.Path(disk), arguments.quick)
        if available("MemAvailable") < MEMORY_FACTOR * comparison.size:
            sys.exit(f"tests/bench: {MEMORY_FACTOR * comparison.size >> 20} MiB of free memory are needed")
        if arguments.large and shutil.disk_usage(disk).free < 1.2 * LARGE_STATE:
            sys.exit(f"tests/bench: --large needs {1.2 * LARGE_STATE / 1e9:.0f} GB of free disk at {arguments.disk}")
        try:
            comparison.prepare()
            comparison.find_best()
            comparison.measure()
            peaks = comparison.peak_memory() if arguments.large else None
        except Failed as failure:
            sys.exit(f"tests/bench: {failure}")
        finally:
            comparison.close()
    result = report.result(comparison, peaks)
    report.show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
