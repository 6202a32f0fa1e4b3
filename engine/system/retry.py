"""Retry with exponential backoff."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import SystemRandom
from typing import TypeVar

from paddock.engine.system.records import Struct

_T = TypeVar("_T")
_MOST_POWERS = 64  # more would overflow a float, and every pause has reached its longest by then


class Backoff(Struct, frozen=True):
    """Pauses that grow with the number of failures in a row."""

    first_s: float
    longest_s: float
    factor: float = 2.0
    spread: float = 0.0
    """Random share of a pause, so that not all come back at once: 0.25 is 0.75 to 1.25 of it."""

    def pause_s(self, n_failures: int) -> float:
        """Return the pause after so many failures in a row; none after 0.

        >>> [Backoff(0.5, 30).pause_s(n) for n in (0, 1, 2, 3, 20)]
        [0.0, 0.5, 1.0, 2.0, 30.0]
        """
        if n_failures < 1:
            return 0.0
        power = min(n_failures - 1, _MOST_POWERS)
        pause_s = min(self.first_s * self.factor**power, self.longest_s)
        # The system's numbers: a thread that pauses leaves the caller's seeded ones as they are.
        return pause_s * SystemRandom().uniform(1 - self.spread, 1 + self.spread)


class Pauses:
    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._n_failures = 0

    def failed(self) -> float:
        self._n_failures += 1
        return self._backoff.pause_s(self._n_failures)

    def succeeded(self) -> None:
        self._n_failures = 0

    async def wait(self) -> None:
        await asyncio.sleep(self.failed())


def retried_blocking(
    action: Callable[[], _T],
    *,
    backoff: Backoff,
    is_passing: Callable[[Exception], bool],
    within_s: float,
    on_wait: Callable[[Exception, float], None],
) -> _T:
    """Call `action` until it succeeds; return its result. Blocks the thread.

    An error that is not passing, or whose pause would end after `within_s`, is raised. `on_wait`
    gets the others, each with the pause after it.
    """
    ends_at = time.monotonic() + within_s
    n_failures = 0
    while True:
        try:
            return action()
        except Exception as error:  # `is_passing` decides which errors end it
            n_failures += 1
            pause_s = backoff.pause_s(n_failures)
            if not is_passing(error) or time.monotonic() + pause_s > ends_at:
                raise
            on_wait(error, pause_s)
        time.sleep(pause_s)
