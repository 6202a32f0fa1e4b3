"""Wait until something is so, however slow the machine is."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeVar

import psutil

PATIENCE_S = 300.0
"""How long a test waits for what has to come: less than `--timeout`, so that it says for what."""

Answer = TypeVar("Answer")


def until(
    is_so: Callable[[], Answer | Literal[False] | None], within_s: float = PATIENCE_S
) -> Answer:
    """Ask again and again until the answer is true; return it."""
    deadline = time.monotonic() + within_s
    while True:
        began = time.monotonic()
        if answer := is_so():
            return answer
        assert began < deadline, "it did not come to that"
        rest(began)


async def eventually(is_so: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Wait in an event loop until something is so that has no event to wait for."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def rest(began: float) -> None:
    """Sleep after a look in vain that began then: looks take a tenth of the time.

    One at Prefect's server takes 20 ms of a processor, which what is waited for needs as well.
    """
    time.sleep(rest_s(began))


def rest_s(began: float) -> float:
    return min(0.5, max(0.05, 9 * (time.monotonic() - began)))


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended may not have been waited for yet."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
