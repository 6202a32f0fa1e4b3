"""Items that were in flight when a run's process died: counted, done alone, given up.

The ledger notes each item before its steps begin, and takes the note out when the item ends in any
order: done, failed, cancelled, stopped. A note of a run that is gone therefore names an item that
was being worked on when the process was killed. Such an item is a suspect: it is done after the
others and alone, so that the next death has one cause, and quarantined after `max_attempts`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from .attempt import StepFailed
from .ledger.entries import AttemptRow, LedgerError
from .ledger.ledger import Ledger
from .work import ItemWork

Place = tuple[str, str]
"""An item: its scope and its key."""

NO_RUN = ""
"""The run of a note that counts for nothing: the item was quarantined for deaths before."""
N_NAMED = 5


class Deadly(StepFailed):
    """The run's process died too often while it worked on this item."""

    def __init__(self, step: str, n_deaths: int) -> None:
        times = "once" if n_deaths == 1 else f"{n_deaths} times"
        super().__init__(
            step,
            f"the run's process died {times} while it worked on this (killed, often for lack of "
            f"memory, or crashed); `--retry-failed` tries it again",
        )

    def __str__(self) -> str:
        """Return the sentence without the step: none of them is known to be the cause."""
        return self.reason


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is known of a suspect."""

    n_deaths: int
    """0: an item within it is a suspect, or it was quarantined before."""
    runs: tuple[str, ...]
    """The runs that died."""


class CrashSuspects:
    """The notes of one run, and those that runs left which are gone. Lives in one loop."""

    def __init__(self, ledger: Ledger, run: str, dead_after_s: float) -> None:
        self._ledger = ledger
        self._run = run
        self._dead_after_s = dead_after_s
        self._left: dict[Place, list[AttemptRow]] = {}
        self._within: dict[Place, set[str]] = {}
        """Items around suspects, with the runs that died."""
        self._begun: dict[Place, AttemptRow] = {}
        self._is_stopped = False

    async def look(self, scope: str = "", keys: Collection[str] = ()) -> None:
        """Read the notes that runs left which are gone: all, or those of some items of a scope."""
        ask = self._ledger.ask
        for row in await ask(self._ledger.attempts_left, self._dead_after_s, scope, keys):
            if row.run == self._run:
                continue
            rows = self._left.setdefault((row.scope, row.key), [])
            rows[:] = [*(one for one in rows if one.run != row.run), row]
            if row.around_scope is not None and row.around_key is not None:
                self._within.setdefault((row.around_scope, row.around_key), set()).add(row.run)

    def of(self, scope: str, item: ItemWork) -> Suspicion | None:
        """Return what is known of an item, None where it is no suspect.

        An item that has changed since is none, nor is one that the same run has recorded.
        """
        place = (scope, item.key)
        entry = item.entry
        recorded = entry.run if entry is not None and entry.hash == item.hash else None
        rows = [
            row
            for row in self._left.get(place, ())
            if row.hash == item.hash and row.run != recorded
        ]
        within = self._within.get(place, set())
        if not rows and not within:
            return None
        # What died of an item within it died of that one.
        deaths = [row.run for row in rows if row.run not in within and row.run != NO_RUN]
        return Suspicion(len(deaths), tuple(row.run for row in rows if row.run != NO_RUN))

    async def begin(self, scope: str, item: ItemWork, around: Place | None) -> None:
        """Note durably that an item's steps are about to begin; `around` is the item around it."""
        if self._is_stopped:
            return
        outer = around or (None, None)
        row = AttemptRow(scope, item.key, self._run, item.hash, time.time(), *outer)
        self._begun[scope, item.key] = row
        self._ledger.record_attempt(row)
        await self._ledger.durable()

    def end(
        self, scope: str, key: str, *, is_recorded: bool = False, is_deadly: bool = False
    ) -> None:
        """Note that an item has ended in order; call it again as you like.

        `is_recorded`: it has an entry now, and is a suspect no longer; `is_deadly`: where it is
        tried again some day, it is to be done alone.
        """
        place = (scope, key)
        own = self._begun.pop(place, None)
        with suppress(LedgerError):  # told by whoever waits for the entry
            if own is not None:
                self._ledger.drop_attempt(own)
            if is_recorded:
                self._within.pop(place, None)
                for row in self._left.pop(place, ()):
                    self._ledger.drop_attempt(row)
                    if is_deadly:
                        self._ledger.record_attempt(replace(row, run=NO_RUN))

    def stop(self) -> None:
        """Take every note out: what ends the process from now on was asked for."""
        self._is_stopped = True
        for scope, key in list(self._begun):
            self.end(scope, key)


class Solitude:
    """Lets items be worked on at the same time, or one alone. Lives in one loop."""

    def __init__(self) -> None:
        self._n_inside = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._one_alone = asyncio.Lock()

    @asynccontextmanager
    async def entered(self, *, is_alone: bool) -> AsyncIterator[None]:
        """Be inside, where wanted with nothing else inside."""
        if is_alone:
            async with self._one_alone:
                self._is_open.clear()
                try:
                    await self._is_empty.wait()
                    yield
                finally:
                    self._is_open.set()
            return
        while not self._is_open.is_set():
            await self._is_open.wait()
        self._n_inside += 1
        self._is_empty.clear()
        try:
            yield
        finally:
            self._n_inside -= 1
            if not self._n_inside:
                self._is_empty.set()


def in_words(suspects: Sequence[tuple[str, Suspicion]]) -> str:
    """Say before they are done which items are suspects.

    >>> in_words([("a.pdf", Suspicion(1, ("owl",))), ("b.pdf", Suspicion(2, ("owl",)))])
    "run 'owl' died while it worked on 2 items; they are done last, one at a time: a.pdf, b.pdf"
    """
    runs = sorted({run for _, suspicion in suspects for run in suspicion.runs})
    named = ", ".join(f"'{run}'" for run in runs)
    who = f"run {named} died" if len(runs) == 1 else f"runs {named} died" if runs else "a run died"
    keys = [key for key, _ in suspects]
    what = (
        "1 item; it is done last, alone"
        if len(keys) == 1
        else (f"{len(keys):,} items; they are done last, one at a time")
    )
    more = len(keys) - N_NAMED
    listed = ", ".join(keys[:N_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    return f"{who} while it worked on {what}: {listed}"
