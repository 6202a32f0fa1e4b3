from paddock.steps.readers.ocr_layout import TextBox, join_boxes


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
        TextBox(f"{word}{line}", left, top + 20 * line, end, top + 20 * line + 12)
        for line, end in enumerate(ends)
    ]


def test_two_columns_are_read_one_after_the_other_and_a_title_over_both_first() -> None:
    title = TextBox("Title", 50, 0, 380, 20)
    between = TextBox("Between", 20, 195, 400, 207)
    page = [
        *column("b", 220), title, *column("a", 0), between,
        *column("d", 220, top=215), *column("c", 0, top=215),
    ]  # fmt: skip
    said = join_boxes(page).text.split()
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
