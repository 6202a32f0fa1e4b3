"""When files of a watch whose order has ended are tried again.

How often is the ledger's to count: it quarantines a file that fails too often, or of which too
many runs die. A run that fails as a whole (a missing share, a full disk) proves nothing about the
files: it is retried with growing pauses for as long as it takes, at the latest when another run
has succeeded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from paddock.engine.system.light_dataclasses import dataclass, replace
from paddock.engine.system.retry import Backoff, Pauses
from paddock.runner.folders.file_versions import FileVersion

from .batches import BatchOutcome

_FIRST_PAUSE_S = 10.0
MOST_PAUSE_S = 3600.0


@dataclass(frozen=True, slots=True)
class _HeldFile:
    seen: FileVersion
    until: float
    is_of_failed_run: bool = False


class HeldFiles:
    """Files that are tried again, and when."""

    def __init__(self, max_attempts: int, batch_s: float, reconcile_s: float) -> None:
        self._max_attempts = max_attempts
        self._first_s = max(batch_s, _FIRST_PAUSE_S)
        self._reconcile_s = reconcile_s
        self._backoff = Backoff(self._first_s, max(MOST_PAUSE_S, reconcile_s))
        self._failed_runs = Pauses(self._backoff)
        self._held: dict[str, _HeldFile] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def put(self, seen: FileVersion, until: float) -> None:
        self._held[seen.relpath] = _HeldFile(seen, until)

    def holds(self, seen: FileVersion) -> bool:
        """Return whether this version waits; another one does not."""
        held = self._held.get(seen.relpath)
        if held is not None and held.seen.identity != seen.identity:
            del self._held[seen.relpath]
            return False
        return held is not None

    def released(self, now: float) -> Iterator[FileVersion]:
        for relpath in [path for path, held in self._held.items() if now >= held.until]:
            yield self._held.pop(relpath).seen

    def next_at(self) -> float | None:
        return min((held.until for held in self._held.values()), default=None)

    def tried_again(
        self, files: Iterable[FileVersion], outcome: BatchOutcome, claimed: Collection[str]
    ) -> frozenset[str]:
        """Return which files of an ended order are tried again, decided by the first that fits.

        1. The run was stopped before its end: all of them.
        2. The next run tries it again: as long as the ledger does not count too many failures.
        3. The run looked at all of them: of a hot folder those that wait for a person (`claimed`
           are its files); they stay in `processing/`.
        4. The run failed, or died: those that did not fail themselves.
        """

        def is_tried_again(relpath: str) -> bool:
            if outcome.status in ("budget", "suspended", "interrupted", "skipped"):  # 1
                return True
            if relpath in outcome.again:  # 2
                return outcome.again[relpath] < self._max_attempts
            if outcome.is_through:  # 3
                return relpath in outcome.waiting and relpath in claimed
            return relpath not in outcome.failed  # 4

        return frozenset(seen.relpath for seen in files if is_tried_again(seen.relpath))

    def hold(self, files: Iterable[FileVersion], outcome: BatchOutcome, now: float) -> float:
        """Hold these files of an ended order; return until when, if its run did not finish."""
        is_failed = False
        pause_s = self._first_s
        if outcome.is_through:
            self._failed_runs.succeeded()
            for relpath, held in self._held.items():
                if held.is_of_failed_run:
                    self._held[relpath] = replace(held, until=now)
        elif outcome.status in ("budget", "suspended"):
            pause_s = self._reconcile_s
        elif outcome.status not in ("interrupted", "skipped"):
            is_failed, pause_s = True, self._failed_runs.failed()
        for seen in files:
            if outcome.is_through:  # what is not counted waits for something else
                counted_s = self._backoff.pause_s(outcome.again.get(seen.relpath, 0))
                pause_s = counted_s or self._reconcile_s
            self._held[seen.relpath] = _HeldFile(seen, now + pause_s, is_failed)
        return now + pause_s
