"""What steps are given: the pool through the ledger, the files, the models' names, a log.

One `Toolbox` for a run; it makes the `Tools` of each step of each item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.engine.request import ModelSpec, Pool, Role
from paddock.steps.places import shown
from paddock.steps.step import NoStores, NoToolset, Readers, StepError, Tools
from paddock.steps.storage import ItemName
from paddock.steps.stores.opened import OpenStores
from paddock.steps.toolset import Memo, Toolset

from .binding.bound import BoundPlan, BoundStep
from .calls import Caller, Digests, Fence, LedgerPool
from .crash_suspects import CrashSuspects, Solitude
from .evidence import AWAY, STORE, held_mark
from .ledger.entries import StoredRow
from .ledger.ledger import Ledger
from .ledger.origins import Origins
from .ledger.outputs import Index
from .memo import LedgerMemo
from .own_files import OwnFiles
from .shares import Shares
from .tally import Tally
from .taping import Taping
from .toolsets import Hands, ItemToolset
from .work import Options


@dataclass(frozen=True, slots=True)
class BoundModels:
    """Implements `paddock.steps.step.Models` over a pipeline's aliases and the defaults."""

    models: Mapping[str, ModelSpec]
    defaults: Mapping[Role, ModelSpec]
    own: ModelSpec | None

    def resolve(self, alias: str | None, role: Role) -> ModelSpec:
        """Give the model of this alias, else the step's own, else the default of this role."""
        if alias is not None:
            if alias in self.models:
                return self.models[alias]
            raise StepError(f"there is no model '{alias}' under `models`.")
        if self.own is not None and self.own.role == role:
            return self.own
        if role in self.defaults:
            return self.defaults[role]
        raise StepError(f"there is no model to {role} with.", remedy="Name one under `models`.")


class ItemLog:
    """Implements `paddock.steps.step.Log`: says which item a note is about."""

    def __init__(self, tally: Tally, step: str, key: str) -> None:
        self._tally = tally
        self._place = f"{key}: " if key else f"{step}: "

    def note(self, text: str) -> None:
        """Show one line, and keep it in the report."""
        self._tally.note(f"{self._place}{text}")


class ItemOutputs:
    """Implements `paddock.steps.step.Outputs` for one item."""

    def __init__(
        self,
        index: Index,
        tally: Tally,
        scope: str,
        key: str,
        fence: Fence | None = None,
        stores: OpenStores | None = None,
        *,
        takes_over: bool = False,
        own: OwnFiles | None = None,
    ) -> None:
        self._takes_over = takes_over
        self._own = own
        self._index = index
        self._stores = stores
        self._fence = fence
        self._tally = tally
        self._scope = scope
        self._key = key
        self._intended: set[Path] = set()
        self.written: dict[str, None] = {}
        """Stored paths of what the item wrote, in order; part of its entry."""
        self.kept: dict[Path, None] = {}
        """Stores in which the item keeps rows."""
        self.read: dict[str, None] = {}
        """Files that were read because a model asked for them."""
        self.searched: dict[str, list[Any]] = {}
        """Marks of the stores that were searched for it, of files that it brought away, and of
        files that were kept as somebody had left them."""

    @property
    def takes_over(self) -> bool:
        """Whether this run replaces files that were edited, or are not ours."""
        return self._takes_over

    def owned(self) -> frozenset[Path]:
        """Tell every file that was written, absolute."""
        return self._index.owned()

    async def known_sha256(self, path: Path) -> frozenset[str]:
        """Tell the digests that we wrote, or were about to write, to this path."""
        return self._index.known_sha256(path)

    def check_target(self, path: Path, *, is_new: bool = True) -> None:
        """Check that a step may write, move or remove a file.

        Raises:
            StepError: it is Paddock's own, a part of the pipeline, or could run as one.
        """
        refusal = self._own.refusal(path, is_new=is_new) if self._own is not None else None
        if refusal is not None:
            name = shown(self._index.stored(path))
            raise StepError(f"no step may write '{name}': it {refusal.why}.", remedy=refusal.remedy)

    async def intend(self, path: Path, sha256: str) -> None:
        """Note durably what is about to be renamed to `path`."""
        self.check_target(path)
        if self._fence is not None:
            await self._fence()
        self._index.claim(self._scope, self._key, path)
        if self._index.is_recorded(self._scope, self._key, path, sha256):
            return
        self._index.intend(self._scope, self._key, path, sha256, self._tally.run)
        self._intended.add(path)
        await self._index.ledger.durable()
        # Again: the commit took its time, and the rename comes next.
        if self._fence is not None:
            await self._fence()

    async def wrote(self, path: Path, sha256: str, size_bytes: int) -> None:
        """Note that `path` holds this now."""
        self._index.claim(self._scope, self._key, path)
        self._index.wrote(self._scope, self._key, path, sha256, self._tally.run)
        self.written[self._index.stored(path)] = None
        if path in self._intended:
            self._tally.wrote(str(path))

    async def holds(self, path: Path, sha256: str) -> None:
        """Note that `path` is kept as somebody left it, and that ours has this digest."""
        self.searched |= held_mark(self._index.stored(path), sha256)

    async def brings_away(self, path: Path) -> None:
        """Note that a file has left its place."""
        self.searched[self._index.stored(path)] = [AWAY]

    async def keeps_rows(self, store: Path) -> None:
        """Note that rows are about to be kept in a store."""
        self.check_target(store)
        if self._fence is not None:
            await self._fence()
        self.kept[store] = None
        ledger = self._index.ledger
        intended = StoredRow(self._scope, self._index.stored(store), self._key, "", 0)
        Origins(ledger).record_stored(intended, self._tally.run)
        await ledger.durable()
        if self._fence is not None:
            await self._fence()

    async def reads_file(self, path: Path) -> None:
        """Note that a file was read that the step could not name beforehand."""
        self.read[str(path)] = None

    async def reads_rows(self, store: Path) -> None:
        """Note that a store is about to be searched."""
        if self._stores is not None:
            await self._stores.look([store])
            self.searched[self._index.stored(store)] = [STORE, self._stores.content(store)]


@dataclass(frozen=True, slots=True)
class Toolbox:
    """All that the steps of a run share."""

    bound: BoundPlan
    pool: Pool
    ledger: Ledger
    index: Index
    digests: Digests
    tally: Tally
    options: Options
    shares: Shares | None = None
    """Where several machines work on the same items."""
    stores: OpenStores | None = None
    """None where no store may be opened, such as in a test of a part."""
    hands: Hands | None = None
    """None where no tool may be called, such as while planning."""
    tape: Taping | None = None
    """Where a test is recorded or replayed."""
    fence: Fence | None = None
    """Raises where another machine has taken over the item that is worked on; None: none can."""
    suspects: CrashSuspects | None = None
    """None where nothing is begun, such as while planning."""
    solitude: Solitude = field(default_factory=Solitude)
    """Where an item is alone that may end the process."""
    readers: Readers | None = None
    """The processes in which documents are read."""
    own: OwnFiles | None = None
    """What no step may write; None where nothing is written, such as in a test of a part."""

    def outputs(self, scope: str, key: str) -> ItemOutputs:
        """Give what notes the files of one item."""
        return ItemOutputs(
            self.index,
            self.tally,
            scope,
            key,
            self.fence,
            self.stores,
            takes_over=self.options.takes_over,
            own=self.own,
        )

    def caller(self, scope: str, step: BoundStep, key: str, block: str | None) -> Caller:
        """Give what counts the calls of one step of one item."""
        is_forced = not self.options.force.isdisjoint({step.id, block or step.id})
        looks_up = step.cache and not self.options.no_cache and not is_forced
        return Caller(scope, block or step.id, key, looks_up)

    def tools(self, step: BoundStep, caller: Caller, outputs: ItemOutputs, item: ItemName) -> Tools:
        """Give the tools of one step of one item."""
        memo: Memo = LedgerMemo(self.ledger, self.tally, caller)
        toolset: Toolset = NoToolset()
        if self.hands is not None:
            toolset = ItemToolset(self.bound, self.hands, memo, self.readers)
        if self.tape is not None:
            memo, toolset = self.tape.memo(memo), self.tape.toolset(toolset)
        return Tools(
            pool=LedgerPool(self.pool, self.ledger, self.digests, self.tally, caller, self.fence),
            models=BoundModels(self.bound.models, self.bound.defaults, step.model),
            roots=self.bound.roots,
            outputs=outputs,
            log=ItemLog(self.tally, caller.step, caller.key),
            priority=self.bound.priority,
            total_s=step.timeout.total_s,
            idle_s=step.timeout.idle_s,
            stores=self.stores or NoStores(),
            item=item,
            untrusted=step.untrusted,
            toolset=toolset,
            memo=memo,
            readers=self.readers,
        )
