"""Which files the next run of a watch takes.

Which file versions are done, settling, ready, in a run, or waiting for a retry. No clock, no file,
no ledger. While a batch is out nothing is known of its files: the run may read another version
than the one that was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.folders.file_filter import WatchSpec
from paddock.runner.folders.file_versions import UNKNOWN_FILE, FileIdentity, FileVersion
from paddock.runner.folders.folder_identity import FolderIdentity, known_folder
from paddock.runner.folders.folder_listing import FolderListing
from paddock.runner.folders.missing_files import MissingFiles, is_other_folder
from paddock.runner.folders.unfinished_files import SettlingFiles

from .batches import BatchOutcome, WatchBatch, batch_key
from .watch_retries import RetryVerdict, WatchRetries

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
        self._renewed: dict[str, FileIdentity] = {}
        """Handled versions that the ledger has as an older Paddock wrote them."""
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
        done, busy = self.done, {*self._latest, *self._ready, *self._gone, *self.settling,
                                 *self._retries}  # fmt: skip
        for relpath, seen in listing.files.items():
            if relpath in busy or done.get(relpath) != seen.identity:
                self._see(seen, now)
        self.settling.keep(listing.files)
        for relpath in [path for path in self._ready if path not in listing.files]:
            if not self._is_claimed(relpath):
                del self._ready[relpath]
        if self._spec.is_hot:
            return 0
        before = known_folder(listing.root, self.roots)
        if before is None or before.identity != listing.root.identity:
            own = [relpath for relpath in self.done if self._wants(relpath)]
            n_absent = sum(relpath not in listing.files for relpath in own)
            if is_other_folder(before, listing.root, n_absent, len(own) - n_absent):
                self._deletions.forget()
                return n_absent
        missed: list[str] = []
        if now >= self._gone_not_before:
            gone = {relpath for batch in self._out.values() for relpath in batch.gone}
            missed = [
                relpath
                for relpath in self.done
                if relpath not in listing.files
                and relpath not in self._latest
                and relpath not in self._gone
                and relpath not in gone
                and listing.is_known(relpath, before)
                and self._wants(relpath)
            ]
        for relpath in self._deletions.look(missed, now):
            self._gone.add(relpath)
            self._gather(now)
        # Note which folder it is; a lost mount below it counts while it hides files.
        root = listing.root
        lost = {} if before is None else {at: before.mounts[at] for at in before.lost(root)}
        hiding = {
            at: what
            for at, what in lost.items()
            if any(relpath.startswith(f"{at}/") for relpath in self.done)
        }
        identity = FolderIdentity(root.identity, {**root.mounts, **hiding})
        if identity != before:
            self.roots, self.is_root_new = [identity], True
        return 0

    def hint(self, found: Mapping[str, FileVersion | None], now: float) -> None:
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
        for seen in self.settling.stable(found, now):
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
        if out is None and known != seen.identity and seen.is_known_as(known):
            known = self.done[relpath] = self._renewed[relpath] = seen.identity
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
        if not self._ready and not self._gone:
            self._due_at = None
        return (
            self._due_at is not None and now >= self._due_at and len(self._out) < MOST_BATCHES_OUT
        )

    def stable(self) -> dict[str, FileVersion]:
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
        self._retries.claimed.update(claimed or {})
        taken = (self._ready if claimed is None else claimed).values()
        files = tuple(sorted(taken, key=lambda seen: seen.relpath))
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

    # --- ended batches

    def ended(self, batch: WatchBatch, outcome: BatchOutcome, now: float) -> WatchUpdate | None:
        """Take the outcome of a batch; return None when the batch is not out."""
        if self._out.pop(batch.idempotency_key, None) is None:
            return None
        verdict = self._retries.judge(batch, outcome, now)
        latest = [seen for seen in batch.files if self._latest.get(seen.relpath) is seen]
        files = {seen.relpath: seen.identity for seen in latest if not self._is_open(seen, verdict)}
        files |= {path: seen for path, seen in self._renewed.items() if self.done.get(path) == seen}
        self._renewed = {}
        self.done.update(files)
        for seen in latest:
            del self._latest[seen.relpath]
        gone = tuple(path for path in batch.gone if verdict.is_through and path not in self._latest)
        for relpath in gone:
            self.done.pop(relpath, None)
        if not verdict.is_through:
            self._gone_not_before = verdict.not_before
        self._disturbed.intersection_update(self._latest)
        self.epoch += 1
        return WatchUpdate(files, gone, verdict.given_up, tuple(sorted(verdict.held)))

    def _is_open(self, seen: FileVersion, verdict: RetryVerdict) -> bool:
        """Return whether a file is not done by its run: it is tried again, or it was changed."""
        relpath = seen.relpath
        return self._spec.is_hot or relpath in verdict.held or relpath in self._disturbed

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
