"""The actor on a machine without models, in virtual time: who comes, who goes, who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.errors import (
    Busy,
    EngineError,
    ModelBroken,
    ModelTooLarge,
    NoPlace,
    WorkerLost,
)
from paddock.engine.request import Priority
from paddock.engine.residency.events import Deaf, Leaving
from paddock.engine.residency.resident import Ask
from paddock.engine.residency.residents import Residents
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.ticket import WorkerGone
from tests.fakes.virtual import run
from tests.fakes.worker import FakeMachine, FakeModel, FakeWorker, Fault

SETTINGS = PoolSettings(keep_alive_s=300, max_wait_s=5, step_timeout_s=30)


class Notes(Deaf):
    """Remembers what happened."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.waited_s: list[float] = []
        self.n_turns = 0

    def loaded(self, model: str, seconds: float) -> None:
        self.lines.append(f"loaded {model}")

    def unloaded(self, model: str, why: Leaving) -> None:
        self.lines.append(f"unloaded {model}: {why}")

    def died(self, model: str, reason: str) -> None:
        self.lines.append(f"died {model}: {reason}")

    def waited(self, model: str, seconds: float) -> None:
        self.waited_s.append(seconds)

    def turn(self, model: str, told: Mapping[str, Any]) -> None:
        self.n_turns += 1


class House:
    """One machine and its actor."""

    def __init__(self, machine: FakeMachine, chosen: PoolSettings) -> None:
        self.machine = machine
        self.notes = Notes()
        self.residents = Residents[FakeWorker](chosen, machine.start, machine, self.notes)

    def ask(self, name: str, **more: Any) -> Ask:
        facts = self.machine.models[name].facts
        n_ctx = more.pop("n_ctx_tokens", facts.n_ctx_tokens)
        return Ask(replace(facts, n_ctx_tokens=n_ctx), **more)

    async def chat(self, name: str, n_tokens: int = 10, **more: Any) -> str:
        """Have one answer made; once more where the worker dies, as the pool does."""
        ask = self.ask(name, **more)
        for n_left in (2, 1, 0):
            try:
                async with self.residents.use(ask) as worker:
                    return await worker.chat(n_tokens)
            except WorkerGone:
                if not n_left:
                    raise
        raise AssertionError

    def there(self) -> dict[str, str]:
        return {one.facts.name: one.state for one in self.residents.resident()}


@asynccontextmanager
async def opened(machine: FakeMachine, chosen: PoolSettings) -> AsyncIterator[House]:
    house = House(machine, chosen)
    try:
        yield house
    finally:
        await house.residents.close()
        assert machine.n_there == 0 and machine.taken == 0, "no worker is left behind"
    assert machine.taken_most <= machine.memory, "never more is taken than there is"


def go(
    machine: FakeMachine,
    work: Callable[[House], Awaitable[None]],
    chosen: PoolSettings = SETTINGS,
) -> None:
    async def main() -> None:
        async with opened(machine, chosen) as house:
            await work(house)

    run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_model_is_loaded_once_for_many_and_stays_for_the_next() -> None:
    machine = FakeMachine(10, FakeModel("a"))

    async def work(house: House) -> None:
        await asyncio.gather(*(house.chat("a") for _ in range(40)))
        await asyncio.sleep(100)
        await house.chat("a")
        assert machine.log == ["load a", "loaded a"]
        assert house.residents.loads["a"].loads == 1

    go(machine, work)


def test_a_model_goes_when_its_time_is_up_and_comes_again() -> None:
    machine = FakeMachine(10, FakeModel("a"))

    async def work(house: House) -> None:
        await house.chat("a", keep_alive_s=60)
        await asyncio.sleep(59)
        assert house.there() == {"a": "ready"}
        await asyncio.sleep(2)
        assert house.there() == {}
        assert house.notes.lines[-1] == "unloaded a: idle"
        await house.chat("a")
        assert machine.n_loads() == 2

    go(machine, work)


def test_the_time_starts_when_the_last_user_leaves_and_a_later_wish_wins() -> None:
    machine = FakeMachine(10, FakeModel("a", token_s=1))

    async def work(house: House) -> None:
        await asyncio.gather(house.chat("a", 5, keep_alive_s=10), house.chat("a", 20))
        left_at = now()
        await asyncio.sleep(9)
        assert house.there() == {"a": "ready"}
        await house.chat("a", 1, keep_alive_s=-1)
        assert now() == pytest.approx(left_at + 10)
        await asyncio.sleep(100_000)
        assert house.there() == {"a": "ready"}, "a negative time is for ever"
        await house.chat("a", 1, keep_alive_s=0)
        await asyncio.sleep(0.1)
        assert house.there() == {}

    go(machine, work)


def test_the_one_that_is_cheap_to_bring_back_makes_room() -> None:
    quick = FakeModel("quick", size=4, load_s=1)
    slow = FakeModel("slow", size=4, load_s=60)
    machine = FakeMachine(10, quick, slow, FakeModel("new", size=5))

    async def work(house: House) -> None:
        await house.chat("slow")
        await house.chat("quick")
        await asyncio.sleep(100)
        await house.chat("new")
        assert sorted(house.there()) == ["new", "slow"]
        assert "unloaded quick: room" in house.notes.lines

    go(machine, work)


def test_two_jobs_that_alternate_two_models_do_not_swap_on_every_call() -> None:
    a, b = FakeModel("a", load_s=2, token_s=0.05), FakeModel("b", load_s=2, token_s=0.05)
    machine = FakeMachine(5, a, b)

    async def job(house: House, name: str) -> None:
        for _ in range(60):
            await house.chat(name, 10, priority="batch")
            await asyncio.sleep(0.05)

    async def work(house: House) -> None:
        await asyncio.gather(job(house, "a"), job(house, "b"))
        # 120 calls of half a second; turns of five seconds and more.
        assert machine.n_loads() <= 16
        assert max(house.notes.waited_s) < 12, "and nobody waits for much more than a turn"

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_one_job_that_goes_to_and_fro_waits_no_longer_than_the_swap_itself() -> None:
    a, b = FakeModel("a", load_s=2), FakeModel("b", load_s=2)
    machine = FakeMachine(5, a, b)

    async def work(house: House) -> None:
        for _ in range(10):
            await house.chat("a", 1)
            await house.chat("b", 1)
        assert now() < 20 * (2 + 2.2)

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_a_person_who_asks_for_another_model_does_not_wait_for_the_jobs_turn() -> None:
    machine = FakeMachine(5, FakeModel("job"), FakeModel("chat"))

    async def work(house: House) -> None:
        jobs = [asyncio.create_task(house.chat("job", priority="batch")) for _ in range(2000)]
        await asyncio.sleep(10)
        asked_at = now()
        await house.chat("chat", 1, priority="interactive")
        assert now() - asked_at < 3.5
        await asyncio.gather(*jobs)
        assert machine.n_loads("job") == 2

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_a_victim_that_is_asked_for_again_stays_if_nobody_needs_its_room_any_more() -> None:
    machine = FakeMachine(5, FakeModel("a", token_s=1), FakeModel("b"))

    async def work(house: House) -> None:
        long = asyncio.create_task(house.chat("a", 30))
        await asyncio.sleep(10)
        other = asyncio.create_task(house.chat("b"))
        await asyncio.sleep(6)
        assert house.there() == {"a": "draining"}
        again = asyncio.create_task(house.chat("a", 1))
        await asyncio.sleep(1)
        assert not again.done(), "the intake is closed"
        other.cancel()
        await asyncio.wait_for(again, 1.5)
        assert house.there() == {"a": "ready"}
        await long
        assert machine.n_loads() == 1

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_a_victim_that_is_asked_for_again_queues_behind_the_one_that_came_for_its_room() -> None:
    machine = FakeMachine(5, FakeModel("a", token_s=1), FakeModel("b"))

    async def work(house: House) -> None:
        done: list[str] = []

        async def chat(name: str, n_tokens: int) -> None:
            await house.chat(name, n_tokens)
            done.append(name)

        long = asyncio.create_task(chat("a", 30))
        await asyncio.sleep(10)
        other = asyncio.create_task(chat("b", 10))
        await asyncio.sleep(6)
        again = asyncio.create_task(chat("a", 1))
        await asyncio.gather(long, other, again)
        assert done == ["a", "b", "a"]
        assert machine.n_loads() == 3

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_people_who_chat_without_a_pause_do_not_keep_a_job_out_for_ever() -> None:
    machine = FakeMachine(5, FakeModel("chat"), FakeModel("job"))

    async def person(house: House) -> None:
        while True:
            await house.chat("chat", 100, priority="interactive")

    async def work(house: House) -> None:
        people = [asyncio.create_task(person(house)) for _ in range(2)]
        await asyncio.sleep(20)
        asked_at = now()
        await house.chat("job", 10, priority="batch")
        assert now() - asked_at < 10
        for one in people:
            one.cancel()
        await asyncio.gather(*people, return_exceptions=True)

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_a_load_that_nobody_waits_for_any_more_ends_and_the_model_idles() -> None:
    machine = FakeMachine(5, FakeModel("a", load_s=10))

    async def work(house: House) -> None:
        asking = asyncio.create_task(house.chat("a"))
        await asyncio.sleep(5)
        asking.cancel()
        await asyncio.sleep(6)
        assert house.there() == {"a": "ready"}
        await asyncio.sleep(301)
        assert house.there() == {}, "for as long as its keep_alive"

    go(machine, work)


def test_a_load_that_nobody_waits_for_is_stopped_for_somebody_who_does() -> None:
    machine = FakeMachine(5, FakeModel("a", load_s=60), FakeModel("b"))

    async def work(house: House) -> None:
        asking = asyncio.create_task(house.chat("a"))
        await asyncio.sleep(5)
        asking.cancel()
        await house.chat("b")
        assert machine.log == ["load a", "cancelled a", "load b", "loaded b"]
        assert now() < 8

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_out_of_memory_while_loading_sends_the_idle_away_and_tries_once_more() -> None:
    greedy = FakeModel("greedy", size=2, when_loading=["no memory"])
    machine = FakeMachine(10, FakeModel("idle"), greedy)

    async def work(house: House) -> None:
        await house.chat("idle")
        assert await house.chat("greedy") == "greedy"
        assert house.there() == {"greedy": "ready"}
        assert machine.n_loads("greedy") == 2

    go(machine, work)


def test_out_of_memory_with_nobody_to_send_away_halves_the_sequences() -> None:
    machine = FakeMachine(10, FakeModel("a", n_parallel=8, when_loading=["no memory"]))

    async def work(house: House) -> None:
        await house.chat("a")
        assert machine.workers[-1].load.n_parallel == 4

    go(machine, work)


def test_out_of_memory_again_is_refused_with_the_numbers() -> None:
    machine = FakeMachine(10 << 20, FakeModel("a", 4 << 20, when_loading=["no memory"] * 2))

    async def work(house: House) -> None:
        with pytest.raises(ModelTooLarge) as caught:
            await house.chat("a")
        assert (caught.value.needed_bytes, caught.value.free_bytes) == (4 << 20, 10 << 20)
        assert await house.chat("a") == "a", "the next request tries again"

    go(machine, work)


def test_a_load_that_fails_for_another_reason_is_told_to_all_who_wait() -> None:
    machine = FakeMachine(10, FakeModel("a", when_loading=["abort"]))

    async def work(house: House) -> None:
        errors = await asyncio.gather(*(house.chat("a") for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [ModelBroken] * 3
        assert machine.n_loads() == 1

    go(machine, work)


def test_a_load_that_somebody_ends_is_begun_again_and_not_for_ever() -> None:
    machine = FakeMachine(10, FakeModel("a", when_loading=["killed"] * 5))

    async def work(house: House) -> None:
        with pytest.raises(WorkerLost) as caught:
            await house.chat("a")
        assert str(caught.value) == "the worker of model 'a' died: killed by signal 9"
        assert machine.n_loads() == 3
        assert await house.chat("a") == "a", "the third start succeeds"

    go(machine, work)


def test_a_model_larger_than_the_machine_is_refused_with_the_numbers_and_nobody_goes() -> None:
    mib = 1 << 20
    machine = FakeMachine(100 * mib, FakeModel("a", 40 * mib), FakeModel("huge", 200 * mib))

    async def work(house: House) -> None:
        await house.chat("a")
        with pytest.raises(ModelTooLarge) as caught:
            await house.chat("huge")
        assert str(caught.value) == (
            "model 'huge' needs about 200 MiB with its context, and 100 MiB are free. "
            "Use a smaller model or a smaller `ctx`."
        )
        assert house.there() == {"a": "ready"}

    go(machine, work)


def test_out_of_memory_while_running_the_next_load_asks_for_less() -> None:
    machine = FakeMachine(10, FakeModel("a", when_running=["killed for memory"]))

    async def work(house: House) -> None:
        answers = await asyncio.gather(*(house.chat("a") for _ in range(6)))
        assert answers == ["a"] * 6
        assert [worker.load.n_parallel for worker in machine.workers] == [4, 2]
        assert "died a: killed by signal 9" in house.notes.lines

    go(machine, work)


def test_a_worker_that_aborts_is_started_again_as_it_was() -> None:
    machine = FakeMachine(10, FakeModel("a", when_running=["abort"]))

    async def work(house: House) -> None:
        answers = await asyncio.gather(*(house.chat("a") for _ in range(6)))
        assert answers == ["a"] * 6
        assert [worker.load.n_parallel for worker in machine.workers] == [4, 4]
        assert "died a: killed by signal 6: GGML_ASSERT failed" in house.notes.lines

    go(machine, work)


def test_a_worker_that_hangs_is_killed_and_started_again() -> None:
    machine = FakeMachine(10, FakeModel("a", when_running=["hang"]))

    async def work(house: House) -> None:
        assert await house.chat("a") == "a"
        assert "died a: it made no step within 30 s" in house.notes.lines
        assert 30 < now() < 40

    go(machine, work)


def test_a_longer_context_makes_the_worker_wider_and_never_loads_again() -> None:
    machine = FakeMachine(10, FakeModel("a", token_s=1))

    async def work(house: House) -> None:
        running = asyncio.create_task(house.chat("a", 10))
        await asyncio.sleep(5)
        longer = asyncio.create_task(house.chat("a", 1, n_ctx_tokens=8192))
        await asyncio.sleep(1)
        short = asyncio.create_task(house.chat("a", 1))
        await asyncio.gather(running, longer, short)
        assert machine.log == ["load a", "loaded a", "widen a"]
        assert machine.workers[0].load.n_ctx_tokens == 8192
        await house.chat("a", 1, n_ctx_tokens=512)
        assert machine.log[-1] == "widen a"

    go(machine, work)


def test_a_leased_model_is_spared_while_another_can_go() -> None:
    machine = FakeMachine(9, FakeModel("a", load_s=1), FakeModel("b", load_s=90), FakeModel("c"))

    async def work(house: House) -> None:
        async with house.residents.lease([house.ask("a").key]):
            await house.chat("b")
            await house.chat("a")
            await asyncio.sleep(200)
            await house.chat("c")
            assert sorted(house.there()) == ["a", "c"], "though the other is dearer to bring back"

    go(machine, work)


def test_two_runs_that_lease_more_than_there_is_room_for_take_turns() -> None:
    machine = FakeMachine(5, FakeModel("a"), FakeModel("b"))

    async def job(house: House, names: str) -> None:
        async with house.residents.lease([house.ask(name).key for name in names]):
            for name in names * 3:
                await house.chat(name)

    async def work(house: House) -> None:
        await asyncio.gather(job(house, "ab"), job(house, "ba"))
        assert now() < 120

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_a_pinned_model_never_makes_room() -> None:
    machine = FakeMachine(20, FakeModel("a"), FakeModel("b"), FakeModel("c"))

    async def work(house: House) -> None:
        await house.chat("a", is_pinned=True)
        await asyncio.sleep(100)
        await house.chat("b")
        await house.chat("c")
        assert sorted(house.there()) == ["a", "c"]
        await house.chat("c", is_pinned=True)
        with pytest.raises(NoPlace) as caught:
            await house.chat("b")
        assert str(caught.value) == (
            "model 'b' has no place: 'a', 'c' are pinned and max_loaded_models is 2. "
            "Raise it, or pin fewer."
        )

    go(machine, work, replace(SETTINGS, max_loaded_models=2))


def test_a_caller_that_does_not_wait_is_told_that_the_queue_is_full() -> None:
    machine = FakeMachine(10, FakeModel("a", n_parallel=1, token_s=1))

    async def work(house: House) -> None:
        waiting = [asyncio.create_task(house.chat("a", 5)) for _ in range(9)]
        await asyncio.sleep(3)
        with pytest.raises(Busy) as caught:
            await house.chat("a", waits=False)
        assert str(caught.value).startswith("model 'a' is busy: ")
        await asyncio.gather(*waiting)
        assert await house.chat("a", waits=False) == "a"

    go(machine, work, replace(SETTINGS, max_queue=8))


def test_what_waits_for_other_programs_to_give_memory_back_gets_it() -> None:
    machine = FakeMachine(10, FakeModel("a"), FakeModel("b"))

    async def work(house: House) -> None:
        await house.chat("a", is_pinned=True)
        machine.taken_by_others = 4
        with pytest.raises(ModelTooLarge):
            await house.chat("b")
        machine.taken_by_others = 0
        assert await house.chat("b") == "b"

    go(machine, work)


def test_nobody_waits_for_ever_for_a_user_that_does_nothing() -> None:
    machine = FakeMachine(5, FakeModel("a"), FakeModel("b"))

    async def work(house: House) -> None:
        async with house.residents.use(house.ask("a")):
            with pytest.raises(Busy, match="nothing moved for 600 s"):
                await house.chat("b")

    go(machine, work, replace(SETTINGS, max_loaded_models=1))


def test_each_priority_has_places_of_its_own_in_a_worker() -> None:
    machine = FakeMachine(5, FakeModel("a", n_parallel=2, token_s=1))

    async def work(house: House) -> None:
        jobs = [asyncio.create_task(house.chat("a", 5, priority="batch")) for _ in range(50)]
        await asyncio.sleep(4)
        assert machine.workers[0].n_requests == 4
        assert house.residents.n_waiting("a") == 46
        before = now()
        await house.chat("a", 1, priority="interactive")
        assert now() - before == pytest.approx(1)
        await asyncio.gather(*jobs)

    go(machine, work)


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


@settings(max_examples=150, deadline=None)
@given(worlds(), requests)
def test_whatever_happens_nobody_waits_for_ever_and_the_limits_are_kept(
    world: tuple[FakeMachine, PoolSettings],
    coming: list[tuple[str, float, int, Priority, float | None, int]],
) -> None:
    machine, chosen = world

    async def one(house: House, number: int) -> None:
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

    async def work(house: House) -> None:
        watching = asyncio.create_task(watch())
        async with asyncio.timeout(5_000):
            await asyncio.gather(*(one(house, number) for number in range(len(coming))))
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert all(not resident.n_users for resident in house.residents.resident())

    go(machine, work, chosen)
