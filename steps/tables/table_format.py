"""A format of tables: one class has all that depends on the format of a file.

A plug-in is a class of the entry-point group `paddock.tables`, under its own name; it is made
without arguments and imported when a file has its suffix. What it leaves out is answered here:
without `read` a file is replaced without a look at its rows, and a note says so.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeAlias

from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import listed, one_line
from paddock.pipelines.typed_rows import ColumnType, TypedRows

RowsAndNotes: TypeAlias = tuple[TypedRows, list[str]]
FileAndNotes: TypeAlias = tuple[bytes, list[str]]
TEXT_BYTES, TABLE_BYTES = 64 * 1024**2, 4 * 1024**3
_MOST_NAMED = 10
ODD_NUMBERS = "numbers that are infinite or NaN are"


class TableSource(Struct, frozen=True):
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
    def names(self) -> list[str] | None:
        return None if self.columns is None else [*self.columns]

    @property
    def declared(self) -> dict[str, ColumnType]:
        return self.columns if isinstance(self.columns, dict) else {}


class TableLimits(Struct, frozen=True):
    check: Callable[[], None]
    """Called now and then: reports progress, and raises where time is over."""
    memory_bytes: int


class WriteOptions(Struct, frozen=True):
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    """Declared ones."""
    table: str = "rows"
    separator: str = ","
    decimal: str = "."
    bom: bool = False
    link: Callable[[str], str | None] = lambda text: None
    """The document that a text names, as a link from where the file will lie."""
    there: Path | None = None
    """The file that was written there before, for a format whose bytes differ each time."""


class ChangedValues(Counter[tuple[str, str]]):
    """Counts of the values that a file cannot hold: by what became of them, and their column."""

    @property
    def notes(self) -> list[str]:
        columns = dict[str, list[str]]()
        for (what, name), n in self.items():
            columns.setdefault(what, []).append(f"{n:,} of '{one_line(name, 40)}'")
        return [f"{what} ({listed(shown, _MOST_NAMED)})" for what, shown in columns.items()]


def with_libraries(module: str) -> Any:
    """Import a module of this package that needs the extra `tables`."""
    return importlib.import_module(f"{__package__}.{module}")


class TableFormat:
    """What reads and writes tables of one format."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """Of its files, in lower case and with the dot."""
    also_read: ClassVar[tuple[str, ...]] = ()
    """Suffixes that are read and not written."""
    version: ClassVar[int] = 1
    """A higher one makes what was read before stale."""
    libraries: ClassVar[tuple[str, ...]] = ("duckdb", "pyarrow")  # of the process that reads
    libraries_to_write: ClassVar[tuple[str, ...]] = ("duckdb", "pyarrow")
    most_bytes: ClassVar[int] = TABLE_BYTES
    """Of a file that is read, where the step names no other limit."""
    files_beside: ClassVar[tuple[str, ...]] = ()
    """Endings of names of files beside it that hold a part of its rows."""
    lock_files: ClassVar[tuple[str, ...]] = (".~lock.{}#", "~${}")
    """Names of files beside it while another program has it open; by default those of Office."""
    holds_all_numbers: ClassVar[bool] = False
    same_bytes: ClassVar[bool] = True

    def read(self, file: BinaryIO, source: TableSource, limits: TableLimits) -> RowsAndNotes:
        """Read a table in a process of its own; notes follow the file's name.

        Raises:
            Unreadable: it is none, or it is not clear which table is meant.
        """
        raise NotImplementedError

    def write(self, rows: TypedRows, options: WriteOptions) -> FileAndNotes:
        """Return rows as a file, and notes on what it cannot hold as it is.

        Raises:
            UnreadableRows: the format cannot hold them.
        """
        raise NotImplementedError

    @property
    def is_read(self) -> bool:
        return type(self).read is not TableFormat.read

    @property
    def is_written(self) -> bool:
        return type(self).write is not TableFormat.write
