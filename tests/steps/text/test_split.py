import asyncio
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.request import ModelSpec
from paddock.pipelines.text_tables import TextTable, find_tables
from paddock.steps.text.chunker import cut_text
from paddock.steps.text.split import Split, SplitChunk, SplitParams
from tests.fakes.pool import FakePool, count
from tests.fakes.tools import FakeTools, tools

REPORT = """# Annual report

A short preface. It has two sentences.

## Results

The first quarter was good. The second was better. Nobody expected the third one.

```python
# no heading
```

## Outlook

### Next year

We go on. We do not stop.
"""


def cut(**wishes: Any) -> list[SplitChunk]:
    return asyncio.run(Split().run(SplitParams(**wishes), tools(Path.cwd()))).chunks


def solid(text: str) -> str:
    return "".join(text.split())


def test_a_text_that_fits_is_one_chunk() -> None:
    [chunk] = cut(text="  One. Two.\n")
    assert chunk.model_dump() == {
        "text": "One. Two.", "index": 0, "start": 2, "end": 11, "page": None, "page_end": None,
        "headings": [], "repeated": 0,
    }  # fmt: skip


def test_chunks_know_the_headings_over_them() -> None:
    chunks = cut(text=REPORT, tokens=16)
    assert {chunk.text.split("\n")[0]: chunk.headings for chunk in chunks} == {
        "# Annual report": ["Annual report"],
        "## Results": ["Annual report", "Results"],
        "```python": ["Annual report", "Results"],
        "## Outlook": ["Annual report", "Outlook"],
    }


def test_chunks_know_the_page_they_start_on() -> None:
    pages = [
        {"number": 3, "text": "First page. " * 4},
        {"number": 4, "text": ""},
        {"number": 7, "text": "Third page. " * 4},
    ]
    chunks = cut(pages=pages, tokens=4)
    assert [chunk.page for chunk in chunks] == [3, 3, 7, 7]
    joined = "\n\n".join(str(page["text"]) for page in pages)
    assert all(joined[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert [(chunk.page, chunk.page_end) for chunk in cut(pages=FEW, tokens=14)] == [(1, 2), (3, 3)]


FEW = [{"number": n, "text": f"Page {n} has a few words."} for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("wishes", "texts"),
    [
        ({"text": "One two\nthree four. Five six\nseven eight. Nine ten.", "tokens": 4,
          "by": ["sentence"]}, ["One two\nthree four.", "Five six\nseven eight.", "Nine ten."]),
        ({"text": "今天天气很好。我们去公园散步。" * 2, "tokens": 15},
         ["今天天气很好。我们去公园散步。"] * 2),
        ({"text": "Sentence 0 ends. Sentence 1 ends. Sentence 2 ends.", "tokens": 6, "overlap": 2},
         ["Sentence 0 ends.", "0 ends. Sentence 1 ends.", "1 ends. Sentence 2 ends."]),
        ({"text": "a b c d e f g h i j", "tokens": 6, "overlap": 2},
         ["a b c d", "c d e f g h", "g h i j"]),
        ({"pages": FEW, "tokens": 14},
         ["Page 1 has a few words.\n\nPage 2 has a few words.", "Page 3 has a few words."]),
        ({"text": " \n "}, []),
        ({"text": ""}, []),
        ({"pages": []}, []),
    ],
)  # fmt: skip
def test_a_text_is_cut_at_sentences_else_at_words(wishes: dict[str, Any], texts: list[str]) -> None:
    assert [chunk.text for chunk in cut(**wishes)] == texts


def test_pieces_of_a_text_without_blanks_overlap_too() -> None:
    text = "เรือออกเก้าโมงเช้าและกลับมาตอนกลางคืน"

    async def by_sign(texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    pieces = asyncio.run(cut_text(text, n_tokens=12, count=by_sign, overlap=4))
    assert any(before.end > after.start for before, after in pairwise(pieces))
    assert not any(unicodedata.category(piece.text[0])[0] == "M" for piece in pieces)


def test_counting_takes_three_journeys_to_the_model_whatever_the_length() -> None:
    hands = tools(Path.cwd())
    asyncio.run(Split().run(SplitParams(text=REPORT * 200, tokens=50), hands))
    assert len(hands.chats.counted) == 3


class Merging(FakePool):
    """A model whose tokens are four characters, whatever words they belong to."""

    async def count_texts(self, model: Any, texts: Any) -> list[int]:
        return [-(-len(text) // 4) for text in texts]


class Growing(FakePool):
    """A model that counts long texts higher than the sum of their words."""

    async def count_texts(self, model: Any, texts: Any) -> list[int]:
        return [len(text) if len(text) > 40 else count(text) for text in texts]


@pytest.mark.parametrize("pool", [Merging(), Growing()])
def test_the_limit_holds_for_tokenizers_that_do_not_count_by_words(pool: FakePool) -> None:
    hands: FakeTools = tools(Path.cwd(), pool=pool)
    text = REPORT * 3 + "unbroken" * 50
    chunks = asyncio.run(Split().run(SplitParams(text=text, tokens=30), hands)).chunks
    sizes = asyncio.run(pool.count_texts(ModelSpec("m"), [chunk.text for chunk in chunks]))
    assert max(sizes) <= 30
    assert solid("".join(chunk.text for chunk in chunks)) == solid(text)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(
        alphabet=st.sampled_from("abc .,!?\n\r\t#*`-日本。é👍🏽\u200d\u0301  "), max_size=300
    ),
    tokens=st.integers(1, 12),
    overlap=st.integers(0, 6),
    by=st.sampled_from([["heading", "paragraph", "sentence"], ["paragraph"], ["sentence"]]),
)
def test_nothing_but_white_space_is_ever_lost(
    text: str, tokens: int, overlap: int, by: list[str]
) -> None:
    chunks = cut(text=text, tokens=tokens, overlap=min(overlap, tokens - 1), by=by)
    reached = 0
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip()
        assert not text[reached : chunk.start].strip()
        assert count(chunk.text) <= tokens
        reached = max(reached, chunk.end)
    assert not text[reached:].strip()
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))


PRICES = "| Item | Price |\n| --- | --- |\n" + "".join(
    f"| slate number {n} | {n} euros and some cents |\n" for n in range(40)
)


def rows_of(chunk: SplitChunk) -> list[str]:
    return [line for line in chunk.text.split("\n") if line.startswith("| slate")]


def test_a_table_is_never_cut_within_a_row_and_its_header_is_said_again() -> None:
    text = f"# Prices\n\nAll of them.\n\n{PRICES}\nThe end of it, at last.\n"
    chunks = cut(text=text, tokens=80)
    assert len(chunks) > 4
    assert [row for chunk in chunks for row in rows_of(chunk)] == PRICES.split("\n")[2:-1]
    for chunk in chunks:
        assert chunk.text[chunk.repeated :] == text[chunk.start : chunk.end]
        assert count(chunk.text) <= 80
        assert not rows_of(chunk) or "| Item | Price |\n| --- | --- |\n| slate" in chunk.text
    assert chunks[2].text.startswith("| Item | Price |")
    assert chunks[2].repeated == len("| Item | Price |\n| --- | --- |\n")


def test_a_heading_over_a_table_that_goes_to_pieces_stays_with_its_first_rows() -> None:
    sheets = "\n\n".join(f"# Sheet {n}\n\n{PRICES}" for n in (1, 2))
    chunks = cut(text=sheets, tokens=80)
    heads = [chunk for chunk in chunks if chunk.text.startswith("# Sheet")]
    assert [len(rows_of(chunk)) > 2 for chunk in heads] == [True, True]
    assert sum("# Sheet" in chunk.text for chunk in chunks) == 2
    small = f"# One\n\n{PRICES[:160]}\n\n# Two\n\nSome text."
    assert len(cut(text=small, tokens=80)) == 1


def test_rows_of_csv_stay_whole_though_they_have_several_lines() -> None:
    rows = [f'{n},"a note of line {n}\nand ""more"" of it"' for n in range(30)]
    text = "\n".join(["number,note", *rows])
    chunks = cut(text=text, tokens=30)
    assert len(chunks) > 5
    for chunk in chunks:
        head, *own = chunk.text.split("\n")
        assert head == "number,note"
        assert len(own) % 2 == 0
        assert count(chunk.text) <= 30
    assert "".join(solid(chunk.text[chunk.repeated :]) for chunk in chunks) == solid(text)


def test_a_row_that_alone_is_too_long_is_cut_and_one_that_just_fits_goes_without_header() -> None:
    long, just = "word " * 50, "word " * 14
    text = f"| Item | Text |\n| --- | --- |\n| one | x |\n| two | {just}|\n| three | {long}|\n"
    chunks = cut(text=text, tokens=20)
    assert all(count(chunk.text) <= 20 for chunk in chunks)
    assert "".join(solid(chunk.text[chunk.repeated :]) for chunk in chunks) == solid(text)
    assert f"| two | {just}|" in [chunk.text for chunk in chunks]


cells = st.text(alphabet='ab ,|"\n.', max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(cells, min_size=1, max_size=4), max_size=12), st.integers(1, 30))
def test_whatever_looks_like_a_table_nothing_of_it_is_lost(
    rows: list[list[str]], tokens: int
) -> None:
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    chunks = cut(text=text, tokens=tokens)
    assert "".join(solid(chunk.text[chunk.repeated :]) for chunk in chunks) == solid(text)
    for chunk in chunks:
        assert chunk.text[chunk.repeated :] == text[chunk.start : chunk.end]
        assert count(chunk.text) <= tokens or chunk.end - chunk.start == 1


def rows(text: str) -> list[list[str]]:
    return [[text[start:end] for start, end in table.rows] for table in find_tables(text)]


@pytest.mark.parametrize("text", ["", "| alone |", "a | b", "x\n| a |\ny\n| b |"])
def test_what_is_no_table_is_none(text: str) -> None:
    assert find_tables(text) == []


@pytest.mark.parametrize(
    "text",
    ["Dear Ada,\nyours,\nme, too\n", "a,b\n1,2\n3,4,5\n", 'a,b\n1,"2\n3,4\n'],
    ids=["a letter", "uneven", "a quote left open"],
)
def test_what_only_has_commas_is_no_csv(text: str) -> None:
    assert find_tables(text) == []


@pytest.mark.timeout(20)
def test_a_name_of_many_letters_is_looked_at_once() -> None:
    """A search that begins again at each letter takes hours."""
    name = "a" * 100_000
    assert find_tables(f"{name},b\nc,d\ne,f\n") == [
        TextTable(
            (0, len(name) + 2),
            ((len(name) + 3, len(name) + 6), (len(name) + 7, len(name) + 10)),
            ",",
        )
    ]
