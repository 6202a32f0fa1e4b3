"""Memory as a model takes it: so much of main memory, so much of each graphics device."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes, of main memory and of each graphics device in its order.

    >>> Room(8, (5,)) - Room(3, (1, 1))
    Room(host=5, gpus=(4, -1))
    >>> Room(8).holds(Room(3, (1,)))
    False
    """

    host: int = 0
    gpus: tuple[int, ...] = ()

    def __add__(self, other: Room) -> Room:
        """Give both together."""
        return Room(self.host + other.host, tuple(a + b for a, b in _pairs(self, other)))

    def __sub__(self, other: Room) -> Room:
        """Give what is left; it may be less than nothing."""
        return Room(self.host - other.host, tuple(a - b for a, b in _pairs(self, other)))

    def holds(self, other: Room) -> bool:
        """Tell whether the other finds place everywhere."""
        pairs = ((self.host, other.host), *_pairs(self, other))
        return all(mine >= wanted or wanted <= 0 for mine, wanted in pairs)

    def missing(self, wanted: Room) -> Room:
        """Tell what is wanted and not here; nowhere less than nothing."""
        gap = wanted - self
        return Room(max(0, gap.host), tuple(max(0, one) for one in gap.gpus))

    def within(self, other: Room) -> Room:
        """Give the smaller of the two everywhere."""
        return Room(min(self.host, other.host), tuple(min(a, b) for a, b in _pairs(self, other)))

    @property
    def total_bytes(self) -> int:
        """All of it, wherever it is."""
        return self.host + sum(self.gpus)


def _pairs(one: Room, other: Room) -> list[tuple[int, int]]:
    return list(zip_longest(one.gpus, other.gpus, fillvalue=0))
