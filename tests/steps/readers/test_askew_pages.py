"""Pages whose lines are not level: scanned askew, turned, with stamps and margins."""

from math import cos, radians, sin

import pytest

from paddock.pipelines.text_cells import quote_box, unpack_cells
from tests.steps.readers.askew_pages import (
    HEIGHT,
    WIDTH,
    Page,
    Text,
    layered,
    pdf_of,
    read,
    samples,
    width_of,
)

LINES = [
    "Berth 14 costs 320.00 EUR a month and 77.00 EUR for water",
    "Deposit 1 250.00 EUR for two keys of the north pier gate",
    "To be paid by 31 March 2026 to Gull Ltd, account 4711-0815",
]
PARTS = [
    ("", 0, "The pier has 120 m", 11),
    ("The pier has 120 m", 4, "2", 6.5),
    ("The pier has 120 m. ", 0, "of H", 11),
    ("The pier has 120 m. of H", -2.5, "2", 6.5),
    ("The pier has 120 m. of H.i", 0, "O below", 11),
]
BILL = Page([Text(72, 700 - 20 * n, line, 12) for n, line in enumerate(LINES)], LINES)


def drawn(texts: list[Text], angle: float, *, layer: str = "lines", rotation: int = 0) -> bytes:
    return pdf_of(layered(Page(texts, []), layer, angle), layer, angle, rotation)


def test_pages_at_random_angles_are_whole_however_their_words_are_laid_over_a_picture() -> None:
    found = [(sample.name, sample.is_whole()) for sample in samples(40, seed=84)]
    assert [name for name, is_whole in found if not is_whole] == []


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize(
    ("layer", "angle"),
    [
        *((layer, angle) for layer in ("lines", "glyphs", "arrays") for angle in (0.5, 1.5, -2)),
        *(("words", angle) for angle in (-2, 10, 30, -45, 100, 180)),
        *(("level words", angle) for angle in (-1, 0, 2, -4)),
    ],
)
def test_lines_at_an_angle_keep_their_words_numbers_and_blanks(
    layer: str, angle: float, rotation: int
) -> None:
    found = read(drawn(BILL.texts, angle, layer=layer, rotation=rotation))
    assert found.text == "\n".join(LINES)


@pytest.mark.parametrize("angle", [0, 1.2, -33])
def test_rows_of_a_table_at_an_angle_are_its_rows(angle: float) -> None:
    rows = [("Item", "Count", "Price"), ("Rope", "2", "17.50"), ("Gas", "", "1,250.00")]
    texts = [
        Text(72 + 150 * column, 700 - 18 * row, cell)
        for row, cells in enumerate(rows)
        for column, cell in enumerate(cells)
        if cell
    ]
    assert read(drawn(texts, angle)).text == (
        "| Item | Count | Price |\n| --- | --- | --- |\n| Rope | 2 | 17.50 |\n| Gas | | 1,250.00 |"
    )


@pytest.mark.parametrize("angle", [0, -1.5, 20])
def test_a_stamp_and_a_margin_are_whole_and_leave_tables_and_columns_alone(angle: float) -> None:
    rows = [("Item", "Count"), ("Rope", "2"), ("Gas", "40"), ("Oil", "7")]
    cells = [
        Text(72 + 200 * column, 700 - 18 * row, cell)
        for row, some in enumerate(rows)
        for column, cell in enumerate(some)
    ]
    aside = [Text(30, 400, "Form 12-B of 3 May", 8, 90), Text(90, 640, "PAID 88.00 EUR", 30, 45)]
    table = "| Item | Count |\n| --- | --- |\n| Rope | 2 |\n| Gas | 40 |\n| Oil | 7 |"
    found = read(drawn([*cells[:4], *aside, *cells[4:]], angle)).text
    assert found == f"{table}\n\nPAID 88.00 EUR\nForm 12-B of 3 May"


@pytest.mark.parametrize("angle", [0, 1, -2.5, 14])
def test_marks_are_those_of_their_own_line(angle: float) -> None:
    texts = [
        *(Text(72, 760 - 16 * n, line) for n, line in enumerate(LINES)),
        *(Text(72 + 11 * width_of(head), 700 + up, text, size) for head, up, text, size in PARTS),
        Text(400, 300, "40 m", 10, 90),
        Text(396, 322.5, "2", 6, 90),
    ]
    content = layered(Page(texts, []), "lines", angle)
    a, b = cos(radians(angle)), sin(radians(angle))
    start, end = ((x - WIDTH / 2, 748.0 - HEIGHT / 2) for x in (72, 400))
    places = [(WIDTH / 2 + a * x - b * y, HEIGHT / 2 + b * x + a * y) for x, y in (start, end)]
    (x_0, y_0), (x_1, y_1) = places
    content += f"\n0.5 w {x_0:.2f} {y_0:.2f} m {x_1:.2f} {y_1:.2f} l S"
    found = read(pdf_of(content, "lines", angle, 0)).text
    assert found.split("\n") == [
        LINES[0],
        f"~~{LINES[1]}~~",
        LINES[2],
        "The pier has 120 m^2 of H_2O below",
        "40 m^2",
    ]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize(
    ("layer", "angle"), [("words", 2), ("words", -40), ("level words", -3), ("lines", 200)]
)
def test_a_quote_leads_to_its_place_at_any_angle(layer: str, angle: float, rotation: int) -> None:
    margin = Text(40, 300, "Form 12-B", 8, 90)
    found = read(drawn([*BILL.texts, margin], angle, layer=layer, rotation=rotation))
    a, b = cos(radians(angle)), sin(radians(angle))
    wide, high = WIDTH * abs(a) + HEIGHT * abs(b), WIDTH * abs(b) + HEIGHT * abs(a)
    places = {"320.00": (165.0, 704.0), "4711": (365.0, 664.0), "12-B": (37.0, 330.0)}
    for quote, (x, y) in places.items():
        start = found.text.index(quote)
        box = quote_box(found.text, unpack_cells(found.cells[0]), start, start + len(quote))
        assert box is not None
        x, y = x - WIDTH / 2, y - HEIGHT / 2
        place = complex((a * x - b * y) / wide, -(b * x + a * y) / high)
        if rotation % 180:
            place = complex(place.real * wide, place.imag * high)
            place = complex(-place.imag / high, place.real / wide)
        place = complex(0.5, 0.5) + place * (-1 if rotation in (180, 270) else 1)
        left, top, right, bottom = box
        assert left - 0.005 < place.real < right + 0.005
        assert top - 0.005 < place.imag < bottom + 0.005
        assert (right - left) * (bottom - top) < 0.02


def test_text_that_runs_in_no_line_is_noted() -> None:
    content = list[str]()
    for at, char in enumerate("Harbour office of Gull Ltd, founded in 1899 and open to all "):
        a, b = cos(radians(6 * at)), -sin(radians(6 * at))
        place = f"{a:.4f} {b:.4f} {-b:.4f} {a:.4f} {300 - 150 * b:.2f} {400 + 150 * a:.2f} Tm"
        content.append(f"BT /F1 12 Tf {place} ({char}) Tj ET")
    [note] = read(pdf_of("\n".join(content), "lines", 0, 0)).notes
    assert note.endswith("run in many directions: their words may be cut, or in another order")
