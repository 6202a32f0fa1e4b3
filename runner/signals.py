"""Ctrl-C and SIGTERM: the first ends a run in order, the second at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def stopping(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` on the first signal, end the process on the second; inside a running loop."""
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
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
