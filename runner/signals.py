"""Ctrl-C and SIGTERM: the first ends a run in order, the second at once. SIGUSR1: a gentle stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .border import ASKED, Border

INTERRUPTED = 130


@contextmanager
def stopping(stop: asyncio.Event, border: Border | None = None) -> Iterator[None]:
    """Set `stop` on the first signal, end the process on the second; inside a running loop.

    With a `border`, SIGUSR1 closes it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread; whoever runs us there handles them
        return
    loop = asyncio.get_running_loop()

    def handle() -> None:
        if stop.is_set():
            # Python's own exit would wait for threads; the second Ctrl-C means now.
            os._exit(INTERRUPTED)
        stop.set()

    handled: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: the loop takes no handlers
            loop.add_signal_handler(number, handle)
            handled.append(number)
    gentle = getattr(signal, "SIGUSR1", None)  # Windows has none
    if border is not None and gentle is not None:
        loop.add_signal_handler(gentle, border.close, ASKED)
        handled.append(gentle)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
