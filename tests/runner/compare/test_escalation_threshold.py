"""The threshold of `escalate`: what is promised is kept, and what cannot be promised is said."""

import numpy as np
import pytest

from paddock.engine.system.item_samples import binomial_cdf
from paddock.runner.compare.escalation_threshold import (
    ALWAYS,
    AgreementGoal,
    CannotCalibrate,
    ThresholdCondition,
    calibrated_threshold,
)

PLAIN = ThresholdCondition(())
N_DRAWS = 1_000
LARGER = 0.98
"""How often the larger model is right, in the simulated documents."""


def mean_loss(threshold: float) -> float:
    """Return the true loss: an own answer of sureness u is right with probability 0.6 + 0.4 u."""
    below = min(threshold, 1.0)
    return (1 - LARGER) * below + 0.4 * (1 - below) ** 2 / 2


def most_broken(delta: float) -> int:
    """Return how many of the draws may break a promise of `delta`, in 39 of 40 simulations."""
    return next(k for k in range(N_DRAWS) if binomial_cdf(k, N_DRAWS, delta) >= 0.975)


@pytest.mark.parametrize(
    ("goal", "n_fields", "n_items"),
    [
        (AgreementGoal(0.93, 0.05), 1, 200),
        (AgreementGoal(0.9, 0.1), 1, 100),
        (AgreementGoal(0.93, 0.05), 4, 200),  # scores between 0 and 1
        (AgreementGoal(0.95, 0.05), 1, 400),
    ],
)
def test_of_1000_promises_no_more_are_broken_than_delta_says(
    goal: AgreementGoal, n_fields: int, n_items: int
) -> None:
    draw = np.random.default_rng(7)
    n_broken, n_useful = 0, 0
    for _ in range(N_DRAWS):
        sure = draw.uniform(size=n_items)
        own = draw.binomial(n_fields, 0.6 + 0.4 * sure) / n_fields
        larger = draw.binomial(n_fields, LARGER, size=n_items) / n_fields
        try:
            found = calibrated_threshold(goal, PLAIN, [*sure], [*own], [*larger])
        except CannotCalibrate:
            continue
        n_broken += mean_loss(found.threshold) > 1 - goal.target
        n_useful += found.threshold < ALWAYS
    assert n_broken <= most_broken(goal.delta)
    assert n_useful > 0.5 * N_DRAWS


def test_the_lowest_threshold_that_is_sure_enough_is_proposed() -> None:
    sure = [n / 100 for n in range(100)] * 4
    own = [float(p >= 0.5) for p in sure]
    found = calibrated_threshold(AgreementGoal(0.95, 0.05), PLAIN, sure, own, [1.0] * 400)
    assert found.threshold == pytest.approx(0.47, abs=0.02)
    assert found.words() == (
        f"Proposed: `when: {found.when}`. It agrees with at least 0.95 with probability 0.95, on "
        "documents of which these are a random sample; on these 400 it is "
        f"{found.agreement:.3f}, and {found.n_escalated} ({found.n_escalated / 400:.0%}) are "
        "escalated."
    )


def test_with_too_few_items_it_says_how_many_it_takes() -> None:
    with pytest.raises(CannotCalibrate) as caught:
        calibrated_threshold(AgreementGoal(), PLAIN, [0.5] * 58, [1.0] * 58, [1.0] * 58)
    assert str(caught.value) == (
        "58 items with a known answer cannot show an agreement of 0.95 with probability 0.95: it "
        "takes 59, even where all agree."
    )
    enough = calibrated_threshold(AgreementGoal(), PLAIN, [0.5] * 59, [1.0] * 59, [1.0] * 59)
    assert (enough.when, enough.n_escalated) == ("confidence.min < 0", 0)


@pytest.mark.parametrize(
    ("n_right", "ending"),
    [(90, "Escalate to a better model, or lower the target."), (96, "At that rate it takes ")],
)
def test_a_target_that_no_threshold_reaches_is_a_sentence(n_right: int, ending: str) -> None:
    larger = [float(n < n_right) for n in range(100)]
    with pytest.raises(CannotCalibrate) as caught:
        calibrated_threshold(AgreementGoal(), PLAIN, [0.5] * 100, [0.0] * 100, larger)
    assert str(caught.value).startswith(
        "no threshold reaches an agreement of 0.95 with probability 0.95: the larger model alone "
        f"has 0.{n_right}0 on 100 items. {ending}"
    )
