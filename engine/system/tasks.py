"""Asyncio tasks: race one against stops, end it, keep it, limit its time, resolve a future."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from itertools import starmap
from typing import Any, ParamSpec, TypeVar

from paddock.engine.system.records import Struct, field

_T = TypeVar("_T")
_P = ParamSpec("_P")
_Item = TypeVar("_Item")
_Call = tuple[Callable[[], None], "asyncio.Future[None]"]


class StopRequested(Exception):
    """A stop came before the work was done."""


async def run_unless_stopped(work: Awaitable[_T], *stops: asyncio.Event | Awaitable[Any]) -> _T:
    """Return the result of `work`, or raise its error, unless a stop comes first.

    What has not ended is cancelled and awaited. Work that is done when a stop comes counts.

    Raises:
        StopRequested: an event was set, or an awaitable among `stops` ended first.
    """
    task = asyncio.ensure_future(work)
    others = [
        asyncio.ensure_future(stop.wait() if isinstance(stop, asyncio.Event) else stop)
        for stop in stops
    ]
    try:
        await asyncio.wait((task, *others), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise StopRequested
    finally:
        await end(task, *others)
    return task.result()


async def end(*futures: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended; their errors count as seen."""
    for future in futures:
        future.cancel()
    if futures:
        await asyncio.wait(futures)
    for future in futures:
        if not future.cancelled():
            future.exception()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, _T]) -> AsyncIterator[asyncio.Task[_T]]:
    """Run a task while the block lasts, at whose end it is cancelled and awaited."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await end(task)


async def run_concurrently(
    work: Callable[[_Item], Awaitable[_T]], items: Iterable[_Item], n_at_once: int
) -> list[_T]:
    """Work on all items, so many at once; return the results in order.

    The first failure ends the others.
    """
    gate = asyncio.Semaphore(n_at_once)

    async def run(item: _Item) -> _T:
        async with gate:
            return await work(item)

    tasks = [asyncio.ensure_future(run(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        await end(*tasks)
        raise


async def wait_for_event(event: asyncio.Event, timeout_s: float | None) -> bool:
    """Wait for an event at most so long; return whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    return event.is_set()


class TaskSet(Struct, eq=False):
    """Keeps references to tasks that nothing awaits, so that they are not collected.

    The event loop's exception handler gets their errors.
    """

    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "background task failed", "exception": error, "task": task}
            )

    async def close(self) -> None:
        await end(*self._tasks)

    async def drain(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def call_in(loop: asyncio.AbstractEventLoop, act: Callable[..., Any], *args: Any) -> None:
    """Call `act` in a loop, from any thread; a loop that is closed calls nothing."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(act, *args)


async def run_to_end(work: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T:
    """Run it in a thread, and wait for its end even if the caller is cancelled.

    So no file is closed and no lock released while a thread still writes.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **named))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # mark it as retrieved, or asyncio logs it
        raise


async def in_left_thread(work: Callable[..., _T], *args: Any) -> _T:
    """Call what may be cut off in a thread of its own, and return its result.

    If the waiting task is cancelled, the thread is left alone, and the process does not wait for it
    when it ends, as it would for one of `asyncio.to_thread`: a file may be of any size.
    """
    future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            result = work(*args)
        except BaseException as error:
            resolve_future(future, error)
        else:
            resolve_future(future, result)

    threading.Thread(target=call, daemon=True).start()
    return await future


class GroupedCalls(Struct, eq=False):
    """Makes short calls that block in few threads: those of one turn of the loop share them.

    A thread that is woken for each costs more than the call: it fights for the interpreter's lock.
    """

    _n_threads: int
    _waiting: list[_Call] = field(default_factory=list)

    async def call(self, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._start, loop)
        self._waiting.append((work, loop.create_future()))
        await self._waiting[-1][1]

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting
        self._waiting = []
        for first in range(min(len(waiting), self._n_threads)):
            loop.run_in_executor(None, _call_all, loop, waiting[first :: self._n_threads])


def _call_all(loop: asyncio.AbstractEventLoop, waiting: Iterable[_Call]) -> None:
    results = list[tuple[asyncio.Future[None], BaseException | None]]()
    for work, future in waiting:
        try:
            results.append((future, work()))
        except BaseException as error:
            results.append((future, error))
    call_in(loop, lambda: [*starmap(_set_result, results)])


def resolve_future(future: asyncio.Future[_T], result: _T | BaseException) -> None:
    """Resolve a future from any thread, unless it is done or its loop is closed."""
    call_in(future.get_loop(), _set_result, future, result)


def _set_result(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Yield a task group that raises the first error of its tasks itself, not a group of errors."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise first_error(failures) from None


def first_error(error: BaseException) -> BaseException:
    """Return the first error of a group, also of nested ones; any other error unchanged."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


_ACTIVE_LIMITS: ContextVar[tuple[asyncio.Timeout, ...]] = ContextVar("time limits", default=())


@asynccontextmanager
async def time_limit(seconds: float | None) -> AsyncIterator[None]:
    """Bound what happens inside, as `asyncio.timeout` does; None: no bound.

    Raises:
        TimeoutError: it took longer.
    """
    if seconds is None:
        yield
        return
    async with asyncio.timeout(seconds) as limit:
        token = _ACTIVE_LIMITS.set((*_ACTIVE_LIMITS.get(), limit))
        try:
            yield
        finally:
            _ACTIVE_LIMITS.reset(token)


@contextmanager
def clock_stopped() -> Iterator[None]:
    """Stop the clock of the `time_limit`s around this; they go on where they were.

    A step or a tool has its time for its own work. Waiting for what others hold, such as a reader
    process, is not its work.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    stopped = [
        (limit, ends) for limit in _ACTIVE_LIMITS.get() if (ends := limit.when()) is not None
    ]
    for limit, _ in stopped:
        limit.reschedule(None)
    try:
        yield
    finally:
        for limit, ends in stopped:
            if not limit.expired():
                limit.reschedule(ends + clock() - began)
