"""Chats while others send templates, schemas and grammars that only cost: does anyone notice?

uv run python tests/benchmarks/hostile.py [CHECKOUT] [--chats 20] [--seconds 60] [--rounds 3]

Chats of the bundled model run all the time; requests of another model are hostile, one after the
other, a second apart. Of each kind: the first tokens of the chats (p50, p95), by which factor the
p95 is longer than without any, how much the server's own process grew and computed, and what the
culprit was told, when.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.harness import percentile
from tests.fakes import tiny

GROWS = "{% set n = namespace(x=[1]) %}{% for _ in range(9999) %}{% set n.x = n.x + n.x %}"
COMPUTES = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
OPTIONS = [f"option {n}" for n in range(500_000)]
PROPERTIES = {f"p{n}": {"type": "string", "pattern": "^(a|b){9}$"} for n in range(5_000)}
KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "grows": {"template": GROWS + "{% endfor %}"},
    "computes": {"template": COMPUTES},
    "30 MB": {"template": "x" * 30_000_000},
    "500,000 options": {"format": {"enum": OPTIONS}},
    "schema": {"format": {"type": "object", "properties": PROPERTIES}},
    "grammar": {"grammar": "\n".join(["start: r0", *(f'r{i}: "a" r{i + 1}' for i in range(4000)),
                                      'r4000: "x"'])},
}  # fmt: skip


async def chat(client: httpx.AsyncClient, firsts: list[float], until: float) -> None:
    n = 0
    while time.monotonic() < until:
        n += 1
        began = time.monotonic()
        body = {"model": "smollm2:135m", "messages": [{"role": "user", "content": f"{n} llamas"}],
                "options": {"num_predict": 8}}  # fmt: skip
        async with client.stream("POST", "/api/chat", json=body) as answer:
            first = None
            async for _ in answer.aiter_lines():
                first = first or time.monotonic() - began
        firsts.append(first or 0)


CULPRIT = """
import json, os, sys, time, urllib.error, urllib.request
os.nice(5)
url, seconds, raw, told = sys.argv[1], float(sys.argv[2]), sys.stdin.buffer.read(), []
until = time.monotonic() + seconds
while time.monotonic() < until:
    began = time.monotonic()
    request = urllib.request.Request(url, raw, {"Content-Type": "application/json"})
    try:
        answer = urllib.request.urlopen(request, timeout=120)
    except urllib.error.HTTPError as error:
        answer = error
    text = answer.read().decode()[:160]
    told.append((time.monotonic() - began, answer.status, text))
    time.sleep(1)
print(json.dumps(told))
"""


async def harm(base: str, body: dict[str, Any], until: float) -> list[Any]:
    """Send a request again and again, from a process of its own: a long one delays its sender."""
    url = "/v1/completions" if "grammar" in body else "/api/generate"
    if "grammar" in body:
        body = {"max_tokens": 4, **body}
    raw = json.dumps({"prompt": "x", "stream": False, **body}).encode()
    command = (sys.executable, "-c", CULPRIT, base + url, str(until - time.monotonic()))
    culprit = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
    told: list[Any] = json.loads((await culprit.communicate(raw))[0])
    return told


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


def processor_s(pid: int) -> float:
    taken = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, taken)) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, pid: int, kind: str, options: argparse.Namespace, other: str) -> float:
    before, began_s = peak_mib(pid), processor_s(pid)
    firsts: list[float] = []
    until = time.monotonic() + options.seconds
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        chats = [chat(client, firsts, until) for _ in range(options.chats)]
        harming = harm(url, {"model": other, **KINDS[kind]}, until) if KINDS[kind] else None
        done = await asyncio.gather(*chats, *([harming] if harming else []))
    p95, a_chat_s = percentile(firsts, 0.95), (processor_s(pid) - began_s) / len(firsts)
    told: list[Any] = (done[-1] or []) if harming else []
    slowest = max(told, default=("", "", ""))
    print(f"{a_chat_s * 1000:5.1f} ms of the server's processor time a chat; ", end="")
    print(f"{kind:16} n {len(firsts):5} p50 {statistics.median(firsts) * 1000:6.0f} ms, "
          f"p95 {p95 * 1000:6.0f} ms; {before} + {peak_mib(pid) - before} MiB; "
          f"{len(told)} told, at most {slowest[0]:.3} s: {slowest[1]} {slowest[2]}" if told else
          f"{kind:16} n {len(firsts):5} p50 {statistics.median(firsts) * 1000:6.0f} ms, "
          f"p95 {p95 * 1000:6.0f} ms; {before} MiB", flush=True)  # fmt: skip
    return p95


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", nargs="?", default=".", type=Path)
    parser.add_argument("--chats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=[*KINDS][1:])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        other = tiny.llama(Path(home, "tiny.gguf"))
        environ = {**os.environ, "PADDOCK_HOME": home, "PADDOCK_MODELS": f"{home}/models"}
        paddock = options.checkout / ".venv/bin/paddock"
        Path(home, "Modelfile").write_text(f"FROM {other}\nPARAMETER num_ctx 256\n")
        server = subprocess.Popen([paddock, "serve", "--port", "0"], env=environ, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        try:
            assert server.stdout is not None
            url = next(found[0] for line in server.stdout
                       if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))  # fmt: skip
            create = [paddock, "create", "tiny", "-f", f"{home}/Modelfile"]
            subprocess.run(create, env={**environ, "OLLAMA_HOST": url}, check=True)
            factors: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for kind in options.kinds:  # each beside one without, for the machine changes
                    before = asyncio.run(measure(url, server.pid, "none", options, "tiny"))
                    p95 = asyncio.run(measure(url, server.pid, kind, options, "tiny"))
                    factors.setdefault(kind, []).append(p95 / before)
            for kind, taken in factors.items():
                print(f"{kind}: p95 x {statistics.median(taken):.2f}")
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main()
