"""Decide which model comes and which goes. Pure: no clock, no process, no memory is read.

Models that are asked for together are collated: while B waits, A works on until B's first request
has waited `max_wait_s` and A has had a turn of that length (at least as long as loading it took, so
that half of the time is work); then A drains, and later B gives way in the same manner. A model
that falls idle meanwhile is kept for as long as it would take to bring it back (`max_wait_s` where
a run has leased it): the rule of ski rental, never worse than twice the best. An interactive
request cuts the waiting short, and goes before others who have not waited much longer than it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .eviction import Candidate, choose
from .room import Room

# A job that has waited so long is not put off for people any more, or it would wait for ever.
PERSON_FIRST_S = 60.0

State = Literal["loading", "ready", "draining", "unloading"]


@dataclass(frozen=True, slots=True)
class Stay:
    """A model in memory, or on its way in or out."""

    key: str
    state: State
    room: Room
    load_s: float
    n_users: int = 0
    n_waiting: int = 0
    ready_at: float = 0.0
    last_used_at: float = 0.0
    is_pinned: bool = False
    is_leased: bool = False

    @property
    def is_leaving(self) -> bool:
        """Whether its room will come free by itself."""
        return self.state in ("draining", "unloading")

    @property
    def is_busy(self) -> bool:
        """Whether anybody would notice its going."""
        return bool(self.n_users or self.n_waiting)


@dataclass(frozen=True, slots=True)
class Wish:
    """A model that is not there and that somebody waits for."""

    key: str
    since: float
    is_interactive: bool
    options: tuple[Room, ...]
    """What it takes, the best layout first."""
    n_good: int
    """So many of the options are worth waiting for; the rest is a last resort."""
    after: str = ""
    """The model that it had to make room for: it does not come back before that one was there."""


@dataclass(frozen=True, slots=True)
class House:
    """What the rules must keep."""

    max_loaded_models: int
    max_wait_s: float


@dataclass(frozen=True, slots=True)
class Start:
    """Load it in the layout of this index."""

    key: str
    option: int


@dataclass(frozen=True, slots=True)
class Clear:
    """Let these go: the idle ones at once, the busy ones when their users have left."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """It need not go after all."""

    key: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can never come: all the room there could be is too small."""

    key: str
    needed: Room
    could_be: Room
    is_crowded: bool
    """Memory would do, but every place is taken by a pinned model."""


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to do before that time, or before something changes."""

    until: float | None = None


Move = Start | Clear | Keep | Refuse | Wait


def decide(
    stays: Sequence[Stay], wishes: Sequence[Wish], free: Room, house: House, now: float
) -> Move:
    """Give the next thing to do; ask again when it is begun, until it is to wait."""
    line = in_order(wishes)
    if not line:
        return next((Keep(one.key) for one in stays if one.state == "draining"), Wait())
    head, claim = _serve(line[0], stays, free, house, now)
    if isinstance(head, Wait):
        # Who fits beside what the first in line will take need not wait for it. What came later
        # than it is not counted on, or newcomers could put it off for ever.
        givers = [one for one in stays if one.is_leaving or _gives_way(one, line[0])]
        left = free - _total(givers).missing(claim)
        n_left = house.max_loaded_models - len(stays) - (not givers)
        for wish in line[1:]:
            option = _fitting(wish, left) if n_left > 0 else None
            if option is not None:
                return Start(wish.key, option)
    return head


def in_order(wishes: Sequence[Wish]) -> list[Wish]:
    """Give the wishes in the order in which they are served."""
    keys = {wish.key for wish in wishes}

    def rank(wish: Wish) -> tuple[bool, float, str]:
        head_start_s = PERSON_FIRST_S if wish.is_interactive else 0.0
        return wish.after in keys, wish.since - head_start_s, wish.key

    return sorted(wishes, key=rank)


def _gives_way(stay: Stay, wish: Wish) -> bool:
    return stay.state == "ready" and not stay.is_pinned and stay.ready_at <= wish.since


def leaves_at(stay: Stay, wish: Wish, house: House) -> float:
    """Tell from when on a model may be asked to go for this wish."""
    wait_s = 0.0 if wish.is_interactive else house.max_wait_s
    due = max(wish.since + wait_s, stay.ready_at + max(wait_s, stay.load_s))
    if stay.is_busy:
        return due
    patience_s = min(stay.load_s, wait_s)
    if stay.is_leased:
        patience_s = house.max_wait_s
    return min(due, stay.last_used_at + patience_s)


def _serve(
    wish: Wish, stays: Sequence[Stay], free: Room, house: House, now: float
) -> tuple[Move, Room]:
    """Find what brings the first in line nearer, and the room that it claims."""
    n_open = house.max_loaded_models - len(stays)
    option = _fitting(wish, free) if n_open > 0 else None
    for options in (range(wish.n_good), range(wish.n_good, len(wish.options))):
        if option is not None and option in options:
            return Start(wish.key, option), Room()
        for i in options:
            if _comes_free(wish.options[i], stays, free, house):
                return Wait(), wish.options[i]  # no more need go
        moves = [(_make_way(wish, wish.options[i], stays, free, house, now), i) for i in options]
        possible = [(move, i) for move, i in moves if move is not None]
        if possible:
            # Of options that are worth waiting for, the one for which the least has to go.
            move, i = min(possible, key=lambda pair: _cost(pair[0], stays))
            return move, wish.options[i]
    return _refusal(wish, stays, free, house), Room()


def _cost(move: Clear | Wait, stays: Sequence[Stay]) -> tuple[bool, int]:
    """Rank moves: those that can be made now come first, then those that clear less."""
    if isinstance(move, Wait):
        return True, 0
    return False, _total(one for one in stays if one.key in move.keys).total_bytes


def _fitting(wish: Wish, free: Room) -> int | None:
    return next((i for i, room in enumerate(wish.options) if free.holds(room)), None)


def _missing(room: Room, stays: Sequence[Stay], free: Room, house: House) -> tuple[Room, int]:
    """Return the bytes and the places that will be missing when those that leave are gone."""
    leaving = [one for one in stays if one.is_leaving]
    n_missing = max(0, len(stays) - len(leaving) + 1 - house.max_loaded_models)
    return (free + _total(leaving)).missing(room), n_missing


def _comes_free(room: Room, stays: Sequence[Stay], free: Room, house: House) -> bool:
    missing, n_missing = _missing(room, stays, free, house)
    return not n_missing and not missing.total_bytes


def _make_way(
    wish: Wish, room: Room, stays: Sequence[Stay], free: Room, house: House, now: float
) -> Clear | Wait | None:
    """Find who goes for this layout; None: it would not be enough whoever goes."""
    missing, n_missing = _missing(room, stays, free, house)
    others = [one for one in stays if not one.is_leaving and not one.is_pinned]
    if choose([_candidate(one, now) for one in others], missing, n_missing) is None:
        return None
    # A model that still loads for somebody can be asked only when it is there.
    times = {one.key: leaves_at(one, wish, house) for one in others if one.state == "ready"}
    times |= {o.key: now for o in others if o.state == "loading" and not o.n_waiting}
    for time in (now, *sorted(t for t in times.values() if t > now)):
        willing = [_candidate(o, now) for o in others if times.get(o.key, time + 1) <= time]
        going = choose(willing, missing, n_missing)
        if going is not None:
            return Clear(going) if time <= now else Wait(time)
    return Wait()


def _candidate(stay: Stay, now: float) -> Candidate:
    idle_s = max(0.0, now - stay.last_used_at)
    return Candidate(
        stay.key, stay.room, stay.load_s, idle_s, stay.is_busy, stay.is_leased, stay.is_pinned
    )


def _refusal(wish: Wish, stays: Sequence[Stay], free: Room, house: House) -> Refuse:
    could_be = free + _total(one for one in stays if one.is_leaving or not one.is_pinned)
    needed = wish.options[-1]
    n_pinned = sum(one.is_pinned and not one.is_leaving for one in stays)
    is_crowded = could_be.holds(needed) and n_pinned >= house.max_loaded_models
    return Refuse(wish.key, needed, could_be, is_crowded)


def _total(stays: Iterable[Stay]) -> Room:
    return sum((one.room for one in stays), Room())
