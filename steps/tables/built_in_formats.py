"""The built-in formats of tables: `BUILT_IN_FORMATS` is the only list of them.

The classes of those that are no text stand here (the others: `row_formats`). Their libraries are
imported when a table is read or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from paddock.pipelines.typed_rows import TypedRows

from .row_formats import CSV, JSONL, JsonFormat, TsvFormat, UnnamedFormat
from .table_format import (
    TEXT_BYTES,
    FileAndNotes,
    RowsAndNotes,
    TableFormat,
    TableLimits,
    TableSource,
    WriteOptions,
    with_libraries,
)


class XlsxFormat(TableFormat):
    name, suffixes, also_read = "xlsx", (".xlsx",), (".xlsm",)
    version = 3
    libraries_to_write = ("xlsxwriter",)
    most_bytes = TEXT_BYTES

    def read(self, file: BinaryIO, source: TableSource, limits: TableLimits) -> RowsAndNotes:
        return _workbook_rows("XlsxWorkbook", file, source, limits)

    def write(self, rows: TypedRows, options: WriteOptions) -> FileAndNotes:
        file_and_notes: FileAndNotes = with_libraries("workbook_file").workbook_file(
            rows, options.types, options.table, options.link
        )
        return file_and_notes


class OdsFormat(TableFormat):
    name, suffixes = "ods", (".ods",)
    version = 2
    most_bytes = TEXT_BYTES

    def read(self, file: BinaryIO, source: TableSource, limits: TableLimits) -> RowsAndNotes:
        return _workbook_rows("OdsWorkbook", file, source, limits)


def _workbook_rows(
    kind: str, file: BinaryIO, source: TableSource, limits: TableLimits
) -> RowsAndNotes:
    module = with_libraries("workbook_rows")
    book = getattr(module, kind)(file, module.MOST_CELLS)
    rows_and_notes: RowsAndNotes = module.read_workbook(
        book, source.table, source.header, limits.check
    )
    return rows_and_notes


class _ColumnFormat(TableFormat):
    """One whose columns have types, and are made of Arrow's."""

    holds_all_numbers = True
    needs_a_column = False

    def write(self, rows: TypedRows, options: WriteOptions) -> FileAndNotes:
        module = with_libraries("arrow_rows")
        has_rows = any(row is not None for row in rows)
        columns = () if has_rows else (*rows.types, *options.types)
        if not (has_rows or columns) and self.needs_a_column:
            columns = ("nothing",)
        table, notes = module.to_arrow(rows, options.types, columns)
        is_told = self.holds_all_numbers or rows.lost_values
        notes += [loss] if not is_told and (loss := module.ArrowRows(table).loss) else []
        return self.file_of(table, options), notes

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        raise NotImplementedError


class ParquetFormat(_ColumnFormat):
    name, suffixes = "parquet", (".parquet",)
    version = 4

    def read(self, file: BinaryIO, source: TableSource, limits: TableLimits) -> RowsAndNotes:
        return with_libraries("arrow_rows").read_parquet(file), []

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        return bytes(with_libraries("arrow_rows").parquet_file(table))


class ArrowFormat(_ColumnFormat):
    name, suffixes = "arrow", (".arrow", ".feather")
    version = 3

    def read(self, file: BinaryIO, source: TableSource, limits: TableLimits) -> RowsAndNotes:
        return with_libraries("arrow_rows").read_arrow(file), []

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        return bytes(with_libraries("arrow_rows").arrow_file(table))


class SqliteFormat(_ColumnFormat):
    name, suffixes, also_read = "sqlite", (".sqlite", ".db"), (".sqlite3",)
    needs_a_column = True
    holds_all_numbers = False
    files_beside = ("-wal",)
    lock_files = (*TableFormat.lock_files, "{}-wal", "{}-journal")

    def read(self, file: BinaryIO, source: TableSource, limits: TableLimits) -> RowsAndNotes:
        rows_and_notes: RowsAndNotes = with_libraries("sqlite_tables").read_sqlite(
            Path(source.path), source.table
        )
        return rows_and_notes

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        return bytes(with_libraries("sqlite_tables").sqlite_file(table, options.table))


class DuckdbFormat(_ColumnFormat):
    name, suffixes = "duckdb", (".duckdb",)
    needs_a_column = True
    lock_files = (*TableFormat.lock_files, "{}.wal")
    same_bytes = False

    def read(self, file: BinaryIO, source: TableSource, limits: TableLimits) -> RowsAndNotes:
        return with_libraries("duckdb_tables").read_duckdb(
            Path(source.path), source.table, limits.memory_bytes // 2
        ), []

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        file: bytes = with_libraries("duckdb_tables").duckdb_file(
            table, options.table, options.there
        )
        return file


BUILT_IN_FORMATS: Mapping[str, TableFormat] = {
    form.name: form
    for form in (
        CSV,
        TsvFormat(),
        JSONL,
        JsonFormat(),
        XlsxFormat(),
        OdsFormat(),
        ParquetFormat(),
        ArrowFormat(),
        SqliteFormat(),
        DuckdbFormat(),
        UnnamedFormat(),
    )
}
"""By name, in the order in which people are shown them."""
