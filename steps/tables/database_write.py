"""The step `database.write`: the rows of an item in a table of SQLite or PostgreSQL."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import Output, Params, Step, StepError, Tools
from paddock.steps.facts import Facts, Missing, TextFacts, Written, brings_none
from paddock.steps.paths import resolve_path
from paddock.steps.tables.database_tables import (
    NEEDS_PSYCOPG,
    DatabaseTables,
    PostgresAccount,
    SqliteFile,
    TableRows,
)


class DatabaseWriteParams(Params):
    one_of = ("sqlite", "postgres")
    paths: ClassVar[tuple[str, ...]] = ("sqlite",)

    sqlite: str | None = Field(
        default=None, min_length=1, description="The file, which is there.", examples=["books.db"]
    )
    postgres: PostgresAccount | None = Field(default=None, description="The account.")
    table: str = Field(
        min_length=1,
        pattern=r"^[^/]+$",
        description="The table, which has the column `paddock_item`, a text, beside those of rows.",
        examples=["bills"],
    )
    rows: TypedRows = Field(description="Mappings of columns; all that the item has there.")


class DatabaseWriteOutput(Output):
    table: str
    count: int
    changed: bool
    """Whether they were others before."""


def _missing(_step: str, written: Written, _folder: Path) -> Iterator[Missing]:
    if written.get("postgres") is not None and importlib.util.find_spec("psycopg") is None:
        yield ("postgres",), *NEEDS_PSYCOPG


class DatabaseWrite(Step[DatabaseWriteParams, DatabaseWriteOutput]):
    """Rows to a table of a database; those of an item are replaced and removed together."""

    params = DatabaseWriteParams
    output = DatabaseWriteOutput
    facts = Facts(
        is_repeatable=True,
        database="postgres",
        database_file="sqlite",
        table="rows",
        doors=("postgres",),
        texts=TextFacts(brings_none),
        missing=_missing,
    )

    async def run(self, params: DatabaseWriteParams, tools: Tools) -> DatabaseWriteOutput:
        rows, item = params.rows, tools.item
        if tools.tables is None:
            tools.log.note(f"rows are not written to '{params.table}' in a test.")
            return DatabaseWriteOutput(table=params.table, count=len(rows), changed=False)
        table = self._table(params, tools, tools.tables)
        await tools.files.outputs.note_rows_kept(table.path)
        owner, former = tools.tables.owner(item), tools.tables.owner(item, is_former=True)
        changed = await table.replace(owner, former, item.step, rows)
        return DatabaseWriteOutput(table=params.table, count=len(rows), changed=changed)

    def _table(
        self, params: DatabaseWriteParams, tools: Tools, tables: DatabaseTables
    ) -> TableRows:
        if params.postgres is not None:
            return tables.of(tables.server(params.postgres), params.table)
        if params.sqlite is None:
            raise StepError("`sqlite` is null, so it is not known where the rows go.")
        path = resolve_path(tools.files.roots, params.sqlite)
        tools.files.outputs.check_target(path, is_new=False)
        return tables.of(SqliteFile(path), params.table)
