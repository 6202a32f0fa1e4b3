"""Loads that fail and workers that die: what is tried again, what is told, who stays."""

import asyncio
from typing import Any

import pytest

from paddock.engine.errors import ModelTooLarge, ModelUnusable, WorkerLost
from paddock.engine.memory.loaded_models import HALVED_S
from paddock.engine.workers.death_reasons import WorkerEnd
from tests.engine.memory.house import now, opened
from tests.fakes.worker import FakeMachine, FakeModel

pytestmark = pytest.mark.usefixtures("run_coroutine")


async def test_out_of_memory_while_loading_sends_the_idle_away_and_tries_once_more() -> None:
    greedy = FakeModel("greedy", size=2, when_loading=["no memory"])
    machine = FakeMachine(10, FakeModel("idle"), greedy)
    async with opened(machine) as house:
        await house.chat("idle")
        assert await house.chat("greedy") == "greedy"
        assert house.there() == {"greedy": "ready"}
        assert machine.n_loads("greedy") == 2


async def test_out_of_memory_with_no_one_to_send_away_halves_the_sequences() -> None:
    machine = FakeMachine(10, FakeModel("a", n_parallel=8, when_loading=["no memory"]))
    async with opened(machine) as house:
        await house.chat("a")
        assert machine.workers[-1].load.n_parallel == 4


async def test_a_model_that_ran_out_of_memory_gets_all_its_cells_again_after_an_hour() -> None:
    machine = FakeMachine(10, FakeModel("a", n_parallel=8, when_loading=["no memory"]))
    async with opened(machine) as house:
        places = []
        for pause_s in (0, 1000, HALVED_S):
            await asyncio.sleep(pause_s)
            assert not house.there(), "it is unloaded when idle"
            await house.chat("a")
            places.append(machine.workers[-1].load.n_parallel)
        assert places == [4, 4, 8]


async def test_out_of_memory_again_is_refused_with_the_numbers() -> None:
    machine = FakeMachine(10 << 20, FakeModel("a", 4 << 20, when_loading=["no memory"] * 2))
    async with opened(machine) as house:
        with pytest.raises(ModelTooLarge) as caught:
            await house.chat("a")
        assert (caught.value.needed_bytes, caught.value.free_bytes) == (4 << 20, 10 << 20)
        assert await house.chat("a") == "a", "the next request tries again"


async def test_a_load_that_fails_for_another_reason_is_told_to_all_who_wait() -> None:
    machine = FakeMachine(10, FakeModel("a", when_loading=["abort"]))
    async with opened(machine) as house:
        errors = await asyncio.gather(*(house.chat("a") for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [ModelUnusable] * 3
        assert machine.n_loads() == 1


async def test_a_load_that_someone_ends_is_begun_again_and_not_for_ever() -> None:
    machine = FakeMachine(10, FakeModel("a", when_loading=["killed"] * 5))
    async with opened(machine) as house:
        with pytest.raises(WorkerLost) as caught:
            await house.chat("a")
        assert str(caught.value) == (
            "the worker of model 'a' died: killed by SIGKILL; it was started 3 times"
        )
        assert machine.n_loads() == 3
        assert await house.chat("a") == "a", "the third start succeeds"


async def test_a_model_larger_than_the_machine_is_refused_with_the_numbers_and_no_one_goes() -> (
    None
):
    mib = 1 << 20
    machine = FakeMachine(100 * mib, FakeModel("a", 40 * mib), FakeModel("huge", 200 * mib))
    async with opened(machine) as house:
        await house.chat("a")
        with pytest.raises(ModelTooLarge) as caught:
            await house.chat("huge")
        assert str(caught.value) == (
            "model 'huge' needs about 200 MiB with its context, and 100 MiB are free. "
            "Use a smaller model or a smaller `ctx`."
        )
        assert house.there() == {"a": "ready"}


@pytest.mark.parametrize(
    ("how", "n_parallel", "died"),
    [
        ("killed for memory", [4, 2], "died a: killed by SIGKILL"),
        ("abort", [4, 4], "died a: killed by SIGABRT: GGML_ASSERT failed"),
    ],
    ids=["out of memory while running, the next load asks for less", "else it is as it was"],
)
async def test_a_worker_that_dies_is_started_again(
    how: Any, n_parallel: list[int], died: str
) -> None:
    machine = FakeMachine(10, FakeModel("a", when_running=[how]))
    async with opened(machine) as house:
        answers = await asyncio.gather(*(house.chat("a") for _ in range(6)))
        assert answers == ["a"] * 6
        assert [worker.load.n_parallel for worker in machine.workers] == n_parallel
        assert died in house.notes.lines


async def test_a_worker_that_hangs_is_killed_and_started_again() -> None:
    machine = FakeMachine(10, FakeModel("a", when_running=["hang"]))
    async with opened(machine) as house:
        assert await house.chat("a") == "a"
        assert "died a: it made no step within 30 s" in house.notes.lines
        assert 30 < now() < 40


async def test_slow_steps_are_no_hang_and_a_hang_among_them_is_found_later() -> None:
    machine = FakeMachine(10, FakeModel("a", token_s=45, when_running=["none", "hang"]))
    async with opened(machine) as house:
        assert await house.chat("a", n_tokens=4) == "a"
        assert not [line for line in house.notes.lines if line.startswith("died")]
        await machine.workers[0].kill(WorkerEnd("it was ended"))
        assert await house.chat("a", n_tokens=4) == "a"
        assert "died a: it made no step within 180 s" in house.notes.lines
