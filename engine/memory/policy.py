"""Load and eviction policy: which model is loaded next and which ones go. Pure.

No clock, no process, no memory is read. Models that are wanted at the same time take turns: while
B waits, A goes on until B's first request has waited `max_wait_s` and A has had a turn of that
length (at least as long as its loading took, so that half of the time is work); then A drains, and
later B gives way in the same manner. A model that falls idle meanwhile is kept for as long as
reloading it would take (`max_wait_s` where a run has leased it): the ski-rental rule, never worse
than twice the optimum. An interactive request cuts the waiting short, and goes before others that
have not waited much longer.

Victims are chosen by GreedyDual-Size with the age in place of the inflation (Cao and Irani,
"Cost-aware WWW proxy caching", 1997): a model that has been idle twice as long is taken to be half
as likely to be wanted next, so the expected cost of its eviction is `load_s / idle_s`, divided by
the missing bytes that it frees. The cheapest go until there is room; a victim that turns out not
to be needed stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .device_memory import MemoryAmount

_JUST_USED_S = 0.1  # below it, ages say nothing, and nothing is divided by zero


@dataclass(frozen=True, slots=True)
class EvictionCandidate:
    """A model that may be asked to go."""

    key: str
    room: MemoryAmount
    load_s: float
    """What it takes to bring it back."""
    idle_s: float
    is_busy: bool = False
    is_leased: bool = False
    is_pinned: bool = False


def choose_victims(
    candidates: Sequence[EvictionCandidate], missing: MemoryAmount, n_places: int = 0
) -> tuple[str, ...] | None:
    """Return those who go so that `missing` bytes and `n_places` places come free.

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
            return _cheapest_victims(willing, missing, n_places)
    return None


def eviction_price(one: EvictionCandidate, missing: MemoryAmount) -> float:
    """Return the seconds that going costs for each byte given where bytes are missing."""
    gives = one.room.within(missing).total_bytes
    if missing.total_bytes and not gives:
        return float("inf")
    return one.load_s / max(one.idle_s, _JUST_USED_S) / max(gives, 1)


def _cheapest_victims(
    willing: list[EvictionCandidate], missing: MemoryAmount, n_places: int
) -> tuple[str, ...]:
    by_price = sorted(willing, key=lambda one: (eviction_price(one, missing), -one.idle_s, one.key))
    going: list[EvictionCandidate] = []
    for one in by_price:
        if _is_enough(going, missing, n_places):
            break
        going.append(one)
    for one in sorted(going, key=lambda one: -one.load_s / max(one.idle_s, _JUST_USED_S)):
        others = [other for other in going if other is not one]
        if _is_enough(others, missing, n_places):
            going = others
    return tuple(one.key for one in going)


def _is_enough(going: Sequence[EvictionCandidate], missing: MemoryAmount, n_places: int) -> bool:
    given = sum((one.room for one in going), MemoryAmount())
    return len(going) >= n_places and given.holds(missing)


# A job that has waited so long is not put off for people any more, or it would wait for ever.
PERSON_FIRST_S = 60.0

ModelState = Literal["loading", "ready", "draining", "unloading"]


@dataclass(frozen=True, slots=True)
class LoadedState:
    """A model in memory, or on its way in or out."""

    key: str
    state: ModelState
    room: MemoryAmount
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
class WaitingModel:
    """A model that is not there and that somebody waits for."""

    key: str
    since: float
    is_interactive: bool
    options: tuple[MemoryAmount, ...]
    """What it takes, the best layout first."""
    n_good: int
    """So many of the options are worth waiting for; the rest is a last resort."""
    after: str = ""
    """The model that it had to make room for: it does not come back before that one was there."""


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """What the rules must keep."""

    max_loaded_models: int
    max_wait_s: float


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load it in the layout of this index."""

    key: str
    option: int


@dataclass(frozen=True, slots=True)
class EvictModels:
    """Let these go: the idle ones at once, the busy ones when their users have left."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeepModel:
    """It need not go after all."""

    key: str


@dataclass(frozen=True, slots=True)
class RefuseModel:
    """It can never come: all the room there could be is too small."""

    key: str
    needed: MemoryAmount
    could_be: MemoryAmount
    is_crowded: bool
    """Memory would do, but every place is taken by a pinned model."""


@dataclass(frozen=True, slots=True)
class WaitForChange:
    """There is nothing to do before that time, or before something changes."""

    until: float | None = None


MemoryDecision = LoadModel | EvictModels | KeepModel | RefuseModel | WaitForChange


def decide(
    stays: Sequence[LoadedState],
    wishes: Sequence[WaitingModel],
    free: MemoryAmount,
    house: MemoryLimits,
    now: float,
) -> MemoryDecision:
    """Return the next thing to do; ask again when it is begun, until it is to wait."""
    line = in_order(wishes)
    if not line:
        return next(
            (KeepModel(one.key) for one in stays if one.state == "draining"), WaitForChange()
        )
    head, claim = _decide_first(line[0], stays, free, house, now)
    if isinstance(head, WaitForChange):
        # Who fits beside what the first in line will take need not wait for it. What came later
        # than it is not counted on, or newcomers could put it off for ever.
        givers = [one for one in stays if one.is_leaving or _may_give_way(one, line[0])]
        left = free - _total_memory(givers).missing(claim)
        n_left = house.max_loaded_models - len(stays) - (not givers)
        for wish in line[1:]:
            option = _first_fit(wish, left) if n_left > 0 else None
            if option is not None:
                return LoadModel(wish.key, option)
    return head


def in_order(wishes: Sequence[WaitingModel]) -> list[WaitingModel]:
    """Return the wishes in the order in which they are served."""
    keys = {wish.key for wish in wishes}

    def rank(wish: WaitingModel) -> tuple[bool, float, str]:
        head_start_s = PERSON_FIRST_S if wish.is_interactive else 0.0
        return wish.after in keys, wish.since - head_start_s, wish.key

    return sorted(wishes, key=rank)


def _may_give_way(stay: LoadedState, wish: WaitingModel) -> bool:
    return stay.state == "ready" and not stay.is_pinned and stay.ready_at <= wish.since


def may_evict_at(stay: LoadedState, wish: WaitingModel, house: MemoryLimits) -> float:
    """Tell from when on a model may be asked to go for this wish."""
    wait_s = 0.0 if wish.is_interactive else house.max_wait_s
    due = max(wish.since + wait_s, stay.ready_at + max(wait_s, stay.load_s))
    if stay.is_busy:
        return due
    patience_s = min(stay.load_s, wait_s)
    if stay.is_leased:
        patience_s = house.max_wait_s
    return min(due, stay.last_used_at + patience_s)


def _decide_first(
    wish: WaitingModel,
    stays: Sequence[LoadedState],
    free: MemoryAmount,
    house: MemoryLimits,
    now: float,
) -> tuple[MemoryDecision, MemoryAmount]:
    """Find what brings the first in line nearer, and the room that it claims."""
    n_open = house.max_loaded_models - len(stays)
    option = _first_fit(wish, free) if n_open > 0 else None
    for options in (range(wish.n_good), range(wish.n_good, len(wish.options))):
        if option is not None and option in options:
            return LoadModel(wish.key, option), MemoryAmount()
        for i in options:
            if _fits_after_leaving(wish.options[i], stays, free, house):
                return WaitForChange(), wish.options[i]  # no more need go
        moves = [(_evict_for(wish, wish.options[i], stays, free, house, now), i) for i in options]
        possible = [(move, i) for move, i in moves if move is not None]
        if possible:
            # Of options that are worth waiting for, the one for which the least has to go.
            move, i = min(possible, key=lambda pair: _eviction_rank(pair[0], stays))
            return move, wish.options[i]
    return _refusal(wish, stays, free, house), MemoryAmount()


def _eviction_rank(
    move: EvictModels | WaitForChange, stays: Sequence[LoadedState]
) -> tuple[bool, int]:
    """Rank moves: those that can be made now come first, then those that clear less."""
    if isinstance(move, WaitForChange):
        return True, 0
    return False, _total_memory(one for one in stays if one.key in move.keys).total_bytes


def _first_fit(wish: WaitingModel, free: MemoryAmount) -> int | None:
    return next((i for i, room in enumerate(wish.options) if free.holds(room)), None)


def _missing(
    room: MemoryAmount, stays: Sequence[LoadedState], free: MemoryAmount, house: MemoryLimits
) -> tuple[MemoryAmount, int]:
    """Return the bytes and the places that will be missing when those that leave are gone."""
    leaving = [one for one in stays if one.is_leaving]
    n_missing = max(0, len(stays) - len(leaving) + 1 - house.max_loaded_models)
    return (free + _total_memory(leaving)).missing(room), n_missing


def _fits_after_leaving(
    room: MemoryAmount, stays: Sequence[LoadedState], free: MemoryAmount, house: MemoryLimits
) -> bool:
    missing, n_missing = _missing(room, stays, free, house)
    return not n_missing and not missing.total_bytes


def _evict_for(
    wish: WaitingModel,
    room: MemoryAmount,
    stays: Sequence[LoadedState],
    free: MemoryAmount,
    house: MemoryLimits,
    now: float,
) -> EvictModels | WaitForChange | None:
    """Find who goes for this layout; None: it would not be enough whoever goes."""
    missing, n_missing = _missing(room, stays, free, house)
    others = [one for one in stays if not one.is_leaving and not one.is_pinned]
    if choose_victims([_candidate(one, now) for one in others], missing, n_missing) is None:
        return None
    # A model that still loads for somebody can be asked only when it is there.
    times = {one.key: may_evict_at(one, wish, house) for one in others if one.state == "ready"}
    times |= {o.key: now for o in others if o.state == "loading" and not o.n_waiting}
    for time in (now, *sorted(t for t in times.values() if t > now)):
        willing = [_candidate(o, now) for o in others if times.get(o.key, time + 1) <= time]
        going = choose_victims(willing, missing, n_missing)
        if going is not None:
            return EvictModels(going) if time <= now else WaitForChange(time)
    return WaitForChange()


def _candidate(stay: LoadedState, now: float) -> EvictionCandidate:
    idle_s = max(0.0, now - stay.last_used_at)
    return EvictionCandidate(
        stay.key, stay.room, stay.load_s, idle_s, stay.is_busy, stay.is_leased, stay.is_pinned
    )


def _refusal(
    wish: WaitingModel, stays: Sequence[LoadedState], free: MemoryAmount, house: MemoryLimits
) -> RefuseModel:
    could_be = free + _total_memory(one for one in stays if one.is_leaving or not one.is_pinned)
    needed = wish.options[-1]
    n_pinned = sum(one.is_pinned and not one.is_leaving for one in stays)
    is_crowded = could_be.holds(needed) and n_pinned >= house.max_loaded_models
    return RefuseModel(wish.key, needed, could_be, is_crowded)


def _total_memory(stays: Iterable[LoadedState]) -> MemoryAmount:
    return sum((one.room for one in stays), MemoryAmount())
