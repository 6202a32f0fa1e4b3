"""Choose which models make room: the cheapest to bring back for what they give. Pure.

A model that has been idle twice as long is taken to be half as likely to be asked for next, so
what its going will cost is `load_s / idle_s`; divided by the bytes that it gives where they are
missing, that is its price. The lowest prices go until there is room (this is GreedyDual-Size with
the age in place of the inflation: Cao and Irani, "Cost-aware WWW proxy caching", 1997), and whoever
turns out not to be needed for it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .room import Room

_JUST_USED_S = 0.1  # below it, ages say nothing, and nothing is divided by zero


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be asked to go."""

    key: str
    room: Room
    load_s: float
    """What it takes to bring it back."""
    idle_s: float
    is_busy: bool = False
    is_leased: bool = False
    is_pinned: bool = False


def choose(
    candidates: Sequence[Candidate], missing: Room, n_places: int = 0
) -> tuple[str, ...] | None:
    """Give those who go so that `missing` bytes and `n_places` places come free.

    Busy and leased ones only where it cannot be avoided; pinned ones never. None: it is not
    enough whoever goes, so nobody should.
    """
    free = [one for one in candidates if not one.is_pinned]
    for spares_busy, spares_leased in ((True, True), (True, False), (False, True), (False, False)):
        willing = [
            one
            for one in free
            if not (spares_busy and one.is_busy) and not (spares_leased and one.is_leased)
        ]
        if _is_enough(willing, missing, n_places):
            return _cheapest(willing, missing, n_places)
    return None


def price(one: Candidate, missing: Room) -> float:
    """Give the seconds that going costs for each byte given where bytes are missing."""
    gives = one.room.within(missing).total_bytes
    if missing.total_bytes and not gives:
        return float("inf")
    return one.load_s / max(one.idle_s, _JUST_USED_S) / max(gives, 1)


def _cheapest(willing: list[Candidate], missing: Room, n_places: int) -> tuple[str, ...]:
    by_price = sorted(willing, key=lambda one: (price(one, missing), -one.idle_s, one.key))
    going: list[Candidate] = []
    for one in by_price:
        if _is_enough(going, missing, n_places):
            break
        going.append(one)
    for one in sorted(going, key=lambda one: -one.load_s / max(one.idle_s, _JUST_USED_S)):
        others = [other for other in going if other is not one]
        if _is_enough(others, missing, n_places):
            going = others
    return tuple(one.key for one in going)


def _is_enough(going: Sequence[Candidate], missing: Room, n_places: int) -> bool:
    given = sum((one.room for one in going), Room())
    return len(going) >= n_places and given.holds(missing)
