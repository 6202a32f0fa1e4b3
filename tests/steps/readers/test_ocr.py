import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pypdfium2  # type: ignore[import-untyped]
import pytest
from PIL import Image, ImageDraw, ImageFont

from paddock.pipelines.text_cells import unpack_cells
from paddock.steps.base import StepError
from paddock.steps.readers import ocr, ocr_engine, reader
from paddock.steps.readers.ocr_layout import SeenText, TextBox, join_boxes
from tests.fakes.office import eml, new_document, saved, scan, scanned_pdf
from tests.fakes.readers import read_here
from tests.steps.readers.askew_pages import HEIGHT, WIDTH, Page, Text, layered, pdf_of

# ruff: noqa: RUF001 - letters of other scripts


INVOICE = ("INVOICE No. 2024-117", "Total due 2,120.50 EUR")


Placed = Callable[[str, bytes], Path]


def test_scanned_pages_and_pictures_are_read(placed: Placed) -> None:
    found = read_here(placed("a.pdf", scanned_pdf(INVOICE, ["Second page"])))
    assert found.pages == ("INVOICE No. 2024-117\nTotal due 2,120.50 EUR", "Second page")
    assert found.notes == ("'a.pdf': pages 1-2 read from a picture by OCR.",)
    picture = read_here(placed("a.png", scan(INVOICE[0])))
    assert (picture.text, picture.media_type) == (INVOICE[0], "image/png")
    mail = eml("See the scan.", attachments={"scan.png": scan(INVOICE[1])})
    assert read_here(placed("a.eml", mail)).pages[1] == ("# scan.png\n\nTotal due 2,120.50 EUR")


def test_a_picture_is_not_read_where_that_is_off_or_not_installed(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = placed("a.png", scan("x"))
    with pytest.raises(StepError, match=r"^'a\.png' is a picture, and `ocr` is off\.$"):
        read_here(path, ocr=False)
    monkeypatch.setattr(reader, "is_installed", lambda extra: extra != "ocr")
    with pytest.raises(StepError) as caught:
        read_here(path)
    assert str(caught.value) == (
        "'a.png' is a picture. To read it install the extra: pip install 'paddock-llm[ocr]'."
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_later_pictures_of_an_animation_are_told_also_where_the_first_has_no_text(
    placed: Placed, kind: str
) -> None:
    empty, bill = (Image.open(BytesIO(data)).convert("RGB") for data in (scan(), scan(INVOICE[0])))
    for first, second, name in ((bill, empty, "a"), (empty, bill, "b")):
        data = BytesIO()
        first.save(data, kind, save_all=True, append_images=[second], duration=500, lossless=True)
        found = read_here(placed(f"{name}.{kind.lower()}", data.getvalue()))
        told = found.why_empty if found.is_empty else found.notes[1]
        assert (found.text, "only the first of its 2 pictures was read" in told) == (
            INVOICE[0] if first is bill else "",
            True,
        )


def test_what_is_left_out_of_a_picture_within_a_document_is_told(placed: Placed) -> None:
    empty, bill = (Image.open(BytesIO(data)).convert("RGB") for data in (scan(), scan(INVOICE[0])))
    moving = BytesIO()
    bill.save(moving, "GIF", save_all=True, append_images=[empty])
    made = new_document()
    made.add_picture(BytesIO(moving.getvalue()))
    found = read_here(placed("a.docx", saved(made)))
    assert (found.text, found.notes) == (
        f"Picture:\n{INVOICE[0]}",
        (
            "'a.docx': 1 picture in it read by OCR.",
            "'a.docx': of a picture in it: only the first of its 2 pictures was read.",
        ),
    )


def test_a_strip_that_no_letter_fits_into_is_not_looked_at(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule across a page, say: the library would take a minute over it."""
    monkeypatch.setattr(ocr_engine, "_engine", lambda: pytest.fail("it is looked at"))
    for size in ((2000, 3), (3, 2000)):
        assert read_here(placed("a.png", scan(size=size))).is_empty


NOTO = "/usr/share/fonts/truetype/noto/NotoSans{}-Regular.ttf"
ENGLISH = (
    "Either side may end the contract",
    "in writing with three months' notice",
    "to the end of a quarter of the year.",
)
RUSSIAN = (
    "Любая сторона может расторгнуть",
    "договор в письменной форме за три",
    "месяца до конца квартала 2024 года.",
)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_page_is_read_from_first_to_last_and_its_words_are_where_they_stand(
    placed: Placed, turns: int
) -> None:
    page = Image.open(BytesIO(scan(*ENGLISH))).rotate(90 * turns, expand=True)
    found = read_here(placed("a.png", png(page)))
    assert found.text == "\n".join(ENGLISH)
    start = found.text.index("contract")
    [box] = [at.box for at in unpack_cells(found.cells[0]) if at.start == start and at.box]
    left, top, right, bottom = (
        round(side * size) for side, size in zip(box, page.size * 2, strict=True)
    )
    word = page.crop((left - 4, top - 4, right + 4, bottom + 4)).rotate(-90 * turns, expand=True)
    framed = Image.new("RGB", (word.width + 80, word.height + 80), "white")
    framed.paste(word, (40, 40))
    assert "contract" in read_here(placed("b.png", png(framed))).text


def test_vertical_columns_are_read_from_right_to_left(placed: Placed) -> None:
    columns = (
        "本合同自双方签字盖章之日起生效",
        "付款总额为人民币一千二百元",
        "任何一方不得擅自变更合同",
    )
    page = Image.new("RGB", (400, 900), "white")
    for at, column in enumerate(columns):
        for row, char in enumerate(column):
            place = (300 - 90 * at, 40 + 50 * row)
            ImageDraw.Draw(page).text(place, char, "black", cjk_font(44))
    assert read_here(placed("a.png", png(page))).text == "\n".join(columns)


@pytest.mark.parametrize(
    ("lines", "font", "why"),
    [
        (RUSSIAN, "", "no OCR model here reads: it is in another script"),
        (("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι",), "", "text in Greek, which no OCR"),
        (("Tất cả mọi người sinh ra đều được tự do",), "", "text in Vietnamese, which no OCR"),
        (("כל בני האדם נולדו בני חורין ושווים",), "Hebrew", "it is in another script"),
        (("सभी मनुष्यों को गौरव और अधिकारों के",), "Devanagari", "it is in another script"),
    ],
)
def test_scripts_that_no_model_reads_are_refused_with_the_models_that_do(
    placed: Placed, lines: tuple[str, ...], font: str, why: str
) -> None:
    path = placed("a.png", png(drawn(lines * 2, font)))
    with pytest.raises(StepError) as caught:
        read_here(path)
    assert why in str(caught.value)
    assert "The models here read Latin, Chinese, Japanese." in str(caught.value)
    assert "NAME_PP-OCRv5_rec_mobile.onnx into" in str(caught.value)


def test_lines_in_another_script_are_left_out_and_counted(placed: Placed) -> None:
    found = read_here(placed("a.png", png(drawn((*ENGLISH, RUSSIAN[0])))))
    assert found.text == "\n".join(ENGLISH)
    assert found.notes[1] == "'a.png': left out is what OCR cannot read, 1 line of page 1."


def test_a_model_that_was_added_reads_what_the_others_do_not(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Added:
        scripts = frozenset(("Cyrillic",))

        def read(self, crops: list[object]) -> list[ocr_engine._ReadText]:
            return [ocr_engine._ReadText("Любая сторона", 0.9, is_read=True) for _ in crops]

    monkeypatch.setattr(ocr_engine._OcrEngine, "_added", (Added(),))
    monkeypatch.setattr(ocr_engine, "_engine", ocr_engine._OcrEngine)
    found = read_here(placed("a.png", png(drawn((ENGLISH[0], RUSSIAN[0])))))
    assert found.text == f"{ENGLISH[0]}\nЛюбая сторона"


def test_a_model_that_was_added_lets_documents_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reader.reader_versions()
    (tmp_path / "PP-OCRv6_rec_small.onnx").touch()
    (tmp_path / "cyrillic_PP-OCRv5_rec_mobile.onnx").touch()
    monkeypatch.setattr(reader, "ocr_models_folder", lambda: tmp_path)
    assert set(reader.reader_versions()) - set(before) == {"ocr cyrillic_PP-OCRv5_rec_mobile"}


def test_each_line_has_a_confidence(placed: Placed) -> None:
    found = read_here(placed("a.png", png(drawn(ENGLISH))))
    cells = unpack_cells(found.cells[0])
    assert len(cells) == 3
    assert all(0.9 < (cell.p or 0.0) <= 1 for cell in cells)


def drawn(lines: tuple[str, ...], font: str = "") -> Image.Image:
    """Return lines on a white page; the font's absence skips the test."""
    try:
        face = (
            cjk_font(40)
            if font == "CJK"
            else ImageFont.truetype(NOTO.format(font) if font else NOTO.format(""), 40)
        )
    except OSError:
        pytest.skip("needs Noto fonts")
    page = Image.new("RGB", (1100, 60 + 70 * len(lines)), "white")
    for at, line in enumerate(lines):
        ImageDraw.Draw(page).text((40, 40 + 65 * at), line, "black", face)
    return page


def cjk_font(size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", size)
    except OSError:
        pytest.skip("needs Noto fonts")


def png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_pieces_become_lines_and_paragraphs() -> None:
    boxes = [
        TextBox("second", 60, 1, 100, 11),
        TextBox("first", 0, 0, 50, 10),
        TextBox("far", 300, 2, 330, 12),
        TextBox("below", 0, 13, 50, 23),
        TextBox("apart", 0, 50, 50, 60),
    ]
    assert join_boxes(boxes).text == "first second\tfar\nbelow\n\napart"
    assert join_boxes([]).text == ""


def column(word: str, left: float, n: int = 8, top: float = 30) -> list[TextBox]:
    """Return lines that fill a column of 200 pixels, the last one short."""
    ends = [left + 200] * (n - 1) + [left + 60]
    return [
        TextBox(
            f"{word}{line} of the rent and heating",
            left,
            top + 20 * line,
            end,
            top + 20 * line + 12,
        )
        for line, end in enumerate(ends)
    ]


def test_two_columns_are_read_one_after_the_other_and_a_title_over_both_first() -> None:
    title = TextBox("Title", 50, 0, 380, 20)
    between = TextBox("Between", 20, 195, 400, 207)
    page = [
        *column("b", 220), title, *column("a", 0), between,
        *column("d", 220, top=215), *column("c", 0, top=215),
    ]  # fmt: skip
    said = join_boxes(page).text.replace(" of the rent and heating", "").split()
    wanted = ["Title", *(f"{w}{n}" for w in "ab" for n in range(8)), "Between"]
    assert said == [*wanted, *(f"{w}{n}" for w in "cd" for n in range(8))]


def test_a_table_of_two_columns_is_read_across() -> None:
    cells = [
        TextBox(text, left, 20 * row, left + 60, 20 * row + 12)
        for row in range(8)
        for text, left in ((f"name{row}", 0), (f"value{row}", 220))
    ]
    wide = TextBox("a line that makes the page as wide as pages are", 0, 200, 420, 212)
    assert join_boxes([*cells, wide]).text.split("\n")[:2] == ["name0\tvalue0", "name1\tvalue1"]


def padded(text: str, left: float, top: float, right: float) -> TextBox:
    """Make a box as a model finds it: a third of a line's height wider on both sides."""
    return TextBox(text, left - 10, top, right + 10, top + 33)


def test_narrow_columns_are_read_one_after_the_other_and_rows_of_a_table_as_rows() -> None:
    words = ("tenant of a berth pays the rent", "gate is open until the evening")
    lines = [
        padded(f"The {words[n % 2]} {n}", 140 + 410 * column, 300 + 29 * n, 530 + 410 * column)
        for n in range(6)
        for column in range(3)
    ]
    assert join_boxes(lines).text.split("\n") == [
        line
        for column in range(3)
        for line in [*([""] if column else []), *(f"The {words[n % 2]} {n}" for n in range(6))]
    ]
    cells = [
        padded(text, left, 300 + 40 * row, left + 14 * len(text))
        for row, texts in enumerate([("Article", "Count"), ("Rope", "2"), ("Oil", "17")])
        for left, text in zip((140, 500), texts, strict=True)
    ]
    assert join_boxes(cells).text == "Article\tCount\nRope\t2\nOil\t17"


@pytest.mark.parametrize("angle", [-2, 1.5])
def test_a_picture_that_was_scanned_askew_is_read_by_its_own_lines(
    placed: Placed, angle: float
) -> None:
    texts = [
        Text(60 + 180 * column, 700 - 18 * row, cell, 12)
        for row, cells in enumerate([("Article", "Count", "Price"), ("Rope", "2", "17.50")])
        for column, cell in enumerate(cells)
    ]
    texts += [
        Text(60, 640, "Berth 14 costs 320.00 EUR a month", 12),
        Text(30, 480, "Form 8", 9, 90),
    ]
    data = pdf_of(layered(Page(texts, []), "lines", angle), "lines", angle, 0)
    picture = BytesIO()
    pypdfium2.PdfDocument(data)[0].render(scale=2).to_pil().save(picture, "PNG")
    found = read_here(placed("a.png", picture.getvalue()))
    assert found.text == (
        "Article\tCount\tPrice\nRope\t2\t17.50\n\nBerth 14 costs 320.00 EUR a month\n\nForm 8"
    )
    [price] = [c for c in unpack_cells(found.cells[0]) if found.text[c.start : c.end] == "17.50"]
    x, y = 425 - WIDTH / 2, 686 - HEIGHT / 2
    a, b = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    wide, high = WIDTH * a + HEIGHT * abs(b), WIDTH * abs(b) + HEIGHT * a
    assert price.box is not None
    assert price.box[0] < 0.5 + (a * x - b * y) / wide < price.box[2]
    assert price.box[1] < 0.5 - (b * x + a * y) / high < price.box[3]


@pytest.mark.parametrize(
    ("text", "unsure"),
    [
        ("1½ cups of tea", "1½"),
        ("2³/4 hours", "2³/4"),
        ("4 %o of 320.00 EUR", "%o"),
        ("□ by post", "□"),
        ("19 % of 320.00 EUR", ""),
        ("120 m² at 21 °C", ""),
    ],
)
def test_a_sign_that_models_take_for_others_is_unsure_whatever_they_say(
    text: str, unsure: str
) -> None:
    seen = join_boxes([TextBox(text, 0, 0, 200, 20, 0.99)])
    assert [text[c.start : c.end] for c in seen.cells if c.p == 0.5] == [unsure] * bool(unsure)
    assert [*ocr.unread_notes({1: seen, 2: SeenText("")})] == [
        ": 1 sign on page 1 may be other ones: OCR mistakes fractions, per mille and ticked boxes"
    ] * bool(unsure)
