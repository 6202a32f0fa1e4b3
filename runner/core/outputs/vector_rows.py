"""Rows of items in vector stores: the ledger knows them, and what nothing keeps is dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from paddock.engine.system import text
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.plan_walks import callable_names
from paddock.runner.ledger.entries import Entry, StoredRow
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.item_states import DECIDED, WHOLE
from paddock.steps.base import ItemName, StepError

from ..run_context import RunContext
from ..traces.dependencies import RowsKept, dependencies_of
from .item_outputs import ItemOutputs


class RowKeeper:
    """Keeps the vector stores of one run consistent with the ledger."""

    def __init__(self, context: RunContext) -> None:
        self._stores = context.stores
        self._index = context.index
        self._lineage = LineageStore(context.ledger)
        self._stats = context.stats

    async def reconcile(
        self, scope: str, key: str, outputs: ItemOutputs, before: Entry | None, state: str
    ) -> list[RowsKept]:
        """Return what an item keeps in stores; drop the rows that it no longer keeps.

        Raises:
            StepError: a store cannot be written.
        """
        name = ItemName(owner=f"{scope}\n{key}")
        old = {
            rows.store: rows
            for rows in dependencies_of(before, RowsKept)
            if (rows.scope, rows.key) == (scope, key)
        }
        now: dict[str, RowsKept] = {}
        for path in outputs.stores:
            if state in DECIDED:
                await self._stores.keep_only(path, name)
            owner = self._stores.owner(name, path)
            stored, content = self._index.stored(path), self._stores.holds(path, owner)
            rows = now[stored] = RowsKept(stored, owner, content, scope, key)
            self._lineage.record_rows(
                StoredRow(scope, stored, key, content, rows.n_rows), self._stats.run
            )
        for stored, rows in now.items():
            if rows.sum != (old[stored].sum if stored in old else ""):
                self._stats.wrote(self._index.absolute(stored))
        for stored in old.keys() - now.keys():
            if state in WHOLE:
                await self._drop([StoredRow(scope, stored, key, "", 0)])
            elif state not in DECIDED:
                now[stored] = old[stored]
        return [*now.values()]

    async def forget_rows(self, rows: Iterable[StoredRow]) -> tuple[dict[str, int], dict[str, str]]:
        """Drop rows; return the number dropped, and the errors, by store."""
        dropped: dict[str, int] = {}
        refused: dict[str, str] = {}
        by_path: dict[str, list[StoredRow]] = {}
        for row in rows:
            by_path.setdefault(row.path, []).append(row)
        for path, several in by_path.items():
            try:
                dropped[path] = await self._drop(several)
            except StepError as error:
                refused[path] = str(error)
        return dropped, refused

    async def clear(self, bound: BoundPlan, place: Mapping[str, str], *, is_alone: bool) -> None:
        """Drop rows that belong to no step, before a run on these folders begins.

        Those are rows of renamed blocks and steps and, if no other machine runs, rows written just
        before a run was killed, which the ledger does not know: their item runs again.

        Raises:
            StepError: a store cannot be written.
        """
        read = self._lineage.rows_of_file
        stored = await self._index.ledger.ask(lambda: list(read(bound.file.name, place)))
        names = frozenset(callable_names(bound.nodes)) if stored else frozenset()
        for path in sorted({row.path for _, _, row in stored}):
            here = [(step, is_done, row) for step, is_done, row in stored if row.path == path]
            n_rows = await self._drop([row for step, _, row in here if step not in names])
            if n_rows:
                self._stats.note(
                    f"removed, since no step keeps them: {text.counted(n_rows, 'row')} of '{path}'"
                )
            if is_alone:
                await self._drop([row for _, is_done, row in here if not is_done])

    async def _drop(self, rows: Sequence[StoredRow]) -> int:
        """Drop rows of vector stores; return their number."""
        n_rows = 0
        for path in {row.path for row in rows}:
            names = [ItemName(owner=f"{row.scope}\n{row.key}") for row in rows if row.path == path]
            n_rows += await self._stores.forget(Path(self._index.absolute(path)), names)
        for row in rows:
            self._lineage.drop_rows(row)
        return n_rows
