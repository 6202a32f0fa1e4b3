"""Claims on the items of a run that several machines do together.

Machines that share a run walk the same plan. An item that another machine has claimed is waited for
and read from the ledger, so that all of them get the same result.
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

from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.retry import Backoff, Pauses
from paddock.runner.ledger.entries import Entry, LedgerError, ViewAtWork
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.ledger.sharing.budget import Spent
from paddock.runner.progress.drain import StopGate, StopGateClosed
from paddock.runner.progress.item_states import BAD, WORK, ItemState
from paddock.runner.progress.reasons import in_words
from paddock.runner.settings import UnattendedSettings

from ..traces.block_work import ItemWork
from ..traces.parts import change_reasons, changed_parts
from .machine_view import MachineView, as_json

if TYPE_CHECKING:
    from paddock.runner.ledger.sharing.coordination import (
        Claims,
        JoinedJob,
        PostgresGroupTurn,
        SharedSpending,
    )
    from paddock.runner.ledger.sharing.run_locks import TurnWait

CLAIM_BACKOFF = Backoff(first_s=0.1, longest_s=1.0)


T = TypeVar("T")
_held_claim: ContextVar[tuple[str, str] | None] = ContextVar("held", default=None)


class ClaimLost(asyncio.CancelledError):
    """Another machine took this one for dead and has claimed the item; our result is discarded."""


class WorkClaims:
    """The claims of one machine in a shared run."""

    def __init__(
        self, claims: Claims, ledger: Ledger, place: str, joined: JoinedJob, view: MachineView
    ) -> None:
        self._claims = claims
        self._view = view
        self._place = place
        self._ledger = ledger
        self.joined = joined
        self._spending: SharedSpending | None = None
        # One thread: claims use one connection, and the other threads are for files.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shares")

    async def runs(self) -> frozenset[str]:
        return await self._do(RunStore(self._ledger).runs_of, self.joined.job)

    async def fair_share_size(self, n_items: int) -> int:
        """Return how many items one machine takes at a time, so that others get some."""
        n_others = await self._do(self._claims.n_others, self._place)
        return max(1, -(-n_items // (n_others + 1)))

    def in_machine_order(self, chunks: list[Sequence[ItemWork]]) -> list[Sequence[ItemWork]]:
        """Rotate chunks by machine, so that machines seldom want the same one."""
        if len(chunks) < 2:
            return chunks
        first = zlib.crc32(self._claims.holder.encode()) % len(chunks)
        return chunks[first:] + chunks[:first]

    async def take(
        self, scope_id: str, items: Sequence[ItemWork], index: OutputIndex
    ) -> tuple[list[ItemWork], list[tuple[ItemWork, Entry]], list[ItemWork]]:
        """Claim items; return those that are ours, those done elsewhere, and those claimed there.

        Those that another machine has done meanwhile come with their entries.

        Raises:
            LedgerError: another machine uses another model or version of a step.
        """
        keys = [item.key for item in items]
        won = await self._do(self._claims.claim, scope_id, keys)
        entries = await self._do(self._ledger.entries, scope_id, keys)
        ours: list[ItemWork] = []
        done: list[tuple[ItemWork, Entry]] = []
        claimed_elsewhere: list[ItemWork] = []
        for item in items:
            entry = entries.get(item.key)
            if entry is not None and differs_by_machine(item, entry):
                await self._refuse_other(item, entry)
            if entry is not None and is_newly_done(item, entry):
                done.append((item, entry))
            else:
                (ours if item.key in won else claimed_elsewhere).append(item)
        if needless := won.intersection(item.key for item, _ in done):
            await self.release(scope_id, needless)
        if ours:  # a machine that died may have written files that we don't know
            await self._learn(index, scope_id, [item.key for item in ours])
        return ours, done, claimed_elsewhere

    async def _refuse_other(self, item: ItemWork, entry: Entry) -> None:
        """Raise on one of two machines that would overwrite each other's results."""
        others = await self._do(self._claims.runs_of_others, self.joined.job)
        if entry.run in others and not self.joined.is_before(entry.run):
            before, now = json.loads(entry.parts), json.loads(item.parts)
            why = in_words(change_reasons(changed_parts(before, now), before, now))
            raise LedgerError(
                f"'{item.key}' was done in this run by another machine (run '{entry.run}'), and "
                f"this one would do it again: {why}. Each would undo what "
                f"the other did. Give both the same model files and the same Paddock; "
                f"what is done stays done."
            )

    @asynccontextmanager
    async def on_step(
        self, scope_id: str, key: str, index: OutputIndex, stop_gate: StopGate
    ) -> AsyncIterator[None]:
        """Hold the claim on a step; wait for it, and know the outputs of its last holder."""
        pauses = Pauses(CLAIM_BACKOFF)
        while not await self._do(self._claims.claim, scope_id, [key]):
            if stop_gate.is_closed:
                raise StopGateClosed
            await pauses.wait()
        try:
            self.hold(scope_id, key)
            await self._learn(index, scope_id, [key])
            yield
        finally:
            await self.release(scope_id, [key])

    async def release(self, scope_id: str, keys: Collection[str]) -> None:
        await self._do(self._claims.release, scope_id, keys)

    @staticmethod
    def hold(scope_id: str, key: str) -> None:
        """Set which claim `fence` checks in this task."""
        _held_claim.set((scope_id, key))

    async def fence(self) -> None:
        """Check that this machine still holds the current item.

        Raises:
            ClaimLost: its heartbeat was missing for too long.
        """
        held = _held_claim.get()
        if held is None or self._claims.is_sure():
            return
        if not await self._do(self._claims.holds, *held):
            raise ClaimLost

    def group_turn(self, group: str, run: str) -> PostgresGroupTurn:
        """Return a run's turn in a concurrency group; machines that share the run share it."""
        return self._claims.group_turn(group, self.joined.job, run)

    async def count_spending(self, run: str) -> None:
        """Begin to count what the machines of this run spend together."""
        self._spending = self._claims.spending(self.joined.job, run)
        await self._do(self._spending.begin)

    async def spent_by_others(self, mine: Spent) -> Spent:
        """Record what this machine has spent; return what the others have."""
        assert self._spending is not None
        return await self._do(self._spending.exchange, mine)

    async def drop_dead(self) -> bool:
        """Forget machines that died; return whether there were any."""
        dead = await self._do(self._claims.drop_dead, self._place)
        for holder in dead:
            await self._do(self._view.remove_nonces, holder)
        return bool(dead)

    async def waits_for(self, scope_id: str, items: Sequence[ItemWork]) -> str:
        """Return a note on who holds the first of these items."""
        holder = await self._do(self._claims.holder_of, scope_id, [item.key for item in items])
        return f"waiting for {holder or 'another machine'}, which works on the rest"

    async def _learn(self, index: OutputIndex, scope_id: str, keys: Collection[str]) -> None:
        index.add_rows(await self._do(lambda: list(self._ledger.outputs(scope_id, keys))))

    async def _do(self, action: Callable[..., T], *values: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action, *values)

    def close(self) -> None:
        """Leave the job."""
        self._thread.shutdown()
        if self._spending is not None:
            self._spending.close()
        self._claims.leave()


@dataclass(frozen=True, slots=True)
class SharedPlace:
    """Where machines work together."""

    folders: str
    """The name of the pipeline's file with its folders: all machines there must see the same."""
    name: str
    """The same with the options of the run: the machines there do one job."""
    job: str
    """The name of that job; empty: the job that is under way, or a new one."""
    view: MachineView


@asynccontextmanager
async def open_claims(
    ledger: Ledger, place: SharedPlace, run: str, settings: UnattendedSettings, wait: TurnWait
) -> AsyncIterator[WorkClaims]:
    """Join the shared run at a place; wait for another job there that sees something else.

    Raises:
        OtherView: another machine of this job sees something else.
        LedgerError: PostgreSQL cannot be used.
        Locked: the wait is over.
    """
    claims = ledger.claims(f"{run}-{uuid4().hex[:12]}", settings.dead_after_s)
    view, work_claims = place.view, None
    try:
        seen = await asyncio.to_thread(view.write_nonces, claims.holder)
        own_view = json.dumps(as_json(view, seen))

        def differences(theirs: str) -> str:
            return view.differences(json.loads(theirs).get("digests", {}))

        async def join() -> tuple[object, str] | None:
            nonlocal work_claims
            joined = await asyncio.to_thread(
                claims.join, place.name, run, place.job,
                folders=place.folders, view=own_view, differs=differences,
            )  # fmt: skip
            if isinstance(joined, ViewAtWork):
                if joined.job == place.job:
                    await asyncio.to_thread(view.refuse_other, json.loads(joined.view), str(joined))
                return joined, f"sees another version ({differences(joined.view)})"
            work_claims = WorkClaims(claims, ledger, place.name, joined, view)
            return None

        await wait.until_free(join)
        assert work_claims is not None
        for other in work_claims.joined.views:
            await asyncio.to_thread(view.refuse_other, json.loads(other.view), str(other))
        yield work_claims
    finally:
        if work_claims is not None:
            await asyncio.to_thread(work_claims.close)
        await asyncio.to_thread(view.remove_nonces, claims.holder)


def state_done_elsewhere(entry: Entry) -> ItemState:
    """Return the state of an item that another machine has done in this job.

    It is the state before it ran, so that all machines count the same; failures are not retried.
    """
    if entry.state in BAD:
        return ItemState.QUARANTINED
    if entry.state != ItemState.DONE:
        return ItemState(entry.state)
    return next((state for state in (*WORK, ItemState.HELD) if state == entry.was), ItemState.NEW)


def is_newly_done(item: ItemWork, entry: Entry) -> bool:
    """Return whether an entry has the same hash and is newer than the verdict."""
    before = item.entry
    if entry.hash != item.hash:
        return False
    return before is None or (before.run, before.at) != (entry.run, entry.at)


def differs_by_machine(item: ItemWork, entry: Entry) -> bool:
    """Return whether an entry is stale only by what differs between machines.

    These are models and their contexts, versions of Paddock, and installed readers.
    """
    if entry.hash == item.hash:
        return False
    parts = changed_parts(json.loads(entry.parts), json.loads(item.parts))
    return bool(parts) and all(part.differs_by_machine for part in parts)
