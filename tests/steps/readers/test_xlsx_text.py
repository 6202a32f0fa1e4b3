from datetime import date, datetime, time
from io import BytesIO
from typing import Any

import pytest

from paddock.steps.readers import office_and_epub
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.office import xlsx


def document(data: bytes) -> Document:
    return office_and_epub.read_xlsx(BytesIO(data), ReadOptions())


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
    from openpyxl import Workbook  # type: ignore[import-untyped]

    book, out = Workbook(), BytesIO()
    book.create_sheet("Margins").append(["secret"])
    book["Margins"].sheet_state = "hidden"
    book.save(out)
    found = document(out.getvalue())
    assert found.pages[1] == "# Margins\n\n| secret |\n| --- |"
    assert found.notes == (": hidden sheets are read as well (Margins)",)


def test_a_sheet_that_lies_about_its_size_is_read_whole() -> None:
    import zipfile

    data = xlsx({"A": [["a"], ["b"], ["c"]]})
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'ref="A1:A3"', b'ref="A1"'))
    assert document(out.getvalue()).text.endswith("| b |\n| c |")


def test_more_cells_than_are_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office_and_epub, "_MOST_CELLS", 3)
    with pytest.raises(Unreadable, match="has more than 3 cells, which is the maximum"):
        document(xlsx({"A": [["a", "b"], ["c", "d"]]}))
