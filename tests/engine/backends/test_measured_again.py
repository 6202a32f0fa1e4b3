"""A loaded model whose measurement other programs disturbed is measured again while it is idle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends import background_tuning
from paddock.engine.backends.background_tuning import MOST_MEASUREMENTS, BackgroundTuner
from paddock.engine.backends.local import LocalPool
from paddock.engine.memory.pool_stats import PoolStats
from paddock.engine.memory.worker_starter import WorkerStarter
from paddock.engine.profile.profile import Profile, read_profile
from paddock.engine.request import ModelSpec
from paddock.engine.settings import PoolSettings
from paddock.engine.system import files
from paddock.engine.system.retry import Backoff
from tests.engine.pools import CHAT, SETTINGS, ask
from tests.fakes import faulty_worker, virtual
from tests.waiting import eventually


class Machine:
    """A cache folder, and real workers of which the first measurements are disturbed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._begun = folder / "begun"
        self._cache = folder / "cache"
        self.seconds = 2.0
        monkeypatch.setattr(background_tuning, "LOOK_S", 0.02)
        monkeypatch.setattr(background_tuning, "IDLE_S", 0.04)
        monkeypatch.setattr(background_tuning, "MEASURE_AGAIN", Backoff(0.01, 0.01))

    @property
    def n_begun(self) -> int:
        return len(self._begun.read_text("utf-8")) if self._begun.exists() else 0

    @property
    def file(self) -> Path:
        (file,) = (self._cache / "profiles").glob("*.json")
        return file

    @property
    def profile(self) -> Profile | None:
        data = files.read_json_object(self.file)
        return read_profile(data) if "prefill" in data else None

    @asynccontextmanager
    async def serving(self, *, n_disturbed: int) -> AsyncIterator[LocalPool]:
        settings = replace(SETTINGS, profile_s=self.seconds, cache_dir=self._cache, tune="off")
        command = faulty_worker.command("disturbed", n_disturbed, self._begun)
        start = WorkerStarter(settings, command)
        async with LocalPool(settings, start=start) as pool, BackgroundTuner(pool):
            yield pool


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


async def test_a_disturbed_measurement_is_repeated_until_nothing_disturbs_it(
    machine: Machine, noise: ModelSpec
) -> None:
    async with machine.serving(n_disturbed=2) as pool:
        await pool.load(noise)
        assert machine.profile is None
        assert "other programs used the processor" in machine.file.read_text("utf-8")
        await eventually(lambda: machine.profile is not None)  # kept after the worker's answer
        assert not pool.disturbed()
        assert machine.profile is not None
        assert machine.profile.prefill
        assert not machine.profile.is_disturbed
        assert (await pool.chat(ask("Hello", noise)).reply()).usage.completion_tokens
    assert machine.n_begun == 3
    async with machine.serving(n_disturbed=0) as pool:
        await pool.load(noise)
        assert pool.disturbed() == []
    assert machine.n_begun == 3, "what is known is not measured again"


async def test_a_profile_that_was_disturbed_is_replaced_by_one_that_was_not(
    machine: Machine, noise: ModelSpec
) -> None:
    async with machine.serving(n_disturbed=0) as pool:
        await pool.load(noise)
    assert machine.profile is not None
    before = replace(machine.profile, is_disturbed=True, measured_at=1.0)
    files.write_json_atomically(machine.file, before.as_json())
    async with machine.serving(n_disturbed=2) as pool:
        await pool.load(noise)
        await eventually(lambda: machine.profile is not None and not machine.profile.is_disturbed)
        assert not pool.disturbed()
    assert machine.n_begun == 3
    assert machine.profile is not None
    assert machine.profile.measured_at > before.measured_at


async def test_a_request_ends_the_measurement(machine: Machine) -> None:
    machine.seconds = 60.0  # which the small model does not take
    async with machine.serving(n_disturbed=1) as pool:
        await pool.load(CHAT)
        await eventually(lambda: machine.n_begun == 2)
        assert (await pool.chat(ask("Hello")).reply()).usage.completion_tokens
        assert pool.disturbed(), "it was not measured to the end"
        await eventually(lambda: machine.n_begun == 3)


class IdlePool:
    """A pool with a loaded model that is always disturbed; measuring takes 12 s."""

    def __init__(self) -> None:
        self.settings = PoolSettings(tune="off")
        self.begun: list[float] = []
        self.n_ended = 0
        self.on_request: Any = None

    def stats(self) -> PoolStats:
        return PoolStats((), {})

    def disturbed(self) -> list[str]:
        return ["digest"]

    async def measure_again(self, digest: str) -> None:
        assert digest == "digest"
        self.begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(12)
        self.n_ended += 1


def test_a_busy_machine_is_measured_after_growing_pauses_and_not_for_ever() -> None:
    pool = IdlePool()

    async def a_day() -> None:
        async with BackgroundTuner(pool):  # type: ignore[arg-type]
            await asyncio.sleep(24 * 3600)

    virtual.run(a_day())
    assert pool.begun[0] == background_tuning.IDLE_S
    pauses = [after - before for before, after in pairwise(pool.begun)]
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600]
    assert len(pool.begun) == pool.n_ended == MOST_MEASUREMENTS


def test_a_measurement_that_a_request_ends_has_its_next_turn_when_the_pool_is_idle() -> None:
    pool = IdlePool()

    async def serving() -> None:
        async with BackgroundTuner(pool):  # type: ignore[arg-type]
            await asyncio.sleep(background_tuning.IDLE_S + 3)
            pool.on_request("some model", ["a text"])
            await asyncio.sleep(100)

    virtual.run(serving())
    assert (len(pool.begun), pool.n_ended) == (2, 1)
