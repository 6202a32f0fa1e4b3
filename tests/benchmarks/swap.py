"""Two jobs that alternate two models where only one may be loaded: how many loads, how long?

uv run python tests/benchmarks/swap.py

Each job has its own model (the second is the same file under another name) and keeps two short
documents in flight. Ours has `max_loaded_models` 1. The peer is what Ollama does with
OLLAMA_MAX_LOADED_MODELS=1: requests are taken in their order; one for the other model waits until
those that run have ended, stops the llama-server and starts the other; with four slots, so that
nothing but the order of things differs. Our pool with `max_wait_s` 0 shows what collating gives.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.backends.local import LocalPool
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ModelSpec
from tests.benchmarks import arena, loads
from tests.benchmarks.arena import Contest
from tests.benchmarks.contenders import Ours, available
from tests.benchmarks.loads import Ask
from tests.benchmarks.processes import OwnGrowth
from tests.benchmarks.servers import llama_server
from tests.benchmarks.setup import Running, Setup

FULL = {"documents": 32, "in_flight": 2, "rounds": 3, "answer_tokens": 32, "words": 100}
QUICK = {**FULL, "documents": 12, "rounds": 1}
N_SLOTS = 4

AskModel = Callable[[int, Ask], Awaitable[object]]
"""Ask model 0 or 1."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models of which one can be loaded."""

    ask: AskModel
    n_loads: Callable[[], int]


Start = Callable[[Setup, tuple[Path, Path]], AbstractAsyncContextManager[Pair]]


@dataclass(frozen=True, slots=True)
class Turn:
    seconds: float
    n_loads: int


def main() -> None:
    args = arena.arguments(arena.parser(__doc__), FULL, QUICK)
    setup = arena.setup_of(args)
    contenders = available(args.only, _everybody(setup))

    async def measure() -> str:
        with tempfile.TemporaryDirectory() as folder:
            models = two_models(setup.model, Path(folder))
            starts = {name: partial(start, setup, models) for name, start in contenders.items()}
            found = await arena.take_turns(starts, args.rounds, partial(play, args))
        return report(found)

    arena.show(
        args,
        measure,
        load="(f) two jobs, two models, room for one",
        model=f"{args.model} and a copy of it",
    )


def _everybody(setup: Setup) -> dict[str, tuple[str, Start, bool]]:
    swapped = "llama-server, swapped as Ollama does"
    return {
        "paddock": ("paddock", ours, True),
        "paddock-at-once": ("paddock, max_wait_s 0", ours_at_once, True),
        "swapping": (swapped, Swapping.started, setup.server is not None),
    }


def two_models(model: Path, folder: Path) -> tuple[Path, Path]:
    """Link the model under two names; a hard link costs no room where the disk allows one."""
    paths = (folder / "first.gguf", folder / "second.gguf")
    for path in paths:
        try:
            os.link(model, path)
        except OSError:
            shutil.copyfile(model, path)
    return paths


async def play(args: argparse.Namespace, pair: Pair, number: int) -> Turn:
    """Run both jobs side by side, each with so many documents in flight."""
    began = time.perf_counter()

    async def job(which: int) -> None:
        places = asyncio.Semaphore(args.in_flight)

        async def one(ask: Ask) -> None:
            async with places:
                await pair.ask(which, ask)

        asks = loads.summaries(2 * number + which, args.documents, args.answer_tokens, args.words)
        await asyncio.gather(*map(one, asks))

    await asyncio.gather(job(0), job(1))
    return Turn(time.perf_counter() - began, pair.n_loads())


# Contenders


@contextlib.asynccontextmanager
async def ours(
    setup: Setup, models: tuple[Path, Path], max_wait_s: float | None = None
) -> AsyncIterator[Pair]:
    """Start our pool with room for one model."""
    more = {} if max_wait_s is None else {"max_wait_s": max_wait_s}
    settings = setup.settings(max_loaded_models=1, **more)
    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    async with LocalPool(settings, models=finder) as pool:
        specs = [ModelSpec(str(path), n_ctx_tokens=setup.n_ctx_tokens) for path in models]
        both = [Ours(pool, spec, OwnGrowth()) for spec in specs]
        for spec in specs:
            await pool.facts(spec)  # the file's digest is read once and kept
        yield Pair(
            lambda which, ask: both[which].ask(ask),
            lambda: sum(count.loads for count in pool.stats().loads.values()),
        )


def ours_at_once(setup: Setup, models: tuple[Path, Path]) -> AbstractAsyncContextManager[Pair]:
    """Swap as soon as the other model is asked."""
    return ours(setup, models, 0.0)


class Swapping:
    """One llama-server at a time, as Ollama keeps its runners: first come, first served."""

    def __init__(self, setup: Setup, models: tuple[Path, Path]) -> None:
        self._setup = setup
        self._models = models
        self._turnstile = asyncio.Lock()
        self._loaded: int | None = None
        self._running: Running | None = None
        self._stack = contextlib.AsyncExitStack()
        self._n_busy = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.n_loads = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, setup: Setup, models: tuple[Path, Path]) -> AsyncIterator[Pair]:
        """Return it as a contender; nothing is loaded yet."""
        swapping = cls(setup, models)
        try:
            yield Pair(swapping.ask, lambda: swapping.n_loads)
        finally:
            await swapping._stack.aclose()

    async def ask(self, which: int, ask: Ask) -> object:
        """Wait for one's turn, swap if one must, and be answered next to others."""
        async with self._turnstile:
            if which != self._loaded:
                await self._is_idle.wait()
                await self._swap(which)
            self._n_busy += 1
            self._is_idle.clear()
            running = self._running
        assert running is not None
        try:
            return await running.ask(ask)
        finally:
            self._n_busy -= 1
            if not self._n_busy:
                self._is_idle.set()

    async def _swap(self, which: int) -> None:
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()
        start = llama_server(n_slots=N_SLOTS)
        setup = replace(self._setup, model=self._models[which])
        self._running = await self._stack.enter_async_context(start(setup))
        self._loaded = which
        self.n_loads += 1


def report(found: Contest[Turn]) -> str:
    def cells(turns: list[Turn]) -> list[str]:
        n_loads = statistics.median(turn.n_loads for turn in turns)
        return [f"{n_loads:.0f}", f"{statistics.median(turn.seconds for turn in turns):.1f}"]

    return found.table(["", "loads", "seconds"], cells)


if __name__ == "__main__":
    main()
