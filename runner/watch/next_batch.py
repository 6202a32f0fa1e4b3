"""Which files the next order of a watch takes.

Which file versions are done, settling, ready, in an order, or wait for another try. No clock, no
file, no ledger, no queue.

How often a file is tried is the ledger's to count: it quarantines one that fails too often, or of
which too many runs die. A run that fails as a whole (a missing share, a full disk) proves nothing
about the files: it is retried with growing pauses for as long as it takes, at the latest when
another run has succeeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.retry import Backoff, Pauses
from paddock.runner.folders.file_filter import WatchSpec
from paddock.runner.folders.file_versions import UNKNOWN_FILE, FileIdentity, FileVersion
from paddock.runner.folders.folder_listing import FolderListing
from paddock.runner.folders.missing_files import MissingFiles
from paddock.runner.folders.unfinished_files import SettlingFiles
from paddock.runner.workers.order import Order

from .handled_files import BatchOutcome

REFUSED_S = 5.0
"""Pause before something is tried again that failed, such as while a disk is full."""
MOST_ORDERS_OUT = 2
"""Orders out at a time: one that runs and one that waits; later files gather."""
_FIRST_PAUSE_S = 10.0
MOST_PAUSE_S = 3600.0


class _FileToRetry(Struct, frozen=True):
    seen: FileVersion
    until: float
    is_of_failed_run: bool = False


class FilesToRetry:
    def __init__(self, max_attempts: int, batch_s: float, reconcile_s: float) -> None:
        self._max_attempts = max_attempts
        self._first_s = max(batch_s, _FIRST_PAUSE_S)
        self._reconcile_s = reconcile_s
        self._backoff = Backoff(self._first_s, max(MOST_PAUSE_S, reconcile_s))
        self._failed_runs = Pauses(self._backoff)
        self._retried: dict[str, _FileToRetry] = {}

    def __len__(self) -> int:
        return len(self._retried)

    def __iter__(self) -> Iterator[str]:
        return iter(self._retried)

    def put(self, seen: FileVersion, until: float) -> None:
        self._retried[seen.relpath] = _FileToRetry(seen, until)

    def is_delayed(self, seen: FileVersion) -> bool:
        """Return whether this version waits; another one does not."""
        file = self._retried.get(seen.relpath)
        if file is not None and file.seen.identity != seen.identity:
            del self._retried[seen.relpath]
            return False
        return file is not None

    def take_due(self, now: float) -> Iterator[FileVersion]:
        for relpath in [path for path, file in self._retried.items() if now >= file.until]:
            yield self._retried.pop(relpath).seen

    def next_at(self) -> float | None:
        return min((file.until for file in self._retried.values()), default=None)

    def to_retry(
        self, files: Iterable[FileVersion], outcome: BatchOutcome, claimed: Collection[str]
    ) -> frozenset[str]:
        """Return which files of an ended order are tried again, decided by the first that fits.

        1. A person cancelled it: none; of a hot folder all (`claimed` are its files), which stay in
           `processing/` until `paddock up` starts again.
        2. The run was stopped before its end: all of them.
        3. The next run tries it again: as long as the ledger does not count too many failures.
        4. The run looked at all of them: of a hot folder those that wait for a person; they stay in
           `processing/`.
        5. The run failed, or died: those that did not fail themselves.
        """

        def is_tried_again(relpath: str) -> bool:
            if outcome.status == "cancelled":  # 1
                return relpath in claimed
            if outcome.status in ("budget", "suspended", "interrupted", "skipped"):  # 2
                return True
            if relpath in outcome.again:  # 3
                return outcome.again[relpath] < self._max_attempts
            if outcome.is_through:  # 4
                return relpath in outcome.waiting and relpath in claimed
            return relpath not in outcome.failed  # 5

        return frozenset(seen.relpath for seen in files if is_tried_again(seen.relpath))

    def delay(self, files: Iterable[FileVersion], outcome: BatchOutcome, now: float) -> float:
        """Delay these files of an ended order; return until when, if its run did not finish."""
        is_failed = False
        pause_s = self._first_s
        if outcome.is_through:
            self._failed_runs.succeeded()
            for relpath, file in self._retried.items():
                if file.is_of_failed_run:
                    self._retried[relpath] = replace(file, until=now)
        elif outcome.status in ("budget", "suspended", "cancelled"):
            pause_s = self._reconcile_s
        elif outcome.status not in ("interrupted", "skipped"):
            is_failed = True
            pause_s = self._failed_runs.failed()
        for seen in files:
            if outcome.is_through:  # what is not counted waits for something else
                counted_s = self._backoff.pause_s(outcome.again.get(seen.relpath, 0))
                pause_s = counted_s or self._reconcile_s
            until = math.inf if outcome.status == "cancelled" else now + pause_s
            self._retried[seen.relpath] = _FileToRetry(seen, until, is_failed)
        return now + pause_s


class WatchUpdate(Struct, frozen=True):
    files: Mapping[str, FileIdentity]
    """Versions that were handled; the ledger keeps those of a watch that is no hot folder."""
    gone: tuple[str, ...]
    retried: frozenset[str]


class WatchState:
    """State of one watch. `now` is always the time of a monotonic clock.

    A file is in these, in turn; one that changes while it is out settles for the next order:

    | state                                | where           | leaves it by                 |
    |--------------------------------------|-----------------|------------------------------|
    | seen, not yet the same for long      | `settling`      | `check`, `forget`            |
    | stable, goes out with the next order | `_ready`        | `sent`, `forget`             |
    | missing for long, goes out as gone   | `_gone`         | `sent`; seen again           |
    | in an order whose run has not ended  | `_latest`       | `ended`                      |
    | tried again later                    | `_retried`      | `release`                    |
    | handled; its version                 | `done`          | `ended`, if it is gone       |
    | of a hot folder, moved, in any state | `claimed`, also | `left`                       |
    """

    def __init__(
        self,
        spec: WatchSpec,
        done: Mapping[str, FileIdentity],
        *,
        orders: Iterable[Order] = (),
        wants: Callable[[str], bool] = lambda relpath: True,
        max_attempts: int = 3,
    ) -> None:
        """`orders` are those that were given before and whose end was not taken, oldest first."""
        self._spec = spec
        self.done: dict[str, FileIdentity] = dict(done)
        self._wants = wants
        self.settling = SettlingFiles(spec.settle_s)
        self._deletions = MissingFiles(spec.settle_s)
        self._retried = FilesToRetry(max_attempts, spec.batch_s, spec.reconcile_s)
        self.claimed: dict[str, FileVersion] = {}
        """Files in a hot folder's `processing/`, as they were claimed."""
        self._ready: dict[str, FileVersion] = {}
        self._gone: set[str] = set()
        self._due_at: float | None = None
        self._out: dict[str, Order] = {}
        self._latest: dict[str, FileVersion] = {}
        """The version of each file in the latest order that is out."""
        self._gone_not_before = 0.0
        for order in orders:
            self.sent(order)

    # --- seen files

    def take_listing(self, listing: FolderListing, now: float) -> None:
        """Take a full listing.

        The next run decides whether a file that it lacks was deleted: it may be another folder, or
        something is not mounted.
        """
        self.release(now)
        # Nearly all of 100,000 files are unchanged: they must cost next to nothing.
        done, busy = self.done, {*self._latest, *self._ready, *self._gone, *self.settling,
                                 *self._retried, *self.claimed}  # fmt: skip
        for relpath, seen in listing.files.items():
            if relpath in busy or done.get(relpath) != seen.identity:
                self._see(seen, now)
        self.settling.keep(listing.files)
        for relpath in [path for path in self._ready if path not in listing.files]:
            if relpath not in self.claimed:
                del self._ready[relpath]
        if self._spec.is_hot:
            return
        missed: list[str] = []
        if now >= self._gone_not_before:
            gone = {relpath for order in self._out.values() for relpath in order.gone}
            missed = [
                relpath
                for relpath in self.done
                if relpath not in listing.files
                and relpath not in self._latest
                and relpath not in self._gone
                and relpath not in gone
                and listing.is_known(relpath)
                and self._wants(relpath)
            ]
        for relpath in self._deletions.confirm_missed(missed, now):
            self._gone.add(relpath)
            self._gather(now)

    def check(self, found: Mapping[str, FileVersion | None], now: float) -> None:
        for seen in self.settling.take_stable(found, now):
            self._ready[seen.relpath] = seen
            self._gather(now)

    def found_claimed(self, files: Mapping[str, FileVersion], now: float) -> None:
        """Take the files that were in a hot folder's `processing/` at the start."""
        for relpath, seen in files.items():
            self._ready[relpath] = self.claimed[relpath] = seen
            self._gather(now)

    def _see(self, seen: FileVersion, now: float) -> None:
        relpath = seen.relpath
        if relpath in self.claimed:
            return  # a file of this name is in a run: wait for that
        self._gone.discard(relpath)
        out = self._latest.get(relpath)
        known = out.identity if out is not None else self.done.get(relpath)
        if known == seen.identity or self._retried.is_delayed(seen):
            self.forget_file(relpath)
        elif not (relpath in self._ready and self._ready[relpath].is_same(seen)):
            self._ready.pop(relpath, None)
            self.settling.note_version(seen, now)

    def postpone(self, now: float) -> None:
        self._due_at = now + REFUSED_S

    def release(self, now: float) -> None:
        """Make files ready that have waited long enough for their retry."""
        for seen in self._retried.take_due(now):
            if seen.relpath in self.claimed:
                self._ready[seen.relpath] = seen
                self._gather(now)
            else:
                self.settling.note_version(seen, now)

    def _gather(self, now: float) -> None:
        if self._due_at is None:
            self._due_at = now + self._spec.batch_s

    # --- orders

    def is_due(self, now: float) -> bool:
        if not self._ready and not self._gone:
            self._due_at = None
        return self._due_at is not None and now >= self._due_at and len(self._out) < MOST_ORDERS_OUT

    def ready(self) -> dict[str, FileVersion]:
        return {relpath: self._ready[relpath] for relpath in sorted(self._ready)}

    def gone(self) -> list[str]:
        return sorted(self._gone)

    def forget_file(self, relpath: str) -> None:
        """Drop a file that does not count, such as an output."""
        self.settling.drop(relpath)
        self._ready.pop(relpath, None)

    def sent(self, order: Order) -> None:
        self._out[order.id] = order
        for seen in order.files:
            self._latest[seen.relpath] = seen
            self._ready.pop(seen.relpath, None)
        self._gone.difference_update(order.gone)
        self._due_at = None
        if self._spec.is_hot:
            self.claimed |= {seen.relpath: seen for seen in order.files}
            return
        for relpath in (*(seen.relpath for seen in order.files), *order.gone):
            self.done[relpath] = UNKNOWN_FILE

    def note_end(self, id_: str, outcome: BatchOutcome) -> WatchUpdate | None:
        """Return what follows from an order's end; None: it is not out."""
        order = self._out.get(id_)
        if order is None:
            return None
        later = {
            seen.relpath for key, other in self._out.items() if key != id_ for seen in other.files
        }
        retried = self._retried.to_retry(order.files, outcome, self.claimed)
        files = {
            seen.relpath: seen.identity
            for seen in order.files
            if seen.relpath not in retried and seen.relpath not in later
        }
        gone = tuple(path for path in order.gone if outcome.is_through and path not in later)
        return WatchUpdate(files, gone, retried)

    def ended(self, id_: str, outcome: BatchOutcome, update: WatchUpdate, now: float) -> None:
        """Take an order's end, and what `judge` made of it."""
        order = self._out.pop(id_)
        self._latest = {seen.relpath: seen for other in self._out.values() for seen in other.files}
        retried = [seen for seen in order.files if seen.relpath in update.retried]
        retried_at = self._retried.delay(retried, outcome, now)
        if not outcome.is_through:
            self._gone_not_before = retried_at
        if not self._spec.is_hot:
            self.done.update(update.files)
        for relpath in update.gone:
            self.done.pop(relpath, None)

    def left(self, relpaths: Iterable[str]) -> None:
        for relpath in relpaths:
            self.claimed.pop(relpath, None)

    def changed(self, files: Mapping[str, FileVersion], now: float) -> None:
        """Note that files in `processing/` changed after their claim.

        They go out again when they have settled.
        """
        for relpath, seen in files.items():
            self.claimed[relpath] = seen
            self._retried.put(seen, now + self._spec.settle_s)

    # --- times

    def next_at(self) -> float | None:
        due = self._due_at if len(self._out) < MOST_ORDERS_OUT else None
        times = (
            due,
            self.settling.next_at(),
            self._deletions.next_at(),
            self._retried.next_at(),
            self._gone_not_before or None,
        )
        return min((time for time in times if time is not None), default=None)

    def needs_look(self, now: float) -> bool:
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
            "out": sum(len(order.files) + len(order.gone) for order in self._out.values()),
            "orders_out": len(self._out),
            "held_back": len(self._retried),
        }
