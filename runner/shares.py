"""What one participant of several does of a run's items: claims them, and takes others' results.

Everyone walks the same plan; an item that another one holds is waited for and read from the ledger,
so that all come to the same result. Only where the ledger is in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from paddock.runner.budget import Spent

from .border import Border, BorderReached
from .freshness import different, reasons
from .ledger.entries import Entry, LedgerError
from .ledger.ledger import Ledger
from .ledger.outputs import Index
from .report import State
from .unattended_settings import UnattendedSettings
from .work import ItemWork

if TYPE_CHECKING:  # psycopg takes a quarter of a second, and need not be installed
    from .ledger.claims import Claims, Joined
    from .ledger.spending import Spending
    from .ledger.turns import SharedTurn

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0

_WORK: tuple[State, ...] = ("new", "changed", "stale", "held")

T = TypeVar("T")
_held: ContextVar[tuple[str, str] | None] = ContextVar("held", default=None)


class ClaimLost(asyncio.CancelledError):
    """Another participant took us for dead and has the item now; what we did of it is not kept."""


class Shares:
    """The part of one participant in a run."""

    def __init__(self, claims: Claims, ledger: Ledger, place: str, joined: Joined) -> None:
        self._claims = claims
        self._place = place
        self._ledger = ledger
        self.joined = joined
        self._spending: Spending | None = None
        # One thread: the claims have one connection, and files need the others.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shares")

    async def runs(self) -> frozenset[str]:
        """Give the names of the runs that belong to this job."""
        return await self._do(self._ledger.runs_of, self.joined.job)

    async def fair_part(self, n_items: int) -> int:
        """Give how many items one participant takes at a time, so that others have some as well."""
        n_others = await self._do(self._claims.n_others, self._place)
        return max(1, -(-n_items // (n_others + 1)))

    def in_own_order(self, chunks: list[Sequence[ItemWork]]) -> list[Sequence[ItemWork]]:
        """Let participants begin at different places, so that they seldom want the same."""
        if len(chunks) < 2:
            return chunks
        first = zlib.crc32(self._claims.holder.encode()) % len(chunks)
        return chunks[first:] + chunks[:first]

    async def take(
        self, scope: str, items: Sequence[ItemWork], index: Index
    ) -> tuple[list[ItemWork], list[tuple[ItemWork, Entry]], list[ItemWork]]:
        """Give (ours now, done by another meanwhile with the entry, held by another).

        Raises:
            LedgerError: another does the job with another model, or another version of a step.
        """
        keys = [item.key for item in items]
        won = await self._do(self._claims.claim, scope, keys)
        entries = await self._do(self._ledger.entries, scope, keys)
        for item in items:
            if item.key in entries and differs_by_machine(item, entries[item.key]):
                await self._refuse_other(item, entries[item.key])
        done = [
            (item, entries[item.key])
            for item in items
            if item.key in entries and is_newly_done(item, entries[item.key])
        ]
        over = {item.key for item, _ in done}
        if won & over:
            await self.release(scope, won & over)
        ours = [item for item in items if item.key in won and item.key not in over]
        if ours:  # one that died may have written files that we don't know
            await self._learn(index, scope, [item.key for item in ours])
        passed = [item for item in items if item.key not in won and item.key not in over]
        return ours, done, passed

    async def _refuse_other(self, item: ItemWork, entry: Entry) -> None:
        """Stop before machines undo one another's work."""
        others = await self._do(self._claims.runs_of_others, self.joined.job)
        if entry.run in others:
            before, now = json.loads(entry.parts), json.loads(item.parts)
            why = "; ".join(reasons(different(before, now), before, now))
            raise LedgerError(
                f"'{item.key}' was done in this run by another machine (run '{entry.run}'), and "
                f"this one would do it again: {why}. Each would undo what "
                f"the other did. Give both the same model files and the same Paddock; "
                f"what is done stays done."
            )

    async def take_one(
        self, scope: str, item: ItemWork, index: Index, border: Border
    ) -> Entry | None:
        """Wait until an item is ours, then None; or another has done it, then its entry.

        Raises:
            BorderReached: nothing new may begin meanwhile.
            LedgerError: as `take` does.
        """
        pauses = Pauses()
        while True:
            ours, done, _ = await self.take(scope, [item], index)
            if done:
                return done[0][1]
            if ours:
                return None
            if border.is_closed:
                raise BorderReached
            await pauses.wait()

    @asynccontextmanager
    async def turn(self, scope: str, key: str, index: Index, border: Border) -> AsyncIterator[None]:
        """Let one participant after the other do something, each knowing what the last wrote."""
        pauses = Pauses()
        while not await self._do(self._claims.claim, scope, [key]):
            if border.is_closed:
                raise BorderReached
            await pauses.wait()
        try:
            self.hold(scope, key)
            await self._learn(index, scope, [key])
            yield
        finally:
            await self.release(scope, [key])

    async def release(self, scope: str, keys: Collection[str]) -> None:
        """Let items go."""
        await self._do(self._claims.release, scope, keys)

    @staticmethod
    def hold(scope: str, key: str) -> None:
        """Note for the task at hand whose claim its `fence` is about."""
        _held.set((scope, key))

    async def fence(self) -> None:
        """Let nothing be written for an item that is no longer ours.

        Raises:
            ClaimLost: this participant was not heard of for too long.
        """
        held = _held.get()
        if held is None or self._claims.is_sure():
            return
        if not await self._do(self._claims.holds, *held):
            raise ClaimLost

    def turn_in(self, group: str, run: str, dead_after_s: float) -> SharedTurn:
        """Give this participant's part in a group; those who do the job have the turn together."""
        from .ledger.turns import SharedTurn

        claims = self._claims
        return SharedTurn(claims.server, group, claims.holder, self.joined.job, run, dead_after_s)

    async def counting(self, run: str, dead_after_s: float) -> None:
        """Begin to count what those who do the job spend together."""
        from .ledger.spending import Spending

        self._spending = Spending(self._claims.server, self.joined.job, run, dead_after_s)
        await self._do(self._spending.begin)

    async def spent_by_others(self, mine: Spent) -> Spent:
        """Tell what this participant has spent, and give what the others have."""
        assert self._spending is not None
        return await self._do(self._spending.others, mine)

    async def bury(self) -> bool:
        """Forget the participants that died; tells whether there were any."""
        return await self._do(self._claims.bury, self._place)

    async def waits_for(self, scope: str, items: Sequence[ItemWork]) -> str:
        """Say in words who holds the first of these items."""
        who = await self._do(self._claims.holder_of, scope, [item.key for item in items])
        return f"waiting for {who or 'another machine'}, which works on the rest"

    async def _learn(self, index: Index, scope: str, keys: Collection[str]) -> None:
        index.learn(await self._do(lambda: list(self._ledger.outputs(scope, keys))))

    async def _do(self, action: Callable[..., T], *values: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action, *values)

    def close(self) -> None:
        """Leave the job."""
        self._thread.shutdown()
        if self._spending is not None:
            self._spending.close()
        self._claims.leave()


class Pauses:
    """Ever longer waits, short again where something came of the last one."""

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S

    async def wait(self, *, has_come: bool = False) -> None:
        """Wait a moment."""
        if has_come:
            self._pause_s = FIRST_PAUSE_S
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)


@asynccontextmanager
async def shared(
    ledger: Ledger, place: str, run: str, job: str, settings: UnattendedSettings
) -> AsyncIterator[Shares]:
    """Take part in what is done at a place.

    Raises:
        LedgerError: PostgreSQL cannot be used.
    """
    claims = ledger.claims(f"{run}-{uuid4().hex[:12]}", settings.dead_after_s)
    joined = await asyncio.to_thread(claims.join, place, run, job)
    shares = Shares(claims, ledger, place, joined)
    try:
        yield shares
    finally:
        await asyncio.to_thread(shares.close)


def shared_state(entry: Entry) -> State:
    """Tell as what an item counts that another machine has done in this job.

    As what it was before, so that all machines count the same; what failed is not tried again.
    """
    if entry.state in ("quarantined", "failed"):
        return "quarantined"
    if entry.state == "skipped":
        return "skipped"
    return next((state for state in _WORK if state == entry.was), "new")


def is_newly_done(item: ItemWork, entry: Entry) -> bool:
    """Tell whether an entry is about this very work, and came after the item was judged."""
    before = item.entry
    if entry.hash != item.hash:
        return False
    return before is None or (before.run, before.at) != (entry.run, entry.at)


def differs_by_machine(item: ItemWork, entry: Entry) -> bool:
    """Tell whether an entry is old for nothing but what a machine has: models and Paddock."""
    if entry.hash == item.hash:
        return False
    names = different(json.loads(entry.parts), json.loads(item.parts))
    return bool(names) and all(
        name.endswith((".model", ".version")) and not name.startswith(("inputs.", "steps."))
        for name in names
    )
