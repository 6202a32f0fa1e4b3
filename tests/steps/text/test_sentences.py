import pytest

from paddock.pipelines.checking.sentence_ends import sentence_spans
from paddock.steps.text.sentences import prose_sentences, text_lines

LETTER = """\
Calder Ferry, 3 May 2024

# The north roof

Dear Mrs Odell,

the north roof has new slates, as Mr. J. Fell agreed with you on 11. April. He found two broken
beams at the eastern end, and both have been
replaced in oak.

| Work | Price |
|---|---|
| Slates. And nails, and so on. | 120.00 |

> You wrote to us that the gutter leaks into the hall.

- [Start](/index.html) [Stalls](/stalls.html).
- The gutter was mended by Ida Fell on Monday.
- slates, nails

```
This is code. It is not prose at all.
```

This e-mail is intended only for the person named above. All rights reserved.

Yours sincerely,

Forge Mill Roofing. Founded by Ida Fell.
"""


def texts(text: str, pages: tuple[str, ...] = ()) -> list[str]:
    return [one.text for one in prose_sentences(text, pages)]


def test_headings_tables_quotes_links_code_and_boilerplate_are_no_sentences() -> None:
    assert texts(LETTER) == [
        "the north roof has new slates, as Mr. J. Fell agreed with you on 11. April.",
        "He found two broken beams at the eastern end, and both have been replaced in oak.",
        "The gutter was mended by Ida Fell on Monday.",
    ]


def test_a_greeting_and_its_short_letter_stay_apart() -> None:
    assert texts("Dear all,\n\nthe piano in the hall is in tune again.\n\nIda Fell\n") == [
        "the piano in the hall is in tune again."
    ]


def test_headings_of_a_page_without_blank_lines_are_not_joined_to_the_text() -> None:
    page = (
        "The short answer\nThe mill can be saved, and most of it is better than it looks today,\n"
        "though three things cannot wait.\nThe roof\nThe roof was laid in 1931 and is sound over\n"
        "most of its area.\n"
    )
    assert texts(page) == [
        "The mill can be saved, and most of it is better than it looks today, though three things "
        "cannot wait.",
        "The roof was laid in 1931 and is sound over most of its area.",
    ]


def test_running_titles_and_page_numbers_are_left_out() -> None:
    pages = tuple(
        f"This handbook belongs to the wardens of Ashe.\nDay {n}\nOn day {n} we saw no otter.\n"
        f"Nothing else\n{n}"
        for n in range(1, 5)
    )
    found = texts("\n\n".join(pages), pages)
    assert len(found) == 4
    assert not any("handbook" in one for one in found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "今年二月天气冷茶树发芽晚了九天。村里人都很\n着急。",
            ["今年二月天气冷茶树发芽晚了九天。", "村里人都很着急。"],
        ),
        (
            "เรือข้ามฟากหยุดวิ่งเพราะลมแรงมาก ผู้โดยสารต้องรอจนถึงเช้า",
            ["เรือข้ามฟากหยุดวิ่งเพราะลมแรงมาก", "ผู้โดยสารต้องรอจนถึงเช้า"],
        ),
        ("नाव तेज हवा के कारण रुक गई। सब लोग सुबह तक रुके रहे।", 2),
        ("توقفت العبارة بسبب الرياح القوية. هل عاد الركاب إلى بيوتهم؟", 2),
    ],
)
def test_other_scripts_have_sentences(text: str, found: list[str] | int) -> None:
    assert (texts(text) if isinstance(found, list) else len(texts(text))) == found


def test_a_table_and_a_list_have_lines_only() -> None:
    table = "date,name\n2 May,Ruth Hallam\n4 May,Ida Fell\n"
    assert texts(table) == []
    assert [one.text for one in text_lines(table)] == table.split("\n")[:3]
    assert texts("- slates\n- nails\n- two ladders\n") == []


@pytest.mark.parametrize("end", [". ", " ", ", ", "? ", "(", "。", " ข", "| ", "a."])
def test_a_line_of_300_000_characters_takes_no_quadratic_time(end: str) -> None:
    text = ("the ferry came late" + end) * (300_000 // 20)
    assert [*sentence_spans(text)]
    prose_sentences(text)  # quadratic: longer than a test may take
