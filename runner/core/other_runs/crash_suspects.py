"""Items that crash the process: suspects run last and with fewer others, deadly ones are left out.

The ledger notes each item before its steps begin, and removes the note however the item ends:
done, failed, cancelled, stopped. A note of a run that is gone therefore names an item that was in
flight when the process was killed: a crash suspect. Suspects run after the others, those with the
fewest crashes first, with as many others as `engine.system.crash_isolation` says. What is done is a
suspect no longer. An item is quarantined once it died alone `max_attempts` - 1 times, and once at
least.

A crashed run without suspects, since all that was in flight has been done by another, was killed
from outside. Where that happens often, an item also dies often by chance: it may have more crashes
before it runs with fewer others, and dies more often alone before it is quarantined. Figures of
what this costs and finds: `tests/runner/core/test_crash_simulation.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf

from paddock.engine.system.crash_isolation import (
    KILLS_COUNT_FOR_S,
    UNLIMITED,
    n_by_chance,
    n_together,
)
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import listed
from paddock.runner.ledger.entries import InFlightRow, LedgerError
from paddock.runner.ledger.item_events import EventKind
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import DIED, RunStore, run_status

from ..failures import StepFailed
from ..traces.block_work import ItemWork
from ..traces.scopes import ItemKey

GIVEN_UP = ""
"""The run of a note without a crash: the item was quarantined for its crashes until then."""


class RepeatedCrash(StepFailed):
    """The process died too often while it worked on this item."""

    def __init__(self, step: str, n_deaths: int) -> None:
        times = "once" if n_deaths == 1 else f"{n_deaths} times"
        super().__init__(
            step,
            f"the run's process died {times} while it worked on this (killed, often for lack of "
            f"memory, or crashed); `--retry-failed` tries it again",
        )

    def __str__(self) -> str:
        """Return the sentence without a step: none is known to be the cause."""
        return self.reason


class CrashHistory(Struct, frozen=True):
    n_deaths: int
    """Crashes of its own; 0: an item within it is a suspect, or it was quarantined before."""
    runs: tuple[str, ...]
    """The runs that crashed while they worked on it, or on an item within it."""
    was_given_up: bool = False
    """Whether it, or an item within it, was quarantined for crashes before."""
    n_kills: int = 0
    """How many runs were killed from outside lately."""

    def n_together(self, n_parallel: int) -> int:
        """Return with how many others it may run, itself included, of `n_parallel` at most."""
        return n_together(n_parallel, len(self.runs), self.n_kills) if not self.was_given_up else 1

    def is_deadly(self, n_parallel: int, max_attempts: int) -> bool:
        """Return whether it is quarantined now: the last of its deaths it had alone.

        >>> [CrashHistory(n, ("owl",) * n).is_deadly(6, 3) for n in (4, 5)]
        [False, True]
        >>> [CrashHistory(n, ("owl",) * n).is_deadly(6, 1) for n in (3, 4)]
        [False, True]
        """
        n_halvings = 0 if self.was_given_up else n_parallel.bit_length() - 1
        max_attempts = max(max_attempts, 2 if n_halvings else 1)  # the first death alone is the 2nd
        # Of 2,400 simulated runs with 16 or 32 in parallel and a kill in each 1 to 1.5 times of an
        # item: with 2 for each, 49 innocent items were quarantined; with 3, 4.
        return self.n_deaths >= max_attempts + n_halvings + 3 * n_by_chance(self.n_kills)


def max_together(known: CrashHistory | None, parallel: int) -> int:
    """Return with how many others an item may run, itself included, by its crashes."""
    most = UNLIMITED if known is None else known.n_together(parallel)
    return UNLIMITED if most >= parallel > 1 else most


class CrashSuspects(Struct, eq=False):
    """The notes of this run and of crashed runs. They belong to the run's event loop."""

    _ledger: Ledger
    _run: str
    _notes: dict[ItemKey, list[InFlightRow]] = field(default_factory=dict)
    _within: dict[ItemKey, set[str]] = field(default_factory=dict)
    _n_kills: int = 0
    _begun: dict[ItemKey, int] = field(default_factory=dict)
    """Numbers of events."""
    _is_stopped: bool = False
    _has_looked: bool = False

    def look_once(self) -> None:
        if self._has_looked:
            return
        attempts = self._ledger.in_flight()
        for row in attempts:
            if row.run == self._run:
                continue
            self._notes.setdefault((row.scope, row.key), []).append(row)
            if row.around_scope is not None and row.around_key is not None:
                self._within.setdefault((row.around_scope, row.around_key), set()).add(row.run)
        if attempts:
            self._n_kills = self._kills()
        self._has_looked = True

    def _kills(self) -> int:
        rows = RunStore(self._ledger).running_without_items_begun(time.time() - KILLS_COUNT_FOR_S)
        return sum(row.run != self._run and run_status(row, self._ledger) == DIED for row in rows)

    def of(self, scope_id: str, item: ItemWork) -> CrashHistory | None:
        """Return an item's crashes; None: it is no suspect.

        An item that changed since, or that the same run recorded, is no suspect.
        """
        place = (scope_id, item.key)
        recorded = item.unchanged_entry.run if item.unchanged_entry is not None else None
        notes = self._notes.get(place, ())
        rows = [row for row in notes if row.hash == item.hash and row.run != recorded]
        within = self._within.get(place, set())
        if not (rows or within):
            return None
        given_up_at = max((row.at for row in rows if row.run == GIVEN_UP), default=-inf)
        crashes = {row.run for row in rows if row.at > given_up_at}
        return CrashHistory(
            # A crash of a nested item is counted there.
            n_deaths=len(crashes - within),
            runs=tuple(sorted(crashes | (within - {GIVEN_UP}))),
            was_given_up=given_up_at > -inf or GIVEN_UP in within,
            n_kills=self._n_kills,
        )

    def by_crashes(
        self, scope_id: str, items: Sequence[ItemWork], parallel: int
    ) -> Iterator[tuple[int, list[ItemWork]]]:
        """Yield how many items may run together, and the items: all but the suspects first."""
        groups: dict[tuple[int, int], list[ItemWork]] = {}
        for item in items:
            known = self.of(scope_id, item)
            n_crashes = 0 if known is None else len(known.runs)
            groups.setdefault((n_crashes, -max_together(known, parallel)), []).append(item)
        for (_, most), group in sorted(groups.items(), key=lambda pair: pair[0]):
            yield -most, group

    async def begin(self, scope_id: str, item: ItemWork, around: ItemKey | None) -> None:
        if self._is_stopped:
            return
        self._begun[scope_id, item.key] = self._append(
            scope_id, item.key, self._run, item.hash, around
        )
        await self._ledger.durable()

    def _append(
        self,
        scope_id: str,
        key: str,
        run: str,
        hash_: str,
        around: tuple[str | None, str | None] | None,
    ) -> int:
        around_scope, around_key = around or (None, None)
        return self._ledger.append(
            EventKind.BEGAN,
            scope_id,
            key,
            run,
            hash=hash_,
            around_scope=around_scope,
            around_key=around_key,
        )

    def end(
        self, scope_id: str, key: str, *, is_recorded: bool = False, is_repeated_crash: bool = False
    ) -> None:
        """Record that an item has ended in order; may be called again.

        `is_recorded`: it has an entry now, and is a suspect no longer; `is_repeated_crash`: its
        notes remain, since they say what those runs died of. Where it is tried again some day, it
        runs alone.
        """
        place = (scope_id, key)
        attempt = self._begun.pop(place, None)
        with suppress(LedgerError):  # raised where the entry is awaited
            if attempt is not None:
                self._ledger.drop_event(attempt)
            if not is_recorded:
                return
            self._within.pop(place, None)
            notes = self._notes.pop(place, ())
            if is_repeated_crash and notes:
                last = notes[-1]
                around = last.around_scope, last.around_key
                self._append(scope_id, key, GIVEN_UP, last.hash, around)
                notes = [row for row in notes if row.run == GIVEN_UP]
            for row in notes:
                self._ledger.drop_event(row.n)

    def stop(self) -> None:
        """Remove every note: from now on, the process ends on request."""
        self._is_stopped = True
        for scope_id, key in list(self._begun):
            self.end(scope_id, key)


def suspects_text(suspects: Sequence[tuple[str, CrashHistory]], n_parallel: int) -> str:
    """Return a note on which items are suspects.

    >>> once, twice = CrashHistory(1, ("owl",)), CrashHistory(2, ("owl", "elk"))
    >>> suspects_text([("a.pdf", once), ("b.pdf", once)], 6)
    "run 'owl' died while it worked on 2 items; they are done last: a.pdf, b.pdf"
    >>> suspects_text([("a.pdf", once), ("b.pdf", twice)], 2)
    "runs 'elk', 'owl' died while they worked on 2 items; they are done last, 1 of them one at a \
time: a.pdf, b.pdf"
    """
    runs = sorted({run for _, known in suspects for run in known.runs})
    named = listed([f"'{run}'" for run in runs])
    if not runs:
        cause = "a run died while it worked on"
    elif len(runs) == 1:
        cause = f"run {named} died while it worked on"
    else:
        cause = f"runs {named} died while they worked on"
    n_alone = sum(known.n_together(n_parallel) == 1 for _, known in suspects)
    if len(suspects) == 1:
        what = f"1 item; it is done last{', alone' if n_alone else ''}"
    else:
        what = f"{len(suspects):,} items; they are done last"
        alone = f"{n_alone:,} of them " if n_alone < len(suspects) else ""
        what += f", {alone}one at a time" if n_alone else ""
    return f"{cause} {what}: {listed([key for key, _ in suspects])}"
