"""Decide which files of a run that did not do all are tried again, and when. Pure.

A file that fails by itself is tried a bounded number of times; the ledger counts them too, and
what it has quarantined is not tried again. A run that fails as a whole says nothing about the files
(a share that is away, a full disk): it is tried again for as long as it takes, ever more seldom.
Neither does a process that died: which files it worked on, and how often, the ledger knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .spec import Batch, Identity, Outcome, Seen

_FIRST_S = 10.0
_MOST_DOUBLINGS = 10
MOST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a batch's files."""

    is_through: bool
    """The run looked at everything there was."""
    held: frozenset[str] = frozenset()
    given_up: Mapping[str, str] = field(default_factory=dict)
    not_before: float = 0.0
    """When the run may be tried again that did not get through."""


@dataclass(frozen=True, slots=True)
class _Held:
    seen: Seen
    until: float


class Retries:
    """What failed before, and what waits."""

    def __init__(self, max_attempts: int, batch_s: float, reconcile_s: float) -> None:
        self._max_attempts = max_attempts
        self._first_s = max(batch_s, _FIRST_S)
        self._most_s = max(MOST_S, reconcile_s)
        self._reconcile_s = reconcile_s
        self._held: dict[str, _Held] = {}
        self._attempts: dict[str, tuple[Identity, int]] = {}
        self._n_failed_runs = 0
        self.claimed: dict[str, Seen] = {}
        """What lies in a hot folder's `processing/`."""

    def __len__(self) -> int:
        """How many files wait before they are tried again."""
        return len(self._held)

    def __iter__(self) -> Iterator[str]:
        """Name them, and what lies in a hot folder's `processing/`."""
        yield from self._held
        yield from self.claimed

    def changed(self, seen: Seen, until: float) -> None:
        """Note that a file in `processing/` is another version; it goes out again later."""
        self.claimed[seen.relpath] = seen
        self._held[seen.relpath] = _Held(seen, until)

    def holds(self, seen: Seen) -> bool:
        """Tell whether this version waits; another version of the file ends that."""
        held = self._held.get(seen.relpath)
        if held is None:
            return False
        if held.seen.identity != seen.identity:
            del self._held[seen.relpath]
            return False
        return True

    def released(self, now: float) -> Iterator[Seen]:
        """Take out what has waited long enough."""
        for relpath in [one for one, held in self._held.items() if now >= held.until]:
            yield self._held.pop(relpath).seen

    def next_at(self) -> float | None:
        """Tell when the first of them has waited long enough."""
        return min((held.until for held in self._held.values()), default=None)

    def judge(self, batch: Batch, outcome: Outcome, now: float) -> Verdict:
        """Tell what becomes of the files of a batch whose run has ended."""
        if outcome.status in ("completed", "quarantined"):
            return self._after_success(batch, outcome, now)
        if outcome.status in ("budget", "interrupted", "skipped"):
            wait = self._reconcile_s if outcome.status == "budget" else self._first_s
            return self._wait(batch.files, now + wait)
        return self._after_failure(batch, outcome, now)

    def _after_success(self, batch: Batch, outcome: Outcome, now: float) -> Verdict:
        self._n_failed_runs = 0
        again, given_up = [], {}
        for seen in batch.files:
            if seen.relpath not in outcome.again:
                self._attempts.pop(seen.relpath, None)
            elif self._counted(seen):
                again.append(seen)
            else:
                given_up[seen.relpath] = self._why(outcome, seen)
        held = self._wait(again, now + self._backoff_s(max(map(self._n_of, again), default=1)))
        return Verdict(True, held.held, given_up)

    def _after_failure(self, batch: Batch, outcome: Outcome, now: float) -> Verdict:
        self._n_failed_runs += 1
        again, given_up = [], {}
        for seen in batch.files:
            if self._is_tried_again(outcome, seen):
                again.append(seen)
            else:
                given_up[seen.relpath] = self._why(outcome, seen)
        held = self._wait(again, now + self._backoff_s(self._n_failed_runs))
        return Verdict(False, held.held, given_up, held.not_before)

    def _is_tried_again(self, outcome: Outcome, seen: Seen) -> bool:
        """Count a file that failed; a run that died says nothing of those that did not.

        How often a process has died of a file is counted in the ledger, which quarantines it then.
        """
        if seen.relpath not in outcome.failed:
            return True
        if outcome.status == "crashed" and seen.relpath not in outcome.again:
            return False
        return self._counted(seen)

    def _wait(self, files: tuple[Seen, ...] | list[Seen], until: float) -> Verdict:
        for seen in files:
            self._held[seen.relpath] = _Held(seen, until)
        held = frozenset(seen.relpath for seen in files)
        return Verdict(False, held, not_before=until)

    def _counted(self, seen: Seen) -> bool:
        """Count a failure of this version; tell whether it may be tried again."""
        n = self._n_of(seen) + 1
        if n >= self._max_attempts:
            self._attempts.pop(seen.relpath, None)
            return False
        self._attempts[seen.relpath] = (seen.identity, n)
        return True

    def _n_of(self, seen: Seen) -> int:
        identity, n = self._attempts.get(seen.relpath, (seen.identity, 0))
        return n if identity == seen.identity else 0

    def _backoff_s(self, n: int) -> float:
        doublings = min(max(n - 1, 0), _MOST_DOUBLINGS)
        return float(min(self._first_s * 2**doublings, self._most_s))

    def _why(self, outcome: Outcome, seen: Seen) -> str:
        why = outcome.failed.get(seen.relpath) or outcome.message
        return why or f"the run that took it ended as '{outcome.status}'"
