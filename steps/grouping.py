"""Where a long list is cut into groups, by what stands in it and never by how it came about. Pure.

An item ends its group where its rank, a hash of its name, is the highest among its neighbours.
So one item that comes, goes or changes moves the borders beside it alone, and all other groups
are what they were: what was made of them still holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

Range = tuple[int, int]


def groups(names: Sequence[str], fanin: int, level: int = 0) -> list[Range]:
    """Cut a list into neighbouring groups of at most `fanin` items.

    `level` gives each level of a tree borders of its own. A list that is no longer than `fanin`
    is one group; a longer one always has fewer groups than items.

    Args:
        names: what the items are known by, in order; equal ones are allowed.
        fanin: at least 2.
        level: which level of a tree this is, from 0.
    """
    if len(names) <= fanin:
        return [(0, len(names))] if names else []
    ranks = [_rank(name, level) for name in names]
    ends = [index + 1 for index in range(len(names) - 1) if _is_border(ranks, index, fanin)]
    whole = pairwise([0, *ends, len(names)])
    return [piece for begin, end in whole for piece in _even(begin, end, fanin)]


def halves(begin: int, end: int) -> tuple[Range, Range]:
    """Cut a group of two items and more in the middle."""
    middle = (begin + end + 1) // 2
    return (begin, middle), (middle, end)


def _rank(name: str, level: int) -> bytes:
    return hashlib.sha256(f"{level}\n{name}".encode()).digest()[:8]


def _is_border(ranks: Sequence[bytes], index: int, fanin: int) -> bool:
    """Tell whether no neighbour ranks higher; of equal ones the first is it."""
    reach = max(1, (fanin - 1) // 2)
    before = ranks[max(0, index - reach) : index]
    after = ranks[index + 1 : index + 1 + reach]
    rank = ranks[index]
    return all(rank > one for one in before) and all(rank >= one for one in after)


def _even(begin: int, end: int, fanin: int) -> Iterator[Range]:
    """Cut a stretch without a border into pieces of about the same size."""
    n_pieces = -(-(end - begin) // fanin)
    size, more = divmod(end - begin, n_pieces)
    for number in range(n_pieces):
        yield begin, (begin := begin + size + (number < more))
