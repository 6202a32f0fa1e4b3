"""Watch one folder for years.

List, let files settle, give an order for them, take its end. Events are hints and a full listing
is the truth; `next_batch` decides. No error of the folder ends the watch. The queue of orders is
the memory of what is out, the ledger of what was handled.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from paddock.engine.system.tasks import call_in, in_left_thread, wait_for_event
from paddock.engine.system.text import listed
from paddock.runner.folders.file_filter import WatchFilter, WatchSpec
from paddock.runner.folders.file_versions import FileVersion, file_version_at
from paddock.runner.folders.folder_listing import list_folder, root_identity
from paddock.runner.folders.unfinished_files import open_files
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.workers.order import Order

from .change_source import POLL_S, POLL_SHARE, ChangeSource
from .handled_files import WatchLedger
from .hot_folder import OPEN_REASON, claim_files, claimed_files, finish_files, make_hot_folders
from .next_batch import REFUSED_S, WatchState
from .watch_messages import WatchMessages, away_message

SLOW_S = 30.0
"""After this time a slow folder is reported; the call stays open."""
ROOT_S = 2.0
"""Interval of the checks whether the root is still there, and the same."""
GATHER_S = 0.02  # events come in groups
BETWEEN_LOOKS_S = 0.1
"""Between two listings that events ask for."""
SOON_SHARE = 0.2
"""The largest part of its time that a watch spends on listings, however large the folder."""
END_S = 5.0
"""The longest that the end waits for the folder."""

_T = TypeVar("_T")


class FolderWatch:
    """One running entry of `on.watch`. Used from one event loop."""

    def __init__(
        self,
        spec: WatchSpec,
        ledger: WatchLedger,
        *,
        known_orders: Callable[[], Awaitable[Sequence[Order]]],
        submit: Callable[[Sequence[FileVersion], Sequence[str]], Awaitable[Order]],
        note: Callable[[str], None],
        max_attempts: int = 3,
    ) -> None:
        """`note` takes messages for people.

        `known_orders` returns those whose end the watch has not taken, the oldest first; `submit`
        gives an order for settled and deleted files.
        """
        self.spec = spec
        self._known_orders = known_orders
        self._submit = submit
        self._max_attempts = max_attempts
        self._clock = time.monotonic  # which never jumps
        self._notices = WatchMessages(spec.root, note)
        self._wake = asyncio.Event()
        self._ended: list[tuple[Order, asyncio.Future[None]]] = []
        """Orders whose end is to be taken, and what resolves when it is written."""
        self._is_over = False
        self._ledger = ledger
        self._filter = WatchFilter(spec)
        self._call: asyncio.Future[Any] | None = None
        """The last call that accesses the folder or the ledger."""
        self._change_source = ChangeSource(spec.root, self._ask, self._notices, self._awake)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: WatchState | None = None
        self._unfiled: dict[str, str | None] = {}
        """Done files of a hot folder that lie in `processing/` still; and why they failed."""
        self._root: tuple[int, int] | None = None
        self._why_away = "not looked at yet"
        self._root_at = self._look_at = self._looked_at = 0.0
        self._took_s = 0.0
        self._n_files = 0
        self._is_slow = False

    # --- called from outside

    async def run(self) -> None:
        """Watch until cancelled. A move of files that is under way is finished first."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    await self._round(await self._begun())
                    self._notices.over("broken")
                except Exception as error:
                    # A watch must last for years: report unexpected errors, and list everything
                    # again.
                    message = f"{type(error).__name__}: {error}. The whole folder is listed again."
                    self._notices.report_once("broken", message)
                    await asyncio.sleep(REFUSED_S)
                    self._look_at = 0.0
                now = self._clock()
                times = [self._root_at]
                if self._root is not None and self._state is not None:
                    times += [self._look_at, self._state.next_at() or self._look_at]
                if self._unfiled or self._ended:
                    times.append(now + REFUSED_S)
                wait_s = max(min(times) - now, GATHER_S)
                if await wait_for_event(self._wake, wait_s):
                    await asyncio.sleep(GATHER_S)
                self._wake.clear()
        finally:
            self._is_over = True
            for _, taken in self._ended:
                taken.cancel()
            self._change_source.drop()
            if self._call is not None:
                await asyncio.wait({self._call}, timeout=END_S)
                self._call.cancel()

    async def done(self, order: Order) -> None:
        """Take the end of an order; return when it is written.

        Raises:
            CancelledError: the watch ended before.
        """
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.append((order, taken))
        self._wake.set()
        if self._is_over:
            taken.cancel()
        await taken

    def status(self) -> dict[str, Any]:
        state = "polling" if self._change_source.polls else "watching"
        if self._root is None:
            state = "away"
        if self._is_slow:
            state = "not answering"
        since_s = round(self._clock() - self._looked_at, 1)
        return {
            "text": f"{state} '{self.spec.root}'",
            "path": str(self.spec.root),
            "state": state,
            "why": self._why_away if self._root is None else None,
            "files": self._n_files,
            "is_hot": self.spec.is_hot,
            "seconds_since_look": since_s if self._looked_at else None,
            **(self._state.counts() if self._state is not None else {}),
        }

    def _awake(self) -> None:
        if self._loop is not None:
            call_in(self._loop, self._wake.set)

    async def _ask(self, what: Callable[..., _T], *values: Any) -> _T:
        """Call what may hang, as on a dead network share, in a thread that nothing waits for."""
        call = asyncio.ensure_future(in_left_thread(what, *values))
        self._call = call
        done, _ = await asyncio.wait({call}, timeout=SLOW_S)
        if not done:
            self._is_slow = True
            self._notices.report_once("slow", f"the folder has not answered for {SLOW_S:g} s.")
            await asyncio.wait({call})
        self._is_slow = False
        self._notices.over("slow", "the folder answers again.")
        return call.result()

    # --- rounds

    async def _begun(self) -> WatchState:
        """Return the state, which is read first; wait while it cannot be."""
        while self._state is None:
            try:
                orders = await self._known_orders()  # first: an end may be taken meanwhile
                known = await self._ask(self._ledger.read)
            except LedgerError as error:
                self._notices.report_once("ledger", str(error))
                await asyncio.sleep(REFUSED_S)
                continue
            self._notices.over("ledger")
            self._state = WatchState(
                self.spec,
                known,
                orders=orders,
                wants=self._filter.wants,
                max_attempts=self._max_attempts,
            )
        return self._state

    async def _round(self, state: WatchState) -> None:
        """Take new hints, and give an order for what is due."""
        try:
            await self._take_ends(state)
            await self._file_done(state)
            if not await self._look_at_root(state, self._clock()):
                return
            if self._change_source.take():
                self._look_soon()
            if self._clock() >= self._look_at or state.needs_look(self._clock()):
                await self._list_all(state)
            state.release(self._clock())
            await self._check_settled(state)
        except OSError as error:
            self._notices.report_once("away", away_message(error))
            self._why_away = error.strerror or type(error).__name__
            self._root = None
            self._root_at = self._clock() + ROOT_S
            await self._change_source.stop()
            return
        if state.is_due(self._clock()):
            await self._give_order(state)

    async def _check_settled(self, state: WatchState) -> None:
        """Look again at files whose settle time is over."""
        names = state.settling.to_check(self._clock())
        if not names:
            return
        root = self.spec.root
        versions = await self._ask(
            lambda: {name: file_version_at(f"{root}{os.sep}{name}", name) for name in names}
        )
        written = self._change_source.written()
        unfinished = await self._ask(open_files, root, names, written)
        for relpath in unfinished:
            state.settling.restart(relpath, self._clock())
            self._notices.report_once(relpath, f"'{relpath}' waits: {OPEN_REASON}.")
        for relpath in versions.keys() - {*unfinished}:
            self._notices.over(relpath)
        state.check(versions, self._clock())

    async def _look_at_root(self, state: WatchState, now: float) -> bool:
        """Look at the root when it is time, and return whether it is there.

        Of a new one, or where events have stopped: start them, and list it again.
        """
        if now < self._root_at:
            return self._root is not None
        self._root_at = now + ROOT_S
        root = await self._ask(root_identity, self.spec.root)
        is_back = self._root is None
        if root != self._root or self._change_source.is_deaf(now):
            await self._change_source.start(now)
            self._look_at = 0.0
            if self.spec.is_hot:
                # Take files left in a hot folder's `processing/` that no order has
                await self._ask(make_hot_folders, self.spec)
                files = await self._ask(claimed_files, self.spec, self._filter)
                new = {path: seen for path, seen in files.items() if path not in state.claimed}
                state.found_claimed(new, self._clock())
        self._root = root
        if is_back:
            self._notices.over("away", "the folder is there again.")
        return True

    def _look_soon(self) -> None:
        wait_s = max(BETWEEN_LOOKS_S, self._took_s / SOON_SHARE)
        self._look_at = min(self._look_at, self._looked_at + wait_s)

    async def _list_all(self, state: WatchState) -> None:
        began = self._clock()
        listing = await self._ask(list_folder, self.spec.root, self._filter)
        state.take_listing(listing, self._clock())
        now = self._looked_at = self._clock()
        self._took_s = now - began
        if listing.unreadable:
            names = listed([f"'{name}'" for name in sorted(listing.unreadable)], 3)
            text = f"{names} cannot be read: files there are not seen."
            self._notices.report_once("unreadable", text)
        else:
            self._notices.over("unreadable")
        self._n_files = len(listing.files)
        self._change_source.compare(listing.n_folders, now)
        reconcile_s = self.spec.reconcile_s
        wait_s = min(POLL_S, reconcile_s) if self._change_source.polls else reconcile_s
        self._look_at = now + max(wait_s, BETWEEN_LOOKS_S, self._took_s / POLL_SHARE)

    # --- orders

    async def _give_order(self, state: WatchState) -> None:
        try:
            self._filter.owned = await self._ask(self._ledger.owned)
        except LedgerError as error:
            self._notices.report_once("ledger", str(error))
            state.postpone(self._clock())
            return
        for relpath in state.ready():
            if not self._filter.wants_file(relpath):
                state.forget_file(relpath)
        if self.spec.is_hot:
            ready, written = state.ready(), self._change_source.written()
            moved = await self._ask(claim_files, self.spec, ready, state.claimed.keys(), written)
            state.claimed |= moved.files
            for relpath in ready.keys() - moved.files.keys():
                state.forget_file(relpath)
                self._look_at = self._clock() + BETWEEN_LOOKS_S  # files that are left settle again
            state.changed(moved.changed, self._clock())
            self._tell_refused(moved.refused)
            for relpath in moved.files:
                self._notices.over(relpath)
        files, gone = tuple(state.ready().values()), tuple(state.gone())
        if not files and not gone:
            return
        try:
            order = await self._submit(files, gone)
        except Exception as error:  # whatever keeps an order from the disk must not end the watch
            self._notices.report_once("submit", f"no order could be given ({error}). Retrying.")
            state.postpone(self._clock())
            return
        state.sent(order)
        self._notices.over("submit")
        self._notices.over("ledger")

    # --- ended orders

    async def _take_ends(self, state: WatchState) -> None:
        while self._ended:
            order, taken = self._ended[0]
            try:
                await self._take_end(state, order)
            except LedgerError as error:
                self._notices.report_once("ledger", str(error))
                return
            self._notices.over("ledger")
            del self._ended[0]
            if not taken.done():
                taken.set_result(None)
            self._look_soon()

    async def _take_end(self, state: WatchState, order: Order) -> None:
        """Write what an order's run has handled.

        Raises:
            LedgerError: nothing has changed.
        """
        outcome = await self._ask(self._ledger.outcome, order)
        update = state.note_end(order.id, outcome)
        if update is None:
            return
        handled = {} if self.spec.is_hot else update.files
        if handled or update.gone:
            await self._ask(self._ledger.record, outcome.run, handled, update.gone)
        state.ended(order.id, outcome, update, self._clock())
        given_up = {} if outcome.is_through else outcome.failed
        for relpath in given_up.keys() & update.files.keys():
            message = f"'{relpath}' is not retried until it changes: {given_up[relpath]}"
            self._notices.report_once("given up", message)
        if self.spec.is_hot:
            self._unfiled |= {path: outcome.failed.get(path) for path in update.files}
            await self._file_done(state)

    async def _file_done(self, state: WatchState) -> None:
        """Move done files of a hot folder out of `processing/`."""
        if not self._unfiled:
            return
        failed = {relpath: why for relpath, why in self._unfiled.items() if why is not None}
        try:
            moved = await self._ask(
                finish_files, self.spec, list(self._unfiled), failed, state.claimed,
                self._ledger.record_filed,
            )  # fmt: skip
        except LedgerError as error:
            self._notices.report_once("ledger", str(error))
            return
        state.left(moved.files)
        state.changed(moved.changed, self._clock())
        for relpath in (*moved.files, *moved.changed):
            del self._unfiled[relpath]
        for relpath in moved.files:
            self._notices.over(relpath)
        self._tell_refused(moved.refused)

    def _tell_refused(self, refused: Mapping[str, str]) -> None:
        for relpath, why in refused.items():
            self._notices.report_once(relpath, f"'{relpath}' cannot be moved ({why}). Retrying.")
