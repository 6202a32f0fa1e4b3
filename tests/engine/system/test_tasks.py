"""Tasks: races against stops, ends, sets, answers from other threads."""

import asyncio
import errno
import threading
from typing import Any

import pytest

from paddock.engine.system import tasks


async def soon(result: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(result, Exception):
        raise result
    return result


async def test_the_result_or_the_error_of_work_that_ends_first_is_its_own() -> None:
    stop = asyncio.Event()
    assert await tasks.run_unless_stopped(soon(3), stop) == 3
    with pytest.raises(ValueError, match="own"):
        await tasks.run_unless_stopped(soon(ValueError("own")), stop)


async def test_a_stop_ends_the_work_before_it_is_raised() -> None:
    has_ended = asyncio.Event()
    stop = asyncio.Event()

    async def work() -> None:
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            has_ended.set()

    with pytest.raises(tasks.StopRequested):
        await tasks.run_unless_stopped(work(), asyncio.Event().wait(), stop)
    assert has_ended.is_set()


async def test_cancelling_the_race_ends_the_work() -> None:
    work = asyncio.create_task(asyncio.sleep(600))
    race = asyncio.create_task(tasks.run_unless_stopped(work, asyncio.Event()))
    await asyncio.sleep(0.01)
    race.cancel()
    await asyncio.wait({race})
    assert work.cancelled()


async def test_an_ended_task_set_has_no_tasks_and_an_error_reaches_the_loops_handler() -> None:
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    kept = tasks.TaskSet()
    kept.start(soon(1))
    kept.start(soon(ValueError("lost")))
    await asyncio.sleep(0.01)
    assert len(kept) == 0
    assert [str(context["exception"]) for context in seen] == ["lost"]
    kept.start(asyncio.sleep(600))
    await kept.close()
    assert len(kept) == 0


def test_a_future_is_settled_once_and_a_closed_loop_is_left_alone() -> None:
    async def main() -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def settle_twice() -> None:
            tasks.resolve_future(future, 1)
            tasks.resolve_future(future, 2)

        thread = threading.Thread(target=settle_twice)
        thread.start()
        assert await future == 1
        thread.join()
        return asyncio.get_running_loop().create_future()

    tasks.resolve_future(asyncio.run(main()), 3)


async def test_a_task_group_raises_the_first_error_itself() -> None:
    with pytest.raises(ValueError, match="first"):
        async with tasks.task_group() as group:
            group.create_task(soon(ValueError("first")))
            group.create_task(asyncio.sleep(600))


async def test_grouped_calls_share_threads_and_each_has_its_own_end() -> None:
    group, threads = tasks.GroupedCalls(2), set[int]()

    def work() -> None:
        threads.add(threading.get_ident())

    def failing() -> None:
        raise OSError(errno.EIO, "the disk is gone")

    cancelled = asyncio.ensure_future(group.call(work))
    calls = [asyncio.ensure_future(group.call(call)) for call in (work, failing, *[work] * 9)]
    await asyncio.sleep(0)
    cancelled.cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(end) for end in ended] == [type(None), OSError, *[type(None)] * 9]
    assert len(threads) <= 2
    assert threading.get_ident() not in threads
    await group.call(work)  # the next turn of the loop has a group of its own
