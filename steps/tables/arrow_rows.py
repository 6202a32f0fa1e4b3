"""Rows as Arrow has them: typed columns in memory, of which plain data is made when it is read.

The one module that knows Arrow and Parquet.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from itertools import chain
from types import NoneType
from typing import Any, BinaryIO

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import compute, ipc, parquet

from paddock.engine.system.text import cell_text, one_line
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.readers.reader import Unreadable

from .column_types import (
    MOST_DIGITS,
    MOST_SCALE,
    ColumnType,
    is_lost,
    plain_value,
    type_of_value,
    typed_value,
)
from .row_formats import UnreadableRows, kept_rows, own_names, rows_of_values
from .table_format import with_libraries

_BATCH_ROWS = 10_000
_INT64 = range(-(2**63), 2**63)
_MAY_BE_LOST = re.compile(r"\b(?:(?:fixed_size_|large_)?binary|float|double)\b|\[ns")
_SHORT_FLOAT = re.compile(r"\bfloat\b")
_MAY_BE_ODD = re.compile(r"date|time|duration|interval|decimal|map|struct|union|extension")
"""In the names of types with values that Python may not hold."""
_NOT_IN_ARROW = re.compile(r"(?<!')\b(?:U?Int128|Object)\b(?!')")
"""Types of Polars that Arrow refuses without the column's name, or takes for bytes. Names of fields
are in quotes."""
_PLAIN_TYPES = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
_HELD_EXTENSIONS = ("arrow.bool8", "arrow.json", "arrow.uuid")
_OTHER_TYPE = "Make it a text or a number first, or leave it out."
_NO_NAME = re.compile(r"__index_level_\d+__")
"""What pyarrow calls an index of pandas that has no name."""


class ArrowRows(TypedRows):
    """The rows of a table. A number that JSON has not, such as NaN, is null in plain data."""

    def __init__(self, table: pa.Table) -> None:
        zones = {field.name: getattr(field.type, "tz", None) for field in table.schema}
        types = {field.name: _type_name(field.type) for field in table.schema}
        super().__init__([], types, {name: zone for name, zone in zones.items() if zone})
        self.table = table

    @classmethod
    def of_bytes(cls, data: Any) -> ArrowRows:
        """Return the rows of a reader's Arrow stream, without a copy of them.

        Raises:
            Unreadable: it is damaged.
        """
        try:
            table = ipc.open_stream(pa.py_buffer(data)).read_all()
            table.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise Unreadable("is not read: what its reader returned is damaged") from error
        return cls(table)

    @classmethod
    def of_frame(cls, frame: Any) -> ArrowRows:
        """Return the rows of a frame, of whatever library; an index without a name is left out.

        Raises:
            UnreadableRows: a column has values of several types or such as plain data does not
                hold, or a name twice.
        """
        if type(frame).__name__ == "DuckDBPyRelation":
            frame = with_libraries("duckdb_queries").with_held_types(frame)
        kinds = getattr(frame, "schema", None)
        for name, kind in kinds.items() if isinstance(kinds, Mapping) else ():  # of Polars
            if _NOT_IN_ARROW.search(str(kind)):
                what = f"cannot be read as a table: has column '{name}' of the type '{kind}'"
                raise UnreadableRows(what, _OTHER_TYPE)
        try:
            made = frame
            if hasattr(frame, "itertuples"):  # of pandas
                frame = frame.reset_index() if any(frame.index.names) else frame
                try:
                    made = pa.table(frame)
                finally:
                    kinds = (
                        {} if made is frame else dict(zip(frame, made.schema.types, strict=False))
                    )
                    for name, column in frame.items():
                        if column.dtype == object and kinds.get(name) != pa.string():
                            _refuse_odd_objects(str(name), column)
            if isinstance(frame, pa.RecordBatchReader):
                made = frame.read_all()
            if isinstance(frame, pa.RecordBatch):
                made = pa.Table.from_batches([frame])
            # A stream in C has no lengths of buffers, which are then believed.
            table, notes = own_table(made if isinstance(made, pa.Table) else pa.table(made))
            names = [name for name in table.column_names if not _NO_NAME.fullmatch(name)]
            columns = [_plain_column(table[name]) for name in names]
            table = pa.table(columns, names=names).combine_chunks()
        except (pa.ArrowException, ValueError, TypeError) as error:
            why = ". ".join(map(str, error.args)) or type(error).__name__
            remedy = getattr(error, "remedy", _OTHER_TYPE)
            raise UnreadableRows(f"cannot be read as a table: {why}", remedy) from error
        if notes:  # a program can mend it
            raise UnreadableRows(f"cannot be read as a table: {notes[0]}")
        return cls(table)

    @property
    def lost_values(self) -> Mapping[str, int]:
        found = dict[str, int]()
        for field, column in zip(self.table.schema, self.table.columns, strict=True):
            if pa.types.is_floating(field.type):
                odd = compute.or_(compute.is_nan(column), compute.is_inf(column))
            elif getattr(field.type, "unit", "") == "ns" and not pa.types.is_duration(field.type):
                odd = compute.not_equal(_in_microseconds(column).cast(field.type), column)
            elif _MAY_BE_LOST.search(str(field.type)):
                odd = pa.array(map(is_lost, column.to_pylist()))
            else:
                continue
            found[field.name] = compute.sum(odd).as_py() or 0
        return {name: n for name, n in found.items() if n}

    @cached_property
    def content(self) -> Any:
        return {"rows": len(self), "sha256": sha256(stream_of(self.table)).hexdigest()}

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)

    def as_list(self) -> list[Any]:
        return list(self)

    def picked(self, columns: Sequence[str]) -> ArrowRows:
        """Return the same rows with these columns alone.

        Raises:
            UnreadableRows: there is no such column.
        """
        known = self.table.column_names
        if missing := [name for name in columns if name not in known]:
            remedy = did_you_mean(missing[0], known)
            raise UnreadableRows(f"has no column '{missing[0]}'", remedy)
        return ArrowRows(self.table.select(list(columns)))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return chain.from_iterable(map(_plain_rows, self.table.to_batches(_BATCH_ROWS)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.as_list()[index]
        return next(iter(ArrowRows(self.table.slice(range(len(self))[index], 1))))


def stream_of(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=_BATCH_ROWS)
    return sink.getvalue()


def _plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    names, columns = batch.schema.names, []
    for column in batch.columns:
        kind = column.type
        if _SHORT_FLOAT.search(str(kind)):  # 0.1, and not what a double has of it
            for new in (pa.string(), pa.float64()):
                column = column.cast(_replaced(kind, {pa.float32(): new}))
        values = _in_microseconds(column).to_pylist()
        is_plain = pa.types.is_string(kind) or pa.types.is_integer(kind)
        columns.append(values if is_plain else map(plain_value, values))
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _replaced(kind: pa.DataType, by_type: Mapping[pa.DataType, pa.DataType]) -> pa.DataType:
    """Return a type with others for some, also within lists and structs."""
    of = pa.types
    if of.is_list(kind) or of.is_large_list(kind) or of.is_fixed_size_list(kind):
        return pa.large_list(_replaced(kind.value_type, by_type))
    if of.is_struct(kind):
        return pa.struct([(part.name, _replaced(part.type, by_type)) for part in kind.fields])
    return by_type.get(kind, kind)


def _in_microseconds(column: Any) -> Any:
    kind = column.type
    if pa.types.is_time64(kind):
        return column.cast(pa.time64("us"), safe=False)
    is_finer = pa.types.is_timestamp(kind) and kind.unit == "ns"
    return column.cast(pa.timestamp("us", kind.tz), safe=False) if is_finer else column


def _refuse_odd_objects(name: str, column: Any) -> None:
    """Refuse objects in a column of pandas as in rows: Arrow takes sets for lists, drops zones."""
    objects = column.tolist()
    if set(map(type, objects)) <= {str, float, NoneType, bytes, Decimal}:
        return
    rows = [{name: value} for value in objects if not isinstance(value, bytes | Decimal)]
    table, notes = to_arrow(rows_of_values(rows), {})
    if notes or any(map(pa.types.is_decimal, table.schema.types)):
        why = next(iter(notes), f"column '{name}' has integers of more than 64 bits")
        raise UnreadableRows(why, _OTHER_TYPE)


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = _replaced(kind.value_type, _PLAIN_TYPES)
        values = [chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks]
        return pa.chunked_array(values, kind)
    return column.cast(_replaced(kind, _PLAIN_TYPES))


# --- foreign tables


def own_table(table: pa.Table, columns: Iterable[str] | None = None) -> tuple[pa.Table, list[str]]:
    """Return a foreign table, or some columns of it, with values that plain data holds; and notes.

    Arrow believes the offsets and lengths of what it reads, so all of them are checked first. A
    column with a date or number that plain data does not hold becomes text.

    Raises:
        Unreadable: it is damaged, has a name twice, or a type that plain data does not hold.
    """
    names, notes = own_names(table.column_names), list[str]()
    if names != table.column_names:  # else its schema stays as it is
        table = table.rename_columns(names)
    if columns is not None:
        table = ArrowRows(table).picked(names := list(columns)).table
    for n, name in enumerate(names):
        if unknown := _unknown_type(table.schema.field(n)):
            what = f"has column '{name}' of the type '{unknown}', which plain data does not hold"
            raise Unreadable(what, _OTHER_TYPE)
        column = _own_column(found := table.column(n), name, notes)
        if column is not found:  # what is stored of the others stays as well
            table = table.set_column(n, name, column)
    return table, notes


def _own_column(column: pa.ChunkedArray, name: str, notes: list[str]) -> pa.ChunkedArray:
    of, kind = pa.types, column.type
    if of.is_run_end_encoded(kind):
        return _own_column(compute.run_end_decode(column), name, notes)
    has_ends = of.is_date(kind) or of.is_time(kind) or of.is_timestamp(kind)
    has_ends = has_ends or (of.is_decimal(kind) and 0 <= kind.scale <= kind.precision)
    try:
        # Where values have no offsets, one that is out of range becomes text.
        column.validate(full=not has_ends)
    except pa.ArrowException as error:
        why = one_line(str(error), 160)
        raise Unreadable(f"is damaged: column '{name}': {why}") from error
    if not _MAY_BE_ODD.search(str(kind)):
        return column
    if of.is_decimal32(kind) or of.is_decimal64(kind):  # which few functions of Arrow know
        column = column.cast(pa.decimal128(kind.precision, kind.scale))
        return _own_column(column, name, notes)
    if of.is_dictionary(kind):
        return _own_column(_plain_column(column), name, notes)
    if of.is_timestamp(kind) and kind.tz:
        try:
            pa.scalar(0, kind).as_py()
        except (LookupError, ValueError, OSError):
            notes.append(f"column '{name}' has an unknown time zone, and is in UTC")
            column = column.cast(pa.timestamp(kind.unit, "UTC"))
    values = _in_microseconds(column)
    if all(map(_is_held, compute.min_max(values).values() if has_ends else values)):
        return column
    row = next(n for n, value in enumerate(values, 1) if not _is_held(value))
    if not has_ends:
        what = f"has '{kind}' in column '{name}', row {row:,}, which plain data does not hold"
        raise Unreadable(what, "Name the other columns under `columns`.")
    texts = column.cast(pa.string())
    what = f"row {row:,} has '{texts[row - 1]}' in column '{name}', which is no {_type_name(kind)}"
    notes.append(f"{what}: the column is text")
    return texts


def _unknown_type(field: pa.Field) -> str:
    """Return the type that plain data has not; it is never taken as it is stored. Empty: none."""
    of, kind = pa.types, field.type
    foreign = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode("utf-8", "replace")
    if name := getattr(kind, "extension_name", foreign):
        return "" if name in _HELD_EXTENSIONS else str(name)
    if of.is_dictionary(kind) or of.is_run_end_encoded(kind):
        return _unknown_type(pa.field("", kind.value_type))
    if of.is_nested(kind) and not of.is_union(kind):
        parts = [kind.field(n) for n in range(kind.num_fields)]
        names = {part.name for part in parts if of.is_binary(part.type)}
        is_variant = names >= {"metadata", "value"}  # as Parquet stores it
        return str(kind) if is_variant else next(filter(None, map(_unknown_type, parts)), "")
    return str(kind) if of.is_union(kind) or of.is_interval(kind) else ""


def _is_held(value: Any) -> bool:
    try:
        found = value.as_py()
        plain_value(found)
        # Python drops whole days of a time, and takes a decimal with more digits than its type has.
        return not isinstance(found, time | Decimal) or bool(pa.scalar(found, value.type) == value)
    except Exception:  # values fail in many ways, by their types
        return False


def _type_name(kind: pa.DataType) -> ColumnType:
    of = pa.types
    if of.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})" if kind.scale > 0 else "int"
    for holds, name in (
        (of.is_boolean, "bool"), (of.is_integer, "int"), (of.is_floating, "float"),
        (of.is_string, "str"), (of.is_large_string, "str"), (of.is_date, "date"),
        (of.is_timestamp, "datetime"), (of.is_time, "time"), (of.is_dictionary, "str"),
    ):  # fmt: skip
        if holds(kind):
            return name
    return ""


# --- rows to Arrow


def to_arrow(
    rows: TypedRows, declared: Mapping[str, ColumnType], columns: Sequence[str] = ()
) -> tuple[pa.Table, list[str]]:
    """Return rows as a table, and a sentence for each column that is text for want of a type.

    The type of a column: as declared, as the rows know it, or that of all of its values.
    `columns`: its names where there may be no row.

    Raises:
        UnreadableRows: a value is not of its declared type; a row is not a mapping.
    """
    known = rows.types
    if isinstance(rows, ArrowRows) and all(known.get(n) == kind for n, kind in declared.items()):
        return rows.table, []
    kept = kept_rows(rows)
    names = list(dict.fromkeys(chain(columns, chain.from_iterable(kept))))
    cells = {name: [row.get(name) for row in kept] for name in names}
    return columns_to_arrow(cells, declared, known, rows.zones)


def columns_to_arrow(
    cells: Mapping[str, Sequence[Any]],
    declared: Mapping[str, ColumnType],
    known: Mapping[str, ColumnType],
    zones: Mapping[str, str],
) -> tuple[pa.Table, list[str]]:
    """Return columns of plain data as `to_arrow` returns rows."""
    notes = list[str]()
    made = []
    for name, values in cells.items():
        column = _column(name, values, declared.get(name, ""), known.get(name, ""), notes)
        if pa.types.is_timestamp(column.type) and column.type.tz and name in zones:
            column = column.cast(pa.timestamp("us", zones[name]))
        made.append(column)
    return pa.table(made, names=own_names(map(str, cells))), notes


def to_query_table(rows: TypedRows) -> tuple[pa.Table, list[str]]:
    """Return rows as a query reads them: a column of nulls and of no known type may be any.

    Its columns are there without a row, too.
    """
    table, notes = to_arrow(rows, {}, [*rows.types])
    for at, column in enumerate(table.columns):
        name = table.column_names[at]
        if column.null_count == len(column) and not rows.types.get(name):
            table = table.set_column(at, name, pa.nulls(len(column)))
    return table, notes


def _column(
    name: str, values: Sequence[Any], declared: ColumnType, known: ColumnType, notes: list[str]
) -> pa.Array:
    kind = declared or known
    if not kind:  # that of all values; int and float together are float if that is exact
        found = {type_of_value(value) for value in values if value is not None}
        kind = found.pop() if len(found) == 1 else "" if found else "str"
        if found == {"int", "float"}:
            is_exact = all(abs(value) <= 2**53 for value in values if isinstance(value, int))
            kind = "float" if is_exact else "decimal"
    is_nested = not any(isinstance(value, str | int | float) for value in values)
    try:
        if kind:
            return _typed_array(values, kind)
        if is_nested:
            return pa.array(values)
        n_of = Counter(type_of_value(value) or "json" for value in values if value is not None)
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in n_of.most_common())
        notes.append(f"column '{name}' has values of several types ({kinds}), and is text")
    except _WrongRow as error:
        what = f"row {error.row} has '{error}' in column '{name}', which is no {kind}"
        if declared:
            raise UnreadableRows(what) from None
        notes.append(f"{what}: the column is text")
    except (pa.ArrowException, OverflowError, RecursionError):
        notes.append(f"column '{name}' has lists or mappings of several types, and is text")
    return pa.array([None if value is None else cell_text(value) for value in values], pa.string())


class _WrongRow(ValueError):
    """A value that is not of its column's type: its text, and its row."""

    def __init__(self, row: int, value: Any) -> None:
        super().__init__(cell_text(value)[:40])
        self.row = row


_ARROW_TYPES: Mapping[ColumnType, tuple[set[type], pa.DataType]] = {
    "str": ({str}, pa.string()), "int": ({int}, pa.int64()), "float": ({float}, pa.float64()),
    "bool": ({bool}, pa.bool_()), "date": ({str}, pa.date32()),
    "datetime": ({str}, pa.timestamp("us")), "time": (set(), pa.time64("us")),
}  # fmt: skip
"""Of types: those of plain values that Arrow converts as we do."""


def _converted_array(values: Sequence[Any], kind: ColumnType) -> pa.Array | None:
    """Return what Arrow makes of plain values of one type; None: they need a look at each."""
    types = set(map(type, values)) - {type(None)}
    plain, arrow_type = _ARROW_TYPES.get(kind, (set(), None))
    try:
        if kind.startswith("decimal(") and types <= {int, float, str}:
            precision, scale = map(int, kind[8:-1].split(","))
            texts = pa.array([None if value is None else str(value) for value in values])
            return texts.cast(pa.decimal128(precision, scale)) if scale <= MOST_SCALE else None
        if not types or not types <= plain:
            return None
        if kind not in ("date", "datetime"):
            return pa.array(values, arrow_type)
        texts = pa.array(values, pa.string())
        # Arrow has a year 0.
        return texts.cast(arrow_type) if compute.min(texts).as_py() >= "0001" else None
    except (pa.ArrowException, OverflowError):
        return None


def _typed_array(values: Sequence[Any], kind: ColumnType) -> pa.Array:
    if (converted := _converted_array(values, kind)) is not None:
        return converted
    made: list[Any] = []
    for n, value in enumerate(values, 1):
        try:
            typed = typed_value(value, kind)
            is_zoned = isinstance(typed, datetime) and typed.tzinfo is not None
            made.append(typed.astimezone(UTC) if is_zoned else typed)
        except (ValueError, ArithmeticError) as error:
            raise _WrongRow(n, value) from error
    present = [(n, value) for n, value in enumerate(made, 1) if value is not None]
    if kind == "datetime":
        zones = {value.tzinfo is not None for _, value in present}
        if len(zones) > 1:
            raise _WrongRow(present[0][0], "times with and without a zone")
        return pa.array(made, pa.timestamp("us", "UTC" if True in zones else None))
    if kind == "int" and all(value in _INT64 for _, value in present):
        return pa.array(made, pa.int64())
    if kind == "int" or kind.startswith("decimal"):
        exact = [(n, Decimal(value).as_tuple()) for n, value in present]
        scales = [max(0, -int(parts.exponent)) for _, parts in exact]
        form = kind[8:-1].split(",") if "(" in kind else (MOST_DIGITS, max(scales, default=0))
        wide = pa.decimal128(int(form[0]), min(int(form[1]), MOST_SCALE))
        for (n, parts), scale in zip(exact, scales, strict=True):
            n_whole = len(parts.digits) + int(parts.exponent)
            if scale > wide.scale or n_whole > wide.precision - wide.scale:
                raise _WrongRow(n, values[n - 1])
        return pa.array([None if value is None else Decimal(value) for value in made], wide)
    return pa.array(made, _ARROW_TYPES[kind][1])


# --- files


def read_parquet(file: BinaryIO) -> ArrowRows:
    """Read a Parquet file; `own_table` checks it.

    Raises:
        ArrowException, OSError: it is none.
    """
    # Other programs write times of 96 bits, which overflow in nanoseconds.
    return ArrowRows(parquet.read_table(file, coerce_int96_timestamp_unit="us"))


def read_arrow(file: BinaryIO) -> ArrowRows:
    """Read an Arrow file (Feather) or an Arrow stream; `own_table` checks it.

    Raises:
        ArrowException, OSError: it is none.
    """
    try:
        found = ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        found = ipc.open_stream(file)
    return ArrowRows(found.read_all())


def parquet_file(table: pa.Table) -> bytes:
    """Return a table as a Parquet file; the same table gives the same bytes."""
    sink = BytesIO()
    parquet.write_table(table, sink, compression="zstd", row_group_size=100_000)
    return sink.getvalue()


def arrow_file(table: pa.Table) -> bytes:
    """Return a table as an Arrow file; the same table gives the same bytes."""
    sink = BytesIO()
    with ipc.new_file(sink, table.schema) as file:
        file.write_table(table, max_chunksize=_BATCH_ROWS)
    return sink.getvalue()
