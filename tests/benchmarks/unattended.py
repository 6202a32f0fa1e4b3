"""What `paddock up` costs: how soon a settled file reaches its model, and what memory it takes.

uv run python tests/benchmarks/unattended.py [--quick]

Five tables. Rest: the processor that each part of `up` takes while nothing happens. Calls: how
long many stored webhook calls take. Latency: a file is written into a watched folder, and the clock
stops when a model works for it; what the watch waits by its own settings (`settle`) is shown apart.
Memory: what each part of `up` holds when it has nothing to do, after a model was used, and after
thousands of files have come. The runner's cost: documents through five steps without a model,
tracked by Prefect through the same service, twice.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.runner.daemon import daemon_client, daemon_files
from paddock.runner.settings import Settings, read_settings
from tests.benchmarks.harness import NOTHING, Child, circumstances, measure, table
from tests.benchmarks.processes import ended_in_order, free_port, serve

SETTLE_S = 1.0
PATIENCE_S = 600.0
QUIET_S = 3.0
"""So long nothing must go on before memory is read."""

TALK = f"""\
name: talk
models: {{writer: {{ref: "smollm2:135m", params: {{max_tokens: 16}}}}}}
on: {{watch: {{path: ./inbox, settle: {SETTLE_S:g}s, batch: 0s}}}}
steps:
  - {{id: docs, uses: files.scan, with: {{root: ./inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
      - {{id: sum, uses: chat, with: {{model: writer, prompt: "Go on: {{{{ steps.text.text }}}}"}}}}
"""
PLAIN = f"""\
name: plain
on: {{watch: {{path: ./inbox, settle: {SETTLE_S:g}s, batch: 2s}}}}
steps:
  - {{id: docs, uses: files.scan, with: {{root: ./inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
      - uses: files.write
        with: {{path: "out/{{{{ doc.relpath }}}}", text: "{{{{ steps.text.text }}}}"}}
"""
FIVE = """\
name: five
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: head, uses: prompt, with: {template: "# {{ doc.name }}"}}
      - {id: page, uses: prompt, with: {template: "{{ steps.head.text }}: {{ steps.text.text }}"}}
      - {id: foot, uses: prompt, with: {template: "{{ steps.page.text | length }} letters"}}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.page.text }} {{ steps.foot.text }}"}
"""
CALLED = """\
name: called
on: {webhook: [{path: /called, inputs: {n: "{{ payload.n }}"}}]}
inputs: {n: {type: int, default: 0}}
steps:
  - {id: page, uses: prompt, with: {template: "Call {{ inputs.n }}"}}
  - uses: files.write
    with: {path: "out/{{ inputs.n }}.txt", text: "{{ steps.page.text }}"}
"""
N_STEPS = 5
FULL = {"rounds": 7, "events": 5_000, "documents": 10_000, "rest": 180, "calls": 500}
QUICK = {"rounds": 2, "events": 200, "documents": 500, "rest": 30, "calls": 50}
RESTED_S = 120.0
"""After its start, before the rest is measured."""
OWN, SERVER = "`up` itself", "Prefect's server"
PARTS = (
    ("prefect", SERVER),
    ("forkserver", "what runs are forked from"),
    ("resource_tracker", "what runs are forked from"),
    ("paddock.engine", "models' workers"),
    ("spawn_main", "models' workers"),
)


@dataclass(frozen=True, slots=True)
class Up:
    root: Path
    pid: int
    settings: Settings
    environ: Mapping[str, str]
    url: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in FULL:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--quick", action="store_true", help="some minutes")
    args = parser.parse_args()
    sizes = {name: getattr(args, name) or (QUICK if args.quick else FULL)[name] for name in FULL}
    with ended_in_order():
        text = asyncio.run(measured(**sizes))
    print(circumstances(**sizes, settle=f"{SETTLE_S:g} s"))
    print(text)


async def measured(rounds: int, events: int, documents: int, rest: int, calls: int) -> str:
    with tempfile.TemporaryDirectory(prefix="paddock-unattended-") as name:
        async with running(Path(name)) as up:
            await asyncio.sleep(RESTED_S)
            rested = _cpu(await spent(up, asyncio.sleep(rest)), rest)
            await quiet(up)
            began = time.monotonic()
            for_calls = await spent(up, called(up, calls))
            called_s = time.monotonic() - began
            await quiet(up)
            states = {"idle": memory(up.pid)}
            first_s = await latency(up, 0)
            later_s = [await latency(up, number) for number in range(1, rounds + 1)]
            await quiet(up)
            states["a model was used"] = memory(up.pid)
            took_s = await many(up, events)
            await quiet(up)
            states[f"{events:,} files more"] = memory(up.pid)
            costs = [await cost(up, documents, state) for state in ("new", "fresh")]
    return "\n\n".join(
        (
            rested,
            _calls(calls, called_s, for_calls),
            _latencies(first_s, later_s),
            _memories(states),
            _many(events, took_s),
            _costs(costs),
        )
    )


async def spent(up: Up, doing: Awaitable[None]) -> dict[str, float]:
    """Wait, and return the seconds of processor time that each part has taken meanwhile."""
    before = cpu_s(up.pid)
    await doing
    return {part: s - before.get(part, 0.0) for part, s in cpu_s(up.pid).items()}


async def called(up: Up, n_calls: int) -> None:
    """Call a webhook so often, and wait until all calls are done."""
    async with httpx.AsyncClient(base_url=up.url, timeout=60) as client:
        for number in range(n_calls):
            answer = await client.post("/called", json={"n": number})
            answer.raise_for_status()
    await _until(lambda: _n_files(up.root / "pipes/called/out") >= n_calls, every_s=0.1)


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[Up]:
    """Run `paddock up` on two pipelines for as long as the block lasts."""
    for name, text in (("talk", TALK), ("plain", PLAIN), ("five", FIVE), ("called", CALLED)):
        (root / "pipes" / name / "inbox").mkdir(parents=True)
        (root / "pipes" / name / "pipeline.yaml").write_text(text)
    environ = {
        "PADDOCK_HOME": str(root / "home"),
        "PADDOCK_PROFILE_S": "0",
        "PADDOCK_TUNE": "off",
        "CI": "",
    }
    settings = read_settings(root, environ={**os.environ, **environ})
    port = free_port()
    paddock = str(Path(sys.executable).with_name("paddock"))
    command = [paddock, "up", str(root / "pipes"), "--listen", f"127.0.0.1:{port}"]
    async with serve(command, port, health="/readyz", env=environ) as server:
        url = f"http://127.0.0.1:{port}"
        yield Up(root, server.pid, settings, {**os.environ, **environ}, url)


async def latency(up: Up, number: int) -> float:
    """Write one file, and give the seconds until a model works for it."""
    file = up.root / "pipes/talk/inbox" / f"{number}.txt"
    await quiet(up)  # a model is let go for a moment between the calls of one run
    began = time.monotonic()
    file.write_text(f"The ferry {number} leaves the harbour and")
    await _until(lambda: _is_asked(up.settings))
    return time.monotonic() - began


async def many(up: Up, n_events: int) -> float:
    """Write so many files, and give the seconds until all of them are done."""
    folder = up.root / "pipes/plain"
    began = time.monotonic()
    for number in range(n_events):
        (folder / "inbox" / f"{number:05}.txt").write_text(f"Document {number}.\n")
        if number % 50 == 0:
            await asyncio.sleep(0)
    await _until(lambda: _n_files(folder / "out") >= n_events, every_s=0.1)
    return time.monotonic() - began


async def cost(up: Up, n_documents: int, state: str) -> tuple[str, Child, float]:
    """Run the five steps once, tracked; gives its state, its cost, and Prefect's processor time."""
    folder = up.root / "pipes/five"
    if state == "new":
        for number in range(n_documents):
            path = folder / "inbox" / f"{number // 100:03}" / f"{number:05}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"Document {number}. {'Nobody missed the ferry. ' * 40}\n")
    before = cpu_s(up.pid)[SERVER]
    paddock = str(Path(sys.executable).with_name("paddock"))
    command = [paddock, "run", "--json", "pipeline.yaml"]
    child = await asyncio.to_thread(measure, command, cwd=folder, env=up.environ)
    found = json.loads(child.stdout)["counts"][state]
    if found != n_documents:
        raise RuntimeError(f"{found} of {n_documents} documents were {state}")
    return state, child, cpu_s(up.pid)[SERVER] - before


def memory(pid: int) -> dict[str, float]:
    """Return the bytes of each part of a process and its children; shared ones by shares."""
    found: dict[str, float] = {}
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        try:
            part = OWN if process.pid == pid else _part(process)
            found[part] = found.get(part, 0.0) + float(_held(process))
        except psutil.Error:
            continue  # it ended meanwhile
    return found


def _held(process: psutil.Process) -> float:
    info = process.memory_full_info()
    return float(getattr(info, "pss", info.rss))


def _part(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    return next((part for mark, part in PARTS if mark in line), "others")


def cpu_s(pid: int) -> dict[str, float]:
    """Return the processor time of each part so far, with that of runs that have ended."""
    found: dict[str, float] = {}
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        try:
            part = OWN if process.pid == pid else _part(process)
            times = process.cpu_times()
        except psutil.Error:
            continue  # it ended meanwhile
        ended = times.children_user + times.children_system if part != OWN else 0.0
        found[part] = found.get(part, 0.0) + times.user + times.system + ended
    return found


async def quiet(up: Up) -> None:
    """Wait until nothing has gone on for a while: no model works, and the processor rests."""
    since = time.monotonic()
    ends = since + PATIENCE_S
    before = _busy_s(up.pid)
    while time.monotonic() - since < QUIET_S and time.monotonic() < ends:
        await asyncio.sleep(0.5)
        now = _busy_s(up.pid)
        if now - before > 0.15 or _is_asked(up.settings):
            since = time.monotonic()
        before = now


def _busy_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _is_asked(settings: Settings) -> bool:
    residence = daemon_files.find_daemon(settings)
    if residence is None:
        return False
    return any(one["running"] for one in daemon_client.ask_daemon(residence)["models"])


def _n_files(folder: Path) -> int:
    try:
        return sum(1 for _ in os.scandir(folder))
    except FileNotFoundError:
        return 0


async def _until(is_so: Callable[[], bool], every_s: float = 0.005) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > ends:
            raise RuntimeError(f"nothing came of it within {PATIENCE_S:g} s")
        await asyncio.sleep(every_s)


def _latencies(first_s: float, later_s: list[float]) -> str:
    after = [seconds - SETTLE_S for seconds in later_s]
    rows: list[list[object]] = [["the first, which loads the model", first_s, first_s - SETTLE_S]]
    if later_s:
        rows += [
            ["later ones, median", statistics.median(later_s), statistics.median(after)],
            ["later ones, longest", max(later_s), max(after)],
        ]
    return table(["file", "s from its writing to its model", "s after it has settled"], rows)


def _memories(states: Mapping[str, Mapping[str, float]]) -> str:
    parts = dict.fromkeys(part for found in states.values() for part in found)
    rows: list[list[object]] = [
        [part, *(_mb(found.get(part)) for found in states.values())] for part in parts
    ]
    rows.append(["together", *(_mb(sum(found.values())) for found in states.values())])
    return table(["MB of `paddock up`", *states], rows)


def _cpu(spent_s: Mapping[str, float], seconds: float) -> str:
    rows = [[part, round(100 * s / seconds, 2)] for part, s in spent_s.items()]
    rows.append(["together", round(100 * sum(spent_s.values()) / seconds, 2)])
    return table(["at rest", "% of a core"], rows)


def _calls(n_calls: int, took_s: float, spent_s: Mapping[str, float]) -> str:
    parts = list(spent_s)
    rows = [[n_calls, took_s, *(round(spent_s[part], 1) for part in parts)]]
    return table(["calls", "s until all are done", *(f"CPU s, {part}" for part in parts)], rows)


def _mb(n_bytes: float | None) -> object:
    return NOTHING if n_bytes is None else round(n_bytes / 1e6)


def _many(n_events: int, took_s: float) -> str:
    rows = [[n_events, took_s, 1000 * took_s / n_events]]
    return table(["files dropped", "s until all are done", "ms each"], rows)


def _costs(costs: list[tuple[str, Child, float]]) -> str:
    rows = [
        [f"run, all {state}", child.seconds, child.peak_bytes / 1e6, prefect_s]
        for state, child, prefect_s in costs
    ]
    head = ["five steps, tracked", "s", "peak MB of the run", "CPU s of Prefect's server"]
    return table(head, rows)


if __name__ == "__main__":
    main()
