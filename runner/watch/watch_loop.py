"""Watch one folder for years.

List, let files settle, collect a batch, submit it, record the outcome. Events are hints and a full
listing is the truth; `next_batch` decides. No error of the folder ends the watch. Knows no
Prefect and starts no run: `submit` does, and its caller calls `done` once for each batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.engine.system.tasks import call_in, end, wait_for_event
from paddock.engine.system.text import listed
from paddock.runner.folders.file_filter import WatchFilter, WatchSpec
from paddock.runner.folders.file_versions import UNKNOWN_FILE, FileIdentity, FileVersion
from paddock.runner.folders.folder_listing import list_folder, look_at_paths, root_identity
from paddock.runner.folders.unfinished_files import open_files
from paddock.runner.ledger.entries import LedgerError

from .batches import BatchOutcome, WatchBatch
from .change_source import POLL_S, POLL_SHARE, ChangeSource
from .handled_files import WatchLedger
from .hot_folder import OPEN_REASON, claim_files, claimed_files, finish_files, make_hot_folders
from .io_thread import SLOW_S, IoThread, WatchStopped
from .next_batch import REFUSED_S, WatchState
from .watch_messages import WatchMessages, away_message, other_folder_message

ROOT_S = 2.0
"""Interval of the checks whether the root is still there, and the same."""
GATHER_S = 0.02  # events come in groups
BETWEEN_LOOKS_S = 1.0
"""Between two full listings that hints ask for."""
SOON_SHARE = 0.2
"""The largest part of its time that a watch spends on listings, however large the folder."""
FLUSH_S = 5.0
"""The longest that the end waits for the ledger."""


@dataclass(frozen=True, slots=True)
class _EndedBatch:
    """A batch whose run has ended, and what is left to do for it."""

    run: str
    files: Mapping[str, FileIdentity]
    gone: tuple[str, ...]
    epoch: int
    moves: Mapping[str, str | None] = field(default_factory=dict)
    """Of a hot folder: path → why it failed."""


class FolderWatch:
    """One running entry of `on.watch`. Used from one event loop."""

    def __init__(
        self,
        spec: WatchSpec,
        ledger: WatchLedger,
        submit: Callable[[WatchBatch], Awaitable[None]],
        *,
        note: Callable[[str], None],
        max_attempts: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`note` takes messages for people. `clock` must never jump."""
        self.spec = spec
        self._submit = submit
        self._max_attempts = max_attempts
        self._clock = clock
        self._notices = WatchMessages(spec.root, note)
        self._wake = asyncio.Event()
        self._ledger = ledger
        self._filter = WatchFilter(spec)
        self._io = IoThread(f"watch {spec.root}", self._slow)
        self._change_source = ChangeSource(spec, self._io, self._notices, self._awake)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: WatchState | None = None
        self._ended: list[_EndedBatch] = []
        self._stuck: dict[str, str | None] = {}
        self._root: tuple[int, int] | None = None
        self._why_away = "not looked at yet"
        self._doubt = ""
        self._root_at = self._look_at = self._looked_at = 0.0
        self._took_s = 0.0
        self._n_files = 0
        self._is_slow = False

    # --- called from outside

    async def run(self, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._io.stop = stop
        stopped = asyncio.create_task(self._wake_at(stop))
        try:
            while not stop.is_set():
                try:
                    await self._begin()
                    await self._round()
                    self._notices.over("broken")
                except WatchStopped:
                    break
                except Exception as error:
                    # A watch must last for years: report unexpected errors, and list everything
                    # again.
                    words = f"{type(error).__name__}: {error}. The whole folder is listed again."
                    self._notices.tell("broken", words)
                    await self._io.sleep(REFUSED_S)
                    self._look_at = 0.0
                now = self._clock()
                times = [self._root_at]
                if self._root is not None and self._state is not None:
                    times += [self._look_at, self._state.next_at() or self._look_at]
                if self._ended or self._stuck:
                    times.append(now + REFUSED_S)
                wait_s = max(min(times) - now, GATHER_S)
                if await wait_for_event(self._wake, wait_s) and not stop.is_set():
                    await asyncio.sleep(GATHER_S)
                self._wake.clear()
        except WatchStopped:
            pass
        finally:
            await end(stopped)
            self._change_source.drop()
            # Write what is left at the end, in bounded time; the rest is done again.
            self._io.stop = None
            with contextlib.suppress(TimeoutError, Exception):
                await asyncio.wait_for(self._settle_ended(), FLUSH_S)
            self._io.close()

    async def done(self, batch: WatchBatch, outcome: BatchOutcome) -> None:
        """Take the outcome of a batch's run. Does not wait for the ledger."""
        state = self._state
        record = state.ended(batch, outcome, self._clock()) if state is not None else None
        if state is None or record is None:
            return
        for relpath, why in record.given_up.items():
            words = f"'{relpath}' is not retried until it changes: {why}"
            self._notices.tell("given up", words)
        moves: dict[str, str | None] = {}
        if self.spec.is_hot:
            held = frozenset(record.held)
            reasons = {**outcome.failed, **record.given_up}
            names = [seen.relpath for seen in batch.files if seen.relpath not in held]
            moves = {relpath: reasons.get(relpath) for relpath in names}
        ended = _EndedBatch(outcome.run, record.files, record.gone, state.epoch, moves)
        self._ended.append(ended)
        self._look_soon()
        self._wake.set()

    def status(self) -> dict[str, Any]:
        how = "polling" if self._change_source.polls else "watching"
        how = "away" if self._root is None else how
        since_s = round(self._clock() - self._looked_at, 1)
        return {
            "path": str(self.spec.root),
            "state": "not answering" if self._is_slow else how,
            "why": self._why_away if self._root is None else self._doubt or None,
            "files": self._n_files,
            "is_hot": self.spec.is_hot,
            "seconds_since_look": since_s if self._looked_at else None,
            **(self._state.counts() if self._state is not None else {}),
        }

    def _awake(self) -> None:
        if self._loop is not None:
            call_in(self._loop, self._wake.set)

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    def _slow(self, is_slow: bool) -> None:
        self._is_slow = is_slow
        if is_slow:
            self._notices.tell("slow", f"the folder has not answered for {SLOW_S:g} s.")
        else:
            self._notices.over("slow", "the folder answers again.")

    # --- rounds

    async def _begin(self) -> None:
        """Read the ledger; wait while it cannot be read."""
        while self._state is None:
            try:
                known = await self._io.ask(self._ledger.read)
            except LedgerError as error:
                self._notices.tell("ledger", str(error))
                await self._io.sleep(REFUSED_S)
                continue
            self._notices.over("ledger")
            self._state = WatchState(
                self.spec,
                known.done,
                epoch=known.epoch,
                roots=known.roots,
                wants=self._filter.wants,
                max_attempts=self._max_attempts,
            )

    async def _round(self) -> None:
        """Take new hints, and submit what is due."""
        state, now = self._state, self._clock()
        assert state is not None  # `_begin` made it
        try:
            await self._settle_ended()
            if not await self._is_there(now):
                return
            hints = self._change_source.take()
            if hints.is_overflow:
                state.disturb()
                self._look_soon()
            if hints.relpaths:
                paths = hints.relpaths
                hinted = await self._io.ask(look_at_paths, self.spec.root, paths, self._filter)
                state.hint(hinted, self._clock())
                if None in hinted.values() and not self.spec.is_hot:
                    self._look_soon()  # only full listings show what is gone
            if self._clock() >= self._look_at or state.needs_look(self._clock()):
                await self._whole(state)
            state.release(self._clock())
            # Look again at files whose settle time is over
            names = state.settling.to_check(self._clock())
            if names:
                found: dict[str, FileVersion | None] = dict.fromkeys(names)
                found.update(await self._io.ask(look_at_paths, self.spec.root, names, self._filter))
                written = self._change_source.written()
                unfinished = await self._io.ask(open_files, self.spec.root, names, written)
                for relpath in unfinished:
                    state.settling.restart(relpath, self._clock())
                    self._notices.tell(relpath, f"'{relpath}' waits: {OPEN_REASON}.")
                for relpath in found.keys() - unfinished:
                    self._notices.over(relpath)
                state.check(found, self._clock())
        except OSError as error:
            self._notices.tell("away", away_message(error))
            self._why_away = error.strerror or type(error).__name__
            self._root = None
            self._root_at = self._clock() + ROOT_S
            await self._change_source.stop()
            return
        if state.is_due(self._clock()):
            await self._hand_on(state)

    async def _is_there(self, now: float) -> bool:
        """Return whether the root is there and the same; restart events that have stopped."""
        if now < self._root_at:
            return self._root is not None
        self._root_at = now + ROOT_S
        root = await self._io.ask(root_identity, self.spec.root)
        is_back = self._root is None
        if root != self._root or self._change_source.is_deaf(now):
            await self._change_source.start(now)
            self._look_at = 0.0
            if self.spec.is_hot:
                # Take files left in a hot folder's `processing/` that no batch knows
                assert self._state is not None  # `_begin` made it
                known = self._state.claimed()
                await self._io.ask(make_hot_folders, self.spec)
                found = await self._io.ask(claimed_files, self.spec, self._filter)
                new = {relpath: seen for relpath, seen in found.items() if relpath not in known}
                self._state.found_claimed(new, self._clock())
        self._root = root
        if is_back:
            self._notices.over("away", "the folder is there again.")
        return True

    def _look_soon(self) -> None:
        wait_s = max(BETWEEN_LOOKS_S, self._took_s / SOON_SHARE)
        self._look_at = min(self._look_at, self._looked_at + wait_s)

    async def _whole(self, state: WatchState) -> None:
        began = self._clock()
        listing = await self._io.ask(list_folder, self.spec.root, self._filter)
        now = self._looked_at = self._clock()
        self._took_s = now - began
        n_absent = state.look(listing, now)
        if n_absent and await self._confirmed(state):
            n_absent = state.look(listing, now)
        await self._tell_foreign(state, n_absent)
        if listing.unreadable:
            names = listed([f"'{name}'" for name in sorted(listing.unreadable)], 3)
            text = f"{names} cannot be read: files there are not seen."
            self._notices.tell("unreadable", text)
        else:
            self._notices.over("unreadable")
        self._n_files = len(listing.files)
        self._change_source.compare(listing.n_folders)
        reconcile_s = self.spec.reconcile_s
        wait_s = min(POLL_S, reconcile_s) if self._change_source.polls else reconcile_s
        self._look_at = now + max(wait_s, BETWEEN_LOOKS_S, self._took_s / POLL_SHARE)

    async def _confirmed(self, state: WatchState) -> bool:
        """Read again which folder it is: a run with `--yes` may have confirmed it."""
        try:
            roots = (await self._io.ask(self._ledger.read)).roots
        except LedgerError as error:
            self._notices.tell("ledger", str(error))
            return False
        is_new = list(roots) != state.roots
        state.roots = list(roots)
        return is_new

    async def _tell_foreign(self, state: WatchState, n_absent: int) -> None:
        self._doubt = ""
        if n_absent:
            self._doubt = other_folder_message(self.spec, n_absent)
            self._notices.tell("foreign", self._doubt)
            return
        self._notices.over("foreign")
        if state.is_root_new:
            try:
                await self._io.ask(self._ledger.record_root, state.roots[0])
            except LedgerError as error:
                self._notices.tell("ledger", str(error))
            else:
                state.is_root_new = False

    # --- batches

    async def _hand_on(self, state: WatchState) -> None:
        try:
            self._filter.owned = await self._io.ask(self._ledger.owned)
        except LedgerError as error:
            self._notices.tell("ledger", str(error))
            state.postpone(self._clock())
            return
        for relpath in state.stable():
            if not self._filter.wants_file(relpath):
                state.forget(relpath)
        claimed = None
        if self.spec.is_hot:
            stable, written = state.stable(), self._change_source.written()
            known = state.claimed().keys()
            moved = await self._io.ask(claim_files, self.spec, stable, known, written)
            state.changed(moved.changed, self._clock())
            self._tell_stuck(moved.refused)
            for relpath in moved.files:
                self._notices.over(relpath)
            if len(moved.files) < len(stable):
                self._look_at = self._clock() + BETWEEN_LOOKS_S  # files that are left settle again
            claimed = moved.files
        batch = state.take(claimed)
        if batch is None:
            return
        try:
            if not self.spec.is_hot:
                names = (*(seen.relpath for seen in batch.files), *batch.gone)
                taken = dict.fromkeys(names, UNKNOWN_FILE)
                await self._io.ask(self._ledger.record, "", taken, (), state.epoch)
            await self._submit(batch)
        except WatchStopped:
            raise
        except Exception as error:  # whatever keeps a run from starting must not end the watch
            self._notices.tell("submit", f"no run could be submitted ({error}). Retrying.")
            state.refused(batch, self._clock())
            return
        self._notices.over("submit")
        self._notices.over("ledger")

    # --- ended batches

    async def _settle_ended(self) -> None:
        while self._ended:
            ended = self._ended[0]
            try:
                await self._io.ask(
                    self._ledger.record, ended.run, ended.files, ended.gone, ended.epoch
                )
            except LedgerError as error:
                self._notices.tell("ledger", str(error))
                return
            self._stuck.update(ended.moves)
            self._ended.pop(0)
            self._notices.over("ledger")
        if not self._stuck or self._state is None:
            return
        failed = {relpath: why for relpath, why in self._stuck.items() if why is not None}
        claimed, note = self._state.claimed(), self._ledger.record_filed
        try:
            moved = await self._io.ask(
                finish_files, self.spec, list(self._stuck), failed, claimed, note
            )
        except LedgerError as error:
            self._notices.tell("ledger", str(error))
            return
        self._state.left(moved.files)
        given_up = self._state.changed_in_run(moved.changed, self._clock())
        for relpath in moved.changed:
            if relpath in given_up:
                self._stuck[relpath] = given_up[relpath]
            else:
                del self._stuck[relpath]
        for relpath in moved.files:
            self._stuck.pop(relpath, None)
            self._notices.over(relpath)
        self._tell_stuck(moved.refused)

    def _tell_stuck(self, refused: Mapping[str, str]) -> None:
        for relpath, why in refused.items():
            self._notices.tell(relpath, f"'{relpath}' cannot be moved ({why}). Retrying.")
