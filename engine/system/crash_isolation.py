"""Crash suspects: work that was in flight when a process died, and with how many others it runs.

Most suspects were only in flight with the one that kills, or the kill came from outside. So after
one crash as many run together as ever; then half as many after each further one, until one runs
alone. Where processes are often killed from outside, work also dies often by chance: it may have
more crashes before it runs with fewer others. A run's items keep their crashes in the ledger
(`runner.core.other_runs.crash_suspects`), requests of a model theirs in memory.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from paddock.engine.system.records import Struct, field

from .units import DAY_S

UNLIMITED = sys.maxsize
KILLS_COUNT_FOR_S = DAY_S
PATIENCE_S = 30.0
"""How long a suspect lets more urgent work pass."""


def n_by_chance(n_kills: int) -> int:
    """Return how many crashes work may have by chance: halvings of the kills from outside."""
    return n_kills.bit_length()


def n_together(n_parallel: int, n_crashes: int, n_kills: int = 0) -> int:
    """Return with how many others a suspect may run, itself included.

    >>> [n_together(6, n) for n in range(1, 5)], n_together(6, 3, n_kills=3)
    ([6, 3, 1, 1], 6)
    """
    return max(1, n_parallel >> max(0, n_crashes - 1 - n_by_chance(n_kills)))


class SuspectRoom(Struct, eq=False):
    """Where work runs together, a suspect with as much other work as it may. Lives in one loop."""

    _inside: list[int] = field(default_factory=list)
    """Of each that is inside, how many may be there with it, itself included."""
    _waiting: list[tuple[float, int]] = field(default_factory=list)
    """When each that waits came, and its rank."""
    _has_changed: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def entered(self, most: int = UNLIMITED, rank: int = 0) -> AsyncIterator[None]:
        """Enter once at most `most` are inside then, in the order of arrival.

        Those of a lower rank pass, but not what has waited for `PATIENCE_S`.
        """
        came = time.monotonic()
        self._waiting.append((came, rank))
        try:
            while any(
                other < came and (its_rank <= rank or time.monotonic() - other > PATIENCE_S)
                for other, its_rank in self._waiting
            ) or len(self._inside) >= min([most, *self._inside]):
                self._has_changed.clear()
                await self._has_changed.wait()
            self._inside.append(most)
        finally:
            self._waiting.remove((came, rank))
            self._has_changed.set()
        try:
            yield
        finally:
            self._inside.remove(most)
            self._has_changed.set()


class Crash(Struct, eq=False):
    n_suspects: int
    n_left: int = 0
    """Suspects that were not done since; with none left, it was killed from outside."""

    def __post_init__(self) -> None:
        self.n_left = self.n_suspects


class CrashRecord(Struct, eq=False):
    """Crashes of one model's processes, and the room of its requests. Lives in one loop."""

    room: SuspectRoom = field(default_factory=SuspectRoom)
    _kills: list[float] = field(default_factory=list)

    def _n_kills(self) -> int:
        now = time.monotonic()
        self._kills = [at for at in self._kills if now - at < KILLS_COUNT_FOR_S]
        return len(self._kills)

    def n_together(self, crashes: Sequence[Crash]) -> int:
        """Return with how many others a request may run after these crashes."""
        if not crashes:
            return UNLIMITED
        return n_together(crashes[0].n_suspects, len(crashes), self._n_kills())

    def is_deadly(self, crashes: Sequence[Crash], max_attempts: int) -> bool:
        """Return whether a request is given up: it was alone in that many crashes."""
        n_alone = sum(crash.n_suspects == 1 for crash in crashes)
        return n_alone >= max_attempts + n_by_chance(self._n_kills())

    def done(self, crashes: Sequence[Crash]) -> None:
        for crash in crashes:
            crash.n_left -= 1
            if not crash.n_left:
                self._kills.append(time.monotonic())
