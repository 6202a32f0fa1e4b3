"""How often each label was right and found: rates, with their bounds. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from paddock.engine.system.light_dataclasses import dataclass

from .metrics import MOST_CONFUSED, label_of
from .significance import SEED, IntervalEstimate

_N_TABLES = 1_000
"""Drawn for the bounds of the figures of labels."""
_VALUES_AT_ONCE = 1_000_000
"""Of such draws; where there are very many pairs of labels, a tenth is drawn."""
_LEAST_CHANCE = 1e-9
_DIGITS = 12
_NOT_SEEN = "\0"
"""Stands for all answers that were not seen; no label has it."""

Figures: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """How labels agree with gold."""

    accuracy: float
    macro_f1: IntervalEstimate
    """The mean of each label's F1, so that rare labels count as much as others."""
    kappa: IntervalEstimate | None
    """Cohen's: 0 is what chance would give; None where gold and answers have one label alone."""
    labels: tuple[str, ...]
    confusion: Mapping[tuple[str, str], int]
    """Gold label and answer → how often."""

    def as_json(self) -> dict[str, Any]:
        labels = self.labels[:MOST_CONFUSED]
        table = [[self.confusion.get((gold, answer), 0) for answer in labels] for gold in labels]
        figures = {"macro_f1": self.macro_f1, "kappa": self.kappa}
        rounded = {
            "accuracy": round(self.accuracy, 4),
            **{name: None if share is None else share.as_json() for name, share in figures.items()},
        }
        if len(self.labels) > MOST_CONFUSED:  # texts rather than labels
            return rounded
        return {**rounded, "labels": list(labels), "confusion": table}


def label_figures(pairs: Sequence[tuple[Any, Any]]) -> LabelFigures:
    """Return the figures of pairs of gold label and answer, of which there is at least one.

    >>> figures = label_figures([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")])
    >>> figures.accuracy, round(figures.macro_f1.mean, 3), figures.kappa.mean
    (0.75, 0.733, 0.5)
    """
    confusion = Counter((label_of(gold), label_of(answer)) for gold, answer in pairs)
    golds = sorted({gold for gold, _ in confusion})
    place = {gold: n for n, gold in enumerate(golds)}
    # Those that are right first, then one wrong answer of each label that was not seen.
    cells = [(gold, gold) for gold in golds] + [(gold, _NOT_SEEN) for gold in golds]
    cells += [cell for cell in confusion if cell[0] != cell[1]]
    counts = np.array([confusion.get(cell, 0) for cell in cells], float)
    sides = [[place.get(label, len(golds)) for label in side] for side in zip(*cells, strict=True)]
    # Goutte and Gaussier 2005, with Jeffreys' prior, so that no interval is without width.
    prior = np.array([0.5] * (2 * len(golds)) + [0.0] * (len(cells) - 2 * len(golds)))
    size = (max(_N_TABLES // 10, min(_N_TABLES, _VALUES_AT_ONCE // len(cells))), len(cells))
    drawn = np.random.default_rng(SEED).gamma(counts + prior, size=size)
    f1s, kappas = _label_rates(np.vstack([counts, drawn]), *map(np.array, sides))
    labels = tuple(sorted({label for pair in confusion for label in pair}))
    n = len(pairs)
    return LabelFigures(
        float(counts[: len(golds)].sum() / n),
        _with_bounds(f1s, n),
        None if len(labels) == 1 else _with_bounds(kappas, n),
        labels,
        dict(confusion),
    )


def _label_rates(
    weights: Figures, golds: NDArray[np.int64], answers: NDArray[np.int64]
) -> tuple[Figures, Figures]:
    """Return macro F1 and kappa of each row of `weights`, which has one for each pair of labels."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    n_golds = int(golds.max()) + 1

    def sums(labels: NDArray[np.int64]) -> Figures:
        order = labels.argsort(kind="stable")
        starts = np.searchsorted(labels[order], np.arange(n_golds + 1))
        found: Figures = np.add.reduceat(shares[:, order], starts[starts < len(labels)], axis=1)
        return found[:, :n_golds]

    of_gold, of_answer, right = sums(golds), sums(answers), shares[:, :n_golds]
    f1s = 2 * right / (of_gold + of_answer)
    chance = (of_gold * of_answer).sum(axis=1)
    return f1s.mean(axis=1), (right.sum(axis=1) - chance) / np.maximum(1 - chance, _LEAST_CHANCE)


def _with_bounds(values: Figures, n: int) -> IntervalEstimate:
    """Return the first value, with bounds by the others, which are draws.

    Of 100 draws 98 are within; so are the true figures in 95 of 100 cases, from 20 items on.
    """
    values = values.round(_DIGITS)
    value, low, high = float(values[0]), *map(float, np.quantile(values[1:], (0.01, 0.99)))
    return IntervalEstimate(value, min(value, low), max(value, high), n)
