"""Samples of items: which items of a list a run takes, by a keyed hash of their keys. Pure.

Each key has a fixed number for a seed (`draw`), and a sample of `n` has the `n` lowest: it is the
same each time, a larger one contains a smaller one, and a new document replaces at most one other.
With strata each gets its share of the seats, so that figures of the sample need no weights; there,
too, a larger sample contains a smaller one.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Mapping, Sequence

from paddock.engine.system.records import Struct

SEED = 0
_BITS = 64
_Z = 1.96
"""Of an interval that holds the true share in 95 of 100 cases."""


def draw(seed: int, key: str) -> float:
    """Return the number of a key: as good as random, uniform from 0 to below 1.

    >>> draw(0, "a.md") == draw(0, "a.md"), draw(0, "a.md") == draw(1, "a.md")
    (True, False)
    """
    digest = hashlib.sha256(f"{seed}\n{key}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[: _BITS // 8], "big") >> 11) / (1 << 53)  # a float's 53 bits


class ItemSample(Struct, frozen=True):
    """Which items of each top-level block a run takes; nested blocks are done whole."""

    n_items: int
    seed: int = SEED
    by: str = ""
    """A bare expression over an item (`item`, or the block's own name): its value is the item's
    stratum. Empty: there is one."""
    is_first: bool = False
    """Take the first items of the list (`--limit`) instead of random ones."""

    def __post_init__(self) -> None:
        if self.n_items < 1:
            raise ValueError(f"a sample of {self.n_items} items: it needs at least 1.")
        if self.is_first and (self.by or self.seed != SEED):
            raise ValueError("the first items of a list have no seed and no strata.")

    def chosen(self, keys: Sequence[str], strata: Sequence[str] = ()) -> frozenset[str]:
        """Return the keys that are taken; `strata` has each key's stratum, or is empty.

        >>> sorted(ItemSample(2, is_first=True).chosen(["c", "a", "b"]))
        ['a', 'c']
        """
        if self.is_first:
            return frozenset(keys[: self.n_items])
        members: dict[str, list[str]] = {}
        for number, key in enumerate(keys):
            members.setdefault(strata[number] if strata else "", []).append(key)
        shares = seats({name: len(found) for name, found in members.items()}, self.n_items)
        return frozenset(
            key
            for name, found in members.items()
            for key in sorted(found, key=lambda key: (draw(self.seed, key), key))[: shares[name]]
        )


def seats(sizes: Mapping[str, int], n_seats: int) -> dict[str, int]:
    """Return each stratum's part of the seats, one after the other: Webster's divisor method.

    The next seat is the stratum's that has the most items for each of 2 n + 1, with n seats. So
    one more seat takes none from any (with the largest remainders it could).

    >>> seats({"pdf": 90, "md": 8, "eml": 2}, 10)
    {'pdf': 9, 'md': 1, 'eml': 0}
    >>> seats({"pdf": 2, "md": 1}, 10)
    {'pdf': 2, 'md': 1}
    """
    found = dict.fromkeys(sizes, 0)
    waiting = [(-float(size), name) for name, size in sizes.items() if size]
    heapq.heapify(waiting)
    for _ in range(min(n_seats, sum(sizes.values()))):
        _, name = waiting[0]
        found[name] += 1
        if found[name] == sizes[name]:
            heapq.heappop(waiting)
        else:
            heapq.heapreplace(waiting, (-sizes[name] / (2 * found[name] + 1), name))
    return found


def share_interval(share: float, n: float) -> tuple[float, float]:
    """Return bounds of the share in all that a sample of `n` is from, right in 95 of 100 cases.

    Wilson's interval: it is also right near 0 and 1, and for few.

    >>> [round(bound, 2) for bound in share_interval(1.0, 10)]
    [0.72, 1.0]
    """
    of_n = _Z**2 / n
    middle = (share + of_n / 2) / (1 + of_n)
    half = _Z / (1 + of_n) * math.sqrt(share * (1 - share) / n + of_n / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)
