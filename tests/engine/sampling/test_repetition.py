"""Circles are noticed; what repeats for good reason is left alone."""

import random
from collections.abc import Iterable

import pytest

from paddock.engine.sampling.repetition import RepetitionDetector
from tests.optional import present


def circle(tokens: Iterable[int]) -> tuple[int, int] | None:
    """Return after how many tokens a circle was noticed, and how long it is."""
    circles = RepetitionDetector()
    for number, token in enumerate(tokens, 1):
        period = circles.feed(token)
        if period:
            return number, period
    return None


@pytest.mark.parametrize(
    ("tokens", "period", "at_most"),
    [
        ([7] * 1000, 1, 384 + 32),
        ([7, 8] * 1000, 2, 384 + 32),
        (list(range(9)) * 200, 9, 192 + 32),
        (list(range(100)) * 20, 100, 400 + 32),
        (([0] * 20 + [1]) * 50, 21, 192 + 32),
        ([*range(1000, 1500), *list(range(30)) * 30], 30, 500 + 192 + 32),
    ],
)
def test_a_circle_is_noticed_soon(tokens: list[int], period: int, at_most: int) -> None:
    found = present(circle(tokens))
    assert found[1] == period
    assert found[0] <= at_most


def rows(n: int) -> list[int]:
    """A table: the same frame around other numbers."""
    chance = random.Random(0)
    return [token for _ in range(n) for token in (1, 2, chance.randrange(900), 3, 4, 5, 6)]


@pytest.mark.parametrize(
    "tokens",
    [
        [0, 1] * 150,  # a list of 150 zeros
        [5] * 300,  # a ruler of dashes
        [1, 2, 3, 4, 5, 6] * 25,  # 25 equal rows
        list(range(120)) * 3,  # a chorus
        rows(500),
        random.Random(1).choices(range(3), k=5000),
    ],
)
def test_what_repeats_for_good_reason_is_no_circle(tokens: list[int]) -> None:
    assert circle(tokens) is None


def test_what_was_forgiven_does_not_count_again() -> None:
    circles = RepetitionDetector()
    assert any(circles.feed(3) for _ in range(420))
    circles.reset()
    assert not any(circles.feed(3) for _ in range(380))
