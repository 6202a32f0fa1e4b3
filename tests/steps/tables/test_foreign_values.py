"""Values and names that plain data, another format or SQL does not hold: texts, or a sentence."""

import io
import json
import math
import sqlite3
import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import numpy
import openpyxl  # type: ignore[import-untyped]
import pandas  # type: ignore[import-untyped]
import polars
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import ipc, parquet

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.tables.arrow_rows import ArrowRows, own_table
from paddock.steps.tables.formula_escapes import formula_escaped
from paddock.steps.tables.row_formats import UnreadableRows
from paddock.steps.tables.table_files import given_rows
from tests.fakes.tools import Call, FakeTools, refused


def days(*values: int | None) -> pa.Array:
    return pa.array(values, pa.int32()).cast(pa.date32())


def times(kind: pa.DataType, *values: int) -> pa.Array:
    return pa.array(values, pa.int64()).cast(kind)


def sized(kind: pa.DataType, *values: int | None) -> pa.Array:
    """Return decimals of any size."""
    data = b"".join((value or 0).to_bytes(16, "little") for value in values)
    valid = sum(1 << n for n, value in enumerate(values) if value is not None)
    buffers = [pa.py_buffer(valid.to_bytes(1, "little")), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(values), buffers)


def overlong(name: str, n: int) -> bytes:
    """Return an Arrow stream with a cell of 64 bytes that says it has `n`."""
    sink, cell = io.BytesIO(), b"x" * 64
    rows = pa.table({name: [cell]})
    with ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    data = sink.getvalue()
    at = data.rindex(struct.pack("<ii", 0, 64), 0, data.index(cell))
    return data[:at] + struct.pack("<ii", 0, n) + data[at + 8 :]


LAST = 2**63 - 1
OUT = "<value out of range: %d>"
NO_DATE = "which is no date: the column is text"


@pytest.mark.parametrize(
    ("column", "values", "type_", "note"),
    [
        (days(0, 2_932_897), ["1970-01-01", "10000-01-01"], "str",
         f"row 2 has '10000-01-01' in column 'x', {NO_DATE}"),
        (days(None, 2**31 - 1), [None, OUT % (2**31 - 1)], "str", f"in column 'x', {NO_DATE}"),
        (days(2_932_896, -719_162), ["9999-12-31", "0001-01-01"], "date", ""),
        (times(pa.timestamp("us"), -LAST), [OUT % -LAST], "str", "which is no datetime"),
        (times(pa.timestamp("us", "Asia/Tokyo"), 253_402_300_799_000_000),
         ["10000-01-01 08:59:59.000000+0900"], "str", "which is no datetime"),
        (times(pa.timestamp("us", "Mars/Base"), 0), ["1970-01-01T00:00:00+00:00"], "datetime",
         "column 'x' has an unknown time zone, and is in UTC"),
        (times(pa.time64("us"), 1, 86_400_000_000),
         ["00:00:00.000001", OUT % 86_400_000_000], "str",
         "row 2 has '<value out of range: 86400000000>' in column 'x', which is no time"),
        (times(pa.time64("ns"), 1, 1000), ["00:00:00", "00:00:00.000001"], "time",
         "times cut at microseconds (1 of 'x')"),
        (days(0, 2_932_897).dictionary_encode(), ["1970-01-01", "10000-01-01"], "str", NO_DATE),
        (pa.array([Decimal("1.5")]).dictionary_encode(), [1.5], "decimal(2,1)", ""),
        (sized(pa.decimal128(38, 0), 0, None, 2**127 - 1), ["0", None, str(2**127 - 1)], "str",
         "row 3 has '170141183460469231731687303715884105727' in"),
        (sized(pa.decimal128(38, -9), 5), [5 * 10**9], "int", ""),
    ],
)  # fmt: skip
def test_a_value_that_plain_data_does_not_hold_makes_its_column_text(
    read: Call, hands: FakeTools, tmp_path: Path, column: Any, values: Any, type_: str, note: str
) -> None:
    table = pa.table({"x": column, "beside": [1] * len(column)})
    with ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as file:
        file.write_table(table)
    found = read("a.arrow")
    assert [row["x"] for row in found.rows] == values
    assert found.rows.types.get("x") == (type_ if type_ or not note else "str")
    assert {row["beside"] for row in found.rows} == {1}
    assert [note in told and told.startswith("'a.arrow': ") for told in hands.notes] == (
        [True] * bool(note)
    )


def test_a_table_without_odd_values_has_the_same_content_as_its_file() -> None:
    """Else each item that reads one is stale after an upgrade."""
    fields = [pa.field("n", pa.int64(), nullable=False, metadata={"unit": "EUR"})]
    table = pa.table({"n": [1]}, schema=pa.schema(fields, metadata={"by": "a program"}))
    assert ArrowRows(own_table(table)[0]).content == ArrowRows(table).content
    assert ArrowRows(own_table(table, ["n"])[0]).content == ArrowRows(table).content


@pytest.mark.parametrize(
    "column",
    [
        times(pa.duration("s"), LAST),
        pa.array([[None, 2**31 - 1]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
        pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
        sized(pa.decimal128(38, -5000), 5),
    ],
)
def test_a_column_that_nothing_holds_is_refused_and_the_others_are_read(
    read: Call, tmp_path: Path, column: Any
) -> None:
    table = pa.table({"x": column, "beside": [1]})
    with ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as file:
        file.write_table(table)
    assert "in column 'x', row 1, which plain data does not hold" in refused(read, "a.arrow")
    assert read("a.arrow", columns=["beside"]).rows == [{"beside": 1}]


def test_a_day_that_python_has_not_is_refused_where_a_date_is_declared(
    read: Call, tmp_path: Path
) -> None:
    parquet.write_table(pa.table({"d": days(0, 2**31 - 1), "n": [1, 2]}), tmp_path / "a.parquet")
    said = refused(read, "a.parquet", columns={"d": "date"})
    assert said == f"'a.parquet' row 2 has '{OUT % (2**31 - 1)}' in column 'd', which is no date."
    assert read("a.parquet", columns={"n": "int"}).rows == [{"n": 1}, {"n": 2}]


def test_names_of_columns_are_whole_and_different(read: Call, write: Call, tmp_path: Path) -> None:
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet_bytes = io.BytesIO()
    with ipc.new_file(str(tmp_path / "a.arrow"), twice.schema) as file:
        file.write_table(twice)
    assert refused(read, "a.arrow") == "'a.arrow' names column 'a' twice. Rename one of them."
    parquet.write_table(pa.table({"a\0b": [1], "a": [2]}), parquet_bytes)
    (tmp_path / "a.parquet").write_bytes(parquet_bytes.getvalue())
    assert read("a.parquet").rows == [{"a\ufffdb": 1, "a": 2}]
    for suffix in ("duckdb", "sqlite", "xlsx", "csv"):
        write(f"a.{suffix}", [{"a\0b": "x", "a": "y"}])
        assert [list(row.values()) for row in read(f"a.{suffix}").rows] == [["x", "y"]]


@pytest.mark.parametrize(
    ("suffix", "rows", "wishes", "message"),
    [
        ("sqlite", [{"Total": 1, "total": 2}], {},
         "SQLite refuses it: duplicate column name: total"),
        ("duckdb", [{"Total": 1, "total": 2}], {},
         "its columns 'Total' and 'total' are one in DuckDB"),
        ("sqlite", [{f"c{n}": 1 for n in range(3000)}], {}, "SQLite refuses it: too many columns"),
        ("sqlite", [{"a": 1}], {"table": "sqlite_x"}, "SQLite refuses it: object name reserved"),
        ("sqlite", [{"a": 1}], {"table": "a\0b"}, "SQLite refuses it: "),
        ("xlsx", [{f"c{n}": None for n in range(16_385)}], {}, "no room for 16,385 columns"),
        ("xlsx", [{"x" * 40_000: None}], {}, "the name of column 1, 'xxx"),
        ("parquet", [{"\0": 1, "\ufffd": 2}], {}, "names column '\ufffd' twice"),
    ],
)  # fmt: skip
def test_names_that_a_format_does_not_tell_apart_are_refused(
    write: Call, suffix: str, rows: Any, wishes: Any, message: str
) -> None:
    assert message in refused(write, f"a.{suffix}", rows, **wishes)


@pytest.mark.parametrize(
    ("table", "title"),
    [("Bills\x07\x00\n1", "Bills   1"), ("'Bills'", "Bills"), ("'''", "Sheet1"),
     ("a'b", "a'b"), ("\ufffex", "x"), ("x" * 30 + "'y", "x" * 30)],
)  # fmt: skip
def test_a_sheet_has_a_name_that_excel_takes(
    write: Call, tmp_path: Path, table: str, title: str
) -> None:
    write("a.xlsx", [{"a": 1}], table=table)
    assert openpyxl.load_workbook(tmp_path / "a.xlsx").sheetnames == [title]


@pytest.mark.parametrize("suffix", ["xlsx", "sqlite", "duckdb", "parquet", "csv", "jsonl"])
def test_integers_of_any_length_are_written_with_each_digit(
    read: Call, write: Call, suffix: str
) -> None:
    write(f"a.{suffix}", [{"n": 10**400, "m": "x"}])
    found = read(f"a.{suffix}").rows[0]
    assert (str(found["n"]), found["m"]) == (str(10**400), "x")


def test_digits_without_end_are_a_fault_of_their_file_alone(read: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(f"n,m\n1,a\n{'9' * 5000},b\n")
    (tmp_path / "good.csv").write_text(f"n,m\n{'9' * 4300},b\n")
    assert read("good.csv", columns={"n": "int"}).rows == [{"n": int("9" * 4300)}]
    for kind in ("int", "decimal", "float"):
        said = refused(read, "bad.csv", columns={"n": kind})
        shown = "9" * 39 + "…"
        assert said == f"'bad.csv' line 3 has '{shown}' in column 'n', which is no {kind}."
    for types in ("auto", "text"):
        assert read("bad.csv", types=types).rows[1]["n"] == "9" * 5000
    for value in (10**5000, Decimal("1e999999999"), [10**5000]):
        with pytest.raises(UnreadableRows, match="more than 4,300 digits in row 2"):
            given_rows([{"n": 1}, {"n": value}], {})


def test_sqlite_gives_generated_columns_and_infinite_numbers(
    read: Call, hands: FakeTools, tmp_path: Path
) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    connection.execute(
        "create table t (a int, v int generated always as (a * 2) virtual, "
        "s text generated always as (a || 'x') stored, d decimal(60, 30), r real, at date)"
    )
    connection.execute("insert into t (a, d, r, at) values (1, 12.5, 9e999, '10000-01-01')")
    connection.commit()
    connection.close()
    assert read("a.sqlite").rows == [
        {"a": 1, "v": 2, "s": "1x", "d": 12.5, "r": None, "at": "10000-01-01"}
    ]
    assert hands.notes == [
        "'a.sqlite': row 1 has '10000-01-01' in column 'at', which is no date: the column is text.",
        "'a.sqlite': numbers that are infinite or NaN are null, bytes that are "
        "no text U+FFFD, and times cut at microseconds (1 of 'r').",
    ]


NO_VIEW = (
    "'a.{}' has no table '{}'. Of a view, and of computed columns in DuckDB, make a table: "
    "`create table x as …`. Known: {}."
)


def test_a_table_of_a_duckdb_file_is_read_as_it_is_stored(read: Call, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as made:
        for statement in (
            "create table Kept(a int default 5, b time)",
            "insert into Kept values (1, null)",
            "create table far as select 'infinity'::date as d",
            "create table computed(a int, b varchar as (current_setting('secret_directory')))",
            "create view seen as select now() as a",
            "create schema other",
            "create table other.t as select 1 as a",
            "create macro duckdb_tables() as table select 'seen' as table_name, 'main' as "
            "schema_name, '' as sql, false as internal",
        ):
            made.execute(statement)
    assert read("a.duckdb", table="kept").rows == [{"a": 1, "b": None}]
    assert read("a.duckdb", table="far").rows == [{"d": OUT % (2**31 - 1)}]
    assert "has 2 tables: 'Kept', 'far'" in refused(read, "a.duckdb")
    for table in ("seen", "computed", "t"):
        said = refused(read, "a.duckdb", table=table)
        assert said == NO_VIEW.format("duckdb", table, "'Kept', 'far'")


def test_a_view_of_a_sqlite_file_is_not_read(read: Call, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    connection.execute("create table t as select 1 as a")
    connection.execute("create view seen as select random() as a")
    connection.commit()
    connection.close()
    assert read("a.sqlite").rows == [{"a": 1}]
    assert refused(read, "a.sqlite", table="seen") == NO_VIEW.format("sqlite", "seen", "'t'")


def test_a_frame_with_values_that_plain_data_does_not_hold_is_refused() -> None:
    with pytest.raises(UnreadableRows, match="row 2 has '10000-01-01' in column 'd', which is no"):
        given_rows(pa.table({"d": days(0, 2_932_897)}), {})
    assert given_rows(pa.table({"d": days(0)}), {}).as_list() == [{"d": str(date(1970, 1, 1))}]
    frame = ipc.open_stream(io.BytesIO(overlong("x", 4000))).read_all()
    with pytest.raises(UnreadableRows, match="is damaged: column 'x'"):
        given_rows(frame, {})


class Colour(Enum):
    RED = 1


PERIODS = pandas.period_range("2026-01", periods=1, freq="M")
MONTH = pa.array([(1, 2, 3)], pa.month_day_nano_interval())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"x": {1}}], "has a value of the type 'set' in row 1, column 'x'"),
        ([{"x": 1}, {"x": {"y": Colour.RED}}], "the type 'Colour' in row 2, column 'x'"),
        ([{"x": 1j}], "'complex' in row 1, column 'x'"),
        ([{"x": range(3)}], "'range' in row 1, column 'x'"),
        ([{"x": object()}], "'object' in row 1, column 'x'"),
        ([{"x": PERIODS[0]}], "'Period' in row 1, column 'x'"),
        ([{"x": numpy.longdouble("0.1")}], "'longdouble' in row 1, column 'x'"),
        ([{"x": numpy.timedelta64(3, "M")}], "'timedelta64' in row 1, column 'x'"),
        ([{"x": [memoryview(b"a")]}], "'memoryview' in row 1, column 'x'"),
        ([{"x": b"\xff"}], "no text in row 1, column 'x'"),
        ([{"x": "a\ud800"}], "no text in row 1, column 'x'"),
        ([{"x": numpy.array([1j])}], "'complex128' in row 1, column 'x'"),
        ([{"x": numpy.array([3], "m8[M]")}], "'timedelta64' in row 1, column 'x'"),
        ([{"x": numpy.array([(1, 2.5)], "i4,f8")}], "'void' in row 1, column 'x'"),
        ([{"x": numpy.datetime64("20000-01-01")}], "'datetime64' in row 1, column 'x'"),
        ([{"x": pa.array([1])}], "'Int64Array' in row 1, column 'x'"),
        (pandas.DataFrame({"x": PERIODS}), "has column 'x' of the type 'pandas.period'"),
        (pandas.DataFrame({"x": [{1}]}), "the type 'set' in row 1, column 'x'"),
        (pandas.DataFrame({"x": [time(10, tzinfo=UTC)]}), "'10:00:00+00:00' in column 'x'"),
        (pandas.DataFrame({"x": [datetime(2026, 3, 1), datetime(2026, 3, 1, tzinfo=UTC)]}),  # noqa: DTZ001
         "with and without a zone' in column 'x'"),
        (pandas.DataFrame({"x": [2**70]}), "column 'x' has integers of more than 64 bits"),
        (pandas.DataFrame({"x": [1]}, pandas.Index(["a"], name="x")), "cannot insert x"),
        (pandas.Series([1], name="x"), "cannot be read as a table"),
        (polars.DataFrame({"x": [1]}, {"x": polars.Int128}), "has column 'x' of the type 'Int128'"),
        (polars.DataFrame({"x": polars.Series([object()])}), "has column 'x' of the type 'Object'"),
        (polars.DataFrame({"x": [[1]]}, {"x": polars.List(polars.UInt128)}), "'List(UInt128)'"),
        (pa.table({"x": MONTH}), "has column 'x' of the type 'month_day_nano_interval'"),
        (pa.table({"x": pa.array([[None]], pa.list_(MONTH.type))}), "has column 'x' of the type"),
        (pa.table({"x": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])}),
         "has column 'x' of the type 'sparse_union"),
        (pa.table({"x": pa.ExtensionArray.from_storage(pa.opaque(pa.int32(), "x", "y"),
                                                       pa.array([1], pa.int32()))}),
         "has column 'x' of the type 'arrow.opaque'"),
        (pa.table({"x": [{"metadata": b"\1\0\0", "value": b"\0"}]}), "of the type 'struct<meta"),
    ],
)  # fmt: skip
def test_a_type_that_is_not_known_is_refused_by_its_column(given: Any, message: str) -> None:
    with pytest.raises(UnreadableRows) as caught:
        given_rows(given, {})
    assert message in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (duckdb.sql(f"select {2**128 - 1}::uhugeint as x"), str(2**128 - 1)),
        (duckdb.sql("select '10:00:00+02'::timetz as x"), "10:00:00+02"),
        (duckdb.sql("select '1010'::bit as x"), "1010"),
        (duckdb.sql("select interval 1 day as x"), "1 day"),
        (pa.table({"x": pa.array([Decimal("1.5")], pa.decimal32(5, 2))}), 1.5),
        (pa.table({"x": pa.array([b"0" * 16], pa.uuid())}), "30303030-3030-3030-3030-303030303030"),
        ([{"x": numpy.datetime64("2026-03-01", "ns")}], "2026-03-01T00:00:00"),
        ([{"x": numpy.timedelta64(90, "m")}], 5400.0),
        ([{"x": numpy.float32(0.1)}], 0.1),
        ([{"x": numpy.array([0.1], "f4")}], [0.1]),
        ([{"x": numpy.array(["2026-03-01"], "M8[ns]")}], ["2026-03-01T00:00:00"]),
        ([{"x": numpy.array([90], "m8[m]")}], [5400.0]),
        ([{"x": pandas.Series([0.1], dtype="f4")}], [0.1]),
        ([{"x": numpy.ma.array([1, 2], mask=[False, True])}], [1, None]),
        (pa.table({"x": pa.RunEndEncodedArray.from_arrays([1], pa.array([0.1], pa.float32()))}),
         0.1),
        ([{"x": UUID(int=7)}], "00000000-0000-0000-0000-000000000007"),
        ([{"x": IntEnum("Size", ["S"]).S}], 1),  # type: ignore[attr-defined]
        ([{"x": b"ab"}], "ab"),
    ],
)  # fmt: skip
def test_values_of_other_libraries_are_what_they_are(given: Any, value: Any) -> None:
    assert [row["x"] for row in given_rows(given, {})] == [value]


NANOSECOND = "2026-03-01T00:00:00.000000001"


@pytest.mark.parametrize(
    "value",
    [math.inf, [math.nan], {"y": Decimal("-Infinity")}, numpy.float32("nan"),
     numpy.array([math.inf]), numpy.array([b"\xff"]), pandas.Timestamp(NANOSECOND, tz="UTC"),
     numpy.datetime64(NANOSECOND), numpy.timedelta64(-1, "ns")],
)  # fmt: skip
def test_values_that_are_null_or_cut_only_here_are_told(value: Any) -> None:
    rows = given_rows([{"x": value, "n": 1}, {"x": None, "n": 2}], {})
    assert rows.lost_values == {"x": 1}


def test_times_finer_than_microseconds_are_cut_and_told() -> None:
    fine = pa.timestamp("ns")
    for values in (pa.array([1, None], fine), pa.array([[1], None], pa.list_(fine))):
        rows = given_rows(pa.table({"x": values}), {})
        assert "T00:00:00'" in str(rows[0])
        assert rows.lost_values == {"x": 1}


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_type_that_another_library_stores_is_not_taken_as_its_storage(
    read: Call, tmp_path: Path, suffix: str
) -> None:
    """Arrow itself knows them only while pandas is imported."""
    money = {b"ARROW:extension:name": b"acme.money"}
    for kind in (pa.int64(), pa.list_(pa.field("item", pa.int64(), metadata=money))):
        field = pa.field("x", kind, metadata=money if kind == pa.int64() else None)
        value = 5 if kind == pa.int64() else [5]
        table = pa.table({"x": [value], "n": [1]}, pa.schema([field, ("n", pa.int64())]))
        with (tmp_path / f"a.{suffix}").open("wb") as file:
            if suffix == "parquet":
                parquet.write_table(table, file)
            else:
                with ipc.new_file(file, table.schema) as made:
                    made.write_table(table)
        assert "has column 'x' of the type 'acme.money'" in refused(read, f"a.{suffix}")
        assert read(f"a.{suffix}", columns=["n"]).rows == [{"n": 1}]


def test_times_of_96_bits_keep_their_year(read: Call, tmp_path: Path) -> None:
    days = pa.array([datetime(9999, 12, 31), datetime(1500, 1, 1)], pa.timestamp("us"))  # noqa: DTZ001
    table = pa.table({"x": days, "l": pa.array([[day] for day in days.to_pylist()])})
    parquet.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    first = "9999-12-31T00:00:00"
    assert read("a.parquet").rows[0] == {"x": first, "l": [first]}
    assert read("a.parquet").rows[1]["x"] == "1500-01-01T00:00:00"


def test_no_digit_is_lost_in_sqlite(read: Call, write: Call) -> None:
    ids = ["12345678901234567890", "12345678901234567891"]
    rows = [{"id": int(n), "total": f"{n[:15]}.6789"} for n in ids]
    write("a.sqlite", rows, columns={"total": "decimal(20,4)"})
    found = read("a.sqlite")
    assert found.rows == rows
    assert found.types == {"id": "int", "total": "decimal(38,4)"}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "xlsx", "parquet", "sqlite"])
@pytest.mark.parametrize(
    ("kind", "value", "good"),
    [("int", "abc", 7), ("date", "tomorrow", "2026-03-01"), ("decimal(4,2)", 1.234, 1.25),
     ("decimal(4,2)", 123, 12), ("bool", "yes", True), ("int", 5.5, 7), ("date", 5, "2026-03-01"),
     ("time", 7, "09:00:00"), ("time", "09:00:00+02:00", "09:00:00"), ("float", "1.2.3", 0.5)],
)  # fmt: skip
def test_declared_types_hold_in_each_format(
    write: Call, read: Call, suffix: str, kind: str, value: Any, good: Any
) -> None:
    said = refused(write, f"a.{suffix}", [{"x": good}, {"x": value}], columns={"x": kind})
    assert f"row 2 has '{value}' in column 'x', which is no {kind}" in said
    if suffix in ("csv", "jsonl"):
        data = f'{{"x": {json.dumps(value)}}}' if suffix == "jsonl" else f"x\n{value}"
        said = refused(read, f"b.{suffix}", data, columns={"x": kind})
        assert f"has '{value}' in column 'x', which is no {kind}" in said
    write(f"a.{suffix}", [{"x": good}], columns={"x": kind})
    wishes = {"columns": {"x": kind}} if suffix in ("csv", "tsv") else {}
    assert read(f"a.{suffix}", **wishes).rows == [{"x": good}]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "xlsx", "parquet", "sqlite"])
def test_times_with_and_without_a_zone_are_no_column(read: Call, write: Call, suffix: str) -> None:
    times = ["2026-03-01T10:00:00", "2026-03-01T10:00:00+02:00"]
    rows, columns = [{"at": time} for time in times], {"at": "datetime"}
    assert "with and without a zone" in refused(write, f"a.{suffix}", rows, columns=columns)
    write(f"a.{suffix}", rows)
    assert "with and without a zone" in refused(read, f"a.{suffix}", columns=columns)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "xlsx", "sqlite"])
def test_numbers_that_a_format_has_not_are_left_out_with_a_note(
    write: Call, read: Call, hands: FakeTools, suffix: str
) -> None:
    for declared in ({}, {"columns": {"x": "float"}}):
        write(f"a.{suffix}", [{"x": float("inf"), "n": 1}, {"x": 15, "n": 2}], **declared)
        wishes = {"types": "auto"} if suffix == "csv" else {}
        assert [row["x"] for row in read(f"a.{suffix}", **wishes).rows] == [None, 15]
        assert "infinite" in hands.notes[0]
        hands.notes.clear()


def test_decimals_are_written_with_the_places_of_their_type(
    write: Call, read: Call, tmp_path: Path
) -> None:
    values = (19.9, 20, "12345678901234567.5", None, 0.01, 1e-05)
    rows = [{"x": value, "n": 1} for value in values]
    write("a.csv", TypedRows(rows, {"x": "decimal(38,2)"}), separator=";", decimal=",")
    text = (tmp_path / "a.csv").read_text()
    shown = ("19,90", "20,00", "12345678901234567,50", "", "0,01")
    assert text == "x;n\n" + "".join(f"{value};1\n" for value in shown) + "0,00001;1\n"
    (tmp_path / "a.csv").write_text(text := text.removesuffix("0,00001;1\n"))
    found = read("a.csv", types="auto")
    write("b.csv", found.rows, separator=";", decimal=",")
    assert (tmp_path / "b.csv").read_text() == text


@pytest.mark.parametrize("suffix", ["xlsx", "csv", "parquet"])
def test_a_text_that_may_be_a_day_is_what_stands_there(
    write: Call, read: Call, suffix: str
) -> None:
    rows = [{"part": "01.03.2026", "day": "2026-03-01"}, {"part": "12.10.2024", "day": None}]
    write(f"a.{suffix}", rows)
    found = [
        {name: value or None for name, value in row.items()} for row in read(f"a.{suffix}").rows
    ]
    assert found == rows


def test_a_text_too_long_for_a_cell_is_cut_with_a_note(
    write: Call, read: Call, hands: FakeTools
) -> None:
    write("a.xlsx", [{"x": "a" * 40_000, "n": 1}, {"x": "b", "n": 2}])
    assert [len(row["x"]) for row in read("a.xlsx").rows] == [32_767, 1]
    assert hands.notes == [
        "'a.xlsx': texts of more than 32,767 characters are cut there (1 of 'x')."
    ]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("x; =1+1", "x; '=1+1"),
        ("x\n =1", "x\n '=1"),
        ("x;\u200b\u3000@a", "x;\u200b\u3000'@a"),
        ('x; "=1', "x; \"'=1"),
        ("x\u2028\x07=1", "x\u2028\x07'=1"),
        ("x; -5; +7\n -8,5", "x; -5; +7\n -8,5"),
        ("\n" * 100_000 + "x", "\n" * 100_000 + "x"),
    ],
)
def test_no_blank_hides_a_formula_from_the_guard(text: str, written: str) -> None:
    assert formula_escaped(text) == written


def test_rows_with_times_at_the_end_of_the_calendar_are_written(write: Call, read: Call) -> None:
    rows = TypedRows([{"at": "0001-01-01T00:00:00+05:00"}], {"at": "datetime"})
    write("a.parquet", rows)
    assert read("a.parquet").rows == rows


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "xlsx", "sqlite"])
def test_durations_are_written_as_seconds(write: Call, read: Call, suffix: str) -> None:
    frame = pa.table({"took": pa.array([90_500, 3_600_000], pa.duration("ms"))})
    write(f"a.{suffix}", ArrowRows.of_frame(frame))
    wishes = {"types": "auto"} if suffix == "csv" else {}
    assert [row["took"] for row in read(f"a.{suffix}", **wishes).rows] == [90.5, 3600]
