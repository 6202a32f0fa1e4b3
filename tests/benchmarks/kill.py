"""A job whose worker is killed in its middle: does every document get its answer?

uv run python tests/benchmarks/kill.py

The documents of `job.py`; when a third of them are answered, the worker gets SIGKILL. The same job
undisturbed tells what it costs. In a batch the kernels add in another order, so a few answers may
differ between the two runs where words are all but equally likely.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import arena, loads
from tests.benchmarks.contenders import Ours, ours
from tests.benchmarks.harness import table
from tests.benchmarks.loads import Ask
from tests.benchmarks.setup import Said, Setup

FULL = {"documents": 64, "answer_tokens": 64, "words": 400}
QUICK = {**FULL, "documents": 16}


@dataclass(frozen=True, slots=True)
class Turn:
    seconds: float
    answers: Sequence[Said]
    n_kills: int
    n_loads: int


def main() -> None:
    args = arena.arguments(arena.parser(__doc__), FULL, QUICK)
    setup = arena.setup_of(args)
    asks = loads.summaries(0, args.documents, args.answer_tokens, args.words)

    async def measure() -> str:
        turns = {}
        for name, n_before in (("undisturbed", None), ("killed once", len(asks) // 3)):
            turns[name] = await play(setup, asks, n_before)
            arena.say(name)
        return report(turns)

    arena.show(args, measure, load="(a) with kill -9 on the worker in its middle")


async def play(setup: Setup, asks: Sequence[Ask], n_before: int | None) -> Turn:
    """Run the job; kill the worker once so many documents are answered."""
    async with ours(setup) as running:
        began = time.perf_counter()
        answered = asyncio.Semaphore(0)
        killer = asyncio.create_task(_kill(running, answered, n_before))

        async def one(ask: Ask) -> Said:
            said = await running.ask(ask)
            answered.release()
            return said

        answers = await asyncio.gather(*map(one, asks))
        seconds = time.perf_counter() - began
        n_kills = await killer
        n_loads = sum(count.loads for count in running.pool.stats().loads.values())
    return Turn(seconds, answers, n_kills, n_loads)


async def _kill(running: Ours, answered: asyncio.Semaphore, n_before: int | None) -> int:
    if n_before is None:
        return 0
    for _ in range(n_before):
        await answered.acquire()
    pids = running.pool.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


def report(turns: dict[str, Turn]) -> str:
    first = next(iter(turns.values()))
    rows = []
    for name, turn in turns.items():
        pairs = zip(turn.answers, first.answers, strict=True)
        rows.append(
            [
                name,
                f"{sum(bool(said.text) for said in turn.answers)} of {len(turn.answers)}",
                f"{turn.seconds:.1f}",
                turn.n_kills,
                turn.n_loads,
                f"{sum(one.text == other.text for one, other in pairs)} of {len(turn.answers)}",
            ]
        )
    return table(["", "answers", "seconds", "kills", "loads", "as undisturbed"], rows)


if __name__ == "__main__":
    main()
