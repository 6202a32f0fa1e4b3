"""The formats of tables that are no text: XLSX, Parquet, Arrow, SQLite and DuckDB.

Their libraries are imported when a table is read or written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from paddock.pipelines.typed_rows import TypedRows

from .table_format import TEXT_BYTES, TableFormat, TableLimits, TableSource, WriteOptions


class XlsxFormat(TableFormat):
    name, suffixes, also_read = "xlsx", (".xlsx",), (".xlsm",)
    libraries, libraries_to_write = ("duckdb", "openpyxl", "pyarrow"), ("xlsxwriter",)
    most_bytes = TEXT_BYTES

    def read(
        self, file: BinaryIO, source: TableSource, limits: TableLimits
    ) -> tuple[TypedRows, list[str]]:
        from .workbook_rows import read_workbook

        return read_workbook(file, source.table, source.header, limits.check)

    def write(self, rows: TypedRows, options: WriteOptions) -> tuple[bytes, list[str]]:
        from .workbook_file import workbook_file

        return workbook_file(rows, options.types, options.table, options.link)


class _ColumnFormat(TableFormat):
    """One whose columns have types, and are made of Arrow's."""

    holds_all_numbers = True

    def write(self, rows: TypedRows, options: WriteOptions) -> tuple[bytes, list[str]]:
        from .arrow_rows import to_arrow

        table, notes = to_arrow(rows, options.types)
        return self.file_of(table, options), notes

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        raise NotImplementedError


class ParquetFormat(_ColumnFormat):
    name, suffixes = "parquet", (".parquet",)

    def read(
        self, file: BinaryIO, source: TableSource, limits: TableLimits
    ) -> tuple[TypedRows, list[str]]:
        from .arrow_rows import read_parquet

        return read_parquet(file), []

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        from .arrow_rows import parquet_file

        return parquet_file(table)


class ArrowFormat(_ColumnFormat):
    name, suffixes = "arrow", (".arrow", ".feather")

    def read(
        self, file: BinaryIO, source: TableSource, limits: TableLimits
    ) -> tuple[TypedRows, list[str]]:
        from .arrow_rows import read_arrow

        return read_arrow(file), []

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        from .arrow_rows import arrow_file

        return arrow_file(table)


class SqliteFormat(_ColumnFormat):
    name, suffixes, also_read = "sqlite", (".sqlite", ".db"), (".sqlite3",)
    files_beside = ("-wal",)
    lock_files = (*TableFormat.lock_files, "{}-wal", "{}-journal")

    def read(
        self, file: BinaryIO, source: TableSource, limits: TableLimits
    ) -> tuple[TypedRows, list[str]]:
        from .sqlite_tables import read_sqlite

        return read_sqlite(Path(source.path), source.table)

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        from .sqlite_tables import sqlite_file

        return sqlite_file(table, options.table)


class DuckdbFormat(_ColumnFormat):
    name, suffixes = "duckdb", (".duckdb",)
    lock_files = (*TableFormat.lock_files, "{}.wal")
    same_bytes = False

    def read(
        self, file: BinaryIO, source: TableSource, limits: TableLimits
    ) -> tuple[TypedRows, list[str]]:
        from .duckdb_tables import read_duckdb

        return read_duckdb(Path(source.path), source.table, limits.memory_bytes // 2), []

    def file_of(self, table: Any, options: WriteOptions) -> bytes:
        from .duckdb_tables import duckdb_file

        return duckdb_file(table, options.table, options.there)
