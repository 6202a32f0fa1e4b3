import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from paddock.pipelines.expressions import Template
from paddock.steps.base import StepError
from paddock.steps.llm import extract
from paddock.steps.llm.extract import most_central
from paddock.steps.llm.summarise import Summarise, SummariseOutput, SummariseParams
from tests.fakes.pdf import pdf
from tests.fakes.pool import FakePool
from tests.fakes.tools import tools

TEXT = "\n\n".join(f"On day {n} the ferry left at {n} minutes past the hour." for n in range(30))


def extracted(base: Path = Path(), pool: FakePool | None = None, **wishes: Any) -> SummariseOutput:
    hands = tools(base, pool=pool or FakePool())
    return asyncio.run(Summarise().run(SummariseParams(how="extract", **wishes), hands))


def test_sentences_are_verbatim_in_order_and_within_the_words() -> None:
    pool = FakePool()
    out = extracted(pool=pool, text=TEXT, words=36)
    assert len(out.sentences) == 3
    assert [one.start for one in out.sentences] == sorted(one.start or 0 for one in out.sentences)
    assert all(TEXT[one.start : one.end] == one.text for one in out.sentences)
    assert all(TEXT.split("\n")[(one.line or 0) - 1] == one.text for one in out.sentences)
    assert out.text == " ".join(one.text for one in out.sentences)
    assert (pool.chats, len(pool.embeds), out.usage.calls) == ([], 1, 1)
    assert (out.coverage.share, out.notes) == (1.0, [])


def test_a_text_that_is_short_enough_is_returned_without_a_call() -> None:
    pool = FakePool()
    out = extracted(
        pool=pool, text="# Ferry\n\nThe ferry was late.  Nobody waited for it.", words=9
    )
    assert out.text == "The ferry was late. Nobody waited for it."
    assert (pool.embeds, out.usage.calls) == ([], 0)


def test_each_sentence_has_its_page(tmp_path: Path) -> None:
    lines = ["The mill can be saved.", "The roof was laid in 1931.", "Rain came down the wall."]
    (tmp_path / "mill.pdf").write_bytes(pdf(lines))
    out = extracted(tmp_path, file="mill.pdf", cite=True)
    assert [(one.page, one.line) for one in out.sentences] == [(1, None), (2, None), (3, None)]
    assert out.text.endswith("The roof was laid in 1931. [p. 2] Rain came down the wall. [p. 3]")


def test_sentences_of_chunks_keep_the_places_of_the_chunks_and_overlaps_count_once() -> None:
    chunks = [
        {"text": "The roof is new today. It cost nine euros.", "start": 10, "end": 52, "page": 4},
        {"text": "It cost nine euros. The gutter leaks again.", "start": 33, "end": 76, "page": 5},
    ]
    out = extracted(chunks=chunks)
    assert [(one.text, one.start, one.page) for one in out.sentences] == [
        ("The roof is new today.", 10, 4),
        ("It cost nine euros.", 33, 4),
        ("The gutter leaks again.", 53, 5),
    ]


def test_a_text_without_sentences_is_shown_by_its_first_lines() -> None:
    out = extracted(text="date,name\n2 May,Ruth\n4 May,Ida\n9 May,Tom\n", words=6, cite=True)
    assert out.text == "date,name [line 1]\n2 May,Ruth [line 2]\n4 May,Ida [line 3]"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "there is nothing to summarise: the text is empty."),
        ("The ferry was very late. The crew had gone home already.",
         "no sentence fits into 3 words: the shortest has 5. Raise `words`."),
        ("date, name, place, why\n1, 2, 3, 4\n1, 2, 3, 5\n",
         "no line fits into 3 words: the first has"),
    ],
)  # fmt: skip
def test_what_cannot_be_extracted_is_one_sentence(text: str, error: str) -> None:
    with pytest.raises(StepError) as told:
        extracted(text=text, words=3)
    assert str(told.value).startswith(error)


def test_a_long_line_is_embedded_in_batches_of_limited_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extract, "MOST_SENTENCES", 600)
    text = " ".join(f"Boat {n} came to the harbour at noon." for n in range(8_000))
    pool = FakePool()
    hands = tools(Path(), pool=pool)
    params = SummariseParams(how="extract", text=text, words=40)
    out = asyncio.run(Summarise().run(params, hands))
    assert [len(one.texts) for one in pool.embeds] == [256, 256, 60]
    assert 1 <= len(out.sentences) <= 5
    assert hands.notes == ["only 572 of 8,000 sentences were compared."]


def test_what_repeats_another_sentence_is_not_chosen() -> None:
    vectors = [(1, 0.2, 0), (1, 0.21, 0), (0.7, 0, 0.7), (0, 0, 1)]
    assert len({0, 1}.intersection(most_central(vectors, [12] * 4, 24))) == 1


def test_where_the_central_sentences_are_too_long_others_are_taken() -> None:
    assert most_central([(1, 0), (1, 0.1), (0, 1)], [30, 30, 5], 10) == [2]


def test_an_extract_takes_no_parameter_of_prompts() -> None:
    with pytest.raises(ValidationError) as told:
        SummariseParams(
            how="extract", text="a", style="formal", instructions=Template.of("In French.")
        )
    assert (
        "nothing is written with `how: extract`, so that `style`, `instructions` would do nothing: "
        "remove it" in str(told.value)
    )
