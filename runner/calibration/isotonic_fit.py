"""Isotonic regression of decisions on probabilities, and reliability by bins. Pure.

The pool-adjacent-violators algorithm returns the share that was right at each probability; it never
falls where the probability rises. There is no value outside the reviewed probabilities, in a gap
between them, or in a bin with few decisions. Of weighted decisions the effective sample size
counts (Kish 1965).

A lower bound assumes no such order: it is also that of the decisions of like probability, in groups
that no outcome has a part in. It is a bound for these together. Simulated fields that are right in
60 to 99 of 100, by 50 to 1,000 decisions, were right as often as `low` said in 0.98 to 1.00 of the
fields, pooled ones in 0.99, whether truth rises, falls or drops with the probability. No bound
holds for each single probability without a known order: of the values above a sudden drop, 0.70
had it by 50 decisions, 0.98 by 300.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

from paddock.engine.system.item_samples import share_interval
from paddock.engine.system.records import SelectiveFields, Struct

LEAST_DECISIONS = 10
"""Least effective sample size of a bin, a field or a knot of the line: 10 of 10 right are a share
above 0.72, with 95 % confidence."""
MOST_GAP = 0.025
"""A wider gap between neighbouring reviewed probabilities has no value: a quarter of a bin, as far
apart as 10 decisions of a bin are by chance (1 in 7 gaps is wider)."""
N_BINS = 10
LEAST_OF_GROUP = 50
"""Least effective sample size of a group of like probabilities, or a tenth of all where that is
more: 50 of 50 right are a share above 0.93."""


class WeightedField(NamedTuple):
    """The probability of a field as the model had it, whether the field was right, its weight."""

    raw: float
    is_right: bool
    weight: float = 1.0


Reviewed: TypeAlias = tuple[float, bool]
"""The same with a weight of 1."""
FieldName: TypeAlias = tuple[str, ...]
"""Names from the answer down to a field; items of lists have none of their own."""


def bin_of(raw: float) -> int:
    return min(N_BINS - 1, int(raw * N_BINS))


class DecisionPool(Struct, frozen=True):
    """Decided fields of neighbouring probabilities: sums of their weights, and what these say."""

    low: float
    high: float
    weight: float
    squares: float
    """Sum of the squares of the weights."""
    right: float
    """Sum of the weights of those that were right."""

    @classmethod
    def of(cls, fields: Sequence[WeightedField]) -> DecisionPool:
        raws = [field.raw for field in fields]
        weight = sum(field.weight for field in fields)
        squares = sum(field.weight**2 for field in fields)
        right = sum(field.weight for field in fields if field.is_right)
        return cls(min(raws), max(raws), weight, squares, right)

    def joined(self, other: DecisionPool) -> DecisionPool:
        sums = self.weight + other.weight, self.squares + other.squares, self.right + other.right
        return DecisionPool(self.low, other.high, *sums)

    @property
    def effective_n(self) -> float:
        """Effective sample size: as many decisions of equal weight have the same variance.

        >>> DecisionPool.of([WeightedField(0.9, True, 20.0)] * 10).effective_n
        10.0
        """
        return round(self.weight**2 / self.squares, 6)

    @property
    def share(self) -> float:
        return self.right / self.weight

    @property
    def lower_bound(self) -> float:
        return round(share_interval(self.share, self.effective_n)[0], 4)


class Calibration(SelectiveFields, Struct, frozen=True):
    """A rising line through `knots`: probability of the model, share that was right."""

    hidden = ("raws",)

    knots: tuple[tuple[float, float], ...]
    raws: tuple[float, ...]
    """The probabilities that were reviewed, rising, each once."""
    bins: frozenset[int]
    """Those in which enough was decided."""
    lower_bounds: tuple[float, ...] = ()
    """By knot, the lower confidence bound of the share that was right (Wilson, 95 %)."""
    groups: tuple[tuple[float, float], ...] = ()
    """Of neighbouring probabilities, by their number alone: the highest, and their lower bound."""

    def of(self, raw: float) -> float | None:
        """Return the share that was right at a probability; None where too little was reviewed.

        >>> line = fit([(0.55, False), (0.57, True)] * 5)
        >>> line.of(0.56), line.of(0.58)
        (0.5, None)
        """
        after = bisect_left(self.raws, raw)
        if bin_of(raw) not in self.bins or after == len(self.raws):
            return None
        before = self.raws[after - 1] if after else -1.0
        if self.raws[after] != raw and self.raws[after] - before > MOST_GAP:
            return None
        return self._between(raw, [share for _, share in self.knots])

    def lower_bound(self, raw: float) -> float:
        group = min(bisect_left(self.groups, (raw, -1.0)), len(self.groups) - 1)
        return min(self._between(raw, self.lower_bounds), self.groups[group][1])

    def _between(self, raw: float, heights: Sequence[float]) -> float:
        after = bisect_left(self.knots, (raw, -1.0))
        right, high = self.knots[after][0], heights[after]
        if right == raw:
            return high
        left, low = self.knots[after - 1][0], heights[after - 1]
        return round(low + (high - low) * (raw - left) / (right - left), 4)


def fit(reviewed: Iterable[Reviewed | WeightedField]) -> Calibration:
    """Return the isotonic regression of what was right on its probability.

    Each of its steps has 10 decisions or more, so that one decision never makes a share of 1.

    >>> fit([(0.2, False), (0.5, True), (0.5, False), (0.8, False), (0.9, True)] * 10).knots
    ((0.2, 0.0), (0.5, 0.3333), (0.8, 0.3333), (0.9, 1.0))
    """
    fields = sorted(WeightedField(*field) for field in reviewed)
    if not fields:
        raise ValueError("no reviewed fields")
    alike = [
        DecisionPool.of([*equal]) for _, equal in groupby(fields, key=lambda reviewed: reviewed.raw)
    ]
    rising: list[DecisionPool] = []
    for pool in alike:
        rising.append(pool)
        while len(rising) > 1 and rising[-2].share >= rising[-1].share:
            rising[-2:] = [rising[-2].joined(rising[-1])]
    pools = _joined_until(LEAST_DECISIONS, rising)
    groups = _joined_until(max(LEAST_OF_GROUP, DecisionPool.of(fields).effective_n / N_BINS), alike)
    edges = [(raw, pool) for pool in pools for raw in dict.fromkeys((pool.low, pool.high))]
    knots = [(raw, round(pool.share, 4)) for raw, pool in edges]
    lower_bounds = [pool.lower_bound for _, pool in edges]
    by_bin = groupby(fields, key=lambda reviewed: bin_of(reviewed.raw))
    sizes = {number: DecisionPool.of([*of_bin]).effective_n for number, of_bin in by_bin}
    bins = frozenset(number for number, n in sizes.items() if n >= LEAST_DECISIONS)
    raws = tuple(sorted({field.raw for field in fields}))
    bounds = tuple((group.high, group.lower_bound) for group in groups)
    return Calibration(tuple(knots), raws, bins, tuple(lower_bounds), bounds)


def _joined_until(least_n: float, pools: Iterable[DecisionPool]) -> list[DecisionPool]:
    """Join those that have few decisions with the next one, the last with that before."""
    found: list[DecisionPool] = []
    for pool in pools:
        if found and found[-1].effective_n < least_n:
            found[-1] = found[-1].joined(pool)
        else:
            found.append(pool)
    if len(found) > 1 and found[-1].effective_n < least_n:
        found[-2:] = [found[-2].joined(found[-1])]
    return found


class ReliabilityBin(Struct, frozen=True):
    low: float
    high: float
    n: int
    n_right: int
    weights: DecisionPool | None = None
    """Sums of the weights, where they differ."""

    @property
    def _effective_n(self) -> float:
        return self.n if self.weights is None else self.weights.effective_n

    @property
    def label(self) -> str:
        """The range, as in `0.8 to 0.9`."""
        return f"{self.low:.1f} to {self.high:.1f}"

    @property
    def interval(self) -> tuple[float, float]:
        """Confidence interval of the share (Wilson, 95 %).

        >>> [round(bound, 2) for bound in ReliabilityBin(0.9, 1.0, 10, 10).interval]
        [0.72, 1.0]
        """
        return share_interval(self.share, self._effective_n)

    @property
    def share(self) -> float:
        return self.n_right / self.n if self.weights is None else self.weights.share

    @property
    def bounds(self) -> str:
        low, high = self.interval
        too_few = "" if self._effective_n >= LEAST_DECISIONS else "; too few to calibrate"
        return f"{low:.0%} to {high:.0%}{too_few}"


def reliability(reviewed: Iterable[Reviewed | WeightedField]) -> list[ReliabilityBin]:
    """Return the share of right fields by bins of their probability, without empty bins.

    >>> [(one.label, one.n, one.n_right) for one in reliability([(0.93, True), (1.0, False)])]
    [('0.9 to 1.0', 2, 1)]
    """
    found: dict[int, list[WeightedField]] = {}
    for row in reviewed:
        found.setdefault(bin_of(row[0]), []).append(WeightedField(*row))
    bins = []
    for number, fields in sorted(found.items()):
        n_right = sum(field.is_right for field in fields)
        is_even = len({field.weight for field in fields}) == 1
        weights = None if is_even else DecisionPool.of(fields)
        low, high = number / N_BINS, (number + 1) / N_BINS
        bins.append(ReliabilityBin(low, high, len(fields), n_right, weights))
    return bins
