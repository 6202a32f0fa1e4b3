"""Wait until something is so, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeVar

import psutil

Answer = TypeVar("Answer")


def until(is_so: Callable[[], Answer | Literal[False] | None], within_s: float = 180.0) -> Answer:
    """Ask again and again until the answer is true; return it."""
    deadline = time.monotonic() + within_s
    while not (answer := is_so()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return answer


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended may not have been waited for yet."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
