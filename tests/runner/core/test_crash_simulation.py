"""The policy for crash suspects, without processes: kills at random times.

A life is a process: it takes the items in the order and company that the policy says, until it is
killed from outside. Times are parts of an item's time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

import pytest

from paddock.runner.core.other_runs.crash_suspects import CrashHistory

N_ITEMS, N_KILLS, N_PARALLEL, MAX_ATTEMPTS = 300, 48, 6, 3
MOST_LIVES = 500


@dataclass
class Simulation:
    """A job of items; `kill_every` is the mean time between kills, in an item's time."""

    seed: int
    kill_every: float
    n_kills: int = N_KILLS
    seconds: float = 0.0
    quarantined: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.left = set(range(N_ITEMS))
        self.crashes: dict[int, list[str]] = {item: [] for item in self.left}
        self.suspects: dict[str, set[int]] = {}
        """By crashed run: what was in flight, and is not done yet."""

    @property
    def factor(self) -> float:
        """By how much it took longer than undisturbed."""
        return self.seconds / (N_ITEMS / N_PARALLEL)

    def done(self) -> Simulation:
        """Run processes until nothing is left; return the simulation."""
        for number in range(MOST_LIVES):
            if not self._life(f"run{number}"):
                return self
        raise AssertionError(f"{len(self.left)} items are left after {MOST_LIVES} lives")

    def _histories(self) -> dict[int, CrashHistory]:
        n_kills = sum(not suspects for suspects in self.suspects.values())
        return {
            item: CrashHistory(len(runs), tuple(runs), n_kills=n_kills)
            for item in sorted(self.left)
            for runs in [self.crashes[item]]
        }

    def _life(self, run: str) -> bool:
        """Run one process; return whether it died."""
        histories = self._histories()
        for item, known in histories.items():
            if known.is_deadly(N_PARALLEL, MAX_ATTEMPTS):
                self.quarantined.add(item)
                self.left.discard(item)
        kill_at = float("inf")
        if self.n_kills:
            kill_at = self.random.expovariate(1 / self.kill_every)
        in_flight, seconds = self._work(histories, kill_at)
        self.seconds += seconds
        if not in_flight:
            return False
        self.n_kills -= 1
        self.suspects[run] = in_flight
        for item in in_flight:
            self.crashes[item].append(run)
        return True

    def _work(
        self, histories: Mapping[int, CrashHistory], kill_at: float
    ) -> tuple[set[int], float]:
        """Return what was in flight at the death, and when that was."""
        now = 0.0
        order = sorted(self.left, key=lambda item: len(histories[item].runs))
        for _, group in groupby(order, key=lambda item: len(histories[item].runs)):
            waiting = list(group)
            most = min(N_PARALLEL, histories[waiting[0]].n_together(N_PARALLEL))
            flying: list[tuple[float, int]] = []
            while waiting or flying:
                while waiting and len(flying) < most:
                    item = waiting.pop(0)
                    heapq.heappush(flying, (now + self.random.uniform(0.7, 1.3), item))
                ends, item = flying[0]
                if ends >= kill_at:
                    return {item for _, item in flying}, kill_at
                heapq.heappop(flying)
                now = ends
                self._end(item)
        return set(), now

    def _end(self, item: int) -> None:
        self.left.discard(item)
        for run in self.crashes[item]:
            self.suspects[run].discard(item)


@pytest.mark.parametrize("kill_every", [0.5, 1.0, 1.5, 4.0])
def test_kills_from_outside_quarantine_nothing_and_cost_half_of_the_time_at_most(
    kill_every: float,
) -> None:
    found = [Simulation(seed, kill_every).done() for seed in range(20)]
    assert [simulation.seed for simulation in found if simulation.quarantined] == []
    # What was in flight is lost in any case: that alone is 1.4.
    assert sum(simulation.factor for simulation in found) / len(found) < 1.5
