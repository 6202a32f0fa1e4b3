"""Automatic numbers of Word as the program shows them, and lists that have no end."""

from io import BytesIO
from typing import Any

import pytest

from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_process import ReadOptions
from paddock.steps.readers.word import read_docx
from tests.fakes.office import new_document, saved

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def level(at: int, kind: str, text: str, extra: str = "", start: int = 1) -> str:
    return (
        f"<w:lvl w:ilvl='{at}'><w:start w:val='{start}'/><w:numFmt w:val='{kind}'/>{extra}"
        f"<w:lvlText w:val='{text}'/></w:lvl>"
    )


def abstract(name: int, *levels: str) -> str:
    return f"<w:abstractNum {W} w:abstractNumId='{name}'>{''.join(levels)}</w:abstractNum>"


def listed(name: int, of: int, extra: str = "") -> str:
    return f"<w:num {W} w:numId='{name}'><w:abstractNumId w:val='{of}'/>{extra}</w:num>"


def start_at(at: int, n: int) -> str:
    return f"<w:lvlOverride w:ilvl='{at}'><w:startOverride w:val='{n}'/></w:lvlOverride>"


def document(lists: list[str], paragraphs: list[tuple[Any, ...]], *styles: str) -> Document:
    """Read paragraphs of a text, its list and level, and perhaps a style."""
    from docx.oxml import parse_xml

    made = new_document()
    numbering = made.part.numbering_part.element
    for old in list(numbering):
        numbering.remove(old)
    for part in lists:
        numbering.append(parse_xml(part))
    for style in styles:
        made.styles.element.append(parse_xml(style))
    for text, name, at, *named in paragraphs:
        paragraph = made.add_paragraph(text)._p
        form = f"<w:pStyle w:val='{named[0]}'/>" if named else ""
        if name is not None:
            form += f"<w:numPr><w:ilvl w:val='{at}'/><w:numId w:val='{name}'/></w:numPr>"
        paragraph.insert(0, parse_xml(f"<w:pPr {W}>{form}</w:pPr>"))
    return read_docx(BytesIO(saved(made)), ReadOptions())


CLAUSES = abstract(
    1,
    level(0, "decimal", "%1."),
    level(1, "decimal", "%1.%2"),
    level(2, "lowerLetter", "(%3)"),
    level(3, "lowerRoman", "%4)"),
)


def test_levels_are_counted_and_begin_again_below_a_higher_one() -> None:
    found = document(
        [CLAUSES, listed(1, 1)],
        [
            ("skipped", 1, 1), ("two", 1, 0), ("two one", 1, 1), ("a", 1, 2), ("i", 1, 3),
            ("b", 1, 2), ("", 1, 2), ("d", 1, 2), ("three", 1, 0), ("jump", 1, 2), ("none", 0, 0),
        ],
    )  # fmt: skip
    assert found.text == (
        "  1.1 skipped\n2. two\n  2.1 two one\n    (a) a\n      i) i\n    (b) b\n    (d) d\n"
        "3. three\n    (a) jump\n\nnone"
    )


def test_lists_of_one_kind_go_on_counting_unless_they_have_a_start_of_their_own() -> None:
    found = document(
        [CLAUSES, listed(1, 1), listed(2, 1), listed(3, 1, start_at(0, 5))],
        [("a", 1, 0), ("b", 2, 0), ("c", 3, 0), ("d", 3, 0), ("e", 1, 0)],
    )
    assert found.text == "1. a\n2. b\n5. c\n6. d\n7. e"


def test_legal_numbers_are_digits_and_a_level_may_go_on_below_another_one() -> None:
    articles = abstract(
        2,
        level(0, "upperRoman", "Art. %1"),
        level(1, "decimal", "%1.%2", "<w:isLgl/>"),
        level(2, "lowerLetter", "%3)", "<w:lvlRestart w:val='1'/>"),
    )
    texts = [
        ("x", 4, 0),
        ("y", 4, 1),
        ("z", 4, 2),
        ("y", 4, 1),
        ("z", 4, 2),
        ("x", 4, 0),
        ("z", 4, 2),
    ]
    found = document([articles, listed(4, 2)], texts)
    assert found.text == ("Art. I x\n  1.1 y\n    a) z\n  1.2 y\n    b) z\nArt. II x\n    a) z")


def test_headings_and_styles_are_numbered_by_the_level_that_names_them() -> None:
    def style(name: str, form: str, based_on: str) -> str:
        return (
            f"<w:style {W} w:type='paragraph' w:styleId='{name}'><w:name w:val='{name}'/>"
            f"<w:basedOn w:val='{based_on}'/><w:pPr>{form}</w:pPr></w:style>"
        )

    number = "<w:numPr><w:numId w:val='1'/></w:numPr>"
    levels = (
        level(at, "decimal", text, f"<w:pStyle w:val='{name}'/>")
        for at, text, name in ((0, "%1", "Clause"), (1, "%1.%2", "Sub"))
    )
    found = document(
        [abstract(1, *levels), listed(1, 1)],
        [("Fees", None, 0, "Clause"), ("Rent", None, 0, "Own"), ("Term", None, 0, "Clause")],
        style("Clause", number, "Heading1"),
        style("Sub", number, "Heading2"),
        style("Own", "", "Sub"),
    )
    assert found.text == "# 1 Fees\n\n## 1.1 Rent\n\n# 2 Term"


@pytest.mark.parametrize(
    ("kind", "start", "number"),
    [
        ("upperLetter", 28, "BB"),
        ("upperRoman", 1994, "MCMXCIV"),
        ("ordinal", 22, "22nd"),
        ("chicago", 6, "††"),
        ("upperLetter", 2_147_483_647, "32767"),
    ],
)
def test_numbers_are_written_in_their_format(kind: str, start: int, number: str) -> None:
    lists = [abstract(1, level(0, kind, "%1", start=start)), listed(1, 1)]
    assert document(lists, [("x", 1, 0)]).text == f"{number} x"


def test_a_format_that_is_not_known_is_noted_and_one_without_numbers_has_no_mark() -> None:
    lists = [
        abstract(1, level(0, "hebrew1", "%1."), level(1, "none", ""), level(2, "bullet", "o")),
        listed(1, 1),
    ]
    found = document(lists, [("x", 1, 0), ("y", 1, 1), ("z", 1, 2)])
    assert found.text == "1. x\n\ny\n\n    - z"
    assert found.notes == (
        ": 1 automatic number has a format that is not known and written in digits",
    )


def test_lists_in_a_circle_and_a_mark_of_ten_thousand_levels_end() -> None:
    circle = (
        f"<w:style {W} w:type='numbering' w:styleId='Loop'><w:name w:val='Loop'/>"
        "<w:basedOn w:val='Loop'/><w:pPr><w:numPr><w:numId w:val='1'/></w:numPr></w:pPr></w:style>"
    )
    lists = [
        f"<w:abstractNum {W} w:abstractNumId='1'><w:numStyleLink w:val='Loop'/></w:abstractNum>",
        abstract(2, level(0, "decimal", "".join(f"%{n}." for n in range(1, 10_001)))),
        *(listed(1, 1), listed(2, 2), listed(3, 99)),
    ]
    found = document(lists, [("a", 1, 0), ("b", 2, 10**12), ("c", 3, 0), ("d", 2, 0)], circle)
    assert found.text.startswith("a\n\n                ") and len(found.text) < 300
    assert found.text.endswith("d")
