"""Files of tables: their formats, what each needs installed, and how one is read.

Text formats are read in the run's own process, all others and those of queries by a reader process
within its limits (`table_work`). Imports no library of a format.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from paddock.engine.system.no_links import NotRegularFile, read_file
from paddock.engine.system.records import Struct, asdict, replace
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import DocumentReaders, StepError
from paddock.steps.paths import printable
from paddock.steps.plugins import TABLE_GROUP, BrokenPlugin, load_only, plugins
from paddock.steps.readers.reader import after_name
from paddock.steps.readers.text_encoding import NotText, UnclearEncoding, decode_text

from .built_in_formats import BUILT_IN_FORMATS
from .column_types import UNSURE_MARK, ColumnType
from .row_formats import (
    RowTable,
    TextFormat,
    UnreadableRows,
    rows_of_values,
    typed_rows,
    with_found_types,
)
from .table_format import TableFormat, TableSource, with_libraries

_BUILT_IN_SUFFIXES = {
    suffix: form
    for form in BUILT_IN_FORMATS.values()
    for suffix in (*form.suffixes, *form.also_read)
}
MOST_RESULT_BYTES = 768 * 1024**2  # below the largest frame


class BrokenFormat(BrokenPlugin):
    kind = "table format"


@cache
def format_named(name: str) -> TableFormat:
    """Return a format; one of a plug-in is imported.

    Raises:
        BrokenFormat: with the package and the reason.
    """
    if name in BUILT_IN_FORMATS:
        return BUILT_IN_FORMATS[name]
    kind = load_only(name, plugins(TABLE_GROUP)[name], BrokenFormat, _format_fault)
    form: TableFormat = kind()
    return form


def _format_fault(kind: Any) -> str:
    if not (inspect.isclass(kind) and issubclass(kind, TableFormat)):
        return "is no subclass of `TableFormat`"
    known = {*kind.suffixes, *kind.also_read} & _BUILT_IN_SUFFIXES.keys()
    return f"has the built-in suffix '{min(known)}'" if known else ""


def all_formats() -> tuple[dict[str, TableFormat], list[BrokenFormat]]:
    """Return every format that can be used, by name, and those of plug-ins that cannot."""
    found = dict(BUILT_IN_FORMATS)
    broken = list[BrokenFormat]()
    for name in plugins(TABLE_GROUP):
        try:
            found[name] = format_named(name)
        except BrokenFormat as error:
            broken.append(error)
    return found, broken


def format_of(name: str) -> str:
    """Return the format of a file by its name; empty: the name does not tell."""
    suffix = Path(name).suffix.lower()
    if suffix in _BUILT_IN_SUFFIXES:
        return _BUILT_IN_SUFFIXES[suffix].name
    formats, _ = all_formats() if suffix and plugins(TABLE_GROUP) else ({}, ())
    return next(
        (name for name, form in formats.items() if suffix in (*form.suffixes, *form.also_read)), ""
    )


def text_formats() -> dict[str, TextFormat]:
    """Return the formats that are text, by suffix, built-in ones first."""
    texts = (form for form in all_formats()[0].values() if isinstance(form, TextFormat))
    return {suffix: form for form in texts for suffix in form.suffixes}


def format_names() -> tuple[str, ...]:
    """Return the names that a step may have under `format`; imports no plug-in."""
    return ("auto", *filter(None, BUILT_IN_FORMATS), *plugins(TABLE_GROUP))


def limits_of_formats() -> str:
    """Return how large a file may be by default, by format, as one sentence for people."""
    by_limit: dict[int, list[str]] = {}
    for name in filter(None, BUILT_IN_FORMATS):
        by_limit.setdefault(BUILT_IN_FORMATS[name].most_bytes, []).append(name)
    usual, *others = sorted(by_limit)
    parts = (f"of {', '.join(by_limit[limit])} {limit >> 30}GiB" for limit in others)
    return "; ".join((f"{usual >> 20}MiB", *parts))


def written_suffixes() -> tuple[str, ...]:
    """Return the suffixes of formats that are written, built-in ones first."""
    forms = (form for form in all_formats()[0].values() if form.is_written)
    return tuple(suffix for form in forms for suffix in form.suffixes)


def missing_library(name: str, *, writes: bool = False) -> tuple[str, str] | None:
    try:
        form = format_named(name)
    except BrokenFormat as error:
        return f"{error.message}.", error.remedy
    for library in form.libraries_to_write if writes else form.libraries:
        if importlib.util.find_spec(library) is None:
            what = f"Tables of the format '{name}' need '{library}', which is not installed."
            return what, "Install it: `pip install 'paddock-llm[tables]'`."
    return None


def require_library(format_: str) -> None:
    if (lacks := missing_library(format_)) is not None:
        raise StepError(lacks[0], remedy=lacks[1], kind="missing")


def read_text_table(form: TextFormat, source: TableSource) -> RowTable:
    """Read a table of a text format; its notes follow the file's name.

    Raises:
        UnreadableRows, OSError: with the place.
    """
    most_bytes = source.max_bytes or form.most_bytes
    try:
        data = read_file(Path(source.path), most_bytes)
    except NotRegularFile as error:
        raise UnreadableRows(f"is {error.what}") from error
    if len(data) > most_bytes:
        what = f"has more than the {most_bytes:,} bytes that `max_bytes` allows"
        raise UnreadableRows(what, "Raise `max_bytes` to read it.")
    try:
        decoded = decode_text(data, source.encoding)
    except UnclearEncoding as error:
        raise UnreadableRows(f"cannot be read: {error}", error.remedy) from error
    except NotText as error:
        remedy = "Name it as what it is, such as `.xlsx`, or set `format`."
        is_archive = data.startswith(b"PK")
        raise UnreadableRows(f"is not text: {error}", remedy if is_archive else "") from error
    table = form.parse(decoded.written if form.keeps_line_ends else decoded.text, source)
    if source.declared:
        table = typed_rows(table, source.declared, source.decimal or UNSURE_MARK)
    elif table.separator and source.finds_types:
        table = with_found_types(table, source.decimal)
    return replace(table, notes=(*decoded.notes, *table.notes))


def given_rows(value: Any, columns: Mapping[str, ColumnType]) -> TypedRows:
    """Return the rows that a program gives: a frame, whatever has Arrow's stream, or mappings.

    `columns`: those that are read, with their types; empty: all.

    Raises:
        UnreadableRows: they are no rows, or not of these types; follows the name of the input.
    """
    is_frame = hasattr(value, "__arrow_c_stream__")
    if (columns or is_frame) and (lacks := missing_library("arrow")) is not None:
        raise UnreadableRows(f"has rows with types. {lacks[0].rstrip('.')}", lacks[1])
    if isinstance(value, TypedRows):
        rows = value
    elif isinstance(value, list | tuple):
        rows = rows_of_values(value)
    elif is_frame:
        rows = with_libraries("arrow_rows").ArrowRows.of_frame(value)
    else:
        remedy = "Give a frame (pandas, Polars, Arrow), a list of mappings, or a table's path."
        raise UnreadableRows(f"takes rows, no '{type(value).__name__}'", remedy)
    if columns:
        arrow_rows, names = with_libraries("arrow_rows"), [*columns]
        table, _ = arrow_rows.to_arrow(rows, columns, () if len(rows) else names)
        rows = arrow_rows.ArrowRows(table).picked(names)
    return rows


class TableRequest(Struct, frozen=True):
    """What a reader process is asked to do with tables. Implements `ReaderRequest`."""

    order: Mapping[str, Any]
    data: bytes = b""

    def frame(self) -> tuple[dict[str, Any], bytes]:
        return {"do": "table", "max_bytes": MOST_RESULT_BYTES, **self.order}, self.data

    @property
    def most_answer_bytes(self) -> int:
        return MOST_RESULT_BYTES

    def answer(
        self, meta: Mapping[str, Any], data: memoryview
    ) -> tuple[Mapping[str, Any], TypedRows]:
        rows_of = with_libraries("arrow_rows").ArrowRows.of_bytes
        return meta, rows_of(data) if len(data) else TypedRows([])


async def read_table(
    source: TableSource, readers: DocumentReaders | None
) -> tuple[TypedRows, list[str], list[str]]:
    """Read a table; return its rows, the names of its columns, and notes.

    Binary formats are read in a process of its own.

    Raises:
        StepError: it cannot be read.
    """
    name = f"'{printable(Path(source.path).name)}'"
    from paddock.steps.readers import documents  # and the processes, which nothing else here needs

    require_library(source.format)
    with documents.reading_errors(name):
        if isinstance(form := format_named(source.format), TextFormat):
            table = await asyncio.to_thread(read_text_table, form, source)
            rows, columns, notes = TypedRows(table.rows, table.types), table.columns, table.notes
        else:
            request = TableRequest({"job": "read", "source": asdict(source)})
            meta, rows = await documents.in_reader_process(request, readers)
            columns, notes = list(rows.types), meta["notes"]
    return rows, columns, [f"{name}{after_name(str(note))}." for note in notes]


def open_elsewhere(path: Path) -> str | None:
    """Return the file by which another program says that it has this one open."""
    names = [mark.format(path.name) for mark in format_named(format_of(path.name)).lock_files]
    return next((name for name in names if os.path.lexists(path.with_name(name))), None)
