"""The policy for crash suspects, without processes: kills at random times, documents that kill.

    python -m tests.runner.core.test_crash_simulation --seeds 2000

A life is a process: it takes the items in the order and company that the policy says, until it is
killed from outside, or by a deadly item some way through it. Times are parts of an item's time.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

import pytest

from paddock.runner.core.other_runs.crash_suspects import CrashHistory

N_ITEMS, N_KILLS, MAX_ATTEMPTS = 300, 48, 3
MOST_LIVES = 500


@dataclass
class Simulation:
    """A job of items; `kill_every` is the mean time between kills, in an item's time."""

    seed: int
    parallel: int = 6
    n_deadly: int = 0
    n_kills: int = N_KILLS
    kill_every: float = 1.0
    seconds: float = 0.0
    n_deaths: int = 0
    """Caused by deadly items."""
    quarantined: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.deadly = {
            item: self.random.choice((0.05, 0.5, 0.95))
            for item in self.random.sample(range(N_ITEMS), self.n_deadly)
        }
        """Which items kill, and when."""
        self.left = set(range(N_ITEMS))
        self.crashes: dict[int, list[str]] = {item: [] for item in self.left}
        self.suspects: dict[str, set[int]] = {}
        """By crashed run: what was in flight, and is not done yet."""

    @property
    def factor(self) -> float:
        """By how much it took longer than undisturbed."""
        return self.seconds / (N_ITEMS / self.parallel)

    @property
    def wrongly_quarantined(self) -> set[int]:
        return self.quarantined - self.deadly.keys()

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
            if known.is_deadly(self.parallel, MAX_ATTEMPTS):
                self.quarantined.add(item)
                self.left.discard(item)
        kill_at = float("inf")
        if self.n_kills:
            kill_at = self.random.expovariate(1 / self.kill_every)
        in_flight, seconds, is_own_death = self._work(histories, kill_at)
        self.seconds += seconds
        if not in_flight:
            return False
        if is_own_death:
            self.n_deaths += 1
        else:
            self.n_kills -= 1
        self.suspects[run] = in_flight
        for item in in_flight:
            self.crashes[item].append(run)
        return True

    def _work(
        self, histories: Mapping[int, CrashHistory], kill_at: float
    ) -> tuple[set[int], float, bool]:
        """Return what was in flight at the death, when that was, and whether an item caused it."""
        now = 0.0
        order = sorted(self.left, key=lambda item: len(histories[item].runs))
        for _, group in groupby(order, key=lambda item: len(histories[item].runs)):
            waiting = list(group)
            most = min(self.parallel, histories[waiting[0]].n_together(self.parallel))
            flying: list[tuple[float, int]] = []
            while waiting or flying:
                while waiting and len(flying) < most:
                    item = waiting.pop(0)
                    takes = self.random.uniform(0.7, 1.3) * self.deadly.get(item, 1.0)
                    heapq.heappush(flying, (now + takes, item))
                ends, item = flying[0]
                if ends >= kill_at or item in self.deadly:
                    return {item for _, item in flying}, min(ends, kill_at), ends < kill_at
                heapq.heappop(flying)
                now = ends
                self._end(item)
        return set(), now, False

    def _end(self, item: int) -> None:
        self.left.discard(item)
        for run in self.crashes[item]:
            self.suspects[run].discard(item)


@pytest.mark.parametrize("kill_every", [0.5, 1.0, 1.5, 4.0])
def test_kills_from_outside_quarantine_nothing_and_cost_half_of_the_time_at_most(
    kill_every: float,
) -> None:
    found = [Simulation(seed, kill_every=kill_every).done() for seed in range(20)]
    assert [simulation.seed for simulation in found if simulation.quarantined] == []
    # What was in flight is lost in any case: that alone is 1.4.
    assert sum(simulation.factor for simulation in found) / len(found) < 1.5


def main() -> None:
    """Print a table of many seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--parallel", type=int, nargs="*", default=[4, 6, 16, 32])
    given = parser.parse_args()
    n_seeds = given.seeds
    print("parallel  every  deadly  factor   kills  deaths   wrong")
    for parallel in given.parallel:
        for n_kills, kill_every in ((0, 1.0), (48, 0.5), (48, 1.0), (48, 1.5), (48, 4.0)):
            for n_deadly in (0, 1, 2):
                runs = [
                    Simulation(seed, parallel, n_deadly, n_kills, kill_every).done()
                    for seed in range(n_seeds)
                ]
                assert all(run.deadly.keys() <= run.quarantined for run in runs)
                factor = sum(run.factor for run in runs) / n_seeds
                kills = sum(n_kills - run.n_kills for run in runs) / n_seeds
                deaths = sum(run.n_deaths for run in runs) / n_seeds
                wrong = sum(len(run.wrongly_quarantined) for run in runs)
                print(
                    f"{parallel:>8}{kill_every if n_kills else '-':>7}{n_deadly:>8}"
                    f"{factor:>8.2f}{kills:>8.1f}{deaths:>8.1f}{wrong:>8}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
