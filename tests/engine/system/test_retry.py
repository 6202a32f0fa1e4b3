"""Retry: which errors are retried, and for how long."""

import random

import pytest

from paddock.engine.system.retry import Backoff, Pauses, retried_blocking


class Flaky:
    """Fails so many times, then returns the number of the call."""

    def __init__(self, n_failures: int, error: type[Exception] = OSError) -> None:
        self._n_calls = 0
        self._n_failures = n_failures
        self._error = error

    def __call__(self) -> int:
        self._n_calls += 1
        if self._n_calls <= self._n_failures:
            raise self._error(str(self._n_calls))
        return self._n_calls


def retry(action: Flaky, backoff: Backoff, reported: list[str], within_s: float = 60.0) -> int:
    return retried_blocking(
        action,
        backoff=backoff,
        is_passing=lambda error: isinstance(error, OSError),
        within_s=within_s,
        on_wait=lambda error, pause_s: reported.append(f"{error} {pause_s}"),
    )


def test_a_passing_error_is_retried_and_each_is_reported() -> None:
    reported: list[str] = []
    assert retry(Flaky(2), Backoff(0.0, 0.0), reported) == 3
    assert reported == ["1 0.0", "2 0.0"]


def test_another_error_and_the_end_of_the_time_raise() -> None:
    reported: list[str] = []
    with pytest.raises(ValueError, match="1"):
        retry(Flaky(9, ValueError), Backoff(0.0, 0.0), reported)
    with pytest.raises(OSError, match="1"):
        retry(Flaky(9), Backoff(5, 5), reported, within_s=1.0)
    assert reported == []


def test_pauses_grow_to_the_longest_and_begin_again_after_a_success() -> None:
    pauses = Pauses(Backoff(1, 5, 3))
    assert [pauses.failed() for _ in range(4)] == [1, 3, 5, 5]
    pauses.succeeded()
    assert pauses.failed() == 1


def test_a_spread_changes_a_pause_by_its_share_at_most() -> None:
    backoff = Backoff(4, 60, spread=0.25)
    assert all(3 <= backoff.pause_s(1) <= 5 for _ in range(100))


def test_a_spread_leaves_the_numbers_of_a_seeded_caller_as_they_are() -> None:
    before = random.getstate()
    Backoff(4, 60, spread=0.25).pause_s(1)
    assert random.getstate() == before, "else a thread that pauses disturbs what another draws"
