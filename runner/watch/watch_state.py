"""State machine of a watch.

Which file versions are done, settling, ready, in a run, or waiting for a retry. No clock, no file,
no ledger. While a batch is out nothing is known of its files: the run may read another version
than the one that was seen. A file that fails is retried a bounded number of times; the ledger
counts too, and does not retry what it quarantined. A run that fails as a whole (a missing share, a
full disk) proves nothing about the files: it is retried with growing pauses for as long as it
takes. Neither does a crashed process: the ledger knows which files it worked on, and how often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from paddock.engine.system.retry import Backoff

from .watch_spec import (
    UNKNOWN_FILE,
    BatchOutcome,
    FileIdentity,
    FileVersion,
    WatchBatch,
    WatchSpec,
    batch_key,
)
from .watched_folder import (
    FolderIdentity,
    FolderListing,
    MissingFiles,
    is_other_folder,
    known_folder,
)


@dataclass(frozen=True, slots=True)
class UnsettledFile:
    """A version that was first seen at `since` (seconds of a monotonic clock)."""

    seen: FileVersion
    since: float


class SettlingFiles:
    """The files that have not settled yet.

    A file is complete only when a second look, after the settle time, shows the same: one look
    proves nothing, however old its mtime.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._waiting: dict[str, UnsettledFile] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[str]:
        return iter(self._waiting)

    def __contains__(self, relpath: object) -> bool:
        return relpath in self._waiting

    def see(self, seen: FileVersion, now: float) -> None:
        """Note a file's version; a change restarts its settle time."""
        known = self._waiting.get(seen.relpath)
        if known is None or not known.seen.is_same(seen):
            self._waiting[seen.relpath] = UnsettledFile(seen, now)

    def drop(self, relpath: str) -> None:
        self._waiting.pop(relpath, None)

    def keep(self, relpaths: Mapping[str, object]) -> None:
        """Forget every file that is not among these."""
        for relpath in [one for one in self._waiting if one not in relpaths]:
            del self._waiting[relpath]

    def to_check(self, now: float) -> list[str]:
        """Return the files whose settle time is over: look at them again."""
        return [
            relpath
            for relpath, waiting in self._waiting.items()
            if now - waiting.since >= self._settle_s
        ]

    def settled(self, found: Mapping[str, FileVersion | None], now: float) -> Iterator[FileVersion]:
        """Remove and yield the files that look the same as before; restart the others."""
        for relpath, seen in found.items():
            known = self._waiting.get(relpath)
            if known is None:
                continue
            if seen is None:
                del self._waiting[relpath]
            elif not known.seen.is_same(seen):
                self._waiting[relpath] = UnsettledFile(seen, now)
            elif now - known.since >= self._settle_s:
                del self._waiting[relpath]
                yield seen

    def next_at(self) -> float | None:
        """Return when the first settle time is over."""
        return min((one.since + self._settle_s for one in self._waiting.values()), default=None)


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
        """Return how many files wait for a retry."""
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
        """Return whether this version waits; another version of the file ends the wait."""
        held = self._held.get(seen.relpath)
        if held is None:
            return False
        if held.seen.identity != seen.identity:
            del self._held[seen.relpath]
            return False
        return True

    def released(self, now: float) -> Iterator[FileVersion]:
        """Remove and yield the files that have waited long enough."""
        for relpath in [one for one, held in self._held.items() if now >= held.until]:
            yield self._held.pop(relpath).seen

    def next_at(self) -> float | None:
        """Return when the first of them has waited long enough."""
        return min((held.until for held in self._held.values()), default=None)

    def judge(self, batch: WatchBatch, outcome: BatchOutcome, now: float) -> RetryVerdict:
        """Decide what happens to the files of a batch whose run has ended."""
        if outcome.status in ("completed", "quarantined"):
            return self._after_success(batch, outcome, now)
        if outcome.status in ("budget", "interrupted", "skipped"):
            wait = self._reconcile_s if outcome.status == "budget" else self._first_s
            return self._wait(batch.files, now + wait)
        return self._after_failure(batch, outcome, now)

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
        waiting = [one for one in batch.files if one.relpath in outcome.waiting]
        reviewed = [one for one in waiting if one.relpath in self.claimed]
        held |= self._wait(reviewed, now + self._reconcile_s).held
        return RetryVerdict(True, held, given_up)

    def _after_failure(self, batch: WatchBatch, outcome: BatchOutcome, now: float) -> RetryVerdict:
        self._n_failed_runs += 1
        again, given_up = [], {}
        for seen in batch.files:
            if self._is_tried_again(outcome, seen):
                again.append(seen)
            else:
                given_up[seen.relpath] = self._why(outcome, seen)
        held = self._wait(again, now + self._backoff.pause_s(self._n_failed_runs))
        return RetryVerdict(False, held.held, given_up, held.not_before)

    def _is_tried_again(self, outcome: BatchOutcome, seen: FileVersion) -> bool:
        """Return whether to retry a file of an ended batch; count its failure.

        A run that died proves nothing about files that did not fail. The ledger counts the deaths
        for each file, and quarantines it then.
        """
        if seen.relpath not in outcome.failed:
            return True
        if outcome.status == "crashed" and seen.relpath not in outcome.again:
            return False
        return self._counted(seen)

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


REFUSED_S = 5.0
"""Pause before a batch is submitted again, such as while Prefect restarts."""

MOST_BATCHES_OUT = 2
"""Batches out at a time: one that runs and one that waits; later files gather."""

MOST_CHANGES = 5
"""Runs in which a file of a hot folder may change before it is given up."""


@dataclass(frozen=True, slots=True)
class WatchUpdate:
    """What to write into the ledger, and what to report."""

    files: Mapping[str, FileIdentity] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    given_up: Mapping[str, str] = field(default_factory=dict)
    """Files that are not retried until they change, with the reason."""
    held: tuple[str, ...] = ()
    """Files that are retried later."""


class WatchState:
    """State of one watch. `now` is always the time of a monotonic clock."""

    def __init__(
        self,
        spec: WatchSpec,
        done: Mapping[str, FileIdentity],
        *,
        epoch: int = 0,
        roots: Sequence[FolderIdentity] = (),
        wants: Callable[[str], bool] = lambda relpath: True,
        max_attempts: int = 3,
    ) -> None:
        self._spec = spec
        self.done: dict[str, FileIdentity] = dict(done)
        self.epoch = epoch
        """How often something was recorded; stored, so that a retry is a change of its own."""
        self.roots = list(roots)
        """Which folder lay at the root when files were seen in it, as each machine saw it."""
        self.is_root_new = False
        """Whether it differs from the one in the ledger."""
        self._wants = wants
        self.settling = SettlingFiles(spec.settle_s)
        self._deletions = MissingFiles(spec.settle_s)
        self._retries = WatchRetries(max_attempts, spec.batch_s, spec.reconcile_s)
        self._ready: dict[str, FileVersion] = {}
        self._gone: set[str] = set()
        self._due_at: float | None = None
        self._out: dict[str, WatchBatch] = {}
        self._latest: dict[str, FileVersion] = {}
        """The version of each file that was last submitted."""
        self._disturbed: set[str] = set()
        self._gone_not_before = 0.0
        self._n_changes: dict[str, int] = {}
        """How often each file of a hot folder changed while a run had it."""

    # --- seen files

    def look(self, listing: FolderListing, now: float) -> int:
        """Take a full listing; return how many files are missing if the folder is another one."""
        self.release(now)
        # Nearly all of 100,000 files are unchanged: they must cost next to nothing.
        done, busy = self.done, self._busy()
        for relpath, seen in listing.files.items():
            if relpath in busy or done.get(relpath) != (seen.size, seen.mtime_ns):
                self._see(seen, now)
        self.settling.keep(listing.files)
        for relpath in [one for one in self._ready if one not in listing.files]:
            if not self._is_claimed(relpath):
                del self._ready[relpath]
        return 0 if self._spec.is_hot else self._look_for_deleted(listing, now)

    def _look_for_deleted(self, listing: FolderListing, now: float) -> int:
        before = known_folder(listing.root, self.roots)
        if before is None or before.identity != listing.root.identity:
            wanted = [relpath for relpath in self.done if self._wants(relpath)]
            n_absent = sum(relpath not in listing.files for relpath in wanted)
            if is_other_folder(before, listing.root, n_absent, len(wanted) - n_absent):
                self._deletions.forget()
                return n_absent
        missed = self._missed(listing, before) if now >= self._gone_not_before else []
        for relpath in self._deletions.look(missed, now):
            self._gone.add(relpath)
            self._gather(now)
        self._see_root(listing.root, before)
        return 0

    def _see_root(self, root: FolderIdentity, before: FolderIdentity | None) -> None:
        """Note which folder it is; a lost mount below it counts while it hides files."""
        lost = {} if before is None else {at: before.mounts[at] for at in before.lost(root)}
        hiding = {
            at: what
            for at, what in lost.items()
            if any(relpath.startswith(f"{at}/") for relpath in self.done)
        }
        seen = FolderIdentity(root.identity, {**root.mounts, **hiding})
        if seen != before:
            self.roots, self.is_root_new = [seen], True

    def _busy(self) -> set[str]:
        """Return the files whose state is more than unchanged."""
        return {*self._latest, *self._ready, *self._gone, *self.settling, *self._retries}

    def _missed(self, listing: FolderListing, before: FolderIdentity | None) -> list[str]:
        """Return the known files that the listing lacks."""
        told = {relpath for batch in self._out.values() for relpath in batch.gone}
        return [
            relpath
            for relpath in self.done
            if relpath not in listing.files
            and relpath not in self._latest
            and relpath not in self._gone
            and relpath not in told
            and listing.is_known(relpath, before)
            and self._wants(relpath)
        ]

    def hint(self, found: Mapping[str, FileVersion | None], now: float) -> None:
        """Take a look at some paths for which there were events."""
        self.release(now)
        for relpath, seen in found.items():
            if relpath in self._latest:
                self._disturbed.add(relpath)
            if seen is not None:
                self._see(seen, now)
            elif not self._is_claimed(relpath):
                self.settling.drop(relpath)
                self._ready.pop(relpath, None)

    def check(self, found: Mapping[str, FileVersion | None], now: float) -> None:
        """Take a second look at files whose settle time is over."""
        for seen in self.settling.settled(found, now):
            self._ready[seen.relpath] = seen
            self._gather(now)

    def found_claimed(self, files: Mapping[str, FileVersion], now: float) -> None:
        """Take the files that were in a hot folder's `processing/` at the start."""
        for relpath, seen in files.items():
            self._ready[relpath] = self._retries.claimed[relpath] = seen
            self._gather(now)

    def _see(self, seen: FileVersion, now: float) -> None:
        relpath = seen.relpath
        if self._is_claimed(relpath):
            return  # a file of this name is in a run: wait for that
        self._gone.discard(relpath)
        out = self._latest.get(relpath)
        if out is not None and out.identity != seen.identity:
            self._disturbed.add(relpath)
        known = out.identity if out is not None else self.done.get(relpath)
        if known == seen.identity or self._retries.holds(seen):
            self.settling.drop(relpath)
            self._ready.pop(relpath, None)
        elif not (relpath in self._ready and self._ready[relpath].is_same(seen)):
            self._ready.pop(relpath, None)
            self.settling.see(seen, now)

    def _is_claimed(self, relpath: str) -> bool:
        return relpath in self._retries.claimed

    def disturb(self) -> None:
        """Note that anything may have happened to the files that are out."""
        self._disturbed.update(self._latest)

    def postpone(self, now: float) -> None:
        self._due_at = now + REFUSED_S

    def release(self, now: float) -> None:
        """Make files ready that have waited long enough for their retry."""
        for seen in self._retries.released(now):
            if self._is_claimed(seen.relpath):
                self._ready[seen.relpath] = seen
                self._gather(now)
            else:
                self.settling.see(seen, now)

    def _gather(self, now: float) -> None:
        if self._due_at is None:
            self._due_at = now + self._spec.batch_s

    # --- outgoing batches

    def is_due(self, now: float) -> bool:
        """Return whether to take a batch."""
        if not self._ready and not self._gone:
            self._due_at = None
        return (
            self._due_at is not None and now >= self._due_at and len(self._out) < MOST_BATCHES_OUT
        )

    def settled(self) -> dict[str, FileVersion]:
        return dict(self._ready)

    def claimed(self) -> Mapping[str, FileVersion]:
        """Return the claimed versions of a hot folder's files."""
        return dict(self._retries.claimed)

    def forget(self, relpath: str) -> None:
        """Drop a file that does not count, such as an output."""
        self.settling.drop(relpath)
        self._ready.pop(relpath, None)

    def take(self, claimed: Mapping[str, FileVersion] | None = None) -> WatchBatch | None:
        """Take the settled files as a batch; of a hot folder only claimed ones. None: no files."""
        files = tuple(sorted(self._taken(claimed), key=lambda seen: seen.relpath))
        gone = tuple(sorted(self._gone))
        self._ready, self._due_at = {}, None
        self._gone = set()
        if not files and not gone:
            return None
        key = batch_key(self._spec.name, self.epoch, files, gone)
        batch = WatchBatch(self._spec.name, files, gone, key, self._spec.is_hot)
        self._out[key] = batch
        for seen in files:
            self._latest[seen.relpath] = seen
        self._disturbed.difference_update(seen.relpath for seen in files)
        for relpath in (*(seen.relpath for seen in files), *gone):
            if not self._spec.is_hot:
                self.done[relpath] = UNKNOWN_FILE
        return batch

    def _taken(self, claimed: Mapping[str, FileVersion] | None) -> Iterator[FileVersion]:
        if claimed is None:
            yield from self._ready.values()
            return
        self._retries.claimed.update(claimed)
        yield from claimed.values()

    # --- ended batches

    def ended(self, batch: WatchBatch, outcome: BatchOutcome, now: float) -> WatchUpdate | None:
        """Take the outcome of a batch; return None when the batch is not out."""
        if self._out.pop(batch.idempotency_key, None) is None:
            return None
        verdict = self._retries.judge(batch, outcome, now)
        files: dict[str, FileIdentity] = {}
        for seen in batch.files:
            relpath = seen.relpath
            is_latest = self._latest.get(relpath) is seen
            if is_latest:
                del self._latest[relpath]
            if relpath in verdict.held or self._spec.is_hot:
                continue
            if is_latest and relpath not in self._disturbed:
                files[relpath] = self.done[relpath] = seen.identity
        gone = tuple(one for one in batch.gone if verdict.is_through and one not in self._latest)
        for relpath in gone:
            self.done.pop(relpath, None)
        if not verdict.is_through:
            self._gone_not_before = verdict.not_before
        self._disturbed.intersection_update(self._latest)
        self.epoch += 1
        return WatchUpdate(files, gone, verdict.given_up, tuple(sorted(verdict.held)))

    def left(self, relpaths: Mapping[str, object]) -> None:
        """Note that files of a hot folder have left `processing/`."""
        for relpath in relpaths:
            self._retries.claimed.pop(relpath, None)
            self._n_changes.pop(relpath, None)

    def changed(self, files: Mapping[str, FileVersion], now: float) -> None:
        """Note that files in `processing/` changed after their claim.

        They go out again when they have settled.
        """
        for seen in files.values():
            self._retries.changed(seen, now + self._spec.settle_s)

    def changed_in_run(self, files: Mapping[str, FileVersion], now: float) -> dict[str, str]:
        """Take files that changed while a run had them; return those given up, with the reason."""
        given_up: dict[str, str] = {}
        for relpath, seen in files.items():
            n = self._n_changes[relpath] = self._n_changes.get(relpath, 0) + 1
            if n < MOST_CHANGES:
                self.changed({relpath: seen}, now)
            else:
                self._retries.claimed[relpath] = seen
                given_up[relpath] = f"it changed in each of {n} runs that had it"
        return given_up

    def refused(self, batch: WatchBatch, now: float) -> None:
        """Take a batch back that could not be submitted; it goes out again a little later."""
        del self._out[batch.idempotency_key]
        for seen in batch.files:
            if self._latest.get(seen.relpath) is seen:
                del self._latest[seen.relpath]
                if seen.relpath not in self._disturbed:
                    self._ready[seen.relpath] = seen
        self._disturbed.intersection_update(self._latest)
        self._gone.update(batch.gone)
        self._due_at = now + REFUSED_S

    # --- times

    def next_at(self) -> float | None:
        """Return when something is due without a new event."""
        due = self._due_at if len(self._out) < MOST_BATCHES_OUT else None
        times = (
            due,
            self.settling.next_at(),
            self._deletions.next_at(),
            self._retries.next_at(),
            self._gone_not_before or None,
        )
        return min((time for time in times if time is not None), default=None)

    def needs_look(self, now: float) -> bool:
        """Return whether a full listing must confirm what an earlier one missed."""
        at = self._deletions.next_at()
        if self._gone_not_before and now >= self._gone_not_before:
            self._gone_not_before = 0.0
            return True
        return at is not None and now >= at

    def counts(self) -> dict[str, int]:
        return {
            "done": sum(identity != UNKNOWN_FILE for identity in self.done.values()),
            "settling": len(self.settling),
            "settled": len(self._ready) + len(self._gone),
            "out": sum(len(batch.files) + len(batch.gone) for batch in self._out.values()),
            "batches_out": len(self._out),
            "held_back": len(self._retries),
        }
