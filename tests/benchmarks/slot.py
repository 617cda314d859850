"""Sends a real llama-server slot that has grown: how much more than its growth is sent?

    slot.py --programs FOLDER [--json FILE] SLOT GROWN_SLOT

`tests/bench slot` runs it.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import report

# What the engine rewrites is one file with one name.
NAME = "slot.bin"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("slot", type=pathlib.Path)
    parser.add_argument("grown", type=pathlib.Path)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="lifeboat-slot-") as folder:
        store, state = pathlib.Path(folder, "store"), pathlib.Path(folder, "state")
        store.mkdir()
        state.mkdir()

        def save(slot, *options):
            shutil.copyfile(slot, state / NAME)
            command = [arguments.programs / "client", "--store", f"dir:{store}", "save", state]
            command += ["--chunking", "content-defined", *options]
            return json.loads(subprocess.check_output(command))

        first, second = save(arguments.slot), save(arguments.grown, "--delta")
    new = second["bytes"] - first["bytes"]
    result = {
        "slot": first["bytes"],
        "grown": second["bytes"],
        "growth": new / first["bytes"],
        "bytes_new": new,
        "bytes_sent": second["bytes_sent"],
        "goals": [
            report.at_most("final flush, bytes sent of bytes new (llama-server slot)", second["bytes_sent"] / new, 1.5)
        ],
    }
    print(f"slot           {first['bytes']:>12} bytes")
    print(f"grown slot     {second['bytes']:>12} bytes, {result['growth']:.1%} more")
    print(f"sent for it    {second['bytes_sent']:>12} bytes; new are {new}")
    report.show_goals(result["goals"])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
