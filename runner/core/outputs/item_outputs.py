"""Files and rows that one item writes, moves, reads and searches; forbidden paths are refused."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.system import text
from paddock.engine.system.files import TemporaryFile
from paddock.engine.system.records import Struct
from paddock.pipelines.triggers import MOST_DELETED
from paddock.runner.bind.bound import BoundNode
from paddock.runner.bind.plan_walks import follows_time
from paddock.runner.folders.missing_files import is_mass_deletion
from paddock.runner.ledger.entries import OutputRow, StoredRow
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.output_conditions import is_recorded_and_unchanged
from paddock.runner.ledger.output_index import other_pipelines_output
from paddock.steps.base import FiledDocument, StepError
from paddock.steps.effects import output_at
from paddock.steps.paths import printable

from ..run_context import RunContext
from ..traces.dependencies import Dependencies, Dependency, KeptOutput, MovedAway, StoreSearched
from ..traces.scopes import ItemKey
from .path_obstacles import PathObstacles, is_free


class LostRows(Struct, frozen=True):
    """A table that has, or would have, fewer rows than before."""

    path: str
    n_before: int
    n_now: int
    is_refused: bool
    """Whether it is not written until a person confirms that."""

    def text(self, why: str) -> str:
        """Return a sentence on the table's rows.

        >>> LostRows("t.csv", 10, 8, False).text("2 items of 'each' are deleted")
        "'t.csv' has 8 rows, 2 fewer than before: 2 items of 'each' are deleted."
        """
        n_lost = self.n_before - self.n_now
        if not self.is_refused:
            rows = text.counted(self.n_now, "row")
            return f"'{self.path}' has {rows}, {n_lost:,} fewer than before: {why}."
        rows = f"{n_lost:,} of its {text.counted(self.n_before, 'row')}"
        return (
            f"'{self.path}' is left as it is: {rows} would go, since {why}. "
            f"If that is right, run it with `--yes`."
        )


class RecordedOutputs:
    """What the ledger knows of an item's outputs: the reading half, all that a plan has of it."""

    def __init__(self, context: RunContext, items: tuple[ItemKey, ...]) -> None:
        self.items = items
        """The items around it, outermost first, and itself."""
        self._context = context
        self._index = context.index

    @property
    def takes_over(self) -> bool:
        return self._context.options.takes_over

    def owned(self, root: Path) -> frozenset[str]:
        return self._index.owned(root)

    async def known_sha256(self, path: Path, *, moved: bool = False) -> frozenset[str]:
        return self._index.owners.known_sha256(path, moved=moved)

    def check_target(self, path: Path, *, is_new: bool = True) -> None:
        refusal = self._context.protected.refusal(path, is_new=is_new)
        if refusal is not None:
            name = printable(self._index.stored(path))
            raise StepError(f"no step may write '{name}': it {refusal.why}.", remedy=refusal.remedy)

    def filed_at(self, path: Path) -> FiledDocument | None:
        return self._context.documents.filed_at(path, self.items)


class ItemOutputs(RecordedOutputs):
    """Implements `paddock.steps.base.OutputFiles` for one item."""

    def __init__(
        self, context: RunContext, items: tuple[ItemKey, ...], node: BoundNode | None = None
    ) -> None:
        """`node`: the step or block outside of blocks that is the item; None: it is of a block."""
        super().__init__(context, items)
        self._scope_id, self._key = items[-1]
        self._stats = context.stats
        self._node = node
        self.lost_rows: list[LostRows] = []
        self._intended: set[Path] = set()
        self._unrecorded: dict[str, OutputRow] = {}
        self.written: dict[str, str] = {}
        """What the item wrote, in order: stored path → sha256; part of its entry."""
        self.stores: dict[Path, None] = {}
        self.read: dict[str, None] = {}
        """Files that were read on a model's request."""
        self.dependencies: Dependencies = {}
        """Stores that were searched, files that were moved away, edited files that were kept."""

    # --- files that it writes

    async def sync(self, file: TemporaryFile) -> None:
        await self._context.syncs.call(file.sync)

    async def make_way(self, path: Path) -> None:
        if not is_free(str(path)):
            async with self._context.owners.making_way:
                await PathObstacles(self._context, self.items).remove(self._index.stored(path))

    async def intend(self, path: Path, sha256: str, size_bytes: int | None = None) -> None:
        index, stored = self._index, self._index.stored(path)
        if output_at(stored)[0].is_path:
            self.check_target(path)
        place = self._scope_id, self._key, path
        self._refuse_other_pipelines(path, sha256)
        await self._context.owners.claim(self._context.judge, self.items, stored)
        index.owners.drop_others(stored, taken_in=self._stats.run if self.takes_over else "")
        if is_recorded_and_unchanged(index, *place, sha256):
            return
        is_first = index.row(self._scope_id, stored) is None
        index.record_intended(*place, sha256, size_bytes, self._stats.run)
        self._intended.add(path)
        await index.ledger.durable()
        if is_first and not self.takes_over:
            other = index.owners.written_meanwhile(stored)
            if other is not None:
                index.withdraw(self._scope_id, stored)
                # Perhaps neither writes it now: the next run tries again.
                raise other_pipelines_output(stored, other, "io")

    async def wrote(self, path: Path, sha256: str) -> None:
        stored = self._index.stored(path)
        row = self._index.written_row(self._scope_id, self._key, path, sha256)
        if row is not None:
            self._unrecorded[row.path] = row
        self.written[stored] = sha256
        if path in self._intended:
            self._stats.wrote(str(path))

    def record_written(self) -> None:
        for row in self._unrecorded.values():
            self._index.record_written(row, self._stats.run)
        self._unrecorded.clear()

    def may_lose_rows(self, path: Path, n_before: int, n_now: int) -> bool:
        """Note that a table loses rows; refuse where most go at once, unless that is confirmed.

        The table of an item is made of that item alone, and loses what that no longer has; that
        of yesterday's letters has those of another day today. What a person took back, or decided
        otherwise, they have confirmed.
        """
        n_lost = n_before - n_now - len(self._stats.decided_again)
        is_most = n_lost > 0 and (n_now == 0 or is_mass_deletion(n_lost, n_before, MOST_DELETED))
        node, is_confirmed = self._node, self._context.options.is_confirmed
        may_shrink = node is None or follows_time(self._context.bound.nodes, node)
        is_refused = is_most and not (may_shrink or is_confirmed)
        self.lost_rows.append(LostRows(self._index.stored(path), n_before, n_now, is_refused))
        if is_refused:
            self.written[self._index.stored(path)] = ""  # as the last run wrote it
        return not is_refused

    async def holds(self, path: Path, sha256: str) -> None:
        """Record an edited `path` that is kept, with the digest that would have been written.

        Raises:
            StepError: it is another pipeline's output.
        """
        self._note(KeptOutput(self._index.stored(path), sha256))
        self._refuse_other_pipelines(path, sha256)

    def _refuse_other_pipelines(self, path: Path, sha256: str) -> None:
        stored = self._index.stored(path)
        other = None if self.takes_over else self._index.owners.other_owner(stored)
        if other is not None:
            self._note(KeptOutput(stored, sha256))  # so that a run that may write it does
            raise other_pipelines_output(stored, other)

    # --- documents that it moves

    def will_move(self, path: Path, target: Path, sha256: str) -> None:
        self._context.documents.will_move(path, target, sha256, self.items)

    async def note_removed(self, path: Path) -> None:
        self._note(MovedAway(self._context.documents.moved(path, self.items)))

    def delete_when_done(self, path: Path) -> bool:
        return self._context.documents.leave_for_deletion(path, self.items)

    # --- what it reads, and vector stores

    async def note_rows_kept(self, store: Path) -> None:
        self.check_target(store)
        self.stores[store] = None
        ledger = self._index.ledger
        intended = StoredRow(self._scope_id, self._index.stored(store), self._key)
        LineageStore(ledger).record_rows(intended, self._stats.run)
        await ledger.durable()

    async def note_file_read(self, path: Path) -> None:
        self.read[str(path)] = None

    async def note_rows_read(self, store: Path) -> None:
        await self._context.world.stores.probe(store)
        self._note(
            StoreSearched(self._index.stored(store), self._context.world.stores.content(store))
        )

    def _note(self, dependency: Dependency) -> None:
        self.dependencies[dependency.name] = dependency
