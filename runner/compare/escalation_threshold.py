"""Find the confidence below which a larger model must answer, with a promise of agreement. Pure.

The thresholds of a fixed list are tested in order, from "always escalate" down, each against "the
agreement is below the target", until one test fails: fixed-sequence testing, by which the chance to
promise too much stays below delta whatever the data are (Angelopoulos et al. 2021, "Learn then
Test"). The p of a threshold is exact for answers that are right or wrong (binomial, as in the
bound of Clopper and Pearson), else that of Hoeffding and Bentkus (Bates et al. 2021). The promise
is for documents of which these are a random sample.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.system.item_samples import binomial_cdf
from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted
from paddock.pipelines.expressions import Expression
from paddock.pipelines.references import REVIEW_NAMES
from paddock.runner.bind.answer_names import review_names
from paddock.runner.core.reviews.review_questions import LEAST_CONFIDENCE, split_at

from .variant_runs import ItemAnswer

ALWAYS = 2.0
"""A threshold above every probability."""
THRESHOLDS = (
    ALWAYS, 1.0, 0.9999, 0.9998, 0.9995, 0.999, 0.998, 0.997, 0.995,
    *(n / 100 for n in range(99, -1, -1)),
)  # fmt: skip
"""In the order in which they are tested. Small models are sure: their probabilities crowd at 1."""
_MOST_NEEDED = 100_000
"""A larger number of items is not named."""


class CannotCalibrate(Exception):
    """What is asked for cannot be promised, or not of this step; one sentence."""


class AgreementGoal(Struct, frozen=True):
    """What is promised: an agreement of at least `target`, with probability 1 less `delta`."""

    target: float = 0.95
    delta: float = 0.05

    @property
    def n_least(self) -> int:
        """How many items it takes where all agree.

        >>> AgreementGoal(0.95, 0.05).n_least
        59
        """
        return math.ceil(math.log(self.delta) / math.log(self.target))

    def p(self, losses: NDArray[np.float64]) -> float:
        """Return the p of these losses, if the mean loss were just above 1 less `target`."""
        n, total, most = len(losses), float(losses.sum()), 1 - self.target
        if np.isin(losses, (0.0, 1.0)).all():
            return binomial_cdf(round(total), n, most)
        mean = total / n
        # The Kullback-Leibler divergence of two coins
        a = min(mean, most)
        first = a * math.log(a / most) if a else 0.0
        divergence = first + (1 - a) * math.log((1 - a) / (1 - most))
        hoeffding = math.exp(-n * divergence)
        return min(1.0, hoeffding, math.e * binomial_cdf(math.ceil(total - 1e-9), n, most))

    def n_needed(self, loss: float) -> int | None:
        """Return at how many items a mean loss of this size is small enough; None: at none."""
        if loss >= 1 - self.target:
            return None

        def is_enough(n: int) -> bool:
            return binomial_cdf(math.ceil(n * loss), n, 1 - self.target) <= self.delta

        n = 1 + bisect_left(range(1, _MOST_NEEDED), True, key=is_enough)
        return n if n < _MOST_NEEDED else None


class ThresholdCondition(Struct, frozen=True):
    """`escalate.when` with its threshold left open: `confidence.min < …`, and what `or` joins."""

    others: tuple[str, ...]

    @classmethod
    def of(cls, when: Expression) -> ThresholdCondition:
        """Return the condition of a step.

        Raises:
            CannotCalibrate: its threshold cannot be told from the rest.
        """
        parts = [part for part in split_at(when.source, "or") if Expression.of(part).references]
        thresholds = {part: LEAST_CONFIDENCE.fullmatch(part) for part in parts}
        others = tuple(
            part for part, at in thresholds.items() if at is None or at["bound"] != "min"
        )
        read = {path[0] for part in others for path in Expression.of(part).references}
        if unknown := sorted(read - REVIEW_NAMES):
            what = f"`escalate.when` reads '{unknown[0]}', but a threshold is found by answers."
            raise CannotCalibrate(f"{what} Read `output`, `text`, `evidence` and `confidence`.")
        if any(path[:2] == ("confidence", "min") for part in others
               for path in Expression.of(part).references):  # fmt: skip
            what = f"`escalate.when` uses `confidence.min` in '{when.source}' in another way."
            raise CannotCalibrate(f"{what} Join `confidence.min < 0.8` to the rest by `or`.")
        return cls(others)

    def text(self, threshold: float) -> str | bool:
        if threshold == ALWAYS:
            return True
        return " or ".join((f"confidence.min < {threshold:g}", *self.others))

    def sureness(self, answer: ItemAnswer) -> float:
        """Return the threshold up to which an answer stays; -1 where it never does."""
        if not answer.is_done:
            return -1.0
        outputs = {
            "output": answer.output,
            "text": answer.text,
            "evidence": answer.evidence,
            "confidence": answer.confidence,
        }
        names = review_names(outputs)
        if any(Expression.of(part).evaluate(names) for part in self.others):
            return -1.0
        return float(names["confidence"]["min"])


class CalibratedThreshold(Struct, frozen=True):
    goal: AgreementGoal
    threshold: float
    agreement: float
    """On these items."""
    n_items: int
    n_escalated: int
    when: str | bool

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.goal.target,
            "delta": self.goal.delta,
            "when": self.when,
            "agreement": round(self.agreement, 4),
            "items": self.n_items,
            "escalated": self.n_escalated,
        }

    def words(self) -> str:
        when = str(self.when).lower() if isinstance(self.when, bool) else self.when
        share = self.n_escalated / self.n_items
        return (
            f"Proposed: `when: {when}`. It agrees with at least {self.goal.target:g} with "
            f"probability {1 - self.goal.delta:g}, on documents of which these are a random "
            f"sample; on these {self.n_items:,} it is {self.agreement:.3f}, and "
            f"{self.n_escalated:,} ({share:.0%}) are escalated."
        )


def calibrated_threshold(
    goal: AgreementGoal,
    condition: ThresholdCondition,
    sureness: Sequence[float],
    own: Sequence[float],
    larger: Sequence[float],
) -> CalibratedThreshold:
    """Return the lowest threshold that is promised, by the scores of both models' answers.

    Raises:
        CannotCalibrate: there are too few items, or the larger model alone is not good enough.
    """
    n = len(sureness)
    if n < goal.n_least:
        raise CannotCalibrate(
            f"{counted(n, 'item')} with a known answer cannot show an agreement of "
            f"{goal.target:g} with probability {1 - goal.delta:g}: it takes {goal.n_least}, even "
            "where all agree."
        )
    promised: CalibratedThreshold | None = None
    for threshold in THRESHOLDS:
        is_escalated = np.asarray(sureness) < threshold
        losses = 1 - np.where(is_escalated, np.asarray(larger, float), np.asarray(own, float))
        if goal.p(losses) > goal.delta:
            break
        agreement, n_escalated = 1 - float(losses.mean()), int(is_escalated.sum())
        when = condition.text(threshold)
        promised = CalibratedThreshold(goal, threshold, agreement, n, n_escalated, when)
    if promised is None:
        mean = float(np.mean(larger))
        promise = f"an agreement of {goal.target:g} with probability {1 - goal.delta:g}"
        what = f"no threshold reaches {promise}: the larger model alone has {mean:.3f} on {n:,}"
        if (n_needed := goal.n_needed(1 - mean)) is None:
            raise CannotCalibrate(f"{what} items. Escalate to a better model, or lower the target.")
        rest = f"At that rate it takes {n_needed:,} items to show it."
        raise CannotCalibrate(f"{what} items. {rest}")
    return promised
