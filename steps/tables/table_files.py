"""Files of tables: their formats, what each needs installed, and how one is read.

Text formats are read in the run's own process, all others and those of queries by a reader process
within its limits (`table_work`). Imports no library of a format.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.engine.system.no_links import NotRegularFile, read_file
from paddock.engine.system.records import asdict, record, replace
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import DocumentReaders, StepError
from paddock.steps.paths import printable
from paddock.steps.readers.reader import after_name
from paddock.steps.readers.text_encoding import NotText, UnclearEncoding, decode_text

from .column_types import UNSURE_MARK, ColumnType
from .row_formats import (
    FORMAT_OF_SUFFIX,
    RowTable,
    UnreadableRows,
    parse_rows,
    rows_of_values,
    typed_rows,
    with_found_types,
)

FORMATS: Mapping[str, str] = {
    **FORMAT_OF_SUFFIX,
    ".xlsx": "xlsx",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".sqlite": "sqlite",
    ".db": "sqlite",
    ".duckdb": "duckdb",
}
"""The format that is read and written, by suffix."""
_READ_SUFFIXES = {**FORMATS, ".tab": "tsv", ".xlsm": "xlsx", ".sqlite3": "sqlite"}
_TEXT_FORMATS = frozenset(("", *FORMAT_OF_SUFFIX.values()))
_TEXT_BYTES, _TABLE_BYTES = 64 * 1024**2, 4 * 1024**3
MOST_RESULT_BYTES = 768 * 1024**2  # below the largest frame


def missing_library(format_: str, *, writes: bool = False) -> tuple[str, str] | None:
    """Return sentence and remedy if a format's libraries are not installed; imports nothing."""
    needs = ("xlsxwriter",) if writes and format_ == "xlsx" else ("duckdb", "openpyxl", "pyarrow")
    for library in () if format_ in _TEXT_FORMATS else needs:
        if importlib.util.find_spec(library) is None:
            what = f"Tables of the format '{format_}' need '{library}', which is not installed."
            return what, "Install it: `pip install 'paddock-llm[tables]'`."
    return None


def require_library(format_: str) -> None:
    """Raise StepError if a format's libraries are not installed."""
    if (lacks := missing_library(format_)) is not None:
        raise StepError(lacks[0], remedy=lacks[1], kind="missing")


def with_libraries(module: str) -> Any:
    """Import a module of this package that needs the extra `tables`."""
    return importlib.import_module(f"{__package__}.{module}")


def format_of(name: str) -> str:
    """Return the format of a file by its name; empty: the name does not tell."""
    return _READ_SUFFIXES.get(Path(name).suffix.lower(), "")


@record(frozen=True, slots=True)
class TableSource:
    """A table of a file, and how it is read."""

    path: str
    format: str
    """Empty: by its content, CSV or JSONL."""
    table: str = ""
    columns: list[str] | dict[str, ColumnType] | None = None
    header: bool | int = True
    finds_types: bool = True
    """Whether texts of CSV get the types that all cells of a column have."""
    separator: str = ""
    decimal: str = ""
    encoding: str = "auto"
    max_bytes: int | None = None

    @property
    def is_text(self) -> bool:
        return self.format in _TEXT_FORMATS

    @property
    def most_bytes(self) -> int:
        is_small = self.is_text or self.format == "xlsx"
        return self.max_bytes or (_TEXT_BYTES if is_small else _TABLE_BYTES)

    @property
    def declared(self) -> dict[str, ColumnType]:
        return self.columns if isinstance(self.columns, dict) else {}


def read_text_table(source: TableSource) -> RowTable:
    """Read a table of a text format; its notes follow the file's name.

    Raises:
        UnreadableRows, OSError: with the place.
    """
    try:
        data = read_file(Path(source.path), source.most_bytes)
    except NotRegularFile as error:
        raise UnreadableRows(f"is {error.what}") from error
    if len(data) > source.most_bytes:
        what = f"has more than the {source.most_bytes:,} bytes that `max_bytes` allows"
        raise UnreadableRows(what, "Raise `max_bytes` to read it.")
    try:
        decoded = decode_text(data, source.encoding)
    except UnclearEncoding as error:
        raise UnreadableRows(f"cannot be read: {error}", error.remedy) from error
    except NotText as error:
        remedy = "Name it as what it is, such as `.xlsx`, or set `format`."
        is_archive = data.startswith(b"PK")
        raise UnreadableRows(f"is not text: {error}", remedy * is_archive) from error
    format_ = source.format or ("jsonl" if decoded.text.lstrip().startswith("{") else "csv")
    names = None if source.columns is None else list(source.columns)
    table = parse_rows(decoded.text, format_, names, bool(source.header), source.separator)
    if format_ in ("csv", "tsv") and source.finds_types and not source.declared:
        table = with_found_types(table, source.decimal)
    elif source.declared:
        typed_rows(table, source.declared, source.decimal or UNSURE_MARK)
        table = replace(table, types=source.declared)
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


@record(frozen=True, slots=True)
class TableRequest:
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

    with documents.reading_errors(name):
        if source.is_text:
            table = await asyncio.to_thread(read_text_table, source)
            rows, columns, notes = TypedRows(table.rows, table.types), table.columns, table.notes
        else:
            require_library(source.format)
            request = TableRequest({"job": "read", "source": asdict(source)})
            meta, rows = await documents.in_reader_process(request, readers)
            columns, notes = list(rows.types), meta["notes"]
    return rows, columns, [f"{name}{after_name(str(note))}." for note in notes]
