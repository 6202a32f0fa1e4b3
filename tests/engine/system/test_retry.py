"""Retry: which errors are retried, how often and for how long."""

from __future__ import annotations

import asyncio

import pytest

from paddock.engine.system.retry import Backoff, Pauses, retried, retried_blocking

NO_PAUSE = Backoff(0.0, 0.0)


class Flaky:
    """Fails so many times, then returns the number of the call."""

    def __init__(self, n_failures: int, error: type[Exception] = OSError) -> None:
        self.n_calls = 0
        self._n_failures = n_failures
        self._error = error

    def __call__(self) -> int:
        self.n_calls += 1
        if self.n_calls <= self._n_failures:
            raise self._error(str(self.n_calls))
        return self.n_calls

    async def asynchronously(self) -> int:
        return self()


def is_os_error(error: Exception) -> bool:
    return isinstance(error, OSError)


def test_a_passing_error_is_retried_and_each_is_reported() -> None:
    reported: list[str] = []
    flaky = Flaky(2)
    result = asyncio.run(
        retried(
            flaky.asynchronously,
            backoff=NO_PAUSE,
            is_passing=is_os_error,
            on_wait=lambda error, pause_s: reported.append(f"{error} {pause_s}"),
        )
    )
    assert result == 3
    assert reported == ["1 0.0", "2 0.0"]


def test_another_error_the_last_attempt_and_the_end_of_the_time_raise() -> None:
    with pytest.raises(ValueError, match="1"):
        retried_blocking(Flaky(9, ValueError), backoff=NO_PAUSE, is_passing=is_os_error)
    with pytest.raises(OSError, match="3"):
        retried_blocking(Flaky(9), backoff=NO_PAUSE, is_passing=is_os_error, n_most=3)
    with pytest.raises(OSError, match="1"):
        retried_blocking(Flaky(9), backoff=Backoff(5, 5), is_passing=is_os_error, within_s=1.0)


def test_pauses_grow_to_the_longest_and_begin_again_after_a_success() -> None:
    pauses = Pauses(Backoff(1, 5, 3))
    assert [pauses.failed() for _ in range(4)] == [1, 3, 5, 5]
    pauses.succeeded()
    assert pauses.failed() == 1


def test_a_spread_changes_a_pause_by_its_share_at_most() -> None:
    backoff = Backoff(4, 60, spread=0.25)
    assert [backoff.pause_s(1, chance) for chance in (0.0, 0.5, 1.0)] == [3, 4, 5]
    assert all(3 <= backoff.pause_s(1) <= 5 for _ in range(100))
