"""Whatever comes, in any order and with any faults: no one waits for ever, limits are kept."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.errors import EngineError
from paddock.engine.request import Priority
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.workers.worker_protocol import WorkerGone
from tests.engine.memory.house import SETTINGS, House, opened
from tests.fakes import virtual
from tests.fakes.worker import FakeMachine, FakeModel, Fault


@st.composite
def worlds(draw: st.DrawFn) -> tuple[FakeMachine, PoolSettings]:
    faults: st.SearchStrategy[Fault] = st.sampled_from(
        ["none", "no memory", "abort", "hang", "killed for memory"]
    )
    models = [
        FakeModel(
            name,
            size=draw(st.integers(1, 6)),
            per_sequence=draw(st.integers(0, 1)),
            load_s=draw(st.floats(0.1, 20)),
            token_s=draw(st.floats(0.01, 1)),
            n_parallel=draw(st.integers(1, 4)),
            when_loading=draw(st.lists(faults, max_size=2)),
            when_running=draw(st.lists(faults, max_size=3)),
        )
        for name in "abcd"
    ]
    chosen = replace(
        SETTINGS,
        max_loaded_models=draw(st.integers(1, 3)),
        max_wait_s=draw(st.floats(0, 10)),
        keep_alive_s=draw(st.sampled_from([-1.0, 0.0, 1.0, 300.0])),
    )
    return FakeMachine(draw(st.integers(4, 12)), *models), chosen


priorities: st.SearchStrategy[Priority] = st.sampled_from(["interactive", "normal", "batch"])

requests = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.floats(0, 60),  # when it comes
        st.integers(1, 30),  # tokens
        priorities,
        st.none() | st.floats(0, 30),  # when it is cancelled
        st.sampled_from([512, 2048, 8192]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(worlds(), requests)
def test_whatever_happens_no_one_waits_for_ever_and_the_limits_are_kept(
    world: tuple[FakeMachine, PoolSettings],
    coming: list[tuple[str, float, int, Priority, float | None, int]],
) -> None:
    machine, chosen = world

    async def chat_once(house: House, number: int) -> None:
        name, at, n_tokens, priority, cancelled_after, n_ctx = coming[number]
        await asyncio.sleep(at)
        asking = asyncio.create_task(
            house.chat(name, n_tokens, priority=priority, n_ctx_tokens=n_ctx)
        )
        if cancelled_after is not None:
            await asyncio.wait({asking}, timeout=cancelled_after)
            asking.cancel()
        try:
            assert await asking == name
        except (EngineError, WorkerGone):
            pass  # refused, or unlucky three times: told, at any rate
        except asyncio.CancelledError:
            assert cancelled_after is not None

    async def watch() -> None:
        while True:
            assert machine.n_there <= (chosen.max_loaded_models or 3)
            await asyncio.sleep(0.5)

    async def work() -> None:
        async with opened(machine, chosen) as house:
            await all_chats(house)

    async def all_chats(house: House) -> None:
        watching = asyncio.create_task(watch())
        async with asyncio.timeout(5_000):
            await asyncio.gather(*(chat_once(house, number) for number in range(len(coming))))
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert all(not resident.n_users for resident in house.residents.resident())

    virtual.run(work())
