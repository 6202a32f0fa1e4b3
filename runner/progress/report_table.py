"""Tables of a report: a row for each item of a block, or the rows of a step, for data libraries.

These are imported when a table is first asked for in their form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import islice
from typing import Any

from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted, one_line
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.tables.table_files import missing_library
from paddock.steps.tables.table_format import with_libraries

ITEM_COLUMNS = ("item_key", "item_state", "item_error")
"""Of a table of a block, before the columns of its results."""
_MOST_SHOWN_ROWS = 10


class ReportTable(Struct, frozen=True):
    """Rows with the types that the reply's schema or the step gives them.

    No sequence, so that what takes Arrow's C stream takes the types, too:
    `polars.DataFrame(table)`, `duckdb.sql("select * from table")`, `pyarrow.table(table)`.
    """

    rows: TypedRows
    """Mappings of plain data."""
    columns: Sequence[str] = ()
    """Their names, where there may be no row."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table`. A column whose values are of several types is text."""
        if (lacks := missing_library("arrow")) is not None:
            raise ModuleNotFoundError(" ".join(lacks))
        return with_libraries("arrow_rows").to_arrow(self.rows, {}, self.columns)[0]

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`, in which whole numbers and booleans may be null."""
        pandas = import_module("pandas")
        dtypes = {"int64": pandas.Int64Dtype(), "bool": pandas.BooleanDtype()}
        options = {"types_mapper": lambda kind: dtypes.get(str(kind)), "date_as_object": False}
        return self.to_arrow().to_pandas(**options)

    def to_polars(self) -> Any:
        return import_module("polars").from_arrow(self.to_arrow())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        shown = [one_line(str(row), 200) for row in islice(self, _MOST_SHOWN_ROWS)]
        if len(self) > len(shown):
            shown.append("…")
        return "\n  ".join([f"ReportTable: {counted(len(self), 'row')}", *shown])
