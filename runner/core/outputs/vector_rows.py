"""Rows of items in vector stores and databases: recorded in the ledger, dropped when outdated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system import text
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.plan_walks import all_plans, callable_names, steps_of
from paddock.runner.config.pipeline_secrets import Secrets
from paddock.runner.ledger.entries import Entry, StoredRow
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.item_states import DECIDED, WHOLE
from paddock.steps.base import ItemName, StepError
from paddock.steps.effects import DatabaseServer
from paddock.steps.item_rows import RowSum
from paddock.steps.tables.database import PostgresAccount
from paddock.steps.tables.database_tables import DatabaseTables, server_of

from ..traces.dependencies import RowsKept, dependencies_of
from ..traces.scopes import ItemKey, owner_of

if TYPE_CHECKING:
    from paddock.runner.ledger.output_index import OutputIndex

    from ..run_context import RunContext
    from .item_outputs import ItemOutputs


def database_tables(
    index: OutputIndex, bound: BoundPlan | None = None, secrets: Secrets | None = None
) -> DatabaseTables:
    """Return tables of databases; those of servers are asked by the accounts of a run's plan."""

    def recorded(path: Path) -> dict[str, RowSum]:
        rows = LineageStore(index.ledger).rows_in(index.stored(path))
        names = (ItemName(owner=owner_of((row.scope, row.key))) for row in rows)
        return {
            tables.owner(n, path): RowSum.read(r.sha256) for n, r in zip(names, rows, strict=True)
        }

    tables = DatabaseTables(lambda: index.ledger.identity, recorded, is_run=bound is not None)
    for plan in () if bound is None else all_plans(bound):
        scope = {"inputs": plan.inputs, "secrets": secrets.of(plan.file) if secrets else {}}
        for step in steps_of(plan.nodes):
            if (written := step.given(DatabaseServer)) is not None:
                with suppress(ExpressionError, ValueError, StepError):  # the step says so
                    account = Value.of(written).render(scope)
                    tables.add(server_of(PostgresAccount.model_validate(account)))
    return tables


async def reconcile_rows(
    context: RunContext, item: ItemKey, outputs: ItemOutputs, before: Entry | None, state: str
) -> list[RowsKept]:
    """Return the rows of an item in stores; drop those that it no longer keeps.

    Raises:
        StepError: a store cannot be written.
    """
    (scope_id, key), name = item, ItemName(owner=owner_of(item))
    rows_before = dependencies_of(before, RowsKept)
    old = {rows.store: rows for rows in rows_before if (rows.scope_id, rows.key) == item}
    now: dict[str, RowsKept] = {}
    for path in outputs.stores:
        held = context.world.rows_at(path)
        if state in DECIDED:
            await held.keep_only(path, name)
        owner = held.owner(name, path)
        stored, row_sum = context.index.stored(path), held.holds(path, owner)
        now[stored] = RowsKept(stored, owner, row_sum.text, scope_id, key)
        row = StoredRow(scope_id, stored, key, row_sum.text, row_sum.n_rows)
        LineageStore(context.ledger).record_rows(row, context.stats.run)
    for stored, rows in now.items():
        if rows.sum != (old[stored].sum if stored in old else ""):
            context.stats.wrote(context.index.absolute(stored))
    for stored in old.keys() - now.keys():
        if state in WHOLE:
            await _drop(context, [StoredRow(scope_id, stored, key)])
        elif state not in DECIDED:
            now[stored] = old[stored]
    return [*now.values()]


async def forget_rows(
    context: RunContext, rows: Iterable[StoredRow]
) -> tuple[dict[str, int], dict[str, str]]:
    """Drop rows; return the number dropped, and the errors, by store."""
    dropped: dict[str, int] = {}
    refused: dict[str, str] = {}
    by_path: dict[str, list[StoredRow]] = {}
    for row in rows:
        by_path.setdefault(row.path, []).append(row)
    for path, several in by_path.items():
        try:
            dropped[path] = await _drop(context, several)
        except StepError as error:
            refused[path] = str(error)
    return dropped, refused


async def clear_rows(context: RunContext) -> None:
    """Drop rows that belong to no step, before a run on these folders begins.

    Those are rows of renamed blocks and steps, and rows written just before a run was killed, which
    the ledger does not know: their item runs again.

    Raises:
        StepError: a store cannot be written.
    """
    bound = context.bound
    *_, folders = context.judge.scopes.folders
    stored = list(LineageStore(context.ledger).rows_of_file(bound.file.name, folders))
    names = frozenset(callable_names(bound.nodes)) if stored else frozenset()
    for path in sorted({row.path for _, _, row in stored}):
        here = [(step, is_done, row) for step, is_done, row in stored if row.path == path]
        try:
            n_rows = await _drop(context, [row for step, _, row in here if step not in names])
            if n_rows:
                context.stats.note(
                    f"removed, since no step keeps them: {text.counted(n_rows, 'row')} of '{path}'"
                )
            await _drop(context, [row for _, is_done, row in here if not is_done])
        except StepError as error:
            if not context.world.tables.has(Path(context.index.absolute(path))):
                raise
            context.stats.note(f"rows of '{path}' are not removed yet: {error}")


async def _drop(context: RunContext, rows: Sequence[StoredRow]) -> int:
    n_rows = 0
    for stored in {row.path for row in rows}:
        items = ((row.scope, row.key) for row in rows if row.path == stored)
        names = [ItemName(owner=owner_of(item)) for item in items]
        path = Path(context.index.absolute(stored))
        n_rows += await context.world.rows_at(path).remove_items(path, names)
    for row in rows:
        LineageStore(context.ledger).drop_rows(row)
    return n_rows
