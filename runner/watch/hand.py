"""One thread that touches a watched folder, so that a share that hangs holds up nothing else.

A system call on a dead network share may not come back for minutes, or ever. The thread is a
daemon: nobody waits for it at the end. What it is asked comes back in order, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

Answer = TypeVar("Answer")

_MOST_WAITING = 16


class Hand:
    """Carries out blocking calls, one after the other. Used from one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.Queue[Callable[[], None] | None] | None = None

    async def ask(self, what: Callable[[], Answer]) -> Answer:
        """Have something done in the thread; gives its answer, or raises what it raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def work() -> None:
            try:
                answer = what()
            except BaseException as error:
                _tell(loop, future, None, error)
            else:
                _tell(loop, future, answer, None)

        self._waiting().put_nowait(work)
        return await future

    def leave(self, what: Callable[[], None]) -> None:
        """Have something done in the thread, and do not wait; nothing, where it hangs."""
        waiting = self._waiting()
        if not waiting.full():
            waiting.put_nowait(partial(_quietly, what))

    def close(self) -> None:
        """End the thread when it has done what it was asked; another question starts a new one."""
        waiting, self._queue = self._queue, None
        if waiting is not None and not waiting.full():
            waiting.put_nowait(None)

    def _waiting(self) -> queue.Queue[Callable[[], None] | None]:
        if self._queue is None:
            self._queue = queue.Queue(_MOST_WAITING)
            threading.Thread(
                target=_work, args=(self._queue,), name=self._name, daemon=True
            ).start()
        return self._queue


def _quietly(what: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):  # nobody waits for what it says
        what()


def _work(waiting: queue.Queue[Callable[[], None] | None]) -> None:
    while (work := waiting.get()) is not None:
        work()


def _tell(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Answer],
    answer: Answer | None,
    error: BaseException | None,
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)  # type: ignore[arg-type]

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
