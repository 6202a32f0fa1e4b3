"""What intervals and tests promise, by 1,000 draws from known worlds."""

from __future__ import annotations

import numpy as np
import pytest

from paddock.runner.compare.significance import estimate, holm, paired_test

N_WORLDS = 1_000
DRAW = np.random.default_rng


def scores(draw: np.random.Generator, n: int, right: float) -> list[float]:
    """Return skewed scores between 0 and 1, as of texts: many whole, the others anywhere."""
    return [float(x) for x in np.where(draw.random(n) < right, 1.0, draw.random(n))]


@pytest.mark.parametrize(("share", "n"), [(0.9, 40), (0.5, 100), (0.97, 60)])
def test_the_interval_of_a_share_holds_the_true_one_in_95_of_100_draws(
    share: float, n: int
) -> None:
    draw = DRAW(1)
    found = [estimate([float(x) for x in draw.random(n) < share]) for _ in range(N_WORLDS)]
    held = sum(one is not None and one.low <= share <= one.high for one in found)
    assert held / N_WORLDS >= 0.93


@pytest.mark.parametrize("n", [20, 50])
def test_the_interval_of_a_mean_holds_the_true_one_in_95_of_100_draws(n: int) -> None:
    draw, true = DRAW(2), 0.6 + 0.4 * 0.5
    found = [estimate(scores(draw, n, 0.6)) for _ in range(N_WORLDS)]
    held = sum(one is not None and one.low <= true <= one.high for one in found)
    assert 0.93 <= held / N_WORLDS <= 0.98


@pytest.mark.parametrize("n", [20, 60])
def test_equal_variants_are_called_different_in_at_most_5_of_100_draws_of_scores(n: int) -> None:
    draw = DRAW(3)
    pairs = ((scores(draw, n, 0.6), scores(draw, n, 0.6)) for _ in range(N_WORLDS))
    assert sum(paired_test(*pair).is_shown for pair in pairs) / N_WORLDS <= 0.065


def test_equal_variants_are_called_different_in_at_most_5_of_100_draws_of_labels() -> None:
    draw = DRAW(4)
    pairs = ([[float(x) for x in draw.random(40) < 0.8] for _ in range(2)] for _ in range(N_WORLDS))
    assert sum(paired_test(*pair).is_shown for pair in pairs) / N_WORLDS <= 0.05


def test_over_many_equal_variants_one_is_called_better_in_at_most_5_of_100_draws() -> None:
    draw, n_false = DRAW(5), 0
    for _ in range(N_WORLDS):
        first, *others = ([float(x) for x in draw.random(60) < 0.7] for _ in range(6))
        ps = holm({number: paired_test(first, one).p for number, one in enumerate(others)})
        n_false += min(ps.values()) < 0.05
    assert n_false / N_WORLDS <= 0.05


def test_with_as_many_items_as_it_asks_for_a_true_difference_is_mostly_shown() -> None:
    draw = DRAW(6)
    small = paired_test(
        [1.0] * 30 + [0.0] * 10, [1.0] * 26 + [0.0] * 4 + [1.0] * 7 + [0.0] * 3
    )  # 7 better, 4 worse of 40
    assert small.more_items is not None and not small.is_shown
    n, shown = 40 + small.more_items, 0
    for _ in range(200):
        kinds = draw.choice(3, n, p=[7 / 40, 4 / 40, 29 / 40])
        first = [float(kind != 0) for kind in kinds]
        second = [float(kind != 1) for kind in kinds]
        shown += paired_test(first, second).is_shown
    assert 0.7 <= shown / 200 <= 0.9
    words = f"no difference shown (p = 0.55); about {small.more_items:,} more items"
    assert small.words() == words


def test_a_test_says_what_it_shows_and_what_it_does_not() -> None:
    same = paired_test([0.5, 1.0], [0.5, 1.0])
    assert (same.p, same.more_items) == (1.0, None)
    assert same.words() == "no difference shown: the same on average"
    worse = paired_test([0.9, 0.8, 0.95, 0.9, 0.85, 0.8, 0.9, 0.7], [0.1, 0.2, 0.15] * 2 + [0.1, 0])
    assert worse.is_shown and worse.words().startswith("worse by 0.7")


def test_one_item_shows_nothing() -> None:
    assert paired_test([0.2], [0.9]).p == 1.0
    one = estimate([0.4])
    assert one is not None and (one.low, one.high) == (0.0, 1.0)
    assert estimate([]) is None
