"""What `paddock up` takes at rest, and how that grows over the runs of a tiny pipeline.

uv run python tests/benchmarks/up_at_rest.py --runs 2000

Calls a webhook, waits until its run is over, and calls again. Memory is private memory, between
two runs; the slope is of a straight line through what was found after the first tenth of the runs.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.client import request
from tests.benchmarks.harness import NOTHING, circumstances, table
from tests.benchmarks.processes import ended_in_order, free_port, serve

PIPELINE = """\
on: {webhook: [{path: /number, inputs: {n: "{{ payload.n }}"}}]}
inputs: {n: string}
steps:
  - {uses: files.write, with: {path: "out/{{ inputs.n }}.txt", text: "{{ inputs.n }}"}}
"""
SERVER = "Prefect's server"
REST_S = 3.0  # the first round of `up` is over
RUN_S = 120.0
POLL_S = 0.02
N_LOOKS = 20

Look = dict[str, tuple[float, int, int]]
"""By process: its private memory in kB, its open files and its threads."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--quick", action="store_true", help="40 runs instead of 400")
    args = parser.parse_args()
    n_runs: int = args.runs or (40 if args.quick else 400)
    with ended_in_order(), tempfile.TemporaryDirectory() as name:
        ready_s, looks = asyncio.run(measured(Path(name), n_runs))
    print(circumstances(runs=n_runs, ready_after=f"{ready_s:.1f} s"))
    headings = ["process", "MB at rest", "MB then", "kB a run", "files", "then", "threads", "then"]
    print(table(headings, [row(who, looks) for who in roles(looks)]))


async def measured(folder: Path, n_runs: int) -> tuple[float, dict[int, Look]]:
    """Return after how long `up` was ready, and what was found after how many runs."""
    pipelines, home = folder / "pipelines", folder / "home"
    for made in (pipelines, home):
        made.mkdir()
    (pipelines / "pipeline.yaml").write_text(PIPELINE)
    paddock, port, began = Path(sys.executable).with_name("paddock"), free_port(), time.monotonic()
    command = [str(paddock), "up", str(pipelines), "--listen", f"127.0.0.1:{port}"]
    async with serve(command, port, health="/readyz", env={"HOME": str(home)}) as server:
        ready_s = time.monotonic() - began
        await asyncio.sleep(REST_S)
        up = psutil.Process(server.pid)
        looks, rest = {0: look(up)}, {*up.children(recursive=True)}
        for number in range(1, n_runs + 1):
            async with request(port, "POST", "/number", {"n": str(number)}) as answer:
                if answer.status != 202:
                    raise RuntimeError(f"status {answer.status}: {await answer.text()}")
            out = pipelines / "out" / f"{number}.txt"
            async with asyncio.timeout(RUN_S):
                while not out.exists() or {*up.children(recursive=True)} - rest:  # noqa: ASYNC110 - no event tells of another's child
                    await asyncio.sleep(POLL_S)
            if number % max(1, n_runs // N_LOOKS) == 0:
                looks[number] = look(up)
                print(f"{number} runs", file=sys.stderr)
        return ready_s, looks


def look(up: psutil.Process) -> Look:
    found: Look = {}
    for process in (up, *up.children(recursive=True)):
        command = " ".join(process.cmdline())
        known = {"prefect": SERVER, "forkserver": "what runs are forked from", "tracker": "tracker"}
        who = next((name for part, name in known.items() if part in command), "others")
        who = "`up`" if process == up else who
        kb = process.memory_full_info().uss / 1000
        numbers = kb, process.num_fds(), process.num_threads()
        before = found.get(who, (0.0, 0, 0))
        found[who] = (before[0] + kb, before[1] + numbers[1], before[2] + numbers[2])
    beside = [numbers for who, numbers in found.items() if who != SERVER]
    found["all but Prefect's server"] = (
        sum(kb for kb, _, _ in beside), sum(n for _, n, _ in beside), sum(n for _, _, n in beside)
    )  # fmt: skip
    return found


def roles(looks: dict[int, Look]) -> list[str]:
    return list(dict.fromkeys(who for found in looks.values() for who in found))


def row(who: str, looks: dict[int, Look]) -> list[object]:
    seen = {n: found[who] for n, found in looks.items() if who in found}
    first, last = seen[min(seen)], seen[max(seen)]
    steady = {n: kb for n, (kb, _, _) in seen.items() if n >= max(seen) / 10}
    slope: object = NOTHING
    if len(steady) > 1:
        slope = statistics.linear_regression([*steady], [*steady.values()]).slope
    return [who, first[0] / 1000, last[0] / 1000, slope, first[1], last[1], first[2], last[2]]


if __name__ == "__main__":
    main()
