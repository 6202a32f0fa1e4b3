"""Chats while others send templates, schemas and grammars that only cost: does anyone notice?

uv run python tests/benchmarks/hostile.py [CHECKOUT] [--chats 20] [--seconds 60] [--rounds 3]
    [--at up] [--together]

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
from functools import partial
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
            first, last = None, ""
            async for line in answer.aiter_lines():
                first, last = first or time.monotonic() - began, line
        assert answer.status_code == 200 and json.loads(last)["done"], last  # no chat is lost
        firsts.append(first or 0)


CULPRIT = """
import http.client, itertools, json, os, socket, sys, time
os.nice(5)
place, seconds, orders, told = sys.argv[1], float(sys.argv[2]), json.load(sys.stdin), []
until = time.monotonic() + seconds
for kind, path, body in itertools.cycle(orders):
    if time.monotonic() > until:
        break
    began = time.monotonic()
    line = http.client.HTTPConnection(place.partition("/")[0] or "localhost", timeout=120)
    if place.startswith("/"):
        line.sock = socket.socket(socket.AF_UNIX)
        line.sock.connect(place)
    line.request("POST", path, body.encode(), {"Content-Type": "application/json"})
    answer = line.getresponse()
    text = answer.read().decode()[:160]
    told.append((kind, time.monotonic() - began, answer.status, text))
    line.close()
    time.sleep(1)
print(json.dumps(told))
"""


async def harm(place: str, other: str, kinds: list[str], until: float) -> list[Any]:
    """Send requests in turn, from a process of its own: a long one delays its sender."""
    orders = []
    for kind in kinds:
        body = {"model": other, "prompt": "x", "stream": False, **KINDS[kind]}
        if "grammar" in body:
            orders.append((kind, "/v1/completions", json.dumps({"max_tokens": 4, **body})))
        else:
            orders.append((kind, "/api/generate", json.dumps(body)))
    command = (sys.executable, "-c", CULPRIT, place, str(until - time.monotonic()))
    culprit = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
    raw = json.dumps(orders).encode()
    told: list[Any] = json.loads((await culprit.communicate(raw))[0])
    return told


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


def processor_s(pid: int) -> float:
    taken = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, taken)) / os.sysconf("SC_CLK_TCK")


async def measure(
    place: str, pid: int, kinds: list[str], chats: int, seconds: float, other: str
) -> float:
    before, began_s = peak_mib(pid), processor_s(pid)
    firsts: list[float] = []
    until = time.monotonic() + seconds
    near = httpx.AsyncHTTPTransport(uds=place) if place.startswith("/") else None
    url = f"http://{'localhost' if near else place}"
    async with httpx.AsyncClient(base_url=url, timeout=120, transport=near) as client:
        work = [chat(client, firsts, until) for _ in range(chats)]
        harming = harm(place, other, kinds, until) if kinds else None
        done = await asyncio.gather(*work, *([harming] if harming else []))
    p95, a_chat_s = percentile(firsts, 0.95), (processor_s(pid) - began_s) / len(firsts)
    print(f"{a_chat_s * 1000:5.1f} ms of the server's processor time a chat; "
          f"n {len(firsts):5} p50 {statistics.median(firsts) * 1000:6.0f} ms, "
          f"p95 {p95 * 1000:6.0f} ms; {before} + {peak_mib(pid) - before} MiB; "
          f"{', '.join(kinds) or 'none'}", flush=True)  # fmt: skip
    told: list[Any] = (done[-1] or []) if harming else []
    for kind in kinds:
        its = [(slow, status, text) for name, slow, status, text in told if name == kind]
        slowest = max(its, default=("", "", ""))
        print(f"    {kind}: {len(its)} told, at most {slowest[0]:.4} s: {slowest[1]} {slowest[2]}")
    return p95


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", nargs="?", default=".", type=Path)
    parser.add_argument("--chats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=[*KINDS][1:])
    parser.add_argument("--at", choices=("serve", "up"), default="serve")
    parser.add_argument("--together", action="store_true", help="all kinds in turn, as one")
    options = parser.parse_args()
    kinds = [kind for kind in options.kinds if options.at == "serve" or kind != "grammar"]
    with tempfile.TemporaryDirectory() as home:
        other = str(tiny.llama(Path(home, "tiny.gguf")))
        environ = {**os.environ, "PADDOCK_HOME": home, "PADDOCK_MODELS": f"{home}/models"}
        paddock = options.checkout / ".venv/bin/paddock"
        Path(home, "Modelfile").write_text(f"FROM {other}\nPARAMETER num_ctx 256\n")
        Path(home, "pipelines").mkdir()
        where = ["--listen", "127.0.0.1:0", f"{home}/pipelines"]
        command = [options.at, *(["--port", "0"] if options.at == "serve" else where)]
        server = subprocess.Popen([paddock, *command], env=environ, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        pid = server.pid
        try:
            assert server.stdout is not None
            place = next(found[0] for line in server.stdout
                         if (found := re.search(r"127\.0\.0\.1:\d+", line)))  # fmt: skip
            if options.at == "serve":
                create = [paddock, "create", "tiny", "-f", f"{home}/Modelfile"]
                subprocess.run(create, env={**environ, "OLLAMA_HOST": place}, check=True)
                other = "tiny"
            else:  # Ollama's API is at the socket of its pool, which a run starts
                Path(home, "pipelines/p.yaml").write_text(
                    f"name: p\nmodels: {{m: {{ref: {other}, ctx: 256}}}}\n"
                    "steps: [{uses: chat, with: {model: m, prompt: x, params: {max_tokens: 2}}}]\n"
                )
                run = [paddock, "run", f"{home}/pipelines/p.yaml"]
                subprocess.run(run, env=environ, check=False, capture_output=True)
                record = next(Path(home, "residence").glob("*[0-9a-f].json"))
                daemon = json.loads(record.read_text())
                place, pid = daemon["socket"], daemon["pid"]
            measured = partial(measure, place, pid, chats=options.chats, other=other)
            asyncio.run(measured([], seconds=5))
            factors: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for now in [kinds] if options.together else [[kind] for kind in kinds]:
                    # Each beside one without, for the machine changes
                    before = asyncio.run(measured([], seconds=min(options.seconds, 20)))
                    p95 = asyncio.run(measured(now, seconds=options.seconds))
                    factors.setdefault(", ".join(now), []).append(p95 / before)
            for kind, taken in factors.items():
                print(f"{kind}: p95 x {statistics.median(taken):.2f}")
        finally:
            server.terminate()
            server.wait(60)
            subprocess.run([paddock, "service", "stop"], env=environ, check=True)


if __name__ == "__main__":
    main()
