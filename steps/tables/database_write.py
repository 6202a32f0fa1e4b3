"""The step `database.write`: an item's rows in SQLite or PostgreSQL, beside those of others."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import Output, Params, Step, StepError, Tools
from paddock.steps.effects import DatabaseFile, DatabaseServer
from paddock.steps.facts import Facts, Missing, TextFacts, Written, brings_none
from paddock.steps.param_types import RowsParam
from paddock.steps.paths import resolve_path

from .database import PostgresAccount
from .database_sqlite import SqliteFile
from .database_tables import NEEDS_PSYCOPG, server_of


class DatabaseWriteParams(Params):
    one_of = ("sqlite", "postgres")

    sqlite: Annotated[str | None, DatabaseFile] = Field(
        default=None, min_length=1, description="The file, which is there.", examples=["books.db"]
    )
    postgres: Annotated[PostgresAccount | None, DatabaseServer] = Field(
        default=None, description="The account."
    )
    table: str = Field(
        min_length=1,
        pattern=r"^[^/]+$",
        description="It has a column `paddock_item`, a text.",
        examples=["bills"],
    )
    rows: Annotated[TypedRows, RowsParam] = Field(description="All that the item has there.")


class DatabaseWriteOutput(Output):
    table: str
    count: int
    changed: bool


def _missing(_step: str, written: Written, _folder: Path) -> Iterator[Missing]:
    if written.get("postgres") is not None and find_spec("psycopg") is None:
        yield ("postgres",), *NEEDS_PSYCOPG


class DatabaseWrite(Step[DatabaseWriteParams, DatabaseWriteOutput]):
    """Rows to a table of a database, beside those of others."""

    params = DatabaseWriteParams
    output = DatabaseWriteOutput
    facts = Facts(is_repeatable=True, texts=TextFacts(brings_none), missing=_missing)

    async def run(self, params: DatabaseWriteParams, tools: Tools) -> DatabaseWriteOutput:
        rows, item = params.rows, tools.item
        if tools.effects is None:
            tools.log.note(f"rows are not written to '{params.table}' in a test.")
            return DatabaseWriteOutput(table=params.table, count=len(rows), changed=False)
        tables = tools.effects.tables
        if params.postgres is not None:
            database = server_of(params.postgres)
        elif params.sqlite is not None:
            path = resolve_path(tools.files.roots, params.sqlite)
            tools.files.outputs.check_target(path, is_new=False)
            database = SqliteFile(path)
        else:
            raise StepError("`sqlite` is null, so it is not known where the rows go.")
        table = tables.open(database, params.table)
        await tools.files.outputs.note_rows_kept(table)
        changed = await tables.replace(table, item, rows)
        return DatabaseWriteOutput(table=params.table, count=len(rows), changed=changed)
