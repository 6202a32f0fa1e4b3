"""Progress of a run, counted from its events: done, running and left, speed, time to go.

Each event costs constant time. A lock lets the drawing thread read while the run goes on.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from paddock.engine.system import units
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import counted

from . import printing
from .events import ModelCall, Observer
from .item_states import APART, ItemState

if TYPE_CHECKING:
    from paddock.engine.memory.pool_stats import PoolStats


Clock = Callable[[], float]
_RATE_WINDOW_S = 10.0  # long enough to be steady, short enough to follow a change of model


class TokenRate(Struct, eq=False):
    _clock: Clock
    _seconds: deque[tuple[int, int]] = field(default_factory=deque)

    def add(self, n: int) -> None:
        second = int(self._clock())
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + n)
        else:
            self._seconds.append((second, n))
        while self._seconds[0][0] < second - _RATE_WINDOW_S:
            self._seconds.popleft()

    def rate(self) -> float | None:
        now = self._clock()
        recent = [(second, n) for second, n in self._seconds if second >= now - _RATE_WINDOW_S]
        if not recent:
            return None
        # At least a second: else the first tokens would look like thousands a second.
        return sum(n for _, n in recent) / max(1.0, now - recent[0][0])


class StepProgress(Struct):
    name: str
    meter: TokenRate
    total: int | None = None
    """None until it is known."""
    counts: Counter[ItemState] = field(default_factory=Counter)
    """Items that have ended by state, with those that were fresh at the start."""
    running: dict[str, str | None] = field(default_factory=dict)
    ends_at: float | None = None
    """By the clock, as estimated; None: not known."""
    since: float | None = None
    until: float | None = None

    @property
    def n_ended(self) -> int:
        return self.counts.total() - self.counts[ItemState.FRESH]

    @property
    def n_to_do(self) -> int | None:
        """Items that had to be done at the start."""
        return None if self.total is None else max(0, self.total - self.counts[ItemState.FRESH])

    @property
    def n_left(self) -> int | None:
        n_to_do = self.n_to_do
        return None if n_to_do is None else max(0, n_to_do - self.n_ended)

    @property
    def is_over(self) -> bool:
        return self.total is not None and self.counts.total() >= self.total

    def seconds(self, now: float) -> float:
        return 0.0 if self.since is None else (self.until or now) - self.since

    def seconds_left(self, now: float) -> float | None:
        return None if self.ends_at is None or self.is_over else max(0.0, self.ends_at - now)


class RunProgress(Observer):
    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.run = ""
        self.pipeline = ""
        self.steps: dict[str, StepProgress] = {}
        self.meter = TokenRate(clock)
        self.since = clock()
        self.stats: Callable[[], PoolStats] | None = None

    def pool(self, stats: Callable[[], PoolStats]) -> None:
        self.stats = stats

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        with self.lock:
            self.run = run
            self.pipeline = pipeline
            self.since = self.clock()
            for name in steps:
                self._step(name)

    def step(self, step: str, total: int | None, fresh: int) -> None:
        with self.lock:
            pace = self._step(step)
            pace.total, pace.counts[ItemState.FRESH] = total, fresh
            self._mark_time(pace)

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        with self.lock:
            pace = self._step(step)
            if state == "running":
                pace.running[key] = detail
            else:
                pace.running.pop(key, None)
                pace.counts[state] += 1
            if not key and pace.total is None:
                pace.total = 1  # a step outside of blocks is one item
            self._mark_time(pace)

    def time_left(self, step: str, seconds: float) -> None:
        with self.lock:
            self._step(step).ends_at = self.clock() + seconds

    def call(self, step: str, key: str, call: ModelCall) -> None:
        """Count a call's tokens if several steps run: `tokens` does not know their step."""
        if not call.is_cached and len(self._at_work()) > 1:
            with self.lock:
                self._step(step).meter.add(call.usage.completion_tokens)

    def tokens(self, n: int) -> None:
        """Count tokens as they are decoded, for the running step if there is only one."""
        with self.lock:
            self.meter.add(n)
            at_work = self._at_work()
            if len(at_work) == 1:
                at_work[0].meter.add(n)

    def _step(self, name: str) -> StepProgress:
        if name not in self.steps:
            self.steps[name] = StepProgress(name, TokenRate(self.clock))
        return self.steps[name]

    def _at_work(self) -> list[StepProgress]:
        return [pace for pace in self.steps.values() if pace.running]

    def _mark_time(self, pace: StepProgress) -> None:
        if pace.since is None:
            pace.since = self.clock()
        pace.until = self.clock() if pace.is_over else None


def failure_line(step: str, key: str, state: str, detail: str | None) -> str:
    return printing.with_cause(f"{step}: {state} {key}" if key else f"{step}: {state}", detail)


def to_do_text(pace: StepProgress) -> str:
    """Return how much a step has to do: `16 items, 12 fresh, 4 to do`."""
    n_fresh = pace.counts[ItemState.FRESH]
    rest = f", {n_fresh:,} fresh, {pace.n_to_do:,} to do" if n_fresh else ""
    return f"{counted(pace.total or 0, 'item')}{rest}"


def progress_text(pace: StepProgress, now: float) -> str:
    """Return a step's progress: `2 of 5 done, 3 running, 45 tokens/s, about 40 s to go`."""
    parts = [
        f"{pace.counts[ItemState.DONE]:,} of {pace.n_to_do:,} done" if pace.total else "running"
    ]
    parts += _counts_apart(pace)
    if pace.running:
        parts.append(f"{len(pace.running)} running")
    rate, left_s = pace.meter.rate(), pace.seconds_left(now)
    if rate is not None:
        parts.append(f"{units.speed(rate)} tokens/s")
    if left_s is not None:
        parts.append(f"about {units.duration(max(1.0, left_s))} to go")
    return ", ".join(parts)


def _counts_apart(pace: StepProgress) -> list[str]:
    return [f"{pace.counts[state]:,} {state}" for state in APART if pace.counts[state]]


def end_text(pace: StepProgress, now: float) -> str:
    """Return how a step ended: `4 done, 1 quarantined in 12 s`."""
    done = [f"{n:,} done"] if (n := pace.counts[ItemState.DONE]) else []
    summary = ", ".join(done + _counts_apart(pace))
    if not summary:
        return "nothing to do"
    if pace.total == 1 and pace.n_ended == 1:
        summary = summary.split(" ", 1)[1]
    return f"{summary} in {units.duration(pace.seconds(now))}"
