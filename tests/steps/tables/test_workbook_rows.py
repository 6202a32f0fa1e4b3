"""Rows of workbooks: heads, titles, several tables, types of cells, and what is odd in them."""

# ruff: noqa: DTZ001 - cells have no zone
import datetime as dt
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl  # type: ignore[import-untyped]
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904  # type: ignore[import-untyped]
from openpyxl.worksheet.table import Table  # type: ignore[import-untyped]

from paddock.steps.readers.cells import CellStyle
from paddock.steps.readers.office import damage_errors
from paddock.steps.readers.reader import Unreadable
from paddock.steps.readers.xlsx_cells import XlsxWorkbook
from paddock.steps.tables import workbook_rows
from tests.fakes.tools import Call, FakeTools, refused

Sheets = dict[str, Any]


def book(path: Path, sheets: Sheets, change: Callable[[Any], None] = lambda made: None) -> None:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    change(made)
    made.save(path)


BILLS: list[Any] = [["supplier", "total"], ["Hart", 11.5], ["Ward", 7]]


def test_a_title_and_heads_over_several_columns_name_the_columns(
    read: Call, hands: FakeTools, tmp_path: Path
) -> None:
    def merge(made: Any) -> None:
        for cells in ("A1:D1", "A2:A3", "B2:C2", "A4:A5"):
            made["Sums"].merge_cells(cells)

    rows = [["Sums of 2026"], ["supplier", "paid", None, "day"], [None, "net", "gross", None],
            ["Hart", 1, 2, dt.date(2026, 3, 1)], [None, 3, 4, dt.date(2026, 3, 2)]]  # fmt: skip
    book(tmp_path / "a.xlsx", {"Sums": rows}, merge)
    assert read().rows == [
        {"supplier": "Hart", "paid net": 1, "paid gross": 2, "day": "2026-03-01"},
        {"supplier": "Hart", "paid net": 3, "paid gross": 4, "day": "2026-03-02"},
    ]
    assert hands.notes == ["'a.xlsx': its title is not read (Sums of 2026)."]
    assert read(header=0, table="Sums!A4:B5").rows[0] == {"column_1": "Hart", "column_2": 1}


def merged(path: Path, ranges: Sequence[str]) -> None:
    """Write bills, with merged ranges that no program would write."""
    book(path, {"S": BILLS})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    cells = "".join(f'<mergeCell ref="{each}"/>' for each in ranges).encode()
    sheet = "xl/worksheets/sheet1.xml"
    end = b"</sheetData>"
    parts[sheet] = parts[sheet].replace(end, end + b"<mergeCells>" + cells + b"</mergeCells>")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ([f"A{n}:XFD{n}" for n in range(4, 5_004)], ""),
        ([f"A3:XFD{n}" for n in range(4, 5_004)], "is damaged: its merged cells overlap"),
        (["A1:XFD1048576"] * 5_000, "names column 'supplier' twice"),
    ],
    ids=["below it", "from its last row", "one"],
)
def test_a_workbook_of_5000_merged_ranges_has_an_answer(
    read: Call, tmp_path: Path, ranges: list[str], why: str
) -> None:
    merged(tmp_path / "a.xlsx", ranges)
    if why:
        assert why in refused(read)
    else:
        assert read().rows == [
            {"supplier": "Hart", "total": 11.5},
            {"supplier": "Ward", "total": 7},
        ]


def test_a_sheet_a_table_or_cells_are_named(read: Call, hands: FakeTools, tmp_path: Path) -> None:
    def add(made: Any) -> None:
        made["Two"].add_table(Table(displayName="Parts", ref="D1:E3", totalsRowCount=1))
        made["Two"].add_table(Table(displayName="Other", ref="A1:B3"))

    two = [["a", "b", None, "n", "m"], [1, 2, None, 5, 6], [3, 4, None, 9, 9]]
    book(tmp_path / "a.xlsx", {"Bills": BILLS, "Two": two, "Empty": []}, add)
    assert read().rows == [{"supplier": "Hart", "total": 11.5}, {"supplier": "Ward", "total": 7}]
    assert hands.notes == ["'a.xlsx': of its sheets only 'Bills' is read, not 'Two'."]
    assert read(table="parts").rows == [{"n": 5, "m": 6}]
    assert read(table="Two!A1:B2").rows == [{"a": 1, "b": 2}]
    assert refused(read, table="Two") == (
        "'a.xlsx' has 2 tables in its sheet 'Two': 'Parts' (D1:E3), 'Other' (A1:B3). "
        'Name one of them: `table: "Parts"`.'
    )
    assert refused(read, table="Part") == (
        "'a.xlsx' has no sheet or table 'Part'. Known: 'Bills', 'Two', 'Empty', 'Parts', 'Other'. "
        "Did you mean 'Parts'?"
    )
    assert refused(read, table="Empty") == "'a.xlsx' has no rows in its sheet 'Empty'."


def test_two_tables_without_names_in_a_sheet_are_never_one(
    read: Call, hands: FakeTools, tmp_path: Path
) -> None:
    below = [*BILLS, [], ["part", "n"], ["bolt", 3], [], ["checked by Ann"]]
    book(tmp_path / "a.xlsx", {"S": below})
    assert refused(read) == (
        "'a.xlsx' has 2 tables in its sheet 'S': A1:B3, A5:B6. "
        'Name one of them: `table: "S!A1:B3"`.'
    )
    book(tmp_path / "b.xlsx", {"S": [*BILLS, [], ["Hart", 3], [], [None, None, None, "a note"]]})
    assert [row["total"] for row in read("b.xlsx").rows] == [11.5, 7, 3]
    assert hands.notes == ["'b.xlsx': cells beside its table are not read ('a note')."]


def test_cells_have_the_types_that_a_person_sees(read: Call, tmp_path: Path) -> None:
    def shape(made: Any) -> None:
        for row in (2, 3):
            made["S"].cell(row, 2).number_format = '#,##0.00 "EUR"'
            made["S"].cell(row, 3).number_format = "0%"

    rows = [["n", "total", "share", "at", "hour", "ok"],
            [1, 19.9, 0.19, dt.datetime(2026, 3, 1, 10), dt.time(9, 30), True],
            [2.0, 5, 0.5, dt.datetime(2026, 3, 2), dt.time(10), False]]  # fmt: skip
    book(tmp_path / "a.xlsx", {"S": rows}, shape)
    found = read()
    assert found.types == {"n": "int", "total": "decimal(18,2)", "share": "float",
                           "at": "datetime", "hour": "time", "ok": "bool"}  # fmt: skip
    assert found.rows[1] == {"n": 2, "total": 5, "share": 0.5, "at": "2026-03-02T00:00:00",
                             "hour": "10:00:00", "ok": False}  # fmt: skip


def test_numbers_that_are_filled_up_with_zeros_are_read_as_they_are_shown(
    read: Call, hands: FakeTools, tmp_path: Path
) -> None:
    def shape(made: Any) -> None:
        for column, code in enumerate(("00000", '"INV-"0000', "#,##0", '0 "m2"', "00.00"), 1):
            made["S"].cell(2, column).number_format = code

    book(tmp_path / "a.xlsx", {"S": [["zip", "no", "n", "area", "x"], [1067, 7, 7, 7, 1.5]]}, shape)
    assert read().rows == [{"zip": "01067", "no": "INV-0007", "n": 7, "area": 7, "x": 1.5}]
    assert hands.notes == [
        "'a.xlsx': column 'zip' is text as its numbers are shown, such as '01067'.",
        "'a.xlsx': column 'no' is text as its numbers are shown, such as 'INV-0007'.",
    ]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("[>999]00000;000", {7: "007", 1067: "01067"}),
        ("[<=9999999]000-0000;(000) 000-0000", {5551234: "555-1234", 2025551234: "(202) 555-1234"}),
        ('[=1]"one";00000', {1: 1, 12: "00012"}),
        ("000;-000;00", {0: "00", 7: "007"}),
        ("2026\\-000", {7: "2026-007"}),
        ('"No. 1-"000', {7: "No. 1-007"}),
        ("0/4", {7: 7}),
    ],
)
def test_a_format_with_a_condition_or_digits_of_its_own_is_read_as_it_shows(
    code: str, shown: Mapping[int, Any]
) -> None:
    assert {value: CellStyle(code).shown(value) for value in shown} == shown


def test_dates_are_right_in_both_systems_and_before_1900(read: Call, tmp_path: Path) -> None:
    def of_mac(made: Any) -> None:
        made.epoch = CALENDAR_MAC_1904

    rows: list[Any] = [["day"], [dt.date(2026, 3, 1)], [dt.date(1904, 1, 2)]]
    book(tmp_path / "a.xlsx", {"S": rows}, of_mac)
    assert [row["day"] for row in read().rows] == ["2026-03-01", "1904-01-02"]
    book(tmp_path / "a.xlsx", {"S": [*rows[:2], ["31.12.1899"]]})
    found = read()
    assert found.types == {"day": "date"}
    assert [row["day"] for row in found.rows] == ["2026-03-01", "1899-12-31"]


def test_what_is_odd_in_cells_is_told(read: Call, hands: FakeTools, tmp_path: Path) -> None:
    rows = [["a", "b", "c"], [1, "=A2*2", 1e16], ["two", "#N/A", 2.5]]
    book(tmp_path / "a.xlsx", {"S": rows})
    assert read().rows == [
        {"a": "1", "b": None, "c": 1e16}, {"a": "two", "b": None, "c": 2.5},
    ]  # fmt: skip
    assert hands.notes == [
        "'a.xlsx': 1 formulas without a stored value count as empty; open and save it in a "
        "spreadsheet program to have their values.",
        "'a.xlsx': 1 cells with an error, such as #N/A, count as empty.",
        "'a.xlsx': 1 numbers of more than 15 digits are as the program kept them.",
        "'a.xlsx': column 'a' has values of several types (1 int, 1 str), and is text.",
    ]


def test_macros_are_told_and_never_run(read: Call, hands: FakeTools, tmp_path: Path) -> None:
    book(tmp_path / "a.xlsm", {"S": BILLS})
    with zipfile.ZipFile(tmp_path / "a.xlsm", "a") as archive:
        archive.writestr("xl/vbaProject.bin", b"macros")
    assert read("a.xlsm").count == 2
    assert hands.notes == ["'a.xlsm' has macros, which are neither read nor run."]


MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
STYLES = (
    '<numFmts><numFmt numFmtId="170" formatCode="[h]:mm"/></numFmts>'
    "<fonts><font><color theme='0' tint='x'/></font><font><strike/></font></fonts>"
    "<cellXfs><xf/><xf numFmtId='170'/>"
    "<xf numFmtId='2'/><xf numFmtId='30'/><xf fontId='1'/><xf numFmtId='20'/></cellXfs>"
)


def sheet_of(path: Path, rows: str, before: str = "", parts: str = "/") -> None:
    """Write a workbook as other programs do: without places, strings or a list of its parts."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (
            ("xl/workbook.xml", f"<workbook {MAIN}><sheets><sheet name='S'/></sheets></workbook>"),
            ("xl/_rels/workbook.xml.rels", "<Relationships><Relationship Type='x/styles' "
             "Target='styles.xml'/><Relationship Type='x/sharedStrings' Target='no.xml'/>"
             "</Relationships>"),
            ("xl/styles.xml", f"<styleSheet {MAIN}>{STYLES}</styleSheet>"),
            ("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}>{before}<sheetData><row><c t='str'>"
             f"<v>a</v></c></row>{rows}</sheetData></worksheet>"),
        ):  # fmt: skip
            archive.writestr(name.replace("/", parts), text)


def cell(value: str, style: int = 0, kind: str = "n", row: str = "") -> str:
    return f"<row {row}><c s='{style}' t='{kind}'><v>{value}</v></c></row>"


@pytest.mark.parametrize(
    ("rows", "values", "note"),
    [
        (cell("x", kind="str") + cell("123.0"), ["x", "123"], "several types"),
        (cell("l_x000D__x005F_x41_", kind="str"), ["l\r_x41_"], ""),
        (cell("1.25", 1) + cell("0", 1), [108000.0, 0.0], ""),
        (cell("1.25", 1) + cell("x", kind="str"), ["30:00:00", "x"], ""),
        (cell("1.5E17", 2) + cell("12.25", 2), [15 * 10**16, 12.25], "15 digits"),
        (cell("45000", 3), ["2023-03-15"], ""),
        (cell("-1.5", 5), [-1.5], ""),
        (cell("7", 4) + cell("8", row="hidden='1'"), [7, 8], "1 row is struck out, 1 row is"),
        ("<row><c t='inlineStr'><is><r><t>10</t></r><r><rPr><vertAlign val='superscript'/></rPr>"
         "<t>6</t></r></is></c></row>", ["106"], "1 cell with raised, lowered or struck letters"),
        (cell("1", 99) + cell("0", kind="s") + cell("2"), [1, 2], "no.xml"),
    ],
)  # fmt: skip
def test_cells_are_read_as_the_program_that_shows_them(
    read: Call, hands: FakeTools, tmp_path: Path, rows: str, values: list[Any], note: str
) -> None:
    odd = "<mergeCells><mergeCell ref='no cells'/></mergeCells>"
    sheet_of(tmp_path / "a.xlsx", rows, odd, parts="\\" if "x" in rows else "/")
    assert [row["a"] for row in read().rows] == values
    assert note in " ".join(hands.notes)


ODS = """<d xmlns:o="o"><o:automatic-styles><o:style o:name="t" o:data-style-name="n"/>
<o:time-style o:name="n" o:truncate-on-overflow="false"/><o:style o:name="z"
o:data-style-name="m"/><o:number-style o:name="m"><o:text>-</o:text><o:number
o:min-integer-digits="5"/><o:map o:condition="value()&gt;=0" o:apply-style-name="p"/>
</o:number-style><o:number-style o:name="p"><o:number o:min-integer-digits="4"><o:embedded-text
o:position="2">-</o:embedded-text></o:number></o:number-style></o:automatic-styles><o:body><o:s>
<o:table o:name="S"><o:table-row><o:table-cell><o:p>a</o:p></o:table-cell></o:table-row>
<o:table-row o:number-rows-repeated="2"><o:table-cell {}><o:p>7<o:s o:c="2"/>x</o:p></o:table-cell>
</o:table-row></o:table></o:s></o:body></d>"""


@pytest.mark.parametrize(
    ("facts", "value"),
    [
        ("", "7  x"),
        ("o:value-type='float' o:value='7.0'", 7),
        ("o:value-type='float' o:value='7' o:style-name='z'", "7  x"),
        ("o:value-type='float' o:value='-7' o:style-name='z'", -7),
        ("o:value-type='boolean' o:boolean-value='true'", True),
        ("o:value-type='date' o:date-value='2026-03-01'", "2026-03-01"),
        ("o:value-type='time' o:time-value='PT08H30M00S'", "08:30:00"),
        ("o:value-type='time' o:time-value='PT08H30M00S' o:style-name='t'", 30600.0),
    ],
)
def test_a_sheet_of_opendocument_is_read_like_one_of_excel(
    read: Call, tmp_path: Path, facts: str, value: Any
) -> None:
    with zipfile.ZipFile(tmp_path / "a.ods", "w") as archive:
        archive.writestr("content.xml", ODS.format(facts))
    assert [row["a"] for row in read("a.ods").rows] == [value, value]


def test_named_ranges_of_opendocument_are_tables(read: Call, tmp_path: Path) -> None:
    named = '<o:named-range o:name="second" o:cell-range-address="$\'S\'.$A$2:.$A$3"/></o:s>'
    with zipfile.ZipFile(tmp_path / "a.ods", "w") as archive:
        archive.writestr("content.xml", ODS.replace("</o:s>", named).format(""))
    assert read("a.ods", table="second").rows == [{"7 x": "7  x"}]


def test_a_fault_of_our_own_code_is_no_damage_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise TypeError("ours")

    book(tmp_path / "a.xlsx", {"S": BILLS})
    monkeypatch.setattr(workbook_rows, "_chosen", broken)
    with (
        (tmp_path / "a.xlsx").open("rb") as file,
        pytest.raises(Unreadable, match=r"is not read: Paddock failed at .*_rows\.py:"),
        damage_errors("a workbook"),
    ):
        workbook_rows.read_workbook(XlsxWorkbook(file, 10), "", True, lambda: None)
