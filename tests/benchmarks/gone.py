"""A client that goes away: how long does the engine compute on for no one?

uv run python tests/benchmarks/gone.py

Three ways to go: in the middle of an answer that streams; while waiting for a whole answer; while a
long prompt is being read. Ours: the stream is cancelled; theirs: the connection is closed. Then we
watch until the process takes no processor time any more: that time, and the decode steps that the
engine itself counts from then on (a step already begun ends in any case).
"""

import argparse
import asyncio
import contextlib
import re
import statistics
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.memory.pool_stats import PoolEvents
from tests.benchmarks import arena, client, loads
from tests.benchmarks.contenders import available, ours
from tests.benchmarks.harness import NOTHING, table
from tests.benchmarks.loads import Ask
from tests.benchmarks.processes import cpu_s, free_port, serve
from tests.benchmarks.servers import CHAT, Served, example_server, server_command
from tests.benchmarks.setup import Setup

FULL = {"rounds": 3, "answer_tokens": 1000, "words": 2000}
QUICK = {**FULL, "rounds": 1}
IDLE_S = 0.6
"""No processor time for so long: it has stopped."""
BUSY_S = 0.2
"""So much processor time: it is computing."""
LOOK_S = 0.02
N_HEARD = 8
"""So many pieces of an answer are heard before someone leaves."""

WAYS = ("streaming", "waiting for the whole", "reading a long prompt")


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine that can be left: how to ask and leave, and what it says that it does."""

    pid: int
    leave: Callable[[Ask, str], Awaitable[None]]
    """Ask, wait until it computes, go away."""
    n_steps: Callable[[], Coroutine[Any, Any, int | None]]


Start = Callable[[Setup], AbstractAsyncContextManager[Subject]]


@dataclass(frozen=True, slots=True)
class Left:
    """How long it went on, by the clock and in decode steps."""

    seconds: float
    n_steps: int | None


@dataclass(slots=True)
class Found:
    """All of one engine's departures."""

    by_way: dict[str, list[Left]] = field(default_factory=lambda: {way: [] for way in WAYS})


def main() -> None:
    args = arena.arguments(arena.parser(__doc__), FULL, QUICK)
    setup = replace(arena.setup_of(args), n_ctx_tokens=8192)
    contenders = available(args.only, _everybody(setup))

    async def measure() -> str:
        found = {}
        for name, begin in contenders.items():
            found[name] = Found()
            try:
                async with asyncio.timeout(600), begin(setup) as subject:
                    await _leave_often(subject, found[name], args)
            except arena.FAILURES as error:
                arena.say(f"{name} failed: {error!r}")
            arena.say(name)
        return report(found)

    arena.show(args, measure, load="(h) a client that goes away")


def _everybody(setup: Setup) -> dict[str, tuple[str, Start, bool]]:
    return {
        "paddock": ("paddock", our_pool, True),
        "server": ("llama-server -np 4", a_llama_server, setup.server is not None),
        "example": ("example server", an_example_server, setup.example is not None),
    }


async def _leave_often(subject: Subject, found: Found, args: argparse.Namespace) -> None:
    for number in range(args.rounds):
        for way in WAYS:
            if way == WAYS[2]:
                (ask,) = loads.summaries(number, 1, args.answer_tokens, args.words)
            else:
                ask = loads.story(number, args.answer_tokens)
            await _until_idle(subject.pid)
            found.by_way[way].append(await left(subject, ask, way))


async def left(subject: Subject, ask: Ask, way: str) -> Left:
    """Go away in one of the ways, and watch what the engine does then."""
    await subject.leave(ask, way)
    # Asked for apart from the clock: an engine in the middle of a step answers at its end.
    before = asyncio.create_task(subject.n_steps())
    seconds = await _until_idle(subject.pid)
    n_before, n_after = await before, await subject.n_steps()
    if n_before is None or n_after is None:
        return Left(seconds, None)
    return Left(seconds, n_after - n_before)


async def _until_idle(pid: int) -> float:
    """Wait until a process takes no processor time; tells for how long it still did."""
    began = moved_at = time.perf_counter()
    before = cpu_s(pid)
    while time.perf_counter() - moved_at < IDLE_S:
        await asyncio.sleep(LOOK_S)
        # A clock tick (10 ms) in half a second is housekeeping, not a decode step.
        if cpu_s(pid) - before > 0.02:
            before, moved_at = cpu_s(pid), time.perf_counter()
    return moved_at - began


async def _until_busy(pid: int) -> None:
    """Wait until a process has computed for a moment."""
    before = cpu_s(pid)
    while cpu_s(pid) - before < BUSY_S:  # noqa: ASYNC110  (another process's clock)
        await asyncio.sleep(LOOK_S)


# Engines


class _Steps(PoolEvents):
    def __init__(self) -> None:
        self.n_steps = 0

    def turn(self, model: str, told: Mapping[str, Any]) -> None:
        """Count a step that computed something."""
        self.n_steps += told.get("n_tokens", 0) > 0


@contextlib.asynccontextmanager
async def our_pool(setup: Setup) -> AsyncIterator[Subject]:
    """Leave our pool by cancelling the stream."""
    steps = _Steps()
    async with ours(setup, steps) as running:
        (pid,) = running.pool.worker_pids()

        async def leave(ask: Ask, way: str) -> None:
            stream = running.pool.chat(running.request(ask))
            if way == WAYS[0]:
                await _hear_some(stream)
            else:
                await _until_busy(pid)
            stream.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stream.reply()

        async def n_steps() -> int | None:
            return steps.n_steps

        yield Subject(pid, leave, n_steps)


async def _hear_some(pieces: AsyncIterable[object]) -> None:
    n_heard = 0
    async for _ in pieces:
        n_heard += 1
        if n_heard == N_HEARD:
            return


@contextlib.asynccontextmanager
async def a_llama_server(setup: Setup) -> AsyncIterator[Subject]:
    """Leave llama-server by closing the connection."""
    port = free_port()
    command = [*server_command(setup, port, 4), "--metrics"]
    async with serve(command, port, health="/health") as server:
        yield _by_http(Served(server))


@contextlib.asynccontextmanager
async def an_example_server(setup: Setup) -> AsyncIterator[Subject]:
    """Leave the example server by closing the connection."""
    async with example_server(4)(setup) as running:
        assert isinstance(running, Served)
        yield _by_http(running)


def _by_http(served: Served) -> Subject:
    port = served.server.port

    async def leave(ask: Ask, way: str) -> None:
        body = served.body(ask, streams=way == WAYS[0])
        if way == WAYS[0]:
            async with contextlib.aclosing(client.events(port, CHAT, body)) as events:
                await _hear_some(events)
            return
        waiting = asyncio.create_task(client.post(port, CHAT, body))
        await _until_busy(served.server.pid)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting

    async def n_steps() -> int | None:
        found = re.search(
            r"^llamacpp:n_decode_total (\d+)", await client.get(port, "/metrics"), re.M
        )
        return int(found[1]) if found else None

    return Subject(served.server.pid, leave, n_steps)


def report(found: dict[str, Found]) -> str:
    rows = []
    for name, mine in found.items():
        row = [name]
        for way in WAYS:
            turns = mine.by_way[way]
            if not turns:
                row.append(NOTHING)
                continue
            steps = [turn.n_steps for turn in turns if turn.n_steps is not None]
            said = f"{statistics.median(turn.seconds for turn in turns):.2f} s"
            row.append(f"{said}, {statistics.median(steps):.0f} steps" if steps else said)
        rows.append(row)
    return table(["goes on after a client left while", *WAYS], rows)


if __name__ == "__main__":
    main()
