"""What intervals and tests promise, by 1,000 draws from known worlds."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from paddock.runner.compare import significance
from paddock.runner.compare.significance import (
    estimate,
    holm,
    mcnemar_p,
    paired_test,
    pairwise_tests,
)

N_WORLDS = 500
DRAW = np.random.default_rng


def scores(draw: np.random.Generator, n: int, right: float) -> list[float]:
    """Return skewed scores between 0 and 1, as of texts: many whole, the others anywhere."""
    return [float(x) for x in np.where(draw.random(n) < right, 1.0, draw.random(n))]


def shares(draw: np.random.Generator, n: int, right: float) -> list[float]:
    return [float(x) for x in draw.random(n) < right]


@pytest.mark.parametrize(
    ("drawn", "right", "n", "true"),
    [
        *((shares, share, n, share) for share, n in ((0.9, 40), (0.5, 100), (0.97, 60))),
        *((scores, 0.6, n, 0.6 + 0.4 * 0.5) for n in (20, 50)),
    ],
)
def test_the_interval_of_a_mean_holds_the_true_one_in_95_of_100_draws(
    drawn: Callable[..., list[float]], right: float, n: int, true: float
) -> None:
    draw = DRAW(1 if drawn is shares else 2)
    found = [estimate(drawn(draw, n, right)) for _ in range(N_WORLDS)]
    held = sum(interval is not None and interval.low <= true <= interval.high for interval in found)
    assert held / N_WORLDS >= 0.93


@pytest.mark.parametrize("n", [20, 60])
def test_equal_variants_are_called_different_in_at_most_5_of_100_draws_of_scores(n: int) -> None:
    draw = DRAW(3)
    pairs = ((scores(draw, n, 0.6), scores(draw, n, 0.6)) for _ in range(N_WORLDS))
    assert sum(paired_test(*pair).is_shown for pair in pairs) / N_WORLDS <= 0.065


def test_over_many_equal_variants_one_is_called_better_in_at_most_5_of_100_draws() -> None:
    draw, n_false, n_worlds = DRAW(5), 0, N_WORLDS // 2  # of five tests each
    for _ in range(n_worlds):
        first, *others = (shares(draw, 60, 0.7) for _ in range(6))
        ps = holm({number: paired_test(first, other).p for number, other in enumerate(others)})
        n_false += min(ps.values()) < 0.05
    assert n_false / n_worlds <= 0.05


def test_all_pairs_at_once_have_the_p_of_each_alone_by_holms_correction() -> None:
    draw = DRAW(9)
    kinds = {"label": [float(x) for x in draw.random(40) < 0.7], "none": [0.0] * 40}
    variants = {**kinds, **{f"v{n}": scores(draw, 40, 0.3 + n / 10) for n in range(5)}}
    found = pairwise_tests(variants)
    alone = {pair: paired_test(*(variants[name] for name in pair)) for pair in found}
    assert len(found) == 21
    assert {pair: result.p for pair, result in found.items()} == pytest.approx(
        holm({pair: result.p for pair, result in alone.items()})
    )
    methods = {pair: result.method for pair, result in found.items()}
    assert [pair for pair, method in methods.items() if method == "McNemar"] == [("label", "none")]
    assert (
        min(result.p for result in found.values())
        < 0.05
        < max(result.p for result in found.values())
    )


def test_a_bootstrap_counts_draws_as_the_plain_sum_over_them_does() -> None:
    draw = DRAW(10)
    first, second = scores(draw, 30, 0.5), scores(draw, 30, 0.6)
    differences = np.array(second) - np.array(first)
    draws = differences[DRAW(significance.SEED).integers(0, 30, (significance.N_DRAWS, 30))]
    errors = draws.std(axis=1, ddof=1)
    ratios = np.abs(draws.mean(axis=1) - differences.mean()) / errors
    n_as_far = int((ratios >= abs(differences.mean()) / differences.std(ddof=1) - 1e-9).sum())
    expected = (1 + n_as_far) / (1 + significance.N_DRAWS)
    assert paired_test(first, second).p == pytest.approx(expected)


def test_a_test_says_what_it_shows_and_what_it_does_not() -> None:
    same = paired_test([0.5, 1.0], [0.5, 1.0])
    assert (same.p, same.more_items) == (1.0, None)
    assert same.words() == "no difference shown: the same on average"
    first = [0.9, 0.8, 0.95, 0.9, 0.85, 0.8, 0.9, 0.7]
    second = [0.1, 0.2, 0.15] * 2 + [0.1, 0]
    few = paired_test(first, second)
    assert few.words() == "no difference shown (scores of fewer than 20 items); about 12 more items"
    worse = paired_test(first * 3, second * 3)
    assert worse.is_shown and worse.words().startswith("worse by 0.7")


@pytest.mark.parametrize("n", [8, 19])
def test_few_scores_never_show_that_a_rare_big_loss_is_missing(n: int) -> None:
    worlds = DRAW(8).choice((0.1, -0.9), (200, n), p=(0.9, 0.1))
    assert not any(paired_test([0.0] * n, world.tolist()).is_shown for world in worlds)


def test_mcnemars_p_is_that_of_the_exact_sum_for_few_and_many() -> None:
    for n_better, n_worse in ((0, 0), (5, 0), (1, 7), (40, 60), (520, 480)):
        n, least = n_better + n_worse, min(n_better, n_worse)
        exact = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
        assert mcnemar_p(n_better, n_worse) == pytest.approx(exact, rel=1e-9)
    assert mcnemar_p(9_900, 10_100) == pytest.approx(0.1594, abs=1e-4)
    assert mcnemar_p(10, 1_000_000) == 0.0
