"""Load and eviction policy: which model is loaded next and which ones go. Pure.

No clock, no process, no memory is read. Models that are wanted at the same time take turns: while
B waits, A goes on until B's first request has waited `max_wait_s` and A has had a turn of that
length (at least as long as its loading took, so that half of the time is work); then A drains, and
later B gives way in the same manner. A model that falls idle meanwhile is kept for as long as
reloading it would take: the ski-rental rule, never worse than twice the optimum. An interactive
request cuts the waiting short, and goes before others that have not waited much longer.

Victims are chosen by GreedyDual-Size with the age in place of the inflation (Cao and Irani,
"Cost-aware WWW proxy caching", 1997): a model that has been idle twice as long is taken to be half
as likely to be wanted next, so the expected cost of its eviction is `load_s / idle_s`, divided by
the missing bytes that it frees. The cheapest go until there is room; a victim that turns out not
to be needed loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from paddock.engine.system.records import Struct

from .device_memory import MemoryAmount
from .pool_stats import ModelState

_JUST_USED_S = 0.1  # below it, ages say nothing, and nothing is divided by zero


# A job that has waited so long is no longer put off for people, or it would wait for ever.
PERSON_FIRST_S = 60.0


class LoadedState(Struct, frozen=True):
    key: str
    state: ModelState
    room: MemoryAmount
    load_s: float
    n_users: int = 0
    n_waiting: int = 0
    ready_at: float = 0.0
    last_used_at: float = 0.0
    is_pinned: bool = False

    @property
    def is_leaving(self) -> bool:
        """Whether its memory will come free by itself."""
        return self.state in ("draining", "unloading")

    @property
    def is_busy(self) -> bool:
        return bool(self.n_users or self.n_waiting)

    def idle_s(self, now: float) -> float:
        return max(_JUST_USED_S, now - self.last_used_at)


def choose_victims(
    loaded: Sequence[LoadedState], missing: MemoryAmount, n_places: int, now: float
) -> tuple[str, ...] | None:
    """Return the models to evict so that `missing` bytes and `n_places` places come free.

    Busy ones only where it cannot be avoided; pinned ones never. None: all together would not be
    enough, so none should go.
    """
    free = [model for model in loaded if not model.is_pinned]
    for spares_busy in (True, False):
        willing = [model for model in free if not (spares_busy and model.is_busy)]
        if not _is_enough(willing, missing, n_places):
            continue
        going: list[LoadedState] = []
        for model in sorted(willing, key=lambda each: _eviction_order(each, missing, now)):
            if _is_enough(going, missing, n_places):
                break
            going.append(model)
        for model in sorted(going, key=lambda each: -each.load_s / each.idle_s(now)):
            others = [other for other in going if other is not model]
            if _is_enough(others, missing, n_places):
                going = others
        return tuple(victim.key for victim in going)
    return None


def _eviction_order(
    model: LoadedState, missing: MemoryAmount, now: float
) -> tuple[float, float, str]:
    gives = model.room.within(missing).total_bytes
    price = model.load_s / model.idle_s(now) / max(gives, 1)
    if missing.total_bytes and not gives:
        price = math.inf
    return price, model.last_used_at, model.key


def _is_enough(going: Sequence[LoadedState], missing: MemoryAmount, n_places: int) -> bool:
    return len(going) >= n_places and _total_memory(going).holds(missing)


class WaitingModel(Struct, frozen=True):
    key: str
    since: float
    is_interactive: bool
    options: tuple[MemoryAmount, ...]
    """What it takes, the best layout first."""
    n_good: int
    """So many of the options are worth waiting for; the rest is a last resort."""
    after: str = ""
    """The model that it was evicted for: it is not loaded again before that one was."""


class MemoryLimits(Struct, frozen=True):
    max_loaded_models: int
    max_wait_s: float


class LoadModel(Struct, frozen=True):
    key: str
    option: int


class EvictModels(Struct, frozen=True):
    """Unload these: the idle ones at once, the busy ones when their requests have ended."""

    keys: tuple[str, ...]


class KeepModel(Struct, frozen=True):
    """Stop draining it: its memory is not needed after all."""

    key: str


class RefuseModel(Struct, frozen=True):
    """It can never be loaded: all the memory that could come free is too little."""

    key: str
    needed: MemoryAmount
    could_be: MemoryAmount
    is_crowded: bool
    """Memory would do, but every place is taken by a pinned model."""


class WaitForChange(Struct, frozen=True):
    """Do nothing before that time, or before something changes."""

    until: float | None = None


MemoryDecision = LoadModel | EvictModels | KeepModel | RefuseModel | WaitForChange


def decide(
    loaded: Sequence[LoadedState],
    waiting: Sequence[WaitingModel],
    free: MemoryAmount,
    limits: MemoryLimits,
    now: float,
) -> MemoryDecision:
    """Return the next decision; ask again after each, until it is to wait."""
    queue = in_order(waiting)
    if not queue:
        return next(
            (KeepModel(model.key) for model in loaded if model.state == "draining"), WaitForChange()
        )
    head, claim = _decide_first(queue[0], loaded, free, limits, now)
    if isinstance(head, WaitForChange):
        # A model that fits beside what the first one will take need not wait for it. Models that
        # came later than the first are not counted on, or newcomers could put it off for ever.
        leaving = [
            model
            for model in loaded
            if model.is_leaving
            or (model.state == "ready" and not model.is_pinned and model.ready_at <= queue[0].since)
        ]
        left = free - _total_memory(leaving).missing(claim)
        n_left = limits.max_loaded_models - len(loaded) - (not leaving)
        for waiting_model in queue[1:]:
            option = _first_fit(waiting_model, left) if n_left > 0 else None
            if option is not None:
                return LoadModel(waiting_model.key, option)
    return head


def in_order(waiting: Sequence[WaitingModel]) -> list[WaitingModel]:
    keys = {waiting_model.key for waiting_model in waiting}

    def rank(waiting_model: WaitingModel) -> tuple[bool, float, str]:
        head_start_s = PERSON_FIRST_S if waiting_model.is_interactive else 0.0
        return waiting_model.after in keys, waiting_model.since - head_start_s, waiting_model.key

    return sorted(waiting, key=rank)


def may_evict_at(model: LoadedState, waiting_model: WaitingModel, limits: MemoryLimits) -> float:
    wait_s = 0.0 if waiting_model.is_interactive else limits.max_wait_s
    due = max(waiting_model.since + wait_s, model.ready_at + max(wait_s, model.load_s))
    if model.is_busy:
        return due
    return min(due, model.last_used_at + min(model.load_s, wait_s))


def _decide_first(
    waiting_model: WaitingModel,
    loaded: Sequence[LoadedState],
    free: MemoryAmount,
    limits: MemoryLimits,
    now: float,
) -> tuple[MemoryDecision, MemoryAmount]:
    """Return the next step towards the first waiting model, and the memory that it claims."""
    n_open = limits.max_loaded_models - len(loaded)
    option = _first_fit(waiting_model, free) if n_open > 0 else None
    for options in (
        range(waiting_model.n_good),
        range(waiting_model.n_good, len(waiting_model.options)),
    ):
        if option is not None and option in options:
            return LoadModel(waiting_model.key, option), MemoryAmount()
        for i in options:
            missing, n_missing = _missing(waiting_model.options[i], loaded, free, limits)
            if not n_missing and not missing.total_bytes:
                return WaitForChange(), waiting_model.options[i]  # no more evictions are needed
        moves = [
            (_evict_for(waiting_model, waiting_model.options[i], loaded, free, limits, now), i)
            for i in options
        ]
        possible = [(move, i) for move, i in moves if move is not None]
        if possible:
            # Of options that are worth waiting for, the one for which the least is evicted.
            move, i = min(possible, key=lambda pair: _eviction_rank(pair[0], loaded))
            return move, waiting_model.options[i]
    could_be = free + _total_memory(
        model for model in loaded if model.is_leaving or not model.is_pinned
    )
    needed = waiting_model.options[-1]
    n_pinned = sum(model.is_pinned and not model.is_leaving for model in loaded)
    is_crowded = could_be.holds(needed) and n_pinned >= limits.max_loaded_models
    refusal = RefuseModel(waiting_model.key, needed, could_be, is_crowded)
    return refusal, MemoryAmount()


def _eviction_rank(
    move: EvictModels | WaitForChange, loaded: Sequence[LoadedState]
) -> tuple[bool, int]:
    """Rank decisions: those that can be made now come first, then those that free less."""
    if isinstance(move, WaitForChange):
        return True, 0
    return False, _total_memory(model for model in loaded if model.key in move.keys).total_bytes


def _first_fit(waiting_model: WaitingModel, free: MemoryAmount) -> int | None:
    return next((i for i, room in enumerate(waiting_model.options) if free.holds(room)), None)


def _missing(
    room: MemoryAmount, loaded: Sequence[LoadedState], free: MemoryAmount, limits: MemoryLimits
) -> tuple[MemoryAmount, int]:
    leaving = [model for model in loaded if model.is_leaving]
    n_missing = max(0, len(loaded) - len(leaving) + 1 - limits.max_loaded_models)
    return (free + _total_memory(leaving)).missing(room), n_missing


def _evict_for(
    waiting_model: WaitingModel,
    room: MemoryAmount,
    loaded: Sequence[LoadedState],
    free: MemoryAmount,
    limits: MemoryLimits,
    now: float,
) -> EvictModels | WaitForChange | None:
    """Choose the victims for this layout; None: all together would not be enough."""
    missing, n_missing = _missing(room, loaded, free, limits)
    others = [model for model in loaded if not model.is_leaving and not model.is_pinned]
    if choose_victims(others, missing, n_missing, now) is None:
        return None
    # When models may be evicted; one that requests wait for only once it is loaded.
    ready = (model for model in others if model.state == "ready")
    times = {model.key: may_evict_at(model, waiting_model, limits) for model in ready}
    times = times | {o.key: now for o in others if o.state == "loading" and not o.n_waiting}
    for time in sorted({max(now, time) for time in (now, *times.values())}):
        willing = [o for o in others if times.get(o.key, time + 1) <= time]
        going = choose_victims(willing, missing, n_missing, now)
        if going is not None:
            return EvictModels(going) if time <= now else WaitForChange(time)
    return WaitForChange()


def _total_memory(loaded: Iterable[LoadedState]) -> MemoryAmount:
    return sum((model.room for model in loaded), MemoryAmount())
