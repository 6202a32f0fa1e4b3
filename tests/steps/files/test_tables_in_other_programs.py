"""CSV and TSV as other programs read them, with their own list separator."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.steps.tables.formula_escapes import without_formula_escape
from paddock.steps.tables.table_files import text_formats
from paddock.steps.tables.table_format import WriteOptions
from tests.waiting import PATIENCE_S

DELIMITERS = {"csv": ",", "tsv": "\t", "csv;": ";"}
SEPARATORS = (",", ";", "\t", "|")
SIGNS = ("=", "@", "\uff1d", "\uff20")
SUM_SIGNS = ("+", "-", "\uff0b", "\uff0d")

pieces = st.sampled_from(
    ["=", "+", "-", "@", "'", '"', '""', ",", ";", "\t", "|", "\r", "\n", "\r\n", "\u2028", "\x85",
     "\ufeff", "\uff1d", " ", "a", "7", "=A1", "-2+cmd|' /C calc'!A0", "sep=;", "é", "\0"]
)  # fmt: skip
texts = st.lists(pieces, max_size=6).map("".join)
tables = st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5)


def is_computed(cell: str, delimiter: str) -> bool:
    """Return whether a spreadsheet may compute a cell that is no number.

    For a wrong separator all of a row is one cell: what follows a number is no part of it.
    """
    if cell.startswith(SUM_SIGNS):
        return re.search(r"[^\W\d]", cell.partition(delimiter)[0]) is not None
    return cell.startswith(SIGNS)


def table_text(rows: list[dict[str, str]], format_: str) -> str:
    return text_formats()[f".{format_[:3]}"].text_of(
        rows, WriteOptions(separator=DELIMITERS[format_])
    )[0]


def unified(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


@pytest.mark.parametrize("format_", DELIMITERS)
@settings(max_examples=60, deadline=None)
@given(table=tables)
def test_no_separator_line_end_or_sign_breaks_a_table(
    format_: str, table: list[tuple[str, ...]]
) -> None:
    delimiter = DELIMITERS[format_]
    written = table_text([dict(zip("abc", row, strict=True)) for row in table], format_)
    head, *body = csv.reader(io.StringIO(written, newline=""), delimiter=delimiter, strict=True)
    assert head == ["a", "b", "c"]
    assert [[without_formula_escape(cell, delimiter) for cell in row] for row in body] == [
        [cell.replace("\0", "\ufffd") for cell in row] for row in table
    ]
    for separator in SEPARATORS:
        for row in csv.reader(io.StringIO(written, newline=""), delimiter=separator):
            assert not [cell for cell in row if is_computed(cell, delimiter)]


@pytest.mark.parametrize("format_", DELIMITERS)
@settings(max_examples=60, deadline=None)
@given(
    table=tables,
    names=st.lists(texts, min_size=3, max_size=3, unique_by=lambda name: unified(name).strip()),
)
def test_what_is_written_is_read_back_with_its_line_ends_unified(
    format_: str, table: list[tuple[str, ...]], names: list[str]
) -> None:
    columns = ["n", *(f"x{name}x" for name in names)]
    rows = [dict(zip(columns, [str(n), *row], strict=True)) for n, row in enumerate(table)]
    assert text_formats()[f".{format_[:3]}"].parse(unified(table_text(rows, format_))).rows == [
        {unified(name): unified(cell) for name, cell in row.items()} for row in rows
    ]


HOSTILE = [
    {"id": "1", "text": "Total\r=1+1", "note": "x;=1+2"},
    {"id": "=1+3", "text": 'a;"=1+4"', "note": "b\t@SUM(A1)|=1+5"},
    {"id": "3", "text": "- one\n- two", "note": "plain, with a comma"},
    {"id": "4", "text": "c,=1+6", "note": "-2+cmd|' /C calc'!A0\n+1+1"},
]


def test_libreoffice_computes_nothing(tmp_path: Path) -> None:
    office = shutil.which("soffice")
    if office is None:
        pytest.skip("NOT TRIED: LibreOffice is not installed (apt-get install libreoffice-calc)")

    sources = [tmp_path / f"{format_}.csv" for format_ in DELIMITERS]
    for source in sources:
        source.write_text(table_text(HOSTILE, source.stem), newline="")
    for separator in SEPARATORS:
        # Separator, quote, UTF-8, first line, …; the last but one has it compute formulas.
        filter_ = f"CSV:{ord(separator)},34,76,1,,0,false,true,false,false,false,1,true"
        subprocess.run(
            [office, f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}", "--headless",
             "--convert-to", "fods", f"--infilter={filter_}", "--outdir", tmp_path, *sources],
            check=True, capture_output=True, timeout=PATIENCE_S,
        )  # fmt: skip
        for source in sources:
            imported = source.with_suffix(".fods")
            if not imported.exists():
                pytest.skip("NOT TRIED: LibreOffice has no Calc (apt-get install libreoffice-calc)")
            cells = [c for c in ET.parse(imported).iter() if c.tag.endswith("}table-cell")]
            assert cells
            formulas = [
                value for cell in cells for name, value in cell.items() if "formula" in name
            ]
            assert formulas == [], f"{source.stem} with {separator!r}"
            imported.unlink()
