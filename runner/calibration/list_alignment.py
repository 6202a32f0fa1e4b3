"""Which item of a list has become which one of another list, with the fewest differences. Pure.

An item that was deleted or inserted shifts those behind it, so lists are aligned as texts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paddock.runner.ledger.reviews.asked_before import is_same_value

MOST_PAIRS = 40_000
"""Pairs of items that are compared, as of two lists of 200 that share no beginning or end; 0.2 s
with ten values each."""


def aligned(before: Sequence[Any], after: Sequence[Any], removed: Any) -> list[Any] | None:
    """Return for each item of `before` its counterpart in `after`, or `removed`.

    None: they are too long to be compared.

    >>> aligned(["a", "b", "c"], ["b", "x"], None)
    [None, 'b', None]
    """
    first = _n_same(before, after)
    last = _n_same(before[first:][::-1], after[first:][::-1])
    ends = len(before) - last, len(after) - last
    rest, others = before[first : ends[0]], after[first : ends[1]]
    if len(rest) * len(others) > MOST_PAIRS:
        return None
    middle = _moved(rest, others, _partners(rest, others))
    found = [removed if at is None else others[at] for at in middle]
    return [*after[:first], *found, *after[ends[1] :]]


def _n_same(left: Sequence[Any], other: Sequence[Any]) -> int:
    pairs = zip(left, other, strict=False)
    return next(
        (n for n, pair in enumerate(pairs) if not is_same_value(*pair)), min(len(left), len(other))
    )


def _partners(before: Sequence[Any], after: Sequence[Any]) -> list[int | None]:
    costs = [[_difference(element, other) for other in after] for element in before]
    # Two items that share nothing are better left out
    costs = [[cost if cost < 1 else 3.0 for cost in row] for row in costs]
    n, m = len(before), len(after)
    # total[i][j]: the least cost of what is behind i and j; to leave an item out costs 1
    total = [[float(n - i + m - j) for j in range(m + 1)] for i in range(n + 1)]
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            pair = costs[i][j] + total[i + 1][j + 1]
            total[i][j] = min(pair, 1 + total[i + 1][j], 1 + total[i][j + 1])
    found: list[int | None] = []
    j = 0
    for i in range(n):
        while j < m and total[i][j] == 1 + total[i][j + 1] < costs[i][j] + total[i + 1][j + 1]:
            j += 1
        is_pair = j < m and total[i][j] == costs[i][j] + total[i + 1][j + 1]
        found.append(j if is_pair else None)
        j += is_pair
    return found


def _difference(left: Any, other: Any) -> float:
    """Return the share of an item's values that another one does not have.

    >>> _difference({"a": 1, "b": [2, 3]}, {"a": 1, "b": [2, 4]})
    0.25
    """
    if isinstance(left, Mapping) and isinstance(other, Mapping):
        names = {**left, **other}
        within = [_difference(left.get(name), other.get(name)) for name in names]
    elif isinstance(left, list) and isinstance(other, list):
        pairs = zip(left, other, strict=False)
        within = [_difference(*pair) for pair in pairs]
        within += [1.0] * abs(len(left) - len(other))
    else:
        return float(not is_same_value(left, other))
    return sum(within) / max(1, len(within))


def _moved(
    before: Sequence[Any], after: Sequence[Any], partners: Sequence[int | None]
) -> list[int | None]:
    left = [at for at in range(len(after)) if at not in set(partners)]
    found: list[int | None] = []
    for element, partner in zip(before, partners, strict=True):
        place = partner
        if place is None:
            place = next((at for at in left if is_same_value(element, after[at])), None)
            left = [at for at in left if at != place]
        found.append(place)
    return found
