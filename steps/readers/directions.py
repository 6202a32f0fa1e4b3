"""Directions of text: which ones a page has, and which way words that are placed singly run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import pi

SAME_DIRECTION = 0.05  # radians: lines of a page that was scanned askew differ by less
LEVEL = 1e-4  # radians: 0.05 points in a line of A4
_MOST_DIRECTIONS = 8
_LEAST_WORDS = 4  # of a line, that tell where it goes
_SKEWED = 0.002  # from it on: a point in a line of A4, which is less than marks are raised by
_EXPLAINED = 0.5  # of how far words stand above and below others of their line


def angle_between(a: float, b: float) -> float:
    return (a - b + pi) % (2 * pi) - pi


def directions_of(lengths: Mapping[float, float]) -> list[float]:
    """Return the directions that texts have, in radians, that of most text first.

    `lengths`: how long the text of each angle is.
    """
    rest, found = dict(lengths), list[float]()
    while rest and len(found) < _MOST_DIRECTIONS:
        bins: Counter[int] = Counter()
        for angle, length in rest.items():
            bins[round(angle / SAME_DIRECTION)] += length  # type: ignore[assignment]
        peak = max(bins, key=lambda at: (bins[at - 1] + 2 * bins[at] + bins[at + 1], -abs(at)))
        middle = peak * SAME_DIRECTION
        near = {a: n for a, n in rest.items() if abs(angle_between(a, middle)) <= SAME_DIRECTION}
        found.append(
            middle + weighted_median((angle_between(a, middle), n) for a, n in near.items())
        )
        rest = {
            angle: length
            for angle, length in rest.items()
            if angle not in near and abs(angle_between(angle, found[-1])) > SAME_DIRECTION
        }
    return found


def weighted_median(values: Iterable[tuple[float, float]]) -> float:
    ordered = sorted(values)
    half = sum([weight for _, weight in ordered]) / 2
    for value, weight in ordered:
        half -= weight
        if half <= 0:
            return value
    return 0.0


def skew_of(lines: Iterable[Sequence[tuple[float, float]]]) -> float:
    """Return how much lines rise by their length; 0: they are level, or do not rise alike.

    `lines`: where the words of each stand, across and up.
    """
    across = both = up = 0.0
    n_words = 0
    for line in lines:
        if len(line) < _LEAST_WORDS:
            continue
        n_words += len(line)
        x, y = (sum(part) / len(line) for part in zip(*line, strict=True))
        across += sum([(a - x) ** 2 for a, _ in line])
        both += sum([(a - x) * (b - y) for a, b in line])
        up += sum([(b - y) ** 2 for _, b in line])
    if n_words < 2 * _LEAST_WORDS or abs(both) < _SKEWED * across:
        return 0.0
    return both / across if both * both >= _EXPLAINED * across * up else 0.0
