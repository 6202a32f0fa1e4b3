"""Leases on the daemon: what holds it, and since when it is free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from paddock.engine.system.light_dataclasses import dataclass, field

FIRST_S = 10.0  # the run that started the daemon takes its lease within this time


@dataclass(eq=False)
class Lease:
    """A run's claim that keeps the daemon alive."""

    id: str
    pid: int
    pipeline: str
    since: float

    def as_json(self, now: float) -> dict[str, Any]:
        held_s = round(now - self.since, 1)
        return {"pipeline": self.pipeline, "pid": self.pid, "held_s": held_s}


@dataclass
class Leases:
    """Held leases and open requests: who uses the daemon, how long it has been idle."""

    clock: Callable[[], float] = time.monotonic
    held: list[Lease] = field(default_factory=list)
    n_requests: int = 0
    is_retired: bool = False
    """Another version serves now: this daemon ends when its leases are over."""
    _quiet_since: float = 0.0

    def __post_init__(self) -> None:
        self._quiet_since = self._began = self.clock()

    @contextmanager
    def lease(self, id_: str, pid: int, pipeline: str) -> Iterator[Lease]:
        lease = Lease(id_, pid, pipeline, self.clock())
        self.held.append(lease)
        try:
            yield lease
        finally:
            self.held.remove(lease)
            self._quiet_since = self.clock()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count an open request inside the block."""
        self.n_requests += 1
        try:
            yield
        finally:
            self.n_requests -= 1
            self._quiet_since = self.clock()

    @property
    def quiet_s(self) -> float:
        """Return the seconds since it was last used; 0 while it is in use."""
        return 0.0 if self.held or self.n_requests else self.clock() - self._quiet_since

    def is_over(self, idle_s: float) -> bool:
        """Return whether the daemon can end: idle for `idle_s`, or retired and unused."""
        if self.held or self.n_requests:
            return False
        if self.is_retired:
            return True
        is_new = self.clock() - self._began < FIRST_S and self._quiet_since == self._began
        return not is_new and self.quiet_s >= idle_s
