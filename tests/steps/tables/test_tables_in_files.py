"""Rows out into a file of each format and in again, with their types; and what is wrong there."""

import errno
import gc
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import openpyxl  # type: ignore[import-untyped]
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.files.write import FilesWriteParams
from paddock.steps.tables import table_files, workbook_file
from paddock.steps.tables.table_files import given_rows
from tests.fakes.tools import Call, FakeTools, refused

SUFFIXES = ("parquet", "arrow", "sqlite", "duckdb", "xlsx")
TYPES = {"name": "str", "n": "int", "total": "decimal(10,2)", "day": "date", "at": "datetime",
         "paid": "bool", "share": "float"}  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {"name": "=1+1", "n": 7, "total": 19.9, "day": "2026-03-01", "at": "2026-03-01T10:30:00",
     "paid": True, "share": 0.25},
    {"name": None, "n": None, "total": 5, "day": None, "at": None, "paid": False, "share": None},
]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_comes_back_with_its_types_from_each_format(
    read: Call, write: Call, hands: FakeTools, tmp_path: Path, suffix: str
) -> None:
    write(f"a.{suffix}", TypedRows(ROWS, TYPES), table="bills")
    before = (tmp_path / f"a.{suffix}").read_bytes()
    write(f"a.{suffix}", TypedRows(ROWS, TYPES), table="bills")
    assert (tmp_path / f"a.{suffix}").read_bytes() == before
    found = read(f"a.{suffix}")
    assert found.rows == ROWS
    shown = {**TYPES, "total": "decimal(18,2)"} if suffix == "xlsx" else TYPES
    assert found.types == shown
    assert hands.notes == []


def test_a_workbook_looks_as_a_person_would_make_it(
    write: Call, hands: FakeTools, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b#1.txt").write_text("")
    rows = [
        {"document": "a b#1.txt", "day": "2026-03-01", "old": "1899-12-31", "n": 10**17, "x": "=1"},
        {"document": "gone.txt", "day": "2026-03-02", "old": "1900-01-01", "n": 1, "x": "b"},
    ]
    write("out/a.xlsx", rows, table="Bills/2026", links="in")
    sheet = openpyxl.load_workbook(tmp_path / "out" / "a.xlsx").active
    assert sheet.title == "Bills 2026"
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", "A1:E3")
    assert sheet["A1"].font.b
    assert [cell.value for cell in sheet[3]][:1] == ["gone.txt"]
    assert sheet["A2"].hyperlink.target == r"..\in\a b%231.txt"
    assert sheet["A3"].hyperlink is None
    assert (sheet["B2"].is_date, sheet["B2"].number_format) == (True, "yyyy-mm-dd")
    assert [sheet[place].value for place in ("C2", "D2", "E2")] == [
        "1899-12-31", "100000000000000000", "=1",
    ]  # fmt: skip
    assert {sheet[place].data_type for place in ("C2", "D2", "E2")} == {"s"}
    assert sheet.column_dimensions["A"].width > 10
    assert hands.notes == [
        "'a.xlsx': dates before 1900 stand as text, since Excel has none (1 of 'old').",
        "'a.xlsx': numbers of more than 15 digits stand as text, since Excel keeps no more "
        "(1 of 'n').",
    ]


def test_csv_has_the_separator_and_decimal_mark_of_a_locale(
    write: Call, read: Call, tmp_path: Path
) -> None:
    rows = TypedRows([{"total": 1234.5, "n": 3, "long": "12345678901234567.25"}],
                     {"long": "decimal(38,2)"})  # fmt: skip
    write("a.csv", rows, separator=";", decimal=",")
    assert (tmp_path / "a.csv").read_text() == "total;n;long\n1234,5;3;12345678901234567,25\n"
    found = read("a.csv", types="auto")
    assert found.rows == [{"total": 1234.5, "n": 3, "long": "12345678901234567.25"}]
    with pytest.raises(ValueError, match="needs another separator"):
        FilesWriteParams(path="a.csv", rows=TypedRows([]), decimal=",")


@pytest.mark.parametrize(
    ("text", "types", "first", "note"),
    [
        ("n;total;zip\n1;1.234,50;01234\n2;0,50;1\n", {"n": "int", "total": "decimal(18,2)"},
         {"n": 1, "total": 1234.5, "zip": "01234"}, "types found: n int, total decimal(18,2)"),
        ("n,t\n1,2026-03-01\n9007199254740993,31.12.1899\n", {"n": "int", "t": "date"},
         {"n": 1, "t": "2026-03-01"}, "types found: n int, t date"),
        ("a;b\n1,234;x\n", {}, {"a": "1,234", "b": "x"}, "all columns are text"),
        ("a\n1\n2\nn/a\n", {}, {"a": "1"}, "column 'a' is text because of 'n/a' in line 4"),
        ("a\n1\nNaN\n", {}, {"a": "1"}, "column 'a' is text because of 'NaN' in line 3"),
        ("a,b\n-1,true\n,FALSE\n", {"a": "int", "b": "bool"}, {"a": -1, "b": True}, "b bool"),
        ("a,b,c\n+49301234567,1e5,1e+20\n", {"c": "float"},
         {"a": "+49301234567", "b": "1e5", "c": 1e20}, "c float"),
        ("id;lat;price\n1;52.520;12,50\n", {"id": "int", "price": "decimal(18,2)"},
         {"id": 1, "lat": "52.520", "price": 12.5},
         "'52.520' in line 2, which may be two numbers; `decimal` says which"),
        ("lat;kg;price\n52.5;1,250;12,5\n",
         {"lat": "decimal(18,1)", "price": "decimal(18,1)"},
         {"lat": 52.5, "kg": "1,250", "price": 12.5}, "'1,250' in line 2, which may be two"),
        ("kg;price\n1,250;12,5\n", {"kg": "decimal(18,3)", "price": "decimal(18,1)"},
         {"kg": 1.25, "price": 12.5}, ""),
    ],
)  # fmt: skip
def test_types_of_csv_are_found_and_told(
    read: Call, hands: FakeTools, tmp_path: Path, text: str, types: Any, first: Any, note: str
) -> None:
    (tmp_path / "a.csv").write_text(text)
    found = read("a.csv", types="auto")
    assert {name: kind for name, kind in found.types.items() if kind != "str"} == types
    assert found.rows[0] == first
    assert any(note in said for said in hands.notes)


@pytest.mark.parametrize(
    ("cells", "kind", "odd"),
    [
        (["3.1", "3.9", "3.10"], "str", "3.10"),
        (["1.2.3", "1.2"], "str", "1.2.3"),
        (["+49", "33"], "str", "+49"),
        (["5", "+3"], "str", "+3"),
        (["12", "007"], "str", "007"),
        (["-0", "1"], "str", "-0"),
        (["-0.00", "1.00"], "str", "-0.00"),
        ([".5", "0.7"], "str", ".5"),
        (["1.", "2"], "str", "1."),
        (["1", "2.50"], "str", "2.50"),
        (["1'234", "1000"], "str", "1000"),
        (["1'234", "12'34"], "str", "12'34"),
        (["1,234.50", "1.234,50"], "str", "1.234,50"),
        (["9" * 39], "str", "9" * 39),
        (["0." + "1" * 38], "str", "0." + "1" * 37),
        (["1.5", "1e999"], "str", "1e999"),
        (["1.5", "1.50e3"], "str", "1.50e3"),
        (["1_000"], "str", ""),
        (["٣"], "str", ""),
        (["1,234", "5,678"], "str", "1,234"),
        (["2026-03-01T10:00", "2026-03-01T10:00Z"], "str", "2026-03-01T10:00Z"),
        (["2026-03-01T10:00:00.1234567"], "str", ""),
        (["9" * 38, "-1"], "int", ""),
        (["1,234,567", "1,000", "7"], "int", ""),
        (["1\u202f234", "999"], "int", ""),
        (["19.90", "20.00"], "decimal(18,2)", ""),
        (["12345678901234567.50", "-1.25"], "decimal(38,2)", ""),
        (["1,234.50", "999.00"], "decimal(18,2)", ""),
        (["19.9", "20", "3.25"], "decimal", ""),
        (["0.30000000000000004", "0.1"], "float", ""),
        (["1.0", "2.25", "1e-05"], "float", ""),
        (["1", "2.5e-07"], "float", ""),
        (["1.000000e+00", "2.500000e-05"], "float", ""),
        (["1.3.2026", "31.12.2026"], "date", ""),
    ],
)  # fmt: skip
def test_a_column_is_of_numbers_only_if_each_cell_can_be_written_back(
    read: Call, hands: FakeTools, cells: list[str], kind: str, odd: str
) -> None:
    found = read("a.csv", "x\n" + "".join(f'"{cell}"\n' for cell in cells), types="auto")
    assert found.types == {"x": kind}
    if kind == "str":
        assert [row["x"] for row in found.rows] == cells
    said = [note for note in hands.notes if "is text because of" in note]
    assert [f"'{odd[:39]}" in note for note in said] == [True] * bool(odd)


@pytest.mark.parametrize("types", ["auto", {"at": "datetime"}])
def test_times_of_several_offsets_are_in_utc_and_compare_as_they_are(
    read: Call, types: Any
) -> None:
    wishes = {"types": types} if types == "auto" else {"columns": types}
    cells = ["2026-10-25T02:30:00+02:00", "2026-10-25T02:10:00+01:00", "2026-10-25T00:45:00Z"]
    found = [row["at"] for row in read("a.csv", "\n".join(["at", *cells]), **wishes).rows]
    assert found == [f"2026-10-25T0{time}:00+00:00" for time in ("0:30", "1:10", "0:45")]
    paris = pa.array([1_777_000_000_000_000], pa.timestamp("us", "Europe/Paris"))
    frame = pa.table({"at": paris})
    assert given_rows(frame, {}).as_list() == [{"at": "2026-04-24T03:06:40+00:00"}]


def test_types_of_csv_are_declared_with_their_decimal_mark(read: Call, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("total;day\n1.234,50;1.3.2026\n;\n")
    columns = {"total": "decimal", "day": "date"}
    assert read("a.csv", columns=columns, decimal=",").rows == [
        {"total": 1234.5, "day": "2026-03-01"}, {"total": None, "day": None},
    ]  # fmt: skip
    assert refused(read, "a.csv", columns={"day": "int"}) == (
        "'a.csv' line 2 has '1.3.2026' in column 'day', which is no int."
    )


def test_no_digit_of_money_and_of_large_integers_is_lost(read: Call, write: Call) -> None:
    rows = [{"n": 2**53 + 1, "wide": 10**30, "total": "12345678901234567.89"}]
    for suffix in ("parquet", "arrow", "duckdb"):
        write(f"a.{suffix}", rows, columns={"total": "decimal"})
        assert read(f"a.{suffix}").rows == rows


def test_values_that_json_has_not_are_told_and_kept_where_there_is_a_place(
    read: Call, write: Call, hands: FakeTools, tmp_path: Path
) -> None:
    short = pa.array([0.1, 3.4e38, None], pa.float32())
    lists = pa.array([[0.1], [], None], pa.list_(pa.float32()))
    data = {"x": [1.5, float("nan"), float("inf")], "b": [b"ab", b"\xff", None], "f": short}
    parquet.write_table(pa.table({**data, "l": lists}), tmp_path / "a.parquet")
    found = read("a.parquet")
    assert found.rows == [
        {"x": 1.5, "b": "ab", "f": 0.1, "l": [0.1]},
        {"x": None, "b": "\ufffd", "f": 3.4e38, "l": []},
        {"x": None, "b": None, "f": None, "l": None},
    ]
    write("b.parquet", found.rows)
    kept = parquet.read_table(tmp_path / "b.parquet")
    assert str(kept["x"].to_pylist()) == "[1.5, nan, inf]"
    assert kept["b"].to_pylist() == data["b"]
    assert kept["f"].type == pa.float32()
    write("b.csv", found.rows)
    assert hands.notes == [
        "'a.parquet': numbers that are infinite or NaN are null, bytes that are "
        "no text U+FFFD, and times cut at microseconds (2 of 'x', 1 of 'b').",
        "'b.csv': numbers that are infinite or NaN are null, bytes that are no text "
        "U+FFFD, and times cut at microseconds (2 of 'x', 1 of 'b'); Parquet has them.",
    ]


def test_a_column_that_changes_its_type_is_told_and_kept(
    read: Call, write: Call, hands: FakeTools
) -> None:
    write("a.parquet", [{"x": 1, "y": [1]}, {"x": "two", "y": {"z": 2}}])
    assert read("a.parquet").rows == [{"x": "1", "y": "[1]"}, {"x": "two", "y": '{"z": 2}'}]
    assert hands.notes == [
        "'a.parquet': column 'x' has values of several types (1 int, 1 str), and is text.",
        "'a.parquet': column 'y' has lists or mappings of several types, and is text.",
    ]
    said = refused(write, "a.parquet", [{"x": "soon"}], columns={"x": "date"})
    assert said == (
        "'a.parquet' cannot be written: row 1 has 'soon' in column 'x', which is no date."
    )


def test_lists_and_mappings_keep_their_form_in_parquet(read: Call, write: Call) -> None:
    rows = [{"lines": [{"n": 1}, {"n": 2}], "tags": ["a"]}, {"lines": [], "tags": None}]
    write("a.parquet", rows)
    assert read("a.parquet").rows == rows


def test_a_table_of_a_database_is_named_where_there_are_several(read: Call, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as made:
        made.execute("create table bills (n int, paid boolean, day date, x)")
        made.execute("insert into bills values (1, 1, '2026-03-01', 'a')")
        made.execute("insert into bills values (2, 0, null, 3)")
        made.execute("create table parts (n int)")
    made.close()
    assert refused(read, "a.db") == (
        "'a.db' has 2 tables: 'bills', 'parts'. Name one of them: `table: bills`."
    )
    found = read("a.db", table="Bills", columns=["n", "paid", "day", "x"])
    assert found.rows == [
        {"n": 1, "paid": True, "day": "2026-03-01", "x": "a"},
        {"n": 2, "paid": False, "day": None, "x": "3"},
    ]
    assert refused(read, "a.db", table="bill").endswith("Did you mean 'bills'?")


def test_a_database_that_another_program_writes_is_told(read: Call, tmp_path: Path) -> None:
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "a.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        said = refused(read, "a.duckdb")
        other.communicate()
    assert said.startswith("'a.duckdb' cannot be opened as DuckDB: ")
    assert said.endswith("If another program has it open, close that, and try again.")


def test_a_file_that_is_no_table_of_its_format_is_told(read: Call, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        (tmp_path / f"a.{suffix}").write_bytes(b"nothing of that kind, whatever its name says")
        assert refused(read, f"a.{suffix}").startswith(f"'a.{suffix}' ")


@pytest.mark.parametrize("lock", [".~lock.a.xlsx#", "~$a.xlsx"])
def test_a_table_that_a_person_has_open_is_kept_until_it_is_closed(
    write: Call, hands: FakeTools, tmp_path: Path, lock: str
) -> None:
    write("a.xlsx", [{"n": 1}])
    before = (tmp_path / "a.xlsx").read_bytes()
    (tmp_path / lock).write_text("")
    write("a.xlsx", [{"n": 1}, {"n": 2}])
    assert (tmp_path / "a.xlsx").read_bytes() == before
    assert hands.notes[-1] == (
        f"'{tmp_path / 'a.xlsx'}' is open in another program ('{lock}'): "
        f"it is kept as it is until that is closed."
    )
    (tmp_path / lock).unlink()
    write("a.xlsx", [{"n": 1}, {"n": 2}])
    assert (tmp_path / "a.xlsx").read_bytes() != before


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert table_files.missing_library("parquet", writes=True) == (
        "Tables of the format 'parquet' need 'duckdb', which is not installed.",
        "Install it: `pip install 'paddock-llm[tables]'`.",
    )
    assert table_files.missing_library("csv") is None


def test_a_long_workbook_is_written_row_by_row(
    write: Call, read: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook_file, "_LARGE_CELLS", 1000)
    rows = [{"n": n, "text": f"row {n}", "day": "2026-03-01"} for n in range(1000)]
    write("a.xlsx", rows)
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml")
    assert b't="inlineStr"' in sheet
    assert len(ET.fromstring(sheet).findall("{*}sheetData/{*}row")) == 1001
    assert json.loads(json.dumps(read("a.xlsx").rows.as_list()[-1])) == rows[-1]


@pytest.mark.parametrize("suffix", ["duckdb", "xlsx"])
def test_a_full_disk_is_told_and_leaves_the_table_as_it_was(
    write: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    write(f"a.{suffix}", [{"n": 1}])
    before = (tmp_path / f"a.{suffix}").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("TemporaryDirectory", "TemporaryFile", "mkstemp", "NamedTemporaryFile"):
        monkeypatch.setattr(tempfile, name, full)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # of the library's open archive
    rows = [{"n": n, "text": "x"} for n in range(60_000)]  # beyond what is kept in memory
    said = refused(write, f"a.{suffix}", rows)
    assert said == (
        f"'a.{suffix}' cannot be written: the disk is full. "
        f"Free some space and run again; finished items are kept."
    )
    assert (tmp_path / f"a.{suffix}").read_bytes() == before
    gc.collect()
