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
from typing import ParamSpec, TypeVar

from paddock.engine.system.tasks import resolve_future

Answer = TypeVar("Answer")
Values = ParamSpec("Values")

_MOST_WAITING = 16
SLOW_S = 30.0
"""After this time a slow folder is reported; the call stays open."""


class IoThread:
    """Runs blocking calls one after the other. Used from one event loop."""

    def __init__(self, name: str, slow: Callable[[bool], None]) -> None:
        """`slow` is called with True when a call takes long, and with False when one has ended."""
        self._name = name
        self._slow = slow
        self._queue: queue.Queue[Callable[[], None] | None] | None = None

    async def ask(
        self, what: Callable[Values, Answer], *values: Values.args, **named: Values.kwargs
    ) -> Answer:
        """Run a call in the thread; return its result or raise its error."""
        question: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def work() -> None:
            try:
                answer: Answer | BaseException = what(*values, **named)
            except BaseException as error:  # the one who awaits it gets it, whatever it is
                answer = error
            resolve_future(question, answer)

        self._waiting().put_nowait(work)
        try:
            done, _ = await asyncio.wait({question}, timeout=SLOW_S)
            if not done:
                self._slow(True)
                await asyncio.wait({question})
            self._slow(False)
            return question.result()
        finally:
            question.cancel()

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
