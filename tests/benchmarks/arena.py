"""Sinks, and programs that are run against them and measured."""

import json
import os
import pathlib
import subprocess
import urllib.request

from contestants import Sink, clean_environment


class Failed(Exception):
    """A contestant did not move the bytes."""


class Running(Sink):
    """A sink in a process of its own, which ends with ours."""

    def __init__(self, programs, folder, name, keep=False):
        ca = folder / f"{name}.pem"
        command = [programs / "sink", "--ca", ca] + (["--keep"] if keep else [])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        addresses = json.loads(self.process.stdout.readline())
        self.counts_at = addresses["http"] + "/__counts?reset"
        super().__init__(addresses["https"], ca)

    def counts(self):
        """What arrived since the last time that this was asked."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.counts_at) as answer:
            return json.load(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Arena:
    """Where contestants are run: one process at a time, each measured by the kernel's account of it."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        self.environment = clean_environment()

    def run(self, contestant, operation, sink, state, setting, least):
        """Runs it once. At least `least` bytes must have arrived at, or come from, the sink."""
        sink.counts()
        command = contestant.command(operation, sink, state, setting)
        result = self.measured(command, contestant.environment(sink, self.folder, setting), contestant.name)
        counts = sink.counts()
        moved = counts["bytes_out" if operation == "restore" else "bytes_in"]
        if moved < least:
            raise Failed(f"{contestant.name}: {operation} moved {moved} bytes, not {least}")
        return result | {"setting": setting, "moved": moved, "requests": counts["requests"]} | {
            "failed_requests": counts["failed"], "in_flight_max": counts["in_flight_max"]
        }

    def measured(self, command, environment, name):
        output = self.folder / "measured.json"
        done = subprocess.run(
            [self.programs / "measure", output, *command],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()[-2000:]
            raise Failed(f"{name}: exit code {done.returncode}: {' '.join(map(str, command))}\n{said}")
        result = json.loads(pathlib.Path(output).read_text())
        result["cpu"] = result["user"] + result["system"]
        try:
            result["said"] = json.loads(done.stdout)
        except ValueError:
            pass
        return result

    def floors(self, mib):
        return json.loads(subprocess.check_output([self.programs / "floors", "--mib", str(mib)], text=True))


def noise(path, size):
    """A file of noise: nothing in it compresses or repeats."""
    block = 16 * 1024 * 1024
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for offset in range(0, size, block):
            file.write(os.urandom(min(block, size - offset)))
