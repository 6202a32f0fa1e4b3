"""Calibration: what a step's probabilities are worth, by what people decided. Pure.

A field that a person accepted, or left as it was in an edit, was right; one that was edited, or
whose answer was rejected, was wrong. Isotonic regression (pool adjacent violators) makes of these
the share that was right at each probability; it never falls where the probability rises. Fits are
made for one step and model, and never decide whether an item is fresh.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from typing import Any

from .reviews import Review, is_same_value

LEAST_FIELDS = 50
"""Reviewed fields without which nothing is calibrated: a share of 0.9 is then known to ± 0.04."""
N_BINS = 10

Reviewed = tuple[float, bool]
"""The probability of a field as the model had it, and whether the field was right."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A rising line through `knots`: probability of the model, share that was right."""

    knots: tuple[tuple[float, float], ...]
    n_fields: int

    def of(self, raw: float) -> float:
        """Return the share that was right at a probability.

        >>> Calibration(((0.2, 0.1), (0.6, 0.5)), 50).of(0.4)
        0.3
        """
        after = bisect_left(self.knots, (raw, -1.0))
        if after in (0, len(self.knots)):
            return self.knots[min(after, len(self.knots) - 1)][1]
        (left, low), (right, high) = self.knots[after - 1], self.knots[after]
        return round(low + (high - low) * (raw - left) / (right - left), 4)


def fit(reviewed: Iterable[Reviewed]) -> Calibration:
    """Return the isotonic regression of what was right on its probability.

    Where nothing was reviewed, below and above, the line goes to 0 and to 1.

    >>> fit([(0.2, False), (0.5, True), (0.5, False), (0.8, False), (0.9, True)]).knots
    ((0.0, 0.0), (0.2, 0.0), (0.5, 0.3333), (0.8, 0.3333), (0.9, 1.0), (1.0, 1.0))

    Raises:
        ValueError: there is nothing to fit.
    """
    pairs = sorted(reviewed)
    if not pairs:
        raise ValueError("no reviewed fields")
    pooled: list[_Pool] = []
    for raw, equal in groupby(pairs, key=lambda pair: pair[0]):
        rights = [is_right for _, is_right in equal]
        pooled.append(_Pool(raw, raw, len(rights), sum(rights)))
        while len(pooled) > 1 and pooled[-2].share >= pooled[-1].share:
            last = pooled.pop()
            pooled[-1] = pooled[-1].joined(last)
    knots = [(raw, round(pool.share, 4)) for pool in pooled for raw in pool.edges]
    before = [(0.0, 0.0)] if knots[0][0] > 0 else []
    after = [(1.0, 1.0)] if knots[-1][0] < 1 else []
    return Calibration((*before, *knots, *after), len(pairs))


@dataclass(frozen=True, slots=True)
class _Pool:
    """Neighbouring probabilities with one share."""

    low: float
    high: float
    n: int
    n_right: int

    @property
    def share(self) -> float:
        return self.n_right / self.n

    @property
    def edges(self) -> tuple[float, ...]:
        return (self.low,) if self.low == self.high else (self.low, self.high)

    def joined(self, other: _Pool) -> _Pool:
        return _Pool(self.low, other.high, self.n + other.n, self.n_right + other.n_right)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Fields with a probability of a range, and how many of them were right."""

    low: float
    high: float
    n: int
    n_right: int

    @property
    def label(self) -> str:
        """The range, as in `0.8 to 0.9`."""
        return f"{self.low:.1f} to {self.high:.1f}"


def reliability(reviewed: Iterable[Reviewed]) -> list[ReliabilityBin]:
    """Return how often fields were right, by tenths of their probability, without empty ones.

    >>> [(one.label, one.n, one.n_right) for one in reliability([(0.93, True), (1.0, False)])]
    [('0.9 to 1.0', 2, 1)]
    """
    found: dict[int, list[bool]] = {}
    for raw, is_right in reviewed:
        found.setdefault(min(N_BINS - 1, int(raw * N_BINS)), []).append(is_right)
    return [
        ReliabilityBin(number / N_BINS, (number + 1) / N_BINS, len(rights), sum(rights))
        for number, rights in sorted(found.items())
    ]


@dataclass(frozen=True, slots=True)
class StepCalibration:
    """What people decided about one step's fields with one model."""

    pipeline: str
    """The file's name."""
    step: str
    digest: str
    """Of the model."""
    model: str
    """The model's name as of the newest review."""
    reviewed: tuple[Reviewed, ...] = field(repr=False)

    @property
    def n_fields(self) -> int:
        return len(self.reviewed)

    @property
    def calibration(self) -> Calibration | None:
        """The fit; None while too few fields were reviewed."""
        return fit(self.reviewed) if self.n_fields >= LEAST_FIELDS else None

    @property
    def rows(self) -> list[ReliabilityBin]:
        """The reliability table; empty while too few fields were reviewed."""
        return reliability(self.reviewed) if self.n_fields >= LEAST_FIELDS else []


def reviewed_fields(review: Review) -> list[Reviewed]:
    """Return the fields of a whole review that a person decided on, as far as they have confidence.

    What expired, and what no one has decided, says nothing.
    """
    if review.state not in ("accepted", "edited", "rejected"):
        return []
    answer, confidence = review.subject.get("answer"), review.subject.get("confidence")
    decided = {"accepted": answer, "edited": review.value}.get(review.state, _REJECTED)
    return list(_compared(confidence, answer, decided))


_REJECTED = object()
"""Equals no value of a field."""


def _compared(confidence: Any, answer: Any, decided: Any) -> Iterator[Reviewed]:
    """Yield the fields of an answer: their probability, and whether the decided value is theirs."""
    if _is_field(confidence):
        yield float(confidence["raw"]), is_same_value(answer, decided)
    elif isinstance(confidence, Mapping) and isinstance(answer, Mapping):
        for name in (one for one in answer if one in confidence):
            within = decided.get(name, _REJECTED) if isinstance(decided, Mapping) else _REJECTED
            yield from _compared(confidence[name], answer[name], within)
    elif isinstance(confidence, list) and isinstance(answer, list):
        others = decided if isinstance(decided, list) else []
        for one, value, within in zip_longest(confidence, answer, others, fillvalue=_REJECTED):
            yield from _compared(one, value, within)


def _is_field(confidence: Any) -> bool:
    return isinstance(confidence, Mapping) and {"raw", "is_calibrated"} <= confidence.keys()


Calibrated = tuple[str, str, str]
"""What a fit is for: pipeline, step, digest of the model."""


def calibrations_of(reviews: Iterable[Review]) -> dict[Calibrated, StepCalibration]:
    """Return what was decided about each step with each model; `reviews` are whole ones."""
    found: dict[Calibrated, list[Reviewed]] = {}
    names: dict[Calibrated, tuple[float, str]] = {}
    for review in reviews:
        fields = reviewed_fields(review)
        if not fields:
            continue
        told = [str(review.subject.get(name) or "") for name in ("pipeline", "digest", "model")]
        key = (told[0], review.step, told[1])
        found.setdefault(key, []).extend(fields)
        names[key] = max(names.get(key, (0.0, "")), (review.decided_at or 0.0, told[2]))
    return {key: StepCalibration(*key, names[key][1], tuple(found[key])) for key in found}


def calibrated(confidence: Any, calibration: Calibration) -> Any:
    """Return the confidence of an answer with `p` as people's decisions have it; `raw` stays."""
    if _is_field(confidence):
        return {**confidence, "p": calibration.of(confidence["raw"]), "is_calibrated": True}
    if isinstance(confidence, Mapping):
        return {name: calibrated(one, calibration) for name, one in confidence.items()}
    if isinstance(confidence, list):
        return [calibrated(one, calibration) for one in confidence]
    return confidence
