"""Rows as Arrow has them: typed columns in memory, of which plain data is made when it is read.

The one module that knows Arrow and Parquet.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, timedelta
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import compute, ipc, parquet

from paddock.engine.system.text import cell_text, one_line
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.readers.reader import Unreadable

from .column_types import MOST_DIGITS, ColumnType, plain_value, type_of_value, typed_value
from .row_formats import UnreadableRows, kept_rows, own_names

_BATCH_ROWS = 10_000
_MOST_SCALE = 18
_INT64 = range(-(2**63), 2**63)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NO_NAME = re.compile(r"__index_level_\d+__")
"""What pyarrow calls an index of pandas that has no name."""


class ArrowRows(TypedRows):
    """The rows of a table. A number that JSON has not, such as NaN, is null in plain data."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__([], {field.name: _type_name(field.type) for field in table.schema})
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
        if any(getattr(getattr(frame, "index", None), "names", ())):  # of pandas
            frame = frame.reset_index()
        try:
            table, notes = own_table(pa.table(frame))
            names = [name for name in table.column_names if not _NO_NAME.fullmatch(name)]
            columns = [_plain_column(table[name]) for name in names]
            table = pa.table(columns, names=names).combine_chunks()
        except (pa.ArrowException, ValueError, TypeError) as error:
            why = ". ".join(map(str, error.args)) or type(error).__name__
            raise UnreadableRows(f"cannot be read as a table: {why}") from error
        if notes:  # a program can mend it
            raise UnreadableRows(f"cannot be read as a table: {notes[0]}")
        return cls(table)

    @property
    def lost_numbers(self) -> Mapping[str, int]:
        found = {}
        for field in self.table.schema:
            if pa.types.is_floating(field.type):
                column = self.table[field.name]
                odd = compute.or_(compute.is_nan(column), compute.is_inf(column))
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
        kind, values = column.type, _in_microseconds(column).to_pylist()
        is_plain = pa.types.is_string(kind) or pa.types.is_integer(kind)
        columns.append(values if is_plain else map(plain_value, values))
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _in_microseconds(column: Any) -> Any:
    """Return a column with times as Python has them."""
    kind = column.type
    is_finer = pa.types.is_timestamp(kind) and kind.unit == "ns"
    return column.cast(pa.timestamp("us", kind.tz), safe=False) if is_finer else column


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without encodings of its values, by which libraries differ."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = _plain_type(kind.value_type)
        values = [chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks]
        return pa.chunked_array(values, kind)
    return column.cast(_plain_type(kind))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    of = pa.types
    if of.is_string_view(kind):
        return pa.large_string()
    if of.is_binary_view(kind):
        return pa.large_binary()
    if of.is_list(kind) or of.is_large_list(kind) or of.is_fixed_size_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if of.is_struct(kind):
        return pa.struct([(part.name, _plain_type(part.type)) for part in kind.fields])
    return kind


# --- foreign tables


def own_table(table: pa.Table, columns: Iterable[str] | None = None) -> tuple[pa.Table, list[str]]:
    """Return a foreign table as one whose values plain data holds, and notes on what is changed.

    `columns`: those that are taken; None: all.

    Arrow believes the offsets and lengths of what it reads, so all of them are checked first. A
    column with a value that plain data does not hold becomes text.

    Raises:
        Unreadable: it is damaged.
        UnreadableRows: it has a name twice, or has no such column.
    """
    names, notes = own_names(table.column_names), list[str]()
    if names != table.column_names:
        table = table.rename_columns(names)
    if columns is not None:
        table = ArrowRows(table).picked(names := list(columns)).table
    for n, name in enumerate(names):
        column = _own_column(table.column(n), name, notes)
        if column is not table.column(n):
            table = table.set_column(n, name, column)
    return table, notes


def _own_column(column: pa.ChunkedArray, name: str, notes: list[str]) -> pa.ChunkedArray:
    is_held = True
    try:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:  # of values without an offset, they alone may be out of range
            if not (pa.types.is_time(column.type) or pa.types.is_decimal(column.type)):
                raise
            column.validate()
            is_held = False
    except pa.ArrowException as error:
        why = f"column '{name}': {one_line(str(error), 160)}"
        raise Unreadable(f"is damaged: {why}") from error
    if (known := _with_known_zones(column.type)) != column.type:
        notes.append(f"column '{name}' has an unknown time zone, and is in UTC")
        column = column.cast(known)
    if is_held and _is_held(column):
        return column
    values = [_foreign_value(value) for value in column]
    row, text = next((n, value) for n, (value, is_odd) in enumerate(values, 1) if is_odd)
    what = f"row {row:,} has '{one_line(cell_text(text), 40)}' in column '{name}'"
    kind = _type_name(column.type) or str(column.type)
    notes.append(f"{what}, which is no {kind}: the column is text")
    texts = [None if value is None else cell_text(value) for value, _ in values]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _with_known_zones(kind: pa.DataType) -> pa.DataType:
    """Return a type with UTC in place of time zones that this machine does not know."""
    of = pa.types
    if of.is_timestamp(kind) and kind.tz:
        try:
            pa.scalar(0, kind).as_py()
        except (LookupError, ValueError, OSError):
            return pa.timestamp(kind.unit, "UTC")
    if of.is_list(kind):
        return pa.list_(_with_known_zones(kind.value_type))
    if of.is_struct(kind):
        return pa.struct([field.with_type(_with_known_zones(field.type)) for field in kind.fields])
    return kind


def _is_held(column: pa.ChunkedArray) -> bool:
    """Return whether plain data holds each value of a column."""
    of, kind = pa.types, column.type
    if _is_plain(kind):
        return True
    try:
        if of.is_date(kind) or of.is_timestamp(kind) or of.is_time(kind):
            values = [end.as_py() for end in compute.min_max(_in_microseconds(column)).values()]
        else:
            values = column.to_pylist()
        for value in values:
            plain_value(value)
    except Exception:  # values fail in many ways, by their types
        return False
    return True


def _is_plain(kind: pa.DataType) -> bool:
    """Return whether plain data holds each value that a type can have."""
    of = pa.types
    if of.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if of.is_nested(kind) and not of.is_run_end_encoded(kind):
        parts = [kind.field(n) for n in range(kind.num_fields)]
        is_clear = len({part.name for part in parts}) == len(parts)
        return is_clear and all(_is_plain(part.type) for part in parts)
    if of.is_decimal(kind):
        return bool(0 <= kind.scale <= kind.precision)
    sure = (of.is_null, of.is_boolean, of.is_integer, of.is_floating, of.is_string,
            of.is_large_string, of.is_string_view, of.is_binary, of.is_large_binary,
            of.is_binary_view, of.is_fixed_size_binary)  # fmt: skip
    return any(holds(kind) for holds in sure)


def _foreign_value(scalar: Any) -> tuple[Any, bool]:
    """Return a value as plain data, and whether it, or a part of it, is text for want of such."""
    of, kind, inner = pa.types, scalar.type, getattr(scalar, "value", None)
    if isinstance(inner, pa.Scalar):  # of a dictionary, a union, an extension
        return _foreign_value(inner)
    found = None
    with suppress(Exception):  # as above
        found = scalar.as_py()
        value = plain_value(found)
        if of.is_decimal(kind) and found is not None:
            return value, len(found.as_tuple().digits) > kind.precision
        if not of.is_time(kind) or found is None or 0 <= inner < 86_400 * _PER_SECOND[kind.unit]:
            return value, False
    if of.is_struct(kind):
        parts = [(kind.field(n).name, _foreign_value(scalar[n])[0]) for n in range(len(kind))]
        return dict(parts) if len(dict(parts)) == len(parts) else parts, True
    if hasattr(scalar, "values"):
        return [_foreign_value(part)[0] for part in scalar.values], True
    if not of.is_temporal(kind):
        raise Unreadable(f"has values of the type '{kind}', which plain data does not hold")
    return _time_text(inner, kind), True


def _time_text(value: int, kind: pa.DataType) -> str:
    """Return a time, date or duration of any length, as it is counted, in the form of ISO."""
    of = pa.types
    if of.is_duration(kind):
        return f"{value} {kind.unit}"
    if abs(value) == (2**31 if of.is_date32(kind) else 2**63) - 1:  # as databases count it
        return "infinity" if value > 0 else "-infinity"
    per_second = 1000 if of.is_date64(kind) else _PER_SECOND.get(getattr(kind, "unit", ""), 1)
    per_day = 1 if of.is_date32(kind) else 86_400 * per_second
    days, rest = (0, value) if of.is_time(kind) else divmod(value, per_day)
    seconds, part = divmod(rest, per_second)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    clock += f".{part:0{len(str(per_second)) - 1}}" * bool(part)
    if of.is_time(kind):
        return clock
    cycles, rest = divmod(days, 146_097)  # days of 400 years, after which the calendar repeats
    day = date(1970, 1, 1) + timedelta(rest)
    text = f"{day.year + 400 * cycles:04}{day:-%m-%d}"
    return text if of.is_date(kind) else f"{text}T{clock}{'+00:00' if kind.tz else ''}"


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
    kept, notes, made = kept_rows(rows), list[str](), []
    names = list(dict.fromkeys(chain(columns, chain.from_iterable(kept))))
    for name in names:
        values = [row.get(name) for row in kept]
        made.append(_column(name, values, declared.get(name, ""), known.get(name, ""), notes))
    return pa.table(made, names=own_names(map(str, names))), notes


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
    name: str, values: list[Any], declared: ColumnType, known: ColumnType, notes: list[str]
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


def _typed_array(values: Sequence[Any], kind: ColumnType) -> pa.Array:
    made: list[Any] = []
    for n, value in enumerate(values, 1):
        try:
            made.append(typed_value(value, kind))
        except (ValueError, ArithmeticError) as error:
            raise _WrongRow(n, value) from error
    present = [(n, value) for n, value in enumerate(made, 1) if value is not None]
    if kind == "datetime":
        zones = {value.tzinfo is not None for _, value in present}
        if len(zones) > 1:
            raise _WrongRow(present[0][0], "times with and without a zone")
        for n, value in present if True in zones else ():
            try:
                made[n - 1] = value.astimezone(UTC)
            except OverflowError as error:
                raise _WrongRow(n, values[n - 1]) from error
        return pa.array(made, pa.timestamp("us", "UTC" if True in zones else None))
    if kind == "int" and all(value in _INT64 for _, value in present):
        return pa.array(made, pa.int64())
    if kind == "int" or kind.startswith("decimal"):
        exact = [(n, Decimal(value).as_tuple()) for n, value in present]
        scales = [max(0, -int(parts.exponent)) for _, parts in exact]
        form = kind[8:-1].split(",") if "(" in kind else (MOST_DIGITS, max(scales, default=0))
        wide = pa.decimal128(int(form[0]), min(int(form[1]), _MOST_SCALE))
        for (n, parts), scale in zip(exact, scales, strict=True):
            n_whole = len(parts.digits) + int(parts.exponent)
            if scale > wide.scale or n_whole > wide.precision - wide.scale:
                raise _WrongRow(n, values[n - 1])
        return pa.array([None if value is None else Decimal(value) for value in made], wide)
    types = {"str": pa.string(), "float": pa.float64(), "bool": pa.bool_(),
             "date": pa.date32(), "time": pa.time64("us")}  # fmt: skip
    return pa.array(made, types[kind])


# --- files


def read_arrow_file(file: BinaryIO, format_: str) -> pa.Table:
    """Read a Parquet file, an Arrow file (Feather) or an Arrow stream.

    Raises:
        Unreadable: it is none.
    """
    try:
        if format_ == "parquet":
            return parquet.read_table(file)
        try:
            found = ipc.open_file(file)
        except pa.ArrowInvalid:
            file.seek(0)
            found = ipc.open_stream(file)
        return found.read_all()  # not copied yet: `own_table` checks it
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        form = "Parquet" if format_ == "parquet" else "Arrow"
        why = str(error).partition("\n")[0]
        raise Unreadable(f"is no whole {form} file: {why}") from error


def arrow_file(table: pa.Table, format_: str) -> bytes:
    """Return a table as a Parquet or Arrow file; the same table gives the same bytes."""
    sink = BytesIO()
    if format_ == "parquet":
        parquet.write_table(table, sink, compression="zstd", row_group_size=100_000)
    else:
        with ipc.new_file(sink, table.schema) as file:
            file.write_table(table, max_chunksize=_BATCH_ROWS)
    return sink.getvalue()
