"""The step `files.write`: write one file atomically, and never over a person's edits."""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from paddock.engine.system.records import replace
from paddock.engine.system.tasks import in_left_thread
from paddock.pipelines.expressions import Template
from paddock.pipelines.typed_rows import TypedRows, WrittenType
from paddock.steps.base import Output, Params, Roots, Step, StepError, Tools
from paddock.steps.effects import OnEdited, OutputFile, put_output
from paddock.steps.facts import Facts, TextFacts, brings_none
from paddock.steps.param_types import RowsParam
from paddock.steps.paths import file_sha256, os_errors_refused, printable, resolve_path
from paddock.steps.prompt import render_template
from paddock.steps.tables.row_formats import TextFormat, UnreadableRows
from paddock.steps.tables.table_files import (
    format_named,
    format_of,
    missing_library,
    open_elsewhere,
    read_table,
    written_suffixes,
)
from paddock.steps.tables.table_format import TableFormat, TableSource, WriteOptions

_MOST_PATH_CHARS = 1_000


class FilesWriteParams(Params):
    one_of: ClassVar[tuple[str, ...]] = ("text", "template", "rows")

    path: Annotated[str, OutputFile] = Field(
        min_length=1, description="The file; missing folders are created."
    )
    text: str | None = Field(default=None, description="What to write.")
    template: Template | None = Field(default=None, description="A template of what to write.")
    rows: Annotated[TypedRows | None, RowsParam] = Field(
        default=None, description="Rows, mappings of names, as a table in the format of the suffix."
    )
    columns: list[str] | dict[str, WrittenType] | None = Field(
        default=None,
        min_length=1,
        description="The columns to write, in this order, or their types: `{total: decimal(10,2), "
        "day: date}`. By default all, with the types of the rows or of the reply's schema.",
    )
    table: str = Field(
        default="rows", min_length=1, description="The name of the sheet, or of the table."
    )
    links: str = Field(
        default=".", description="The folder of documents that rows name: links in XLSX."
    )
    separator: Literal[",", ";", "|"] = Field(
        default=",",
        description="Between the cells of CSV; `;` where Excel has a comma in its numbers.",
    )
    delimiter: Literal[",", ";", "|"] | None = Field(
        default=None, description="The same as `separator`."
    )
    decimal: Literal[".", ","] = Field(
        default=".", description="The decimal mark in CSV; `,` beside `separator: ;`."
    )
    bom: bool = Field(default=False, description="Begin with the mark by which Excel knows UTF-8.")
    waiting: list[str] = Field(
        default=[],
        description="Keys of items that wait (`steps.each.waiting`): `true` in column "
        "`waiting`, in the row with its key in the first column, or its own.",
    )
    vars: dict[str, Any] = Field(default={}, description="More names that the templates may use.")
    on_edited: OnEdited = Field(default="keep", description="If it is not ours, or was edited.")

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        names = ("columns", "table", "separator", "decimal", "links")
        stray = [(f"`{name}` belongs to `rows`.", "") for name in names if name in given]
        if "waiting" in given:
            stray.append(("`waiting` belongs to `rows`.", "A template can read it by itself."))
        return (*super().faults(given), *(stray if "rows" not in given else ()))

    @model_validator(mode="after")
    def _has_another_mark(self) -> FilesWriteParams:
        if self.decimal == (self.delimiter or self.separator):
            raise ValueError('`decimal: ","` needs another separator: `separator: ";"`')
        return self

    @classmethod
    def path_fault(cls, path: str, given: Collection[str]) -> tuple[str, str] | None:
        name = path.rpartition("/")[2]
        if not name:
            return f"'{printable(path)}' names a folder; `path` must name a file.", ""
        if "rows" not in given:
            return None
        suffix = PurePath(name).suffix.lower()
        if "…" in (suffix or name):
            return None
        if suffix in (suffixes := written_suffixes()):
            return missing_library(format_of(name), writes=True)
        known = ", ".join(f"`{suffix}`" for suffix in suffixes)
        return f"'{printable(name)}' has no suffix of a format for rows.", f"End it in {known}."


class FilesWriteOutput(Output):
    path: str
    changed: bool


class FilesWrite(Step[FilesWriteParams, FilesWriteOutput]):
    """Text, a template, or rows in any format of tables to a file, atomically."""

    params = FilesWriteParams
    output = FilesWriteOutput
    facts = Facts(
        is_repeatable=True,
        outputs_where_written=lambda path: {"path": path, "changed": False},
        texts=TextFacts(brings_none),
    )

    async def run(self, params: FilesWriteParams, tools: Tools) -> FilesWriteOutput:
        if found := params.path_fault(params.path, params.model_fields_set):
            raise StepError(found[0], remedy=found[1])
        path, outputs = resolve_path(tools.files.roots, params.path), tools.files.outputs
        outputs.check_target(path)
        await outputs.make_way(path)
        data = await _bytes_to_write(params, path, tools)
        hold_back = partial(_hold_back, path, params, tools)
        changed = await put_output(OutputFile, str(path), data, tools, params.on_edited, hold_back)
        return FilesWriteOutput(path=str(path), changed=changed)


async def _hold_back(path: Path, params: FilesWriteParams, tools: Tools, sha256: str) -> bool:
    """Record that a file of other content is left as it is; return False where it is replaced.

    1. It is open in another program.
    2. It is a table that would lose most of its rows.
    """
    outputs = tools.files.outputs
    mark = None if outputs.takes_over else await asyncio.to_thread(open_elsewhere, path)
    if mark is not None:  # 1
        await outputs.holds(path, sha256)
        what = f"'{printable(path)}' is open in another program ('{printable(mark)}')"
        tools.log.note(f"{what}: it is kept as it is until that is closed.")
        return True
    return params.rows is not None and not await _may_replace_table(path, params, tools)  # 2


async def _may_replace_table(path: Path, params: FilesWriteParams, tools: Tools) -> bool:
    """Return whether a table may be replaced; a person is asked first if it loses most rows."""
    rows = _with_waiting(params)
    n_now = len(rows) if rows.types else sum(row is not None for row in rows)
    form = format_named(format_of(path.name))
    try:
        if isinstance(form, TextFormat):
            with os_errors_refused(f"'{printable(path)}' cannot be read"):
                data = await asyncio.to_thread(path.read_bytes)
            text, options = data.decode("utf-8-sig", "replace"), _options(params)
            n_before = await asyncio.to_thread(form.count, text, options)
        elif form.is_read:
            source = TableSource(str(path), form.name)
            n_before = len((await read_table(source, tools.files.readers))[0])
        else:
            tools.log.note(
                f"'{printable(path)}' is replaced without a look at how many rows it had: "
                f"Paddock writes the format '{form.name}' and does not read it."
            )
            return True
    except (StepError, ValueError, csv.Error, RecursionError):  # it is no table of this format
        n_before = 0
    return n_now >= n_before or tools.files.outputs.may_lose_rows(path, n_before, n_now)


async def _bytes_to_write(params: FilesWriteParams, path: Path, tools: Tools) -> bytes:
    if params.rows is not None:
        return await _table(params, path, tools)
    if params.template is not None:
        text = render_template(params.template, "template", params.vars)
    elif params.text is not None:
        text = params.text
    else:
        kind = "rows" if "rows" in params.model_fields_set else "text"
        raise StepError(f"`{kind}` is null, so there is nothing to write.")
    try:
        return text.encode("utf-8-sig" if params.bom else "utf-8")
    except UnicodeEncodeError as error:
        raise StepError(f"the text has half a character at position {error.start}.") from error


WAITING_COLUMN = "waiting"


def _with_waiting(params: FilesWriteParams) -> TypedRows:
    """Return the rows, and after them one for each other item that waits, in the same columns."""
    rows = TypedRows([]) if params.rows is None else params.rows
    if "waiting" not in params.model_fields_set:
        return rows
    known = [row for row in rows if isinstance(row, dict)]
    written = params.columns or (name for row in known for name in row)
    columns = dict.fromkeys(name for name in written if name != WAITING_COLUMN)
    first, *others = columns or {"item": None}
    keys = dict.fromkeys(params.waiting)
    marked = [
        {**row, WAITING_COLUMN: str(row.get(first)) in keys} if isinstance(row, dict) else row
        for row in rows
    ]
    known_keys = {str(row.get(first)) for row in known}
    waiting = [
        {first: key, **dict.fromkeys(others), WAITING_COLUMN: True}
        for key in keys
        if key not in known_keys
    ]
    types = {name: kind for name, kind in rows.types.items() if name != first}
    return TypedRows(marked + waiting, types)


async def _table(params: FilesWriteParams, path: Path, tools: Tools) -> bytes:
    rows, name = _with_waiting(params), f"'{printable(path.name)}'"
    there, form = None, format_named(format_of(path.name))
    if not form.same_bytes and path.is_file():  # noqa: ASYNC240 - as quick
        sha256 = await in_left_thread(file_sha256, path, "read", "`path` must name a file")
        there = path if sha256 in await tools.files.outputs.known_sha256(path) else None

    def link(text: str) -> str | None:
        return _document_link(text, path, params.links, tools.files.roots)

    try:
        with os_errors_refused(f"{name} cannot be written"):  # some formats need a temporary file
            options = replace(_options(params), link=link, there=there)
            made, notes = await asyncio.to_thread(_table_file, rows, form, params.columns, options)
    except UnreadableRows as error:
        raise StepError(f"{name} cannot be written: {error}.", remedy=error.remedy) from error
    except ImportError as error:
        lacks = missing_library(form.name, writes=True)
        what, remedy = lacks or (f"{name} cannot be written: {error}.", "")
        raise StepError(what, remedy=remedy, kind="missing") from error
    except UnicodeEncodeError as error:
        what = f"the text has half a character at position {error.start}."
        raise StepError(what) from error
    for note in notes:
        tools.log.note(f"{name}: {note}.")
    return made


def _options(params: FilesWriteParams) -> WriteOptions:
    declared = params.columns if isinstance(params.columns, dict) else {}
    separator = params.delimiter or params.separator
    return WriteOptions(declared, params.table, separator, params.decimal, params.bom)


def _table_file(
    rows: TypedRows, form: TableFormat, columns: Collection[str] | None, options: WriteOptions
) -> tuple[bytes, list[str]]:
    """Return rows as a file, and notes on what it cannot hold as it is."""
    notes = []
    if n_null := 0 if rows.types else sum(row is None for row in rows):
        notes.append(f"{n_null} of {len(rows)} rows are null and left out")
    if isinstance(columns, list):
        rows = rows.picked(columns)
    if rows.loss and not form.holds_all_numbers:
        in_parquet = "" if type(rows) is TypedRows else "; Parquet has them"
        notes.append(f"{rows.loss}{in_parquet}")
    data, of_format = form.write(rows, options)
    return data, [*notes, *of_format]


def _document_link(text: str, table: Path, folder: str, roots: Roots) -> str | None:
    """Return the document that a cell names, as a link from a table's folder; None: none."""
    if not ("/" in text or "." in text) or len(text) > _MOST_PATH_CHARS or "\0" in text:
        return None
    path = Path(os.path.normpath(os.path.join(roots.base, folder, text)))  # noqa: PTH118
    if not any(path.is_relative_to(root) for root in roots.allowed) or not path.is_file():
        return None
    return os.path.relpath(path, table.parent).replace("#", "%23")
