import zipfile
from collections.abc import Callable
from datetime import date, datetime, time
from io import BytesIO
from typing import Any

import pytest

from paddock.steps.readers import spreadsheets
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.office import new_workbook, saved, xlsx


def document(data: bytes) -> Document:
    found: Document = spreadsheets.read_xlsx(BytesIO(data), ReadOptions())
    return found


def test_each_sheet_is_a_page_with_a_table() -> None:
    rows: list[list[Any]] = [
        ["Item", "Price", "When", None],
        ["Slates\nred", 5.5, date(2024, 3, 14)],
        [],
        ["Wool", 3.0, datetime.fromisoformat("2024-03-14T09:30:00")],
        ["Nails", True, time(8)],
    ]
    found = document(xlsx({"Prices": rows, "Empty": [], "Sums": [["only"]]}))
    assert found.pages == (
        "# Prices\n\n| Item | Price | When |\n| --- | --- | --- |\n"
        "| Slates red | 5.5 | 2024-03-14 |\n| Wool | 3 | 2024-03-14 09:30:00 |\n"
        "| Nails | TRUE | 08:00:00 |",
        "",
        "# Sums\n\n| only |\n| --- |",
    )


def test_a_formula_without_a_value_stands_for_itself() -> None:
    found = document(xlsx({"A": [["Sum"], ["=SUM(B1:B2)"]]}))
    assert "| =SUM(B1:B2) |" in found.text
    assert found.notes == (
        ": 1 of its formulas have no stored value and are shown as they are written; open and "
        "save it in a spreadsheet program to have their values",
    )


def test_hidden_sheets_are_read_and_named() -> None:
    book = new_workbook()
    book.create_sheet("Margins").append(["secret"])
    book["Margins"].sheet_state = "hidden"
    found = document(saved(book))
    assert found.pages[1] == "# Margins\n\n<!-- | secret |\n| --- | -->"
    assert found.notes == (": hidden sheets are read as well (Margins)",)


def rewritten(data: bytes, old: bytes, new: bytes) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as before, zipfile.ZipFile(out, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(old, new))
    return out.getvalue()


def test_a_sheet_that_lies_about_its_size_is_read_whole() -> None:
    data = rewritten(xlsx({"A": [["a"], ["b"], ["c"]]}), b'ref="A1:A3"', b'ref="A1"')
    assert document(data).text.endswith("| b |\n| c |")


def test_more_cells_than_are_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheets, "_MOST_CELLS", 3)
    with pytest.raises(Unreadable, match="has more than 3 cells, which is the maximum"):
        document(xlsx({"A": [["a", "b"], ["c", "d"]]}))


def edited(change: Callable[[Any], None]) -> Document:
    book = new_workbook()
    book.active.title = "A"
    book.active.append(["Item", "Price"])
    book.active.append(["Slates", 5])
    change(book.active)
    return document(saved(book))


def test_comments_of_cells_are_read() -> None:
    from openpyxl.comments import Comment  # type: ignore[import-untyped]

    def comment(sheet: Any) -> None:
        sheet["B2"].comment = Comment("Agreed\nby phone", "Ada")

    assert edited(comment).text.endswith("| Slates | 5 |\n\nComments:\n- B2: Ada: Agreed by phone")


def with_parts(book: Any, relations: str, kind: str, target: str, **parts: str) -> Document:
    """Return a workbook's text with more parts, one of which `relations` names."""
    changed = BytesIO()
    with zipfile.ZipFile(BytesIO(saved(book))) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            part = old.read(name).decode("utf-8", "surrogateescape")
            if name == relations:
                more = f'<Relationship Id="d" Type="http://x/{kind}" Target="{target}"/>'
                part = part.replace("</Relationships>", f"{more}</Relationships>")
            new.writestr(name, part.encode("utf-8", "surrogateescape"))
        for name, text in parts.items():
            new.writestr(f"xl/{name.replace('_', '/')}1.xml", text)
    return document(changed.getvalue())


@pytest.mark.parametrize(
    ("person", "text"),
    [
        ("id='p' displayName='Ada'", "Ada 2026-03-01: Why 5?; Yes^2"),
        ("id='q'", "2026-03-01: Why 5?; Yes^2"),
    ],
)
def test_conversations_about_cells_are_read_with_who_says_what(person: str, text: str) -> None:
    from openpyxl.comments import Comment

    book = new_workbook()
    book.active.append(["Slates", 5])
    book.active["B1"].comment = Comment("Your version of Excel", "tc={1}")
    book.active["A1"].comment = Comment("Ada:\nPlain", "Ada")
    said = (
        "<t><c ref='B1' personId='p' dT='2026-03-01T10:30:00.00'><text>Why 5?</text></c>"
        "<c ref='B1'><text>Yes^2</text></c>"
    )
    parts = {"threads": f"{said}<c ref='Z9'/></t>", "persons_p": f"<l><person {person}/></l>"}
    sheet = "xl/worksheets/_rels/sheet1.xml.rels"
    found = with_parts(book, sheet, "threadedComment", "../threads1.xml", **parts)
    shown = text.replace("^", r"\^")
    assert found.text.endswith(f"Comments:\n- A1: Ada: Plain\n- B1: {shown}")


def test_hidden_rows_and_columns_are_read_and_named() -> None:
    def hide(sheet: Any) -> None:
        sheet.row_dimensions[2].hidden = True
        sheet.column_dimensions["B"].hidden = True

    found = edited(hide)
    assert found.text == (
        "# A\n\n| Item | <!-- Price --> |\n| --- | --- |\n| <!-- Slates --> | <!-- 5 --> |"
    )
    assert found.notes == (
        ": hidden rows, columns and cells are read as well (A: 1 row, 1 group of columns)",
    )


def test_long_numbers_are_not_written_as_powers_of_ten() -> None:
    data = rewritten(xlsx({"A": [["n"], [11], [12]]}), b"<v>11<", b"<v>12345678901234567<")
    found = document(rewritten(data, b"<v>12<", b"<v>1.2345678901234567E+16<"))
    assert found.text.endswith("| 12345678901234567 |\n| 12345678901234568 |")
    assert found.notes == (
        ": 1 number has more than 15 digits, which is what a spreadsheet program keeps "
        "of a number; store them as text to keep all digits",
    )


def test_cells_that_show_nothing_are_noted() -> None:
    from openpyxl.styles import Font, PatternFill  # type: ignore[import-untyped]

    book = new_workbook()
    sheet, white = book.active, Font(color="FFFFFFFF")
    for row, (text, form, font, fill) in enumerate(
        [
            ("shown", "General", Font(), PatternFill()),
            ("shown", '0;-0;"none"', Font(), PatternFill()),
            ("shown", "General", white, PatternFill("solid", fgColor="FF003366")),
            ("format", ";;;", Font(), PatternFill()),
            ("white", "General", white, PatternFill()),
            ("white", "General", white, PatternFill("solid", fgColor="FFFFFFFF")),
            ("tiny", "General", Font(sz=1), PatternFill()),
        ],
        1,
    ):
        cell = sheet.cell(row, 1, text)
        cell.number_format, cell.font, cell.fill = form, font, fill
    sheet.cell(9, 1).number_format = ";;;"  # empty
    found = document(saved(book))
    assert "format" in found.text
    assert found.notes == (": hidden rows, columns and cells are read as well (Sheet: 4 cells)",)


def test_struck_and_raised_text_of_cells_is_marked_and_their_own_marks_escaped() -> None:
    from openpyxl.cell.rich_text import CellRichText, InlineFont, TextBlock  # type: ignore[import-untyped]
    from openpyxl.styles import Font

    def fill(sheet: Any) -> None:
        raised = TextBlock(InlineFont(vertAlign="superscript"), "6")
        gone = TextBlock(InlineFont(strike=True), "40 EUR")
        sheet["A3"] = CellRichText("10", raised, " or ", gone)
        sheet["B3"], sheet["A4"], sheet["B4"] = 45, "2^3", "x"
        sheet["B3"].font = Font(strike=True)

    assert edited(fill).text.endswith("| 10^6 or ~~40 EUR~~ | ~~45~~ |\n| 2\\^3 | x |")


def test_runs_of_a_shared_text_are_marked() -> None:
    runs = b"<r><t>10</t></r><r><rPr><vertAlign val='superscript'/></rPr><t>6</t></r>"
    data = rewritten(xlsx({"A": [["Item"]]}), b"<t>Item</t>", runs)
    assert document(data).text == "# A\n\n| 10^6 |\n| --- |"


def test_a_merged_cell_keeps_the_columns_and_rows_beside_it_in_place() -> None:
    def fill(sheet: Any) -> None:
        sheet["C1"], sheet["A3"], sheet["C2"], sheet["B3"] = "Note", "Nails", "net", 6
        sheet.merge_cells("A2:A3")
        sheet.merge_cells("A1:B1")

    assert edited(fill).text == (
        "# A\n\n| Item |  | Note |\n| --- | --- | --- |\n| Slates | 5 | net |\n|  | 6 |  |"
    )


def test_text_of_a_diagram_on_a_sheet_is_read() -> None:
    from openpyxl.chart import BarChart  # type: ignore[import-untyped]

    book = new_workbook()
    book.active.append(["a"])
    book.active.add_chart(BarChart())
    text = "<d xmlns:a='http://schemas.openxmlformats.org/drawingml/2006/main'><a:p>Buy</a:p></d>"
    drawing = "xl/drawings/_rels/drawing1.xml.rels"
    found = with_parts(book, drawing, "diagramData", "../diagrams1.xml", diagrams=text)
    assert "Text boxes:\n- Buy" in found.text


def test_what_is_drawn_on_a_sheet_is_read_from_the_top() -> None:
    from openpyxl.chart import BarChart

    book = new_workbook()
    book.active.append(["a"])
    for place in ("A9", "D2", "B2"):
        book.active.add_chart(BarChart(), place)
    data = saved(book)
    for number, text in enumerate((b"below", b"right", b"left"), 1):
        data = rewritten(data, b'name="Chart %d"' % number, b'name="" descr="%s"' % text)
    assert "Text boxes:\n- ![left]\n- ![right]\n- ![below]" in document(data).text


def test_a_comment_is_the_text_of_its_text_elements() -> None:
    """LibreOffice writes the place of the bubble within the comment; Excel, how to read a word."""
    from openpyxl.comments import Comment

    book = new_workbook()
    book.active["A1"] = "a"
    book.active["A1"].comment = Comment("check", "")
    bubble = b"</text><x:anchor xmlns:x='x'><x:to>790026446</x:to></x:anchor>"
    reading = b"<rPh sb='0' eb='1'><t>how</t></rPh></text>"
    for more in (bubble, reading):
        found = document(rewritten(saved(book), b"</text>", more))
        assert found.text.endswith("Comments:\n- A1: check")


def test_a_formula_that_nothing_has_computed_has_no_value() -> None:
    from xlsxwriter import Workbook  # type: ignore[import-untyped]

    made = BytesIO()
    with Workbook(made) as book:
        sheet = book.add_worksheet("A")
        sheet.write_row("A1", ["fee", 0])
        sheet.write_formula("A2", "=B1+5")
        sheet.write_formula("B2", "=B1+7", None, 7)
    found = document(made.getvalue())
    assert found.text.endswith("| fee | 0 |\n| --- | --- |\n| =B1+5 | 7 |")
    assert found.notes[0].startswith(": 1 of its formulas have no stored value")


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        *((code, "45.5") for code in ("General", "G/通用格式", "G/標準", "G/표준", "Standard")),
        *((code, "45.5") for code in ("Estándar", "Geral", "Genel", "Основной", 'General" Stück"')),
        *(
            (code, "1900-02-14 12:00:00")
            for code in ("yyyy", "yyyy年m月d日", "ge.m.d", "bbbb", "h")
        ),
        *(  # unquoted, as rust_xlsxwriter's users write it
            (code, "1900-02-14 12:00:00")
            for code in ("yyyy-mm-ddThh:mm:ss", "yyyy-mm-ddThh:mm:ss.000Z", "d.m.yyyyThh:mm")
        ),
    ],
)
def test_general_is_no_day_in_any_language(code: str, shown: str) -> None:
    book = new_workbook()
    book.active["A1"] = 45.5
    book.active["A1"].number_format = code
    assert f"| {shown} |" in document(saved(book)).text
