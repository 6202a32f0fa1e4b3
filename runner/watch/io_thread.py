"""One thread for a watch's file and ledger access, so that a hanging share blocks nothing else.

A system call on a dead network share may not return for minutes, or ever. The thread is a daemon
thread: exit does not wait for it. Answers come in order, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from paddock.engine.system.tasks import end, resolve_future, wait_for_event

Answer = TypeVar("Answer")
Values = ParamSpec("Values")

_MOST_WAITING = 16
SLOW_S = 30.0
"""After this time a slow folder is reported; the call stays open."""


class WatchStopped(Exception):
    """The watch must end while a call is open."""


class IoThread:
    """Runs blocking calls one after the other. Used from one event loop."""

    def __init__(self, name: str, slow: Callable[[bool], None]) -> None:
        """`slow` is called with True when a call takes long, and with False when one has ended."""
        self._name = name
        self._slow = slow
        self._queue: queue.Queue[Callable[[], None] | None] | None = None
        self.stop: asyncio.Event | None = None
        """Ends each call early when it is set; None: calls take the time that they need."""

    async def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            WatchStopped: the watch must end.
        """
        if self.stop is None:
            await asyncio.sleep(seconds)
        elif await wait_for_event(self.stop, seconds):
            raise WatchStopped

    async def ask(
        self, what: Callable[Values, Answer], *values: Values.args, **named: Values.kwargs
    ) -> Answer:
        """Run a call in the thread; return its result or raise its error.

        Raises:
            WatchStopped: the watch must end.
        """
        question: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def work() -> None:
            try:
                answer: Answer | BaseException = what(*values, **named)
            except BaseException as error:  # the one who awaits it gets it, whatever it is
                answer = error
            resolve_future(question, answer)

        self._waiting().put_nowait(work)
        waits: list[asyncio.Future[Any]] = [question]
        if self.stop is not None:
            waits.append(asyncio.ensure_future(self.stop.wait()))
        try:
            done, _ = await asyncio.wait(waits, timeout=SLOW_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._slow(True)
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not question.done():
                raise WatchStopped
            self._slow(False)
            return question.result()
        finally:
            await end(*waits)

    def leave(self, what: Callable[[], None]) -> None:
        """Run a call in the thread without waiting; skip it when the thread hangs."""
        waiting = self._waiting()
        if not waiting.full():
            waiting.put_nowait(partial(_quietly, what))

    def close(self) -> None:
        """End the thread after its queued calls; another call starts a new one."""
        waiting, self._queue = self._queue, None
        if waiting is not None and not waiting.full():
            waiting.put_nowait(None)

    def _waiting(self) -> queue.Queue[Callable[[], None] | None]:
        if self._queue is None:
            self._queue = queue.Queue(_MOST_WAITING)
            threading.Thread(
                target=_run_calls, args=(self._queue,), name=self._name, daemon=True
            ).start()
        return self._queue


def _quietly(what: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):  # no caller waits for the result
        what()


def _run_calls(waiting: queue.Queue[Callable[[], None] | None]) -> None:
    while (work := waiting.get()) is not None:
        work()
