"""Retry with exponential backoff."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")
_MOST_POWERS = 64  # more would overflow a float, and every pause has reached its longest by then


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that grow with the number of failures in a row."""

    first_s: float
    longest_s: float
    factor: float = 2.0
    spread: float = 0.0
    """Random share of a pause, so that not all come back at once: 0.25 is 0.75 to 1.25 of it."""

    def pause_s(self, n_failures: int, chance: float | None = None) -> float:
        """Return the pause after so many failures in a row; none after 0.

        >>> [Backoff(0.5, 30).pause_s(n) for n in (0, 1, 2, 3, 20)]
        [0.0, 0.5, 1.0, 2.0, 30]
        """
        if n_failures < 1:
            return 0.0
        power = min(n_failures - 1, _MOST_POWERS)
        pause_s = min(self.first_s * self.factor**power, self.longest_s)
        if not self.spread:
            return pause_s
        share = random.random() if chance is None else chance
        return pause_s * (1 + self.spread * (2 * share - 1))


class Pauses:
    """The pauses of one thing that is tried again and again."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._n_failures = 0

    def failed(self) -> float:
        """Count a failure; return how long to wait now."""
        self._n_failures += 1
        return self._backoff.pause_s(self._n_failures)

    def succeeded(self) -> None:
        """Begin with the first pause again."""
        self._n_failures = 0

    async def wait(self) -> None:
        """Count a failure, and wait."""
        await asyncio.sleep(self.failed())


async def retried(
    action: Callable[[], Awaitable[_T]],
    *,
    backoff: Backoff,
    is_passing: Callable[[Exception], bool],
    n_most: int | None = None,
    within_s: float | None = None,
    on_wait: Callable[[Exception, float], None] | None = None,
) -> _T:
    """Await `action` until it succeeds; return its result.

    An error that is not passing, the last of `n_most` attempts and a pause beyond `within_s` raise
    the error. `on_wait` gets each error and the pause after it.
    """
    attempts = _Attempts(backoff, is_passing, n_most, within_s)
    while True:
        try:
            return await action()
        except Exception as error:  # `is_passing` decides which errors end it
            pause_s = attempts.pause_s(error)
            if pause_s is None:
                raise
            if on_wait is not None:
                on_wait(error, pause_s)
        await asyncio.sleep(pause_s)


def retried_blocking(
    action: Callable[[], _T],
    *,
    backoff: Backoff,
    is_passing: Callable[[Exception], bool],
    n_most: int | None = None,
    within_s: float | None = None,
    on_wait: Callable[[Exception, float], None] | None = None,
) -> _T:
    """Call `action` until it succeeds, as `retried` does; blocks the thread."""
    attempts = _Attempts(backoff, is_passing, n_most, within_s)
    while True:
        try:
            return action()
        except Exception as error:  # `is_passing` decides which errors end it
            pause_s = attempts.pause_s(error)
            if pause_s is None:
                raise
            if on_wait is not None:
                on_wait(error, pause_s)
        time.sleep(pause_s)


class _Attempts:
    """How often and for how long an action may still be tried."""

    def __init__(
        self,
        backoff: Backoff,
        is_passing: Callable[[Exception], bool],
        n_most: int | None,
        within_s: float | None,
    ) -> None:
        self._backoff = backoff
        self._is_passing = is_passing
        self._n_most = n_most
        self._ends_at = None if within_s is None else time.monotonic() + within_s
        self._n_failures = 0

    def pause_s(self, error: Exception) -> float | None:
        """Return the pause before the next attempt; None: there is none."""
        self._n_failures += 1
        if not self._is_passing(error) or self._n_failures == self._n_most:
            return None
        pause_s = self._backoff.pause_s(self._n_failures)
        if self._ends_at is not None and time.monotonic() + pause_s > self._ends_at:
            return None
        return pause_s
