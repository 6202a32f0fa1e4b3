"""What places and sizes on a PDF's page mean: tables, headings, lists, marks, hyphens."""

import random
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pytest

from paddock.pipelines.text_cells import quote_box, unpack_cells
from paddock.steps.readers import page_layout, pdf
from paddock.steps.readers.page_rows import Word
from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_process import ReadOptions
from paddock.steps.text.headings import Headings
from tests.fakes.pdf import pdf_of_objects

Piece = tuple[Any, ...]
PROSE = "The tenant pays the rent on the third day of each month, and heats the rooms."


def drawn(*pieces: Piece, extra: str = "", turn: str = "", **page: str) -> bytes:
    """Make a page with texts at places: x, y, text, size (10), font (F1; F2 is bold)."""
    content = [turn]
    for x, y, text, *style in pieces:
        size = style[0] if style else 10
        font = style[1] if len(style) > 1 else "F1"
        content.append(f"BT /{font} {size} Tf {x} {y} Td ({text}) Tj ET")
    return pdf_of_objects("\n".join([*content, extra]), **page)


def read(data: bytes) -> Document:
    return pdf.read_pdf(BytesIO(data), ReadOptions(ocr=False))


def lines(*texts: str, top: float = 700, left: float = 72) -> list[Piece]:
    return [(left, top - 13 * at, text) for at, text in enumerate(texts)]


def table(rows: list[list[str]], top: float = 700, pitch: float = 18) -> list[Piece]:
    return [
        (72 + 120 * column, top - pitch * row, text)
        for row, cells in enumerate(rows)
        for column, text in enumerate(cells)
        if text
    ]


def grid(heights: Sequence[float], sides: Sequence[tuple[float, float, float]]) -> str:
    """Draw level lines from x = 72 to 372, and upright ones: x, from, to."""
    level = [f"72 {y} m 372 {y} l S" for y in heights]
    return " ".join([*level, *(f"{x} {low} m {x} {high} l S" for x, low, high in sides)])


def test_rows_and_columns_are_a_table_with_its_empty_cells() -> None:
    rows = [["Code", "Place", "Count"], ["A-1", "", "40"], ["", "B-07", ""], ["A-3", "C-15", "7"]]
    found = read(drawn((72, 740, "Stock of the year"), *table(rows)))
    assert found.text == (
        "Stock of the year\n\n| Code | Place | Count |\n| --- | --- | --- |\n| A-1 | | 40 |\n"
        "| | B-07 | |\n| A-3 | C-15 | 7 |"
    )


def test_cells_are_apart_by_more_than_the_blanks_of_their_own_row() -> None:
    rows = [("A-1", "heavy again", "658"), ("A-22", "dry", "9"), ("A-3", "", "41")]
    places = list(
        zip((72, 110, 171), zip(*rows, strict=True), strict=True)
    )  # 0.7 em behind 'again'
    cells = [(x, 700 - 18 * at, c) for x, column in places for at, c in enumerate(column) if c]
    assert read(drawn(*cells)).text == (
        "| A-1 | heavy again | 658 |\n| --- | --- | --- |\n| A-22 | dry | 9 |\n| A-3 | | 41 |"
    )
    even = [(72, 700, "keeps"), (105, 700, "finds"), (135, 700, "that"), (160.5, 700, "green")]
    assert read(drawn(*even)).text == "keeps finds that green"


def test_a_cell_of_the_last_row_may_go_on() -> None:
    rows = [["Code", "Place", "Count"], ["A-1", "north", "40"], ["A-2", "south and", "7"]]
    found = read(drawn(*table(rows, pitch=30), (192, 628, "west"), (72, 590, PROSE))).text
    assert found.split("\n")[-3:] == ["| A-2 | south and west | 7 |", "", PROSE]


def test_a_line_between_cells_parts_texts_that_touch() -> None:
    around = grid([710, 690, 670], [(x, 670, 710) for x in (72, 125, 200, 372)])
    texts: list[Piece] = [(74, 695, "Item"), (127, 695, "Place"), (202, 695, "No")]
    texts += [(74, 675, "New ladder"), (125.2, 675, "south"), (202, 675, "12")]
    assert read(drawn(*texts, extra=around)).text == (
        "| Item | Place | No |\n| --- | --- | --- |\n| New ladder | south | 12 |"
    )


def test_lines_around_cells_keep_what_is_wrapped_in_one_cell() -> None:
    around = grid([710, 690, 650], [(x, 650, 710) for x in (72, 172, 372)])
    texts = [(76, 696, "Term"), (176, 696, "Meaning"), (76, 676, "fee")]
    wrapped = lines("what is paid each month", "in ad-", "vance | net", top=680, left=176)
    assert read(drawn(*texts, *wrapped, extra=around)).text == (
        "| Term | Meaning |\n| --- | --- |\n| fee | what is paid each month in advance \\| net |"
    )


def test_a_cell_over_several_columns_has_its_text_in_the_first() -> None:
    sides = [(72, 650, 710), (172, 650, 690), (272, 650, 690), (372, 650, 710)]
    texts = [(200, 696, "Fees"), (76, 676, "A"), (176, 676, "B"), (276, 676, "C")]
    texts += [(76, 656, "1"), (276, 656, "3")]
    assert read(drawn(*texts, extra=grid([710, 690, 670, 650], sides))).text == (
        "| Fees | | |\n| --- | --- | --- |\n| A | B | C |\n| 1 | | 3 |"
    )


def test_values_at_the_same_heights_between_two_lines_are_rows_of_their_own() -> None:
    around = grid([710, 690, 650], [(x, 650, 710) for x in (72, 172, 272, 372)])
    heads = [(76, 696, "Year"), (176, 696, "Seats"), (276, 696, "Share")]
    values = [
        (76, "FY13"),
        (76, "FY14"),
        (176, "7,723"),
        (176, "7,793"),
        (276, "76 %"),
        (276, "75 %"),
    ]
    texts = [(x, 678 - 16 * (at % 2), text) for at, (x, text) in enumerate(values)]
    assert read(drawn(*heads, *texts, extra=around)).text.split("\n")[2:] == [
        "| FY13 | 7,723 | 76 % |",
        "| FY14 | 7,793 | 75 % |",
    ]


def test_a_page_is_read_from_top_to_bottom_in_whatever_order_it_is_drawn() -> None:
    rows = [["Code", "Place"], ["A-1", "north"], ["A-2", "south"]]
    note = [(72, 560, "Note"), (72, 530, PROSE), (160, 560, "by hand")]
    found = read(drawn(*table(rows, top=680), *note, (72, 740, "Report", 20))).text
    assert found.split("\n\n") == [
        "# Report",
        "| Code | Place |\n| --- | --- |\n| A-1 | north |\n| A-2 | south |",
        f"Note\tby hand\n{PROSE}",
    ]


def test_two_columns_of_text_are_no_table() -> None:
    left = lines(*(f"{PROSE[:44]} l{at}" for at in range(8)))
    right = lines(*(f"{PROSE[:44]} r{at}" for at in range(8)), left=330)
    across = [piece for pair in zip(left, right, strict=True) for piece in pair]
    for order in (left + right, across):
        assert "|" not in read(drawn(*order)).text


def test_a_note_in_the_margin_makes_no_table_of_the_text_beside_it() -> None:
    note = lines("ER", "29,2", "396", left=20)
    text = lines(*(PROSE for _ in range(12)))
    found = read(
        drawn(*(piece for pair in zip(note, text, strict=False) for piece in pair), *text[3:])
    )
    assert "|" not in found.text


def test_contents_are_a_table_of_titles_and_pages() -> None:
    entries = (f"{at}. Chapter of rent {'. ' * 30}{at * 7}" for at in range(1, 5))
    found = read(drawn(*lines(*entries))).text.split("\n")
    assert found[0] == "| 1. Chapter of rent | 7 |"
    assert found[2:4] == ["| 2. Chapter of rent | 14 |", "| 3. Chapter of rent | 21 |"]


def test_headings_are_found_by_size_and_weight_and_have_levels() -> None:
    found = read(
        drawn(
            (72, 720, "Lease of the house", 20),
            (72, 686, "1 Rent", 14),
            (72, 644, "Heating", 10, "F2"),
            (72, 602, "2 Term", 14),
            *((72, 700 - 14 * at, PROSE) for at in (2, 3, 5, 6, 8, 9)),
        )
    ).text
    shown = [line for line in found.split("\n") if line.startswith("#")]
    assert shown == ["# Lease of the house", "## 1 Rent", "### Heating", "## 2 Term"]
    at = found.index("heats", found.index("Heating"))
    assert Headings.of(found).at(at) == ("Lease of the house", "1 Rent", "Heating")


def test_the_usual_size_is_that_of_most_words_whatever_stands_beside_them() -> None:
    beside = (72, 700, "The tenant, the rent", 12), (400, 700, "mail to info at localhost", 7)
    found = read(drawn(*beside, (72, 660, "The tenant pays", 12), (72, 620, "for the rooms", 12)))
    assert found.text.split("\n")[1:] == ["The tenant pays", "for the rooms"]


def test_lists_raised_lowered_struck_and_hidden_text_are_marked() -> None:
    pieces = [
        (72, 700, "Area 10"), (109, 704, "6", 6), (113, 700, "m of H"), (144, 698, "2", 6),
        (148, 700, "O cost 40"), (192, 704, "1", 6), (200, 700, "EUR"),
        (72, 680, "The fee is 40 EUR"),
        (72, 660, "Water 2^3"),
        (72, 640, r"\267"), (90, 640, "first of the list"),
        (72, 100, "1", 6), (78, 96, "without tax", 8),
    ]  # fmt: skip
    letters = " ".join(f"({letter}) Tj" for letter in "pay twice")  # as browsers draw them
    white = f"1 g BT /F1 10 Tf 72 620 Td {letters} ET 0 g"
    found = read(drawn(*pieces, extra=f"{white} 120 683 m 133 683 l S"))
    assert found.text.split("\n") == [
        "Area 10^6m of H_2O cost 40[^1] EUR",
        "The fee is ~~40~~ EUR",
        r"Water 2\^3",
        "- first of the list",
        "<!-- pay twice -->",
        "[^1]: without tax",
    ]
    assert "does not show is read as well (9 characters: 'pay twice')" in found.notes[0]


def test_the_last_of_a_list_is_no_note_at_the_foot_of_a_page() -> None:
    area = (72, 700, "Area 20 m"), (117, 704, "2", 6)
    found = read(drawn(*area, (72, 640, "1. keys"), (72, 600, "2. pets")))
    assert found.text == "Area 20 m^2\n1. keys\n2. pets"


LISTED = "1. keys\n2. pets"


def mirrored(*pieces: Piece) -> list[Piece]:
    """Draw the right part of each line first."""
    return sorted(pieces, key=lambda piece: (-piece[0], -piece[1]))


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        # What is raised is smaller by a tenth, or not at all; a smaller currency is not.
        ([(72, 700, "40"), (83.5, 704, "1", 8.9), (92, 700, "EUR")], "40^1 EUR"),
        ([(72, 700, "10", 15), (89, 707, "6", 14.4), (101, 700, "units", 15)], "10^6 units"),
        ([(72, 700, "10"), (83.5, 705, "6"), (92, 700, "units")], "10^6 units"),
        ([(72, 700, "H"), (79.5, 698, "2", 8.9), (84.8, 700, "O")], "H_2O"),
        ([(72, 700, "EUR", 7), (90, 700, "40", 10)], "EUR 40"),
        # Signs of lists, drawn before the lines or behind all of them
        (
            [(90, 700, "keys"), (90, 687, "pets"), (72, 700, "1."), (72, 687, "2.")],
            "1. keys\n2. pets",
        ),
        # A label and its amount
        ([(72, 700, "Net"), (400, 700, "200.00 EUR")], "Net\t200.00 EUR"),
        (
            mirrored(
                *((72, 700 - 14 * at, name) for at, name in enumerate(("Net", "VAT", "Total"))),
                *((400, 700 - 14 * at, f"{at}.00 EUR") for at in range(3)),
            ),
            "| Net | 0.00 EUR |\n| --- | --- |\n| VAT | 1.00 EUR |\n| Total | 2.00 EUR |",
        ),
    ],
)
def test_a_line_is_what_stands_on_it_in_whatever_order_it_is_drawn(
    pieces: list[Piece], shown: str
) -> None:
    assert read(drawn(*pieces)).text == shown


HEBREW = (
    "/Foo /FirstChar 32 /LastChar 122 /Widths [250 "
    + "500 " * 90
    + "] /Encoding << /Type /Encoding /Differences [32 /space 51 /three 65 "
    + " ".join(f"/uni{0x5D0 + at:04X}" for at in range(27))
    + "] >> >>"
)


@pytest.mark.parametrize("is_hebrew", [False, True])
@pytest.mark.parametrize(
    ("words", "shown", "shown_on_hebrew"),
    [
        (["עולם טוב", "33", "שלום"], "שלום 33 עולם טוב", ""),
        (["שלום 33 עולם טוב"], "שלום 33 עולם טוב", ""),
        (["טוב עולם", "New", "York", "שלום"], "שלום New York טוב עולם", ""),
        (["New", "York", "33"], "New York 33", ""),
        # Labels
        (["Name", "33", "שלום עולם"], "Name 33 שלום עולם", "שלום עולם 33 Name"),
        (["New", "York", "שם"], "New York שם", "שם New York"),
    ],
)
def test_a_line_is_read_in_the_direction_of_its_letters(
    words: list[str], shown: str, shown_on_hebrew: str, *, is_hebrew: bool
) -> None:
    """Words from left to right, those of Latin letters in another font."""
    pieces: list[Piece] = lines(*["שלום " * 20 if is_hebrew else PROSE] * 3)
    left = 72.0
    for word in words:
        pieces.append((left, 600, word))
        left += {"New": 21, "York": 22, "33": 11, "Name": 28}.get(word, 5 * len(word)) + 3
    codes = {0x5D0 + at: 65 + at for at in range(27)}
    data = drawn(
        *(
            (x, y, text, 10, "F2") if text.isascii() else (x, y, text[::-1].translate(codes))
            for x, y, text in pieces
        )
    ).replace(b"/Helvetica >>", HEBREW.encode())
    found = read(data).text.split("\n")[-1].removeprefix("# ")
    assert found == ((is_hebrew and shown_on_hebrew) or shown)


def test_a_raised_figure_below_a_heading_stays_in_its_own_line() -> None:
    text = [
        (72, 706, "The count of them is 10"),
        (176.5, 710, "6", 7),
        (183.5, 706, "units at least."),
    ]
    found = read(drawn((72, 720, "Nobody at home", 15), *text, *lines(PROSE, top=692))).text
    assert found == f"# Nobody at home\n\nThe count of them is 10^6 units at least.\n{PROSE}"


def test_a_line_with_raised_and_lowered_figures_keeps_both() -> None:
    line = [(72, 700, "Area 10", 12), (114.7, 703, "6", 8), (122, 700, "of H", 12)]
    line += [(145.3, 697, "2", 8), (150, 700, "O in all", 12)]
    assert read(drawn(*line)).text == "Area 10^6 of H_2O in all"


def test_the_last_lines_of_a_column_stay_with_it_behind_a_blank_line() -> None:
    left = lines(*(f"{PROSE[:44]} l{at}" for at in range(8)))
    right = lines(*(f"{PROSE[:44]} r{at}" for at in range(8)), left=330)
    del left[3], right[5]
    last = (72, left[-1][1] - 26, f"{PROSE[:44]} last")
    found = read(drawn(*left, last, *right)).text
    assert found.index("last") < found.index("r0")
    number = read(drawn(*left, (72, left[-1][1] - 60, "Page 3 of 7"), *right)).text
    assert number.endswith("Page 3 of 7")


def test_figures_that_a_font_raises_or_lowers_are_seen_by_their_ink() -> None:
    """As Typst writes them: of the same size, on the same line."""
    glyphs = {"one": (0, 700), "zero": (0, 700), "six": (350, 700), "two": (-120, 230)}
    procs = [
        f"600 0 0 {low} 500 {high} d1 50 {low} 450 {high - low} re f"
        for low, high in glyphs.values()
    ]
    font = (
        "<< /Type /Font /Subtype /Type3 /FontBBox [0 -200 600 800] /FontMatrix [.001 0 0 .001 0 0] "
        "/FirstChar 49 /LastChar 52 /Widths [600 600 600 600] /Resources << >> /CharProcs << "
        + " ".join(f"/{name} {7 + at} 0 R" for at, name in enumerate(glyphs))
        + " >> /Encoding << /Type /Encoding /Differences [49 "
        + " ".join(f"/{name}" for name in glyphs)
        + "] >> >>"
    )
    streams = [f"<< /Length {len(proc)} >>\nstream\n{proc}\nendstream" for proc in procs]
    data = pdf_of_objects("BT /F1 10 Tf 72 700 Td (123 24) Tj ET", font, *streams)
    assert read(data).text == "12^3 2_4"  # a font of drawings has no names for its letters


@pytest.mark.parametrize("gap", [30, 100, 300, 600])
def test_letters_that_are_spaced_or_drawn_one_by_one_are_words(gap: int) -> None:
    """Gaps of thousandths of a size, and no blanks, as TeX and Qt draw them."""
    words = f" {-300 - 2 * gap} ".join(
        f" {-gap} ".join(f"({letter})" for letter in word) for word in ("TOTAL", "due", "2026")
    )
    assert read(drawn(extra=f"BT /F1 10 Tf 72 680 Td [{words}] TJ ET")).text == "TOTAL due 2026"


COLUMNS = [(72, "left"), (240, "middle"), (408, "right")]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shift", [0, 4])
def test_columns_of_prose_are_read_one_after_the_other(n: int, shift: float) -> None:
    pieces = [
        (x, 700 - 13 * line - shift * at, f"{name} column in its line {line}")
        for line in range(9)
        for at, (x, name) in enumerate(COLUMNS[:n])
    ]
    found = read(drawn((72, 740, "News", 20), *pieces)).text.split("\n")
    assert found[0] == "# News"
    assert found[2:] == [
        f"{name} column in its line {line}" for _, name in COLUMNS[:n] for line in range(9)
    ]


def test_a_right_column_of_a_line_and_a_half_is_read_behind_the_left_one() -> None:
    left = lines(*(f"{PROSE[:30]} {at}" for at in range(8)))
    right = lines(PROSE[:31], "owner pays.", left=330)
    found = read(drawn(*left, *right)).text.split("\n")
    assert found == [*(f"{PROSE[:30]} {at}" for at in range(8)), PROSE[:31], "owner pays."]


def test_the_wide_blanks_of_a_justified_line_in_a_column_make_no_table() -> None:
    wide = "BT /F1 10 Tf 12 Tw 72 609 Td (roof bills them ten-) Tj 0 -13 Td (ant dry owner) Tj ET"
    left = lines(*(f"{PROSE[:30]} {at}" for at in range(7)))
    right = lines(*(f"{PROSE[:30]} r{at}" for at in range(9)), left=330)
    found = read(drawn(*left, *right, (72, 500, "The tenant"), extra=wide)).text
    assert "roof bills them tenant dry owner" in found.replace("\n", " ")


def invoice(n_goods: int) -> list[Piece]:
    head = [
        (300, 740 - 13 * at, f"{name}:") for at, name in enumerate(("Number", "Date", "Client"))
    ]
    values = [(430, 740 - 13 * at, f"{at}71") for at in range(3)]
    goods = [["Item", "Count", "Price"], *([f"Nails {at}", "2", "9.50"] for at in range(n_goods))]
    rows = [
        (x, 660 - 16 * at, text, 9)
        for at, cells in enumerate(goods)
        for x, text in zip((72, 300, 430), cells, strict=True)
    ]
    end = 640 - 16 * len(goods)
    prose = "Dear client, we thank you for your order and bill the goods below."
    return [*head, *values, (72, 684, prose), *rows, (72, end, "Please pay in ten days.")]


def test_documents_of_one_layout_have_one_form_however_many_rows_they_have() -> None:
    """A line of prose between tables is no row, and the text's size is not that of the rows."""
    for n_goods in (1, 2, 5, 20):
        found = read(drawn(*invoice(n_goods))).text.split("\n")
        goods = [f"| Nails {at} | 2 | 9.50 |" for at in range(n_goods)]
        assert found == [
            "| Number: | 071 |", "| --- | --- |", "| Date: | 171 |", "| Client: | 271 |", "",
            "Dear client, we thank you for your order and bill the goods below.", "",
            "| Item | Count | Price |", "| --- | --- | --- |", *goods, "",
            "Please pay in ten days.",
        ]  # fmt: skip


def test_small_drawings_in_a_line_are_signs_of_lists_or_letters_that_the_font_lacks() -> None:
    """A filled square before a line; a group as large as a letter, as matplotlib draws a minus."""
    minus = "<< /Type /XObject /Subtype /Form /BBox [0 0 6 1] /Length 14 >>\nstream\n"
    minus += "0 0 6 1 re f \nendstream"
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    content = (
        "72 702 3 3 re f BT /F1 10 Tf 84 700 Td (keys) Tj ET "
        "BT /F1 10 Tf 72 680 Td (Result:) Tj 42 0 Td (5 EUR) Tj ET q 1 0 0 1 107 683 cm /M Do Q"
    )
    data = pdf_of_objects(content, font, minus, page="/Group << >>")
    data = data.replace(b"/Font << /F1", b"/XObject << /M 7 0 R >> /Font << /F1")
    found = read(data)
    assert found.text == "- keys\nResult: \ufffd5 EUR"
    assert "1 character on page 1 missing" in found.notes[0]


def test_text_that_a_clear_group_or_a_clip_keeps_from_being_seen_is_hidden() -> None:
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    unseen = "BT /F1 10 Tf 72 660 Td (unseen 99) Tj ET"
    group = "<< /Type /XObject /Subtype /Form /BBox [0 0 612 792] /Length 40 "
    group += f"/Resources << /Font << /F1 6 0 R >> >> >>\nstream\n{unseen}\nendstream"
    content = (
        "BT /F1 10 Tf 72 700 Td (seen 12) Tj ET q /Clear gs /M Do Q "
        "q 60 600 200 30 re W n BT /F1 10 Tf 72 610 Td (within) Tj 0 -30 Td (cut 77) Tj ET Q"
    )
    data = pdf_of_objects(content, font, group)
    resources = b"/XObject << /M 7 0 R >> /ExtGState << /Clear << /ca 0 >> >> /Font << /F1 6"
    found = read(data.replace(b"/Font << /F1 6", resources, 1))
    assert found.text == "seen 12\n<!-- unseen 99 -->\nwithin\n<!-- cut 77 -->"
    assert "characters: 'unseen 99 cut 77')" in found.notes[0]


def test_text_is_hidden_before_a_gradient_and_shown_where_a_gradient_is_its_colour() -> None:
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    gradient = (
        "/ShadingType 2 /ColorSpace /DeviceRGB /Coords [60 0 300 0] /Extend [true true] "
        "/Function << /FunctionType 2 /Domain [0 1] /C0 [1 1 1] /C1 [0 0 1] /N 1 >>"
    )
    content = (
        "q 60 600 300 40 re W n /S1 sh Q q /Clear gs BT /F1 20 Tf 72 610 Td (unseen 99) Tj ET Q "
        "/Pattern cs /P1 scn BT /F1 20 Tf 150 700 Td (seen 12) Tj ET"
    )
    data = pdf_of_objects(content, font, f"<< {gradient} >>")
    resources = (
        f"/Shading << /S1 7 0 R >> /Pattern << /P1 << /PatternType 2 /Shading << {gradient} >> >> "
        ">> /ExtGState << /Clear << /ca 0 >> >> /Font << /F1 6"
    )
    found = read(data.replace(b"/Font << /F1 6", resources.encode(), 1))
    assert found.text == "seen 12\n<!-- unseen 99 -->"


@pytest.mark.parametrize(
    ("first", "second", "elsewhere", "wanted"),
    [
        ("part number HC-", "0457 is out", "", "HC-0457"),
        ("from May-", "June on", "", "May-June"),
        ("more infor-", "mation is here", "", "information"),
        ("a well-", "known name", "It is well and it is known.", "well-known"),
        ("in the data-", "base of names", "The database, the data, the base.", "database"),
    ],
)
def test_a_hyphen_at_a_lines_end_goes_only_where_it_cuts_a_word(
    first: str, second: str, elsewhere: str, wanted: str
) -> None:
    assert wanted in read(drawn(*lines(first, second, *filter(None, [elsewhere])))).text


def test_what_stands_close_or_sideways_keeps_its_spaces_and_a_rule_of_hyphens_its_line() -> None:
    pieces = [(72, 700, "office "), (96, 700, "hours"), (72, 680, "-----"), (72, 667, "pxc create")]
    sideways = "BT /F1 10 Tf 0 1 -1 0 30 300 Tm (12 May 2020) Tj ET"
    found = read(drawn(*pieces, extra=sideways)).text
    assert "office hours" in found
    assert "12 May 2020" in found
    assert "-----\npxc create" in found


@pytest.mark.parametrize(
    ("rotation", "turn", "media_box"),
    [
        (0, "", "0 0 612 792"),
        (90, "0 1 -1 0 792 0 cm", "0 0 792 612"),
        (180, "-1 0 0 -1 612 792 cm", "0 0 612 792"),
        (270, "0 -1 1 0 0 612 cm", "0 0 792 612"),
    ],
)
def test_quotes_lead_to_their_places_whatever_became_of_the_text_around_them(
    rotation: int, turn: str, media_box: str
) -> None:
    """A word of a heading, of a cell, behind a raised mark, and one that the end of a line cuts."""
    data = drawn(
        *table([["Code", "", "Count"], ["A-1", "north", "40"], ["A-2", "", "41"]]),
        (72, 560, "Heating costs", 16),
        *lines(PROSE, "and pays for infor-", "mation of 12", top=540),
        (128, 518, "6", 6),
        (134, 514, "Euros"),
        turn=turn,
        page=f"/Rotate {rotation}",
        media_box=media_box,
    )
    found = read(data)
    text = found.text
    assert "# Heating costs" in text
    assert "| A-2 | | 41 |" in text
    [number] = [c for c in unpack_cells(found.cells[0]) if text[c.start : c.end] == "41"]
    assert (number.row, number.column) == (3, 3)
    quotes = {"Heating": (72, 560), "41": (312, 664), "Euros": (134, 514), "information": (72, 514)}
    cells = unpack_cells(found.cells[0])
    for quote, (x, y) in quotes.items():
        start = text.index(quote)
        box = quote_box(text, cells, start, start + len(quote))
        assert box is not None
        left, top, right, bottom = box
        assert left <= (x + 2) / 612 <= right
        assert top <= 1 - (y + 2) / 792 <= bottom
        assert (right - left) * (bottom - top) < 0.01


def test_every_word_is_read_once_whatever_the_page_is_like() -> None:
    chance = random.Random(7)
    for _ in range(300):
        words = list[Word]()
        for line in range(chance.randint(1, 25)):
            for _ in range(chance.randint(1, 6)):
                text = "".join(chance.choices("ab^|~.-\x02\u0663\u4e00A1•", k=chance.randint(1, 5)))
                left, shift = chance.choice((72, 72, 180, 300, 310)), chance.choice((0, 0, 4))
                right, base = left + 5 * len(text), 700 - 12 * line + shift
                size = chance.choice((6.0, 10.0, 10.0, 14.0))
                bold, upright, unseen = (chance.random() < share for share in (0.2, 0.95, 0.1))
                box = left, base, right, base + 7
                sides = (*box, base, base + 7, base)
                words.append(Word(text, False, *sides, size, bold, upright, unseen, False))
        rules = [(60, 700 - 12 * at, 400, 700 - 12 * at) for at in range(chance.randint(0, 9))]
        places = chance.sample((60, 170, 290, 400), chance.randint(0, 4))
        page = page_layout.page_lines(words, [*rules, *((x, 500, x, 710) for x in places)])
        pieces = page_layout.page_pieces("", page, page_layout.document_facts([("", page)]))
        shown = [id(piece.word) for piece in pieces if piece.word is not None]
        assert len(set(shown)) == len(shown)
        left_out = {word.text for word in words if id(word) not in set(shown)}
        assert all(set(text) <= set("\x02-.") for text in left_out)
