"""When files of a watch that failed are tried again.

A file that fails is retried a bounded number of times; the ledger counts too, and does not retry
what it quarantined. A run that fails as a whole (a missing share, a full disk) proves nothing about
the files: it is retried with growing pauses for as long as it takes. Neither does a crashed
process: the ledger knows which files it worked on, and how often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.engine.system.retry import Backoff
from paddock.runner.folders.file_versions import FileIdentity, FileVersion

from .batches import BatchOutcome, WatchBatch

_FIRST_BACKOFF_S = 10.0
MOST_BACKOFF_S = 3600.0


@dataclass(frozen=True, slots=True)
class RetryVerdict:
    """What happens to a batch's files."""

    is_through: bool
    """The run looked at every file."""
    held: frozenset[str] = frozenset()
    given_up: Mapping[str, str] = field(default_factory=dict)
    not_before: float = 0.0
    """When to retry the run, if it did not finish."""


@dataclass(frozen=True, slots=True)
class _WaitingFile:
    seen: FileVersion
    until: float


class WatchRetries:
    """Failed files, and when each is retried."""

    def __init__(self, max_attempts: int, batch_s: float, reconcile_s: float) -> None:
        self._max_attempts = max_attempts
        self._first_s = max(batch_s, _FIRST_BACKOFF_S)
        self._backoff = Backoff(self._first_s, max(MOST_BACKOFF_S, reconcile_s))
        self._reconcile_s = reconcile_s
        self._held: dict[str, _WaitingFile] = {}
        self._attempts: dict[str, tuple[FileIdentity, int]] = {}
        self._n_failed_runs = 0
        self.claimed: dict[str, FileVersion] = {}
        """Files in a hot folder's `processing/`."""

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[str]:
        """Iterate over these files, and those in a hot folder's `processing/`."""
        yield from self._held
        yield from self.claimed

    def changed(self, seen: FileVersion, until: float) -> None:
        """Note that a file in `processing/` has changed; submit it again later."""
        self.claimed[seen.relpath] = seen
        self._held[seen.relpath] = _WaitingFile(seen, until)

    def holds(self, seen: FileVersion) -> bool:
        held = self._held.get(seen.relpath)
        if held is None:
            return False
        if held.seen.identity != seen.identity:
            del self._held[seen.relpath]
            return False
        return True

    def released(self, now: float) -> Iterator[FileVersion]:
        for relpath in [path for path, held in self._held.items() if now >= held.until]:
            yield self._held.pop(relpath).seen

    def next_at(self) -> float | None:
        return min((held.until for held in self._held.values()), default=None)

    def judge(self, batch: WatchBatch, outcome: BatchOutcome, now: float) -> RetryVerdict:
        """Decide what happens to the files of a batch whose run has ended."""
        if outcome.status in ("completed", "quarantined"):
            return self._after_success(batch, outcome, now)
        if outcome.status in ("budget", "suspended", "interrupted", "skipped"):
            wait = self._reconcile_s if outcome.status in ("budget", "suspended") else self._first_s
            return self._wait(batch.files, now + wait)
        self._n_failed_runs += 1
        again, given_up = [], {}
        for seen in batch.files:
            # Whether to retry a file of an ended batch; count its failure. A run that died proves
            # nothing about files that did not fail. The ledger counts the deaths for each file, and
            # quarantines it then.
            if seen.relpath not in outcome.failed:
                is_tried_again = True
            elif outcome.status == "crashed" and seen.relpath not in outcome.again:
                is_tried_again = False
            else:
                is_tried_again = self._counted(seen)
            if is_tried_again:
                again.append(seen)
            else:
                given_up[seen.relpath] = self._why(outcome, seen)
        held = self._wait(again, now + self._backoff.pause_s(self._n_failed_runs))
        return RetryVerdict(False, held.held, given_up, held.not_before)

    def _after_success(self, batch: WatchBatch, outcome: BatchOutcome, now: float) -> RetryVerdict:
        self._n_failed_runs = 0
        again, given_up = [], {}
        for seen in batch.files:
            if seen.relpath not in outcome.again:
                self._attempts.pop(seen.relpath, None)
            elif self._counted(seen):
                again.append(seen)
            else:
                given_up[seen.relpath] = self._why(outcome, seen)
        n_failures = max(map(self._n_of, again), default=1)
        held = self._wait(again, now + self._backoff.pause_s(max(n_failures, 1))).held
        # A hot folder's document stays in `processing/` until a person has decided.
        waiting = [file for file in batch.files if file.relpath in outcome.waiting]
        reviewed = [file for file in waiting if file.relpath in self.claimed]
        held |= self._wait(reviewed, now + self._reconcile_s).held
        return RetryVerdict(True, held, given_up)

    def _wait(self, files: Sequence[FileVersion], until: float) -> RetryVerdict:
        for seen in files:
            self._held[seen.relpath] = _WaitingFile(seen, until)
        held = frozenset(seen.relpath for seen in files)
        return RetryVerdict(False, held, not_before=until)

    def _counted(self, seen: FileVersion) -> bool:
        """Count a failure of this version; return whether it may be retried."""
        n = self._n_of(seen) + 1
        if n >= self._max_attempts:
            self._attempts.pop(seen.relpath, None)
            return False
        self._attempts[seen.relpath] = (seen.identity, n)
        return True

    def _n_of(self, seen: FileVersion) -> int:
        identity, n = self._attempts.get(seen.relpath, (seen.identity, 0))
        return n if identity == seen.identity else 0

    def _why(self, outcome: BatchOutcome, seen: FileVersion) -> str:
        why = outcome.failed.get(seen.relpath) or outcome.message
        return why or f"the run that took it ended as '{outcome.status}'"
