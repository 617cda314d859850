"""Saves a real slot before and after it has grown: grow-slot.py LLAMA_SERVER MODEL FOLDER TOKENS GROWTH_PERCENT

Digests a prompt of TOKENS tokens (the models of tiny-model.py have one token a character), saves the slot as
FOLDER/a.bin, goes on with GROWTH_PERCENT more, as a conversation does, and saves it as FOLDER/b.bin. Prints what the
server said of each.
"""

import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

server, model, folder, tokens, growth = sys.argv[1:4] + [int(argument) for argument in sys.argv[4:6]]
READY_SECONDS, ANSWER_SECONDS = 60, 900

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]


def ask(path, **body):
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    # No proxy: it is a server of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


def wait_until_ready():
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            return ask("/health")
        except (urllib.error.URLError, ConnectionError):
            if running.poll() is not None or time.monotonic() > until:
                sys.exit("llama-server does not come up")
            time.sleep(0.1)


context = tokens + tokens * growth // 100 + 256
running = subprocess.Popen(
    [server, "--model", model, "--host", "127.0.0.1", "--port", str(port), "--parallel", "1"]
    + ["--ctx-size", str(context), "--slot-save-path", folder, "--no-cache-idle-slots"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
try:
    wait_until_ready()
    letters = random.Random(1)
    text = ""
    for name, length in ("a.bin", tokens), ("b.bin", tokens + tokens * growth // 100):
        text += "".join(letters.choice("abcdefgh ") for _ in range(length - len(text)))
        began = time.monotonic()
        ask("/completion", prompt=text, n_predict=1, temperature=0, id_slot=0, cache_prompt=True)
        digested = time.monotonic() - began
        saved = ask("/slots/0?action=save", filename=name)
        if os.path.getsize(os.path.join(folder, name)) != saved["n_written"]:
            sys.exit(f"{name} is not as long as llama-server says")
        print(f"{name}: {saved['n_saved']} tokens, {saved['n_written']} bytes, digested in {digested:.0f} s")
finally:
    running.kill()
    running.wait()
