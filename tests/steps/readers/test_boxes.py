"""Where text stands: boxes of quotes on pages, drawn and looked at; cells of all documents."""

import asyncio
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2  # type: ignore[import-untyped]
import pytest
from fpdf import FPDF
from PIL import Image

from paddock.pipelines.text_cells import PageBox, page_cells, quote_box, unpack_cells
from paddock.steps.base import StepError
from paddock.steps.readers import documents
from paddock.steps.readers.reader_pool import ReaderLimits, ReaderPool
from tests.fakes.office import docx, eml, epub, scan, scanned_pdf, xlsx
from tests.fakes.pdf import pdf_of_objects
from tests.fakes.readers import read_here
from tests.steps.readers.test_other_kinds import open_document as odf

RED, BLACK = (220, 0, 0), (0, 0, 0)
SIDE_PX = 1200


@pytest.fixture(scope="module")
def readers() -> Iterator[ReaderPool]:
    made = ReaderPool()
    yield made
    made.close()


Placed = Callable[[str, bytes], Path]


def page_with(*words: tuple[str, tuple[float, float]], marked: str, **page: Any) -> bytes:
    made = FPDF(unit="pt", format=(600, 400))
    made.add_page(**page)
    for word, (x, y) in words:
        made.set_font("Helvetica", size=14)
        made.set_text_color(*(RED if word == marked else BLACK))
        made.text(x, y, word)
    return bytes(made.output())


def box_of(path: Path, quote: str) -> PageBox:
    found = read_here(path)
    start = found.text.index(quote)
    box = quote_box(found.text, unpack_cells(found.cells[0]), start, start + len(quote))
    assert box is not None
    left, top, right, bottom = box
    return left, top, right, bottom


def pixels_of(path: Path, readers: ReaderPool, page: int = 1) -> Any:
    data = asyncio.run(documents.render_page(path, page, SIDE_PX, readers=readers))
    return np.asarray(Image.open(BytesIO(data))).astype(int)


def assert_covers_what_is_red(box: PageBox, pixels: Any) -> None:
    """All that is red lies within the box, and nothing that is black."""
    height, width = pixels.shape[:2]
    red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
    is_red = (red > 150) & (green < 100) & (blue < 100)
    is_black = (red < 100) & (green < 100) & (blue < 100)
    assert is_red.any()
    left, top, right, bottom = box
    across, down = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    is_inside = (
        (across > left * width - 1)
        & (across < right * width + 1)
        & (down > top * height - 1)
        & (down < bottom * height + 1)
    )
    assert not (is_red & ~is_inside).any()
    assert not (is_black & is_inside).any()


TABLE = [
    ("Article", (40, 60)), ("Amount", (300, 60)),
    ("Ladder", (40, 100)), ("1,250.00", (300, 100)),
    ("Rope", (40, 140)), ("84.00", (300, 140)),
]  # fmt: skip


def changed(data: bytes, change: Callable[[Any], None]) -> bytes:
    document = pypdfium2.PdfDocument(data)
    change(document[0])
    out = BytesIO()
    document.save(out)
    return out.getvalue()


def cropped(page: Any) -> None:
    page.set_cropbox(200, 200, 500, 380)


def moved(page: Any) -> None:
    page.set_mediabox(-50, -30, 620, 440)


def cropped_and_turned(page: Any) -> None:
    cropped(page)
    page.set_rotation(90)


CHANGES: dict[str, Callable[[Any], None]] = {
    "as it is": lambda page: None,
    "turned by 90": lambda page: page.set_rotation(90),
    "turned by 180": lambda page: page.set_rotation(180),
    "turned by 270": lambda page: page.set_rotation(270),
    "cropped": cropped,
    "moved": moved,
    "cropped and turned": cropped_and_turned,
}


@pytest.mark.parametrize(
    ("change", "marked"),
    [
        *(("as it is", word) for word in ("1,250.00", "Rope")),
        *((name, "84.00") for name in CHANGES),
    ],
)
def test_the_box_of_a_word_covers_this_word_alone_as_the_page_is_shown(
    placed: Placed, readers: ReaderPool, change: str, marked: str
) -> None:
    path = placed("a.pdf", changed(page_with(*TABLE, marked=marked), CHANGES[change]))
    pixels = pixels_of(path, readers)
    if "cropped" not in change:
        is_upright = pixels.shape[0] > pixels.shape[1]
        assert is_upright is (change in ("turned by 90", "turned by 270"))
    assert_covers_what_is_red(box_of(path, marked), pixels)


def test_characters_beyond_the_first_plane_do_not_shift_what_follows(
    placed: Placed, readers: ReaderPool
) -> None:
    """A mathematical letter takes two units of UTF-16, a ligature is one glyph."""
    path = placed("a.pdf", mapped_pdf("A B A price 84.00 end", {"A": "\U0001d400", "B": "ff"}))
    assert read_here(path).text == "\U0001d400 ff \U0001d400 price 84.00 end"
    page = np.asarray(pixels_of(path, readers)).min(axis=2)
    height, width = page.shape
    left, top, right, bottom = box_of(path, "84.00")
    part = page[int(top * height) : int(bottom * height), :]
    inked = np.flatnonzero((part < 100).any(axis=0)) / width
    assert inked[inked > left - 0.01].min() == pytest.approx(left, abs=0.01)
    last = inked[inked < right + 0.005].max()
    assert last == pytest.approx(right, abs=0.01)
    assert box_of(path, "end")[2] == pytest.approx(inked.max(), abs=0.01)


def mapped_pdf(line: str, texts: dict[str, str]) -> bytes:
    """Make a page whose font says that letters stand for other texts."""
    chars = "".join(
        f"<{ord(letter):02X}> <{text.encode('utf-16-be').hex()}> " for letter, text in texts.items()
    )
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def "
        "/CMapType 2 def 1 begincodespacerange <00> <FF> endcodespacerange "
        f"{len(texts)} beginbfchar {chars} endbfchar endcmap end end"
    )
    return pdf_of_objects(
        f"BT /F1 20 Tf 50 100 Td ({line}) Tj ET",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 7 0 R >>",
        f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
        media_box="0 0 400 200",
    )


def test_scanned_pages_keep_where_their_lines_stand(placed: Placed, readers: ReaderPool) -> None:
    lines = ("INVOICE No. 2024-117", "Total due 2,120.50 EUR")
    for name, data in (
        ("a.pdf", scanned_pdf(lines)), ("a.png", scan(*lines)), ("a.jpg", on_its_side(*lines)),
    ):  # fmt: skip
        found = read_here(placed(name, data))
        assert found.text == "\n".join(lines)
        first, second = cells = unpack_cells(found.cells[0])
        boxes = [cell.box for cell in cells if cell.box]
        assert [found.text[at.start : at.end] for at in (first, second)] == list(lines)
        pixels = pixels_of(placed(name, data), readers)
        height, width = pixels.shape[:2]
        for left, top, right, bottom in boxes:
            region = pixels[
                int(top * height) : int(bottom * height), int(left * width) : int(right * width)
            ]
            assert (region < 100).any()
        outside = pixels.copy()
        for left, top, right, bottom in boxes:
            outside[
                int(top * height) - 4 : int(bottom * height) + 4,
                int(left * width) - 4 : int(right * width) + 4,
            ] = 255
        assert (outside > 128).all()


def on_its_side(*lines: str) -> bytes:
    """Make a photograph that is stored turned, with a note of it, as telephones do."""
    upright = Image.open(BytesIO(scan(*lines)))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    out = BytesIO()
    upright.rotate(90, expand=True).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def test_a_page_of_any_size_is_drawn_within_limits(placed: Placed, readers: ReaderPool) -> None:
    wide = FPDF(unit="pt", format=(14_000, 200))
    wide.add_page()
    assert max(pixels_of(placed("a.pdf", bytes(wide.output())), readers).shape) == SIDE_PX
    assert max(pixels_of(placed("a.png", picture(20_000, 300)), readers).shape) == SIDE_PX
    huge = picture(12_000, 12_000, "JPEG")
    assert pixels_of(placed("a.jpg", huge), readers).shape == (SIDE_PX, SIDE_PX, 3)


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    out = BytesIO()
    Image.new("L", (width, height), "white").save(out, kind)
    return out.getvalue()


def test_what_cannot_be_drawn_is_a_sentence(placed: Placed) -> None:
    limited = ReaderPool(ReaderLimits(timeout_s=60))
    try:
        for name, data, page, told in (
            ("a.pdf", page_with(*TABLE, marked="x"), 2, "'a.pdf' has no page 2."),
            ("a.pdf", b"%PDF-1.7 nothing", 1, "'a.pdf' is damaged or not a PDF."),
            ("a.png", scan("x"), 2, "'a.png' has no page 2."),
            (
                "a.png", picture(10_001, 10_000), 1,
                "'a.png' has 10,001 x 10,000 pixels; at most 100 million are read.",
            ),
            (
                "a.txt", b"words", 1,
                "'a.txt' has no pages that can be shown: it is not a PDF or a picture.",
            ),
        ):  # fmt: skip
            with pytest.raises(StepError) as caught:
                asyncio.run(documents.render_page(placed(name, data), page, 500, readers=limited))
            assert str(caught.value) == told
        with pytest.raises(StepError, match=r"^'gone\.pdf' cannot be read: "):
            asyncio.run(documents.render_page(Path("/nowhere/gone.pdf"), 1, 500, readers=limited))
    finally:
        limited.close()


GOODS = (("Goods", "EUR"), ("Nails, black", "1.50"), ("A|B", ""))
WEB = f"<h1>Bill 7</h1><table>{''.join(f'<tr><th>{a}<th>{b}' for a, b in GOODS)}</table><p>Total: 9"
TABLE_ROW = "<table:table-row>{}</table:table-row>"
TABLE_CELL = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
ODF_ROWS = "".join(TABLE_ROW.format("".join(map(TABLE_CELL.format, row))) for row in GOODS)
ODF = f"<table:table table:name='Bill 7'>{ODF_ROWS}</table:table>"
RTF_ROWS = "".join(
    f"\\trowd\\cellx2000\\cellx4000\\intbl {a}\\cell {b}\\cell\\row" for a, b in GOODS
)
RTF = f"{{\\rtf1 Bill 7\\par {RTF_ROWS}\\pard Total: 9}}"
CSV = b'Goods;EUR\n"Nails, black";1.50\nA|B;\n'


def mail_of_a_page() -> bytes:
    message = EmailMessage()
    message["Subject"] = "Bill 7"
    message.set_content(WEB, subtype="html")
    return message.as_bytes()


def printed_bill() -> bytes:
    made = FPDF()
    made.add_page()
    made.set_font("Helvetica", size=12)
    made.cell(text="Bill 7", new_x="LMARGIN", new_y="NEXT")
    with made.table() as table:
        for row in GOODS:
            table.row(row)
    made.cell(text="Total: 9")
    return bytes(made.output())


@pytest.mark.parametrize(
    ("name", "data", "lines"),
    [
        ("a.docx", docx("Bill 7", GOODS, "Total: 9"), ["Bill 7", "Total: 9"]),
        ("a.xlsx", xlsx({"Bill 7": GOODS}), ["# Bill 7"]),
        ("a.odt", odf("text", f"<text:p>Bill 7</text:p>{ODF}"), ["Bill 7"]),
        ("a.ods", odf("spreadsheet", ODF), ["# Bill 7"]),
        ("a.html", WEB.encode(), ["# Bill 7", "Total: 9"]),
        ("a.epub", epub({"a.html": WEB}), ["# Bill 7", "Total: 9"]),
        ("a.eml", mail_of_a_page(), ["Subject: Bill 7", "# Bill 7", "Total: 9"]),
        ("a.csv", CSV, []),
        ("a.tsv", CSV.replace(b";", b"\t"), []),
        (
            "a.rtf",
            f"{{\\rtf1 Bill 7\\par {RTF_ROWS}\\pard Total: 9}}".encode(),
            ["Bill 7", "Total: 9"],
        ),
        ("a.pdf", printed_bill(), ["Bill", "7", "Total:", "9"]),
        ("b.eml", eml("", attachments={"bill.pdf": printed_bill()}), ["Bill", "7", "Total:", "9"]),
        ("c.eml", eml("", attachments={"bill.csv": CSV}), ["# bill.csv"]),
    ],
)
def test_every_document_has_cells_with_their_places_in_its_text(
    placed: Placed, name: str, data: bytes, lines: list[str]
) -> None:
    found = read_here(placed(name, data))
    packed = found.cells[-1] if found.cells else ""
    text, is_csv = found.pages[-1], found.media_type == "text/csv"
    cells = page_cells(text, packed, is_csv=is_csv)
    assert [text[cell.start : cell.end] for cell in cells if not cell.row] == lines
    rows = dict[tuple[int, int], str]()
    first = min(cell.row for cell in cells if cell.row)
    for cell in cells:
        if cell.row:
            place = cell.row - first, cell.column - 1
            rows[place] = " ".join(filter(None, (rows.get(place), text[cell.start : cell.end])))
    texts = {place: cell.replace("\\", "") for place, cell in rows.items()}
    assert texts == {(r, c): t for r, row in enumerate(GOODS) for c, t in enumerate(row) if t}
    assert [cell.box is not None for cell in cells] == [bool(packed)] * len(cells)
