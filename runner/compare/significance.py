"""Statistics of a comparison: 95 % intervals, paired tests, and how many more items they need.

Pure. Draws of the bootstrap are seeded: the same scores give the same figures. The intervals of
shares are Wilson's, those of means the expanded percentile bootstrap (Hesterberg 2015, "What
teachers should know about the bootstrap"): plain percentiles are too narrow for few items. Labels
are tested by McNemar's exact test, scores by a bootstrap of the studentized mean difference, and
several variants by Holm's correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev
from typing import Any, TypeVar

import numpy as np

from paddock.engine.system.samples import share_interval

ALPHA = 0.05
POWER = 0.8
"""Of a difference as large as the one that was seen, the share of comparisons that show it."""
N_DRAWS = 2_000
"""Of a bootstrap: its bounds then vary by less than a tenth of their distance."""
SEED = 20_24
_Z = NormalDist().inv_cdf(1 - ALPHA / 2)

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over items, with the bounds that hold the true one in 95 of 100 cases."""

    mean: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, float]:
        bounds = {"mean": self.mean, "low": self.low, "high": self.high}
        return {**{name: round(value, 4) for name, value in bounds.items()}, "n": self.n}


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Whether two variants differ on the same items."""

    n: int
    difference: float
    """Mean of the second less that of the first."""
    p: float
    """The probability of such a difference, or a larger one, where there is none."""
    n_needed: int | None
    """How many items would show a difference of this size; None: there is none."""

    @property
    def is_shown(self) -> bool:
        return self.p < ALPHA

    @property
    def more_items(self) -> int | None:
        """How many more items that takes; 0: it is shown."""
        if self.is_shown or self.n_needed is None:
            return 0 if self.is_shown else None
        return max(1, self.n_needed - self.n)

    def corrected(self, p: float) -> PairedTest:
        """Return the test with a p that is corrected for several tests."""
        return replace(self, p=p)

    def words(self) -> str:
        """Return what the test says, for people."""
        if self.is_shown:
            more = "better" if self.difference > 0 else "worse"
            p = "< 0.001" if self.p < 0.001 else f"= {self.p:.3f}"
            return f"{more} by {abs(self.difference):.3f} (p {p})"
        if self.more_items is None:
            return "no difference shown: the same on average"
        return f"no difference shown (p = {self.p:.2f}); about {self.more_items:,} more items"


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of values between 0 and 1 with its interval; None without values.

    >>> estimate([1, 1, 1, 0]).mean, round(estimate([1, 1, 1, 0]).low, 2)
    (0.75, 0.3)
    """
    n = len(values)
    if not n:
        return None
    mean = fmean(values)
    if all(value in (0, 1) for value in values):
        return Estimate(mean, *share_interval(mean, n), n)
    if n == 1:
        return Estimate(mean, 0.0, 1.0, n)
    low, high = _bootstrap_bounds(np.asarray(values, dtype=float))
    return Estimate(mean, max(0.0, low), min(1.0, high), n)


def _bootstrap_bounds(values: Any) -> tuple[float, float]:
    n = len(values)
    draws = np.random.default_rng(SEED).integers(0, n, (N_DRAWS, n))
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * _t_quantile(n - 1))
    low, high = np.quantile(values[draws].mean(axis=1), (tail, 1 - tail))
    return float(low), float(high)


def _t_quantile(n: int) -> float:
    """Return Student's two-sided 95 % quantile for `n` degrees of freedom (Hill 1970).

    >>> [round(_t_quantile(n), 2) for n in (4, 10, 100)]
    [2.77, 2.23, 1.98]
    """
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    powers = [term / n**power for power, term in enumerate(terms, 1)]
    return z + math.fsum(powers)


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Test two lists of scores of the same items, in the same order.

    Scores of 0 and 1 alone, as of labels, by McNemar's exact test; others by the bootstrap.

    >>> paired_test([0] * 8 + [1] * 4, [1] * 8 + [1] * 4).words()
    'better by 0.667 (p = 0.008)'
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    if not any(differences):
        return PairedTest(len(differences), 0.0, 1.0, None)
    if all(value in (0, 1) for value in (*first, *second)):
        p = mcnemar_p(differences.count(1), differences.count(-1))
    else:
        p = _bootstrap_p(differences)
    return PairedTest(len(differences), fmean(differences), p, _n_needed(differences))


def mcnemar_p(n_better: int, n_worse: int) -> float:
    """Return the two-sided p of McNemar's exact test, by the pairs that differ.

    >>> mcnemar_p(6, 0), mcnemar_p(3, 3)
    (0.03125, 1.0)
    """
    n, least = n_better + n_worse, min(n_better, n_worse)
    n_as_far: int = 2 * sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, n_as_far / (1 << n))


def _bootstrap_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of a mean difference: draws about 0, as multiples of their error."""
    values = np.asarray(differences, dtype=float)
    n, mean = len(values), values.mean()
    n_signs = len([value for value in differences if value])
    least = 2 * 0.5**n_signs  # what the signs alone can show: a bootstrap of few items knows less
    error = values.std(ddof=1) / math.sqrt(n) if n > 1 else 0.0
    if error == 0:
        return min(1.0, least)
    draws = values[np.random.default_rng(SEED).integers(0, n, (N_DRAWS, n))]
    errors = draws.std(axis=1, ddof=1) / math.sqrt(n)
    distances = np.abs(draws.mean(axis=1) - mean)
    # A draw of equal values has no error of its own: it counts as far as it can be.
    ratios = np.divide(
        distances, errors, out=np.where(distances > 0, np.inf, 0.0), where=errors > 0
    )
    n_as_far = int((ratios >= abs(mean) / error - 1e-12).sum())
    return min(1.0, max(least, (1 + n_as_far) / (1 + N_DRAWS)))


def _n_needed(differences: Sequence[float]) -> int | None:
    """Return how many items would show a difference of this size, with `POWER`."""
    mean = fmean(differences)
    if mean == 0 or len(differences) < 2:
        return None
    needed = ((_Z + NormalDist().inv_cdf(POWER)) * stdev(differences) / mean) ** 2
    return math.ceil(needed)


def holm(ps: Mapping[Key, float]) -> dict[Key, float]:
    """Return the p values of several tests as if each were the only one (Holm 1979).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted: dict[Key, float] = {}
    above = 0.0
    for rank, (key, p) in enumerate(sorted(ps.items(), key=lambda pair: pair[1])):
        above = max(above, min(1.0, (len(ps) - rank) * p))
        adjusted[key] = above
    return {key: adjusted[key] for key in ps}
