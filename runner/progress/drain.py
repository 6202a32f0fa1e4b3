"""Graceful stop: a gate that lets no new item begin, and the signals that close it.

Ctrl-C and SIGTERM: the first ends a run in order, the second at once; SIGUSR1 drains. The gate
belongs to one event loop; limits that are asked before each item can close it too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from .report import Status

STOP_REQUESTED = "A stop was requested"
INTERRUPTED = "Interrupted; the same command continues."

Limit = Callable[[], Awaitable[str | None]]
"""Returns why the gate closes, or None."""
INTERRUPTED_STATUS = 130


class StopGateClosed(Exception):
    """Something was not begun, since the gate is closed; what was in flight is finished."""

    def __init__(self, n_items: int = 0) -> None:
        """`n_items`: how many items were not begun, where these are shown."""
        self.n_items = n_items
        super().__init__()


class StopGate:
    """Open until it is closed; the first reason counts."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()
        self.limit: Limit | None = None
        self._n_begun = 0
        self._n_ended = 0
        self._deciding = asyncio.Lock()
        self.message = ""
        """Why it was closed, a sentence without its full stop."""
        self.is_stop_requested = False
        self.is_cancelled = False
        self.status: Status = "budget"
        """Status of a run that stops here; a run that finished all the same is `completed`."""

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    @property
    def items(self) -> tuple[int, int]:
        """Numbers of items that ended, and that are in flight."""
        return self._n_ended, self._n_begun - self._n_ended

    def close(
        self, message: str, status: Status = "budget", *, is_stop_requested: bool = False
    ) -> None:
        """Close the gate; `message` says why, without a full stop."""
        if not self.is_closed:
            self.is_stop_requested = is_stop_requested
            self.message, self.status = message, status
            self._closed.set()

    def left(self, n_items: int) -> str:
        """Return why a run stopped here, and how many items are left."""
        items = "1 item is" if n_items == 1 else f"{n_items:,} items are"
        left = items if n_items else "Some steps are"
        return f"{self.message}. {left} left; the same command goes on."

    async def wait(self) -> None:
        await self._closed.wait()

    async def may_begin(self, *, is_whole: bool = True) -> bool:
        """Return whether an item may begin; `is_whole`: it has no blocks with items of their own.

        The first whole item may begin despite all limits: else a budget that is used up before
        anything is done would stop every further run, too.
        """
        async with self._deciding:  # each decision counts the items that began before it
            message = await self.limit() if self.limit and not self.is_closed else None
            if message is not None and self._n_begun:
                self.close(message)
            self._n_begun += is_whole and not self.is_closed
            return not self.is_closed

    def end(self, *, is_whole: bool = True) -> None:
        """Count an item that has ended, however it ended."""
        self._n_ended += is_whole


@contextmanager
def stop_on_signals(
    stop: asyncio.Event, stop_gate: StopGate | None = None
) -> Iterator[list[signal.Signals]]:
    """Set `stop` on the first signal, end the process on the second; inside a running loop.

    SIGUSR1 closes `stop_gate`. Yield the list of the signals that came.
    """
    came: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield came  # only the main thread handles signals
        return
    loop = asyncio.get_running_loop()

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            # Python's own exit would wait for threads; the second Ctrl-C means now.
            os._exit(INTERRUPTED_STATUS)
        came.append(signal.Signals(number))
        stop.set()  # here, as the loop may be in a call that waits, such as for a ledger's server
        loop.call_soon_threadsafe(lambda: None)

    # Handlers of the loop would be called when such a call returns.
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    gentle = getattr(signal, "SIGUSR1", None) if stop_gate is not None else None
    if stop_gate is not None and gentle is not None:  # Windows has none
        drain = partial(stop_gate.close, STOP_REQUESTED, is_stop_requested=True)
        loop.add_signal_handler(gentle, drain)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if gentle is not None:
            loop.remove_signal_handler(gentle)
