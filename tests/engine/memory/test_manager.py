"""The actor on a machine without models, in virtual time: who comes, who goes, who waits."""

import asyncio

import pytest

from paddock.engine.errors import Busy, NoPlace
from paddock.engine.system.records import replace
from tests.engine.memory.house import SETTINGS, House, now, opened
from tests.fakes.worker import FakeMachine, FakeModel, TwoCards

pytestmark = pytest.mark.usefixtures("run_coroutine")


async def test_a_model_is_loaded_once_for_many_and_stays_for_the_next() -> None:
    machine = FakeMachine(10, FakeModel("a"))
    async with opened(machine) as house:
        await asyncio.gather(*(house.chat("a") for _ in range(40)))
        await asyncio.sleep(100)
        await house.chat("a")
        assert machine.log == ["load a", "loaded a"]
        assert house.residents.stats().loads["a"].loads == 1


async def test_a_model_goes_when_its_time_is_up_and_comes_again() -> None:
    machine = FakeMachine(10, FakeModel("a"))
    async with opened(machine) as house:
        await house.chat("a", keep_alive_s=60)
        await asyncio.sleep(59)
        assert house.there() == {"a": "ready"}
        await asyncio.sleep(2)
        assert house.there() == {}
        assert house.notes.lines[-1] == "unloaded a: idle"
        await house.chat("a")
        assert machine.n_loads() == 2


async def test_the_time_starts_when_the_last_user_leaves_and_a_later_wish_wins() -> None:
    machine = FakeMachine(10, FakeModel("a", token_s=1))
    async with opened(machine) as house:
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


async def test_the_one_that_is_cheap_to_bring_back_makes_room() -> None:
    quick = FakeModel("quick", size=4, load_s=1)
    slow = FakeModel("slow", size=4, load_s=60)
    machine = FakeMachine(10, quick, slow, FakeModel("new", size=5))
    async with opened(machine) as house:
        await house.chat("slow")
        await house.chat("quick")
        await asyncio.sleep(100)
        await house.chat("new")
        assert sorted(house.there()) == ["new", "slow"]
        assert "unloaded quick: room" in house.notes.lines


async def test_two_jobs_that_alternate_two_models_do_not_swap_on_every_call() -> None:
    a, b = FakeModel("a", load_s=2, token_s=0.05), FakeModel("b", load_s=2, token_s=0.05)
    machine = FakeMachine(5, a, b)

    async def job(house: House, name: str) -> None:
        for _ in range(60):
            await house.chat(name, 10, priority="batch")
            await asyncio.sleep(0.05)

    async with opened(machine, replace(SETTINGS, max_loaded_models=1)) as house:
        await asyncio.gather(job(house, "a"), job(house, "b"))
        # 120 calls of half a second; turns of five seconds and more.
        assert machine.n_loads() <= 16
        assert max(house.notes.waited_s) < 12, "and nobody waits for much more than a turn"


async def test_a_person_who_asks_for_another_model_does_not_wait_for_the_jobs_turn() -> None:
    machine = FakeMachine(5, FakeModel("job"), FakeModel("chat"))
    async with opened(machine, replace(SETTINGS, max_loaded_models=1)) as house:
        jobs = [asyncio.create_task(house.chat("job", priority="batch")) for _ in range(2000)]
        await asyncio.sleep(10)
        asked_at = now()
        await house.chat("chat", 1, priority="interactive")
        assert now() - asked_at < 3.5
        await asyncio.gather(*jobs)
        assert machine.n_loads("job") == 2


async def test_a_victim_that_is_asked_for_again_stays_if_no_one_needs_its_room_any_more() -> None:
    machine = FakeMachine(5, FakeModel("a", token_s=1), FakeModel("b"))
    async with opened(machine, replace(SETTINGS, max_loaded_models=1)) as house:
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


async def test_people_who_chat_without_a_pause_do_not_keep_a_job_out_for_ever() -> None:
    machine = FakeMachine(5, FakeModel("chat"), FakeModel("job"))

    async def person(house: House) -> None:
        while True:
            await house.chat("chat", 100, priority="interactive")

    async with opened(machine, replace(SETTINGS, max_loaded_models=1)) as house:
        people = [asyncio.create_task(person(house)) for _ in range(2)]
        await asyncio.sleep(20)
        asked_at = now()
        await house.chat("job", 10, priority="batch")
        assert now() - asked_at < 10
        for waiting_person in people:
            waiting_person.cancel()
        await asyncio.gather(*people, return_exceptions=True)


async def test_a_load_that_no_one_waits_for_is_stopped_for_someone_who_does() -> None:
    machine = FakeMachine(5, FakeModel("a", load_s=60), FakeModel("b"))
    async with opened(machine, replace(SETTINGS, max_loaded_models=1)) as house:
        asking = asyncio.create_task(house.chat("a"))
        await asyncio.sleep(5)
        asking.cancel()
        await house.chat("b")
        assert machine.log == ["load a", "cancelled a", "load b", "loaded b"]
        assert now() < 8


async def test_a_longer_context_makes_the_worker_wider_and_never_loads_again() -> None:
    machine = FakeMachine(10, FakeModel("a", token_s=1))
    async with opened(machine) as house:
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


async def test_a_model_with_more_work_than_places_is_loaded_on_an_idle_device_too() -> None:
    machine = TwoCards(5, FakeModel("a", n_parallel=4, token_s=1))
    async with opened(machine) as house:
        await asyncio.gather(*(house.chat("a") for _ in range(4)))
        assert machine.cards() == {0: ["a"], 1: []}, "its places were enough"
        answers = [asyncio.create_task(house.chat("a", 50)) for _ in range(6)]
        await asyncio.sleep(5)
        assert machine.cards() == {0: ["a"], 1: ["a"]}
        assert await house.residents.n_parallel(house.ask("a")) == 8
        answers += [asyncio.create_task(house.chat("a", 50)) for _ in range(4)]
        await asyncio.gather(*answers)
        assert [worker.n_running_most for worker in machine.workers] == [6, 4], (
            "the freer one is asked"
        )
        assert len(house.residents.resident()) == 2, "both are shown"
        await house.residents.unload_when_idle(lambda model: model.facts.name == "a")
        assert not house.there()


async def test_nothing_goes_for_a_replica_and_a_replica_goes_for_another_model() -> None:
    machine = TwoCards(5, FakeModel("a", n_parallel=1, token_s=1), FakeModel("b"))
    async with opened(machine) as house:
        await house.chat("a", 1)
        await house.chat("b")
        await asyncio.gather(*(house.chat("a", 20) for _ in range(4)))
        assert machine.cards() == {0: ["a"], 1: ["b"]}, "no card is free"
        await house.residents.unload_when_idle(lambda model: model.facts.name == "b")
        await asyncio.gather(*(house.chat("a", 20) for _ in range(4)))
        assert machine.cards() == {0: ["a"], 1: ["a"]}
        await asyncio.sleep(20)
        await house.chat("b")
        assert sorted(map(len, machine.cards().values())) == [1, 1]
        assert {"a", "b"} == {*house.there()}, "one of the two made room"


async def test_a_pinned_model_never_makes_room() -> None:
    machine = FakeMachine(20, FakeModel("a"), FakeModel("b"), FakeModel("c"))
    async with opened(machine, replace(SETTINGS, max_loaded_models=2)) as house:
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


async def test_a_caller_that_does_not_wait_is_told_that_the_queue_is_full() -> None:
    machine = FakeMachine(10, FakeModel("a", n_parallel=1, token_s=1))
    async with opened(machine, replace(SETTINGS, max_queue=8)) as house:
        waiting = [asyncio.create_task(house.chat("a", 5)) for _ in range(9)]
        await asyncio.sleep(3)
        with pytest.raises(Busy) as caught:
            await house.chat("a", waits=False)
        assert str(caught.value).startswith("model 'a' is busy: ")
        await asyncio.gather(*waiting)
        assert await house.chat("a", waits=False) == "a"


async def test_no_one_waits_for_ever_for_a_user_that_does_nothing() -> None:
    machine = FakeMachine(5, FakeModel("a"), FakeModel("b"))
    async with (
        opened(machine, replace(SETTINGS, max_loaded_models=1)) as house,
        house.residents.use(house.ask("a")),
    ):
        with pytest.raises(Busy, match="nothing moved for 600 s"):
            await house.chat("b")


async def test_each_priority_has_places_of_its_own_in_a_worker() -> None:
    machine = FakeMachine(5, FakeModel("a", n_parallel=2, token_s=1))
    async with opened(machine) as house:
        jobs = [asyncio.create_task(house.chat("a", 5, priority="batch")) for _ in range(50)]
        await asyncio.sleep(4)
        assert machine.workers[0].n_requests == 4
        assert house.residents.n_waiting(house.ask("a").key) == 46
        before = now()
        await house.chat("a", 1, priority="interactive")
        assert now() - before == pytest.approx(1)
        await asyncio.gather(*jobs)


async def test_what_a_context_will_grow_by_is_lent_to_no_other_model() -> None:
    machine = FakeMachine(16, FakeModel("a", size=4, growth=6), FakeModel("b", size=8))
    async with opened(machine) as house:
        await house.chat("a", n_tokens=1)  # of 16 bytes 12 are free, but 6 of them are promised
        await house.chat("b", n_tokens=1)
        assert house.there() == {"b": "ready"}, "they do not fit together"
        await asyncio.gather(house.chat("a"), house.chat("b"))
