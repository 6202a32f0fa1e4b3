"""Requests in flight when a model's worker dies: innocent ones, and those that it dies of."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from paddock.engine.backends.local import MAX_ATTEMPTS, LocalPool
from paddock.engine.errors import WorkerLost
from paddock.engine.request import ModelSpec, Priority
from paddock.engine.system.records import replace
from paddock.engine.workers.fallbacks import MOST_FALLBACK
from tests.engine.pools import SETTINGS, ask, started_by
from tests.fakes import faulty_worker

N_PARALLEL = 4


async def _kill_busy(pool: LocalPool, n_kills: int) -> None:
    """Kill workers as soon as they compute something, that often."""
    killed = set[int]()
    while len(killed) < n_kills:
        if any(model.n_decoded_tokens for model in pool.stats().resident):
            for pid in set(pool.worker_pids()) - killed:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        await asyncio.sleep(0.005)


async def _kill_while_asked(
    pool: LocalPool, n_kills: int, n_askers: int, ask_one: Callable[[int], Awaitable[None]]
) -> None:
    """Kill busy workers that often, while so many ask again and again: none is ever idle."""

    async def ask_on(number: int) -> None:
        await ask_one(number)
        while not killing.done():
            await ask_one(number)

    async with asyncio.TaskGroup() as jobs:
        killing = jobs.create_task(_kill_busy(pool, n_kills))
        for number in range(n_askers):
            jobs.create_task(ask_on(number))


async def test_chats_in_flight_at_many_kills_from_outside_are_not_given_up(
    noise: ModelSpec, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, num_parallel=N_PARALLEL, cache_dir=tmp_path / "cache")

    async def tell(number: int) -> None:
        story = ask(f"Story {number}", noise, {"max_tokens": 300}, priority="batch")
        assert (await pool.chat(story).reply()).text

    async with LocalPool(settings) as pool:
        await _kill_while_asked(pool, MAX_ATTEMPTS + 2, 8, tell)


@pytest.mark.parametrize("dies_at", ["decode", "take"])
async def test_a_chat_that_kills_its_worker_is_given_up_and_those_with_it_are_answered(
    dies_at: str, noise: ModelSpec, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, num_parallel=N_PARALLEL, cache_dir=tmp_path / "cache")
    start = started_by(*faulty_worker.command("poisoned", dies_at))
    async with LocalPool(settings, start=start) as pool:
        texts = [*(f"Story {n}" for n in range(6)), "POISON", *(f"Tale {n}" for n in range(6))]
        priorities: tuple[Priority, ...] = ("batch", "normal", "interactive")
        answers = [
            pool.chat(ask(text, noise, priority=priorities[n % 3])) for n, text in enumerate(texts)
        ]
        replies = await asyncio.gather(
            *(answer.reply() for answer in answers), return_exceptions=True
        )
        (lost,) = [reply for reply in replies if isinstance(reply, BaseException)]
        assert isinstance(lost, WorkerLost) and replies.index(lost) == texts.index("POISON")
        # Twice with all that were sent, then in halves of them, then alone; before that without
        # what llama.cpp might have died of.
        n_most = 1 + len(texts).bit_length() + MAX_ATTEMPTS + MOST_FALLBACK
        assert sum(load.loads for load in pool.stats().loads.values()) <= n_most + 1
