import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.errors import PromptTooLong, WorkerLost
from paddock.engine.request import ChatRequest
from paddock.pipelines.expressions import Template
from paddock.steps.base import StepError
from paddock.steps.llm.summarise import ContextParam, Summarise, SummariseOutput, SummariseParams
from tests.fakes.pdf import pdf
from tests.fakes.pool import FakePool
from tests.fakes.tools import tools

LONG = "\n\n".join(" ".join(f"p{p}w{w}" for w in range(20)) + "." for p in range(60))


def summarise(pool: FakePool, base: Path = Path(), **wishes: Any) -> SummariseOutput:
    hands = tools(base, pool=pool)
    return asyncio.run(Summarise().run(SummariseParams(**wishes), hands))


def asked(pool: FakePool) -> list[str]:
    return [request.messages[-1].content for request in pool.chats]


def note(request: ChatRequest) -> str:
    text = request.messages[-1].content.split("\n\nSummarise")[0]
    words = re.findall(r"\w+", text)
    return f"{words[0]} to {words[-1]}"


def test_a_text_that_fits_is_summarised_in_one_call() -> None:
    pool = FakePool(answer=lambda _: " A summary.\n")
    out = summarise(
        pool, text="The cat sat.", words=20, style="one sentence", instructions="In French."
    )
    assert [(m.role, m.content) for m in pool.chats[0].messages] == [
        ("system", "You summarise texts. You keep to what they say and add nothing."),
        (
            "user",
            "The cat sat.\n\nSummarise the text above in about 20 words. Style: one sentence. "
            "In French.",
        ),
    ]
    assert out.model_dump(exclude_defaults=True) == {
        "text": "A summary.",
        "notes": [],
        "sources": [
            {"index": 0, "start": 0, "end": 12, "page": None, "page_end": None, "headings": []}
        ],
        "coverage": {
            "characters_read": 12, "characters": 12, "share": 1.0, "chunks": 1, "levels": 0,
        },
        "usage": {"calls": 1, "prompt_tokens": 36, "completion_tokens": 2},
    }  # fmt: skip


def test_a_long_text_is_noted_in_parts_and_the_notes_are_made_one_text() -> None:
    pool = FakePool(n_ctx_tokens=800, answer=note)
    out = summarise(pool, text=LONG, words=50)
    assert out.coverage.share == 1.0
    assert out.coverage.chunks == len(out.notes) == len(pool.chats) - 1
    assert out.coverage.levels == 1
    assert out.notes[0].startswith("p0w0 to ")
    assert out.notes[-1].endswith(" to p59w19")
    *_, last = asked(pool)
    assert last == (
        "\n\n".join(out.notes) + "\n\nSummarise the notes above as one text in about 50 words."
    )


def test_notes_that_do_not_fit_are_condensed_level_by_level() -> None:
    def wordy(request: ChatRequest) -> str:
        return "long note " * 20 if "text above" in request.messages[-1].content else "fewer words"

    pool = FakePool(n_ctx_tokens=200, answer=wordy)
    out = summarise(pool, text=LONG)
    assert out.coverage.levels == 2
    assert out.text == "fewer words"
    assert len(out.notes) == out.coverage.chunks > 10


def test_parts_are_worked_on_at_once() -> None:
    pool = FakePool(n_ctx_tokens=200, answer=note, delay_s=0.02)
    summarise(pool, text=LONG)
    assert pool.n_running_most == 8
    large = FakePool(n_ctx_tokens=200, answer=note, delay_s=0.02, n_parallel=12)
    summarise(large, text=LONG)
    assert large.n_running_most == 12, "as many as its model has places"


CHUNKS = [{"text": f"chunk {i} says something.", "index": i} for i in range(3)]


HEAD = "| Item | Price |\n| --- | --- |\n"


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        (CHUNKS, "chunk 0 says something.\n\nchunk 1 says something.\n\nchunk 2 says something."),
        # Each is read once where they overlap.
        ([{"text": "One two three.", "start": 0, "end": 14},
          {"text": "three. Four.", "start": 8, "end": 20}], "One two three.\n\n Four."),
        # Offsets of several documents begin at 0: what only looks like an overlap is none.
        ([{"text": "The ferry leaves at nine.", "start": 0, "end": 25},
          {"text": "The pier", "start": 0, "end": 8}, {"text": "is closed.", "start": 9, "end": 19},
          {"text": "The pier is shut.", "start": 4, "end": 21}],
         "The ferry leaves at nine.\n\nThe pier\n\nis closed.\n\nThe pier is shut."),
        # Results of a block are lines.
        ([{"file": "a.md", "summary": "Short."}, None, {"file": "b.md", "pages": [1, 2]}],
         "file: a.md\nsummary: Short.\n\nfile: b.md\npages: [1, 2]"),
        # A table that goes on has its header once.
        ([{"text": f"{HEAD}| a | 1 |", "start": 0, "end": 37, "repeated": 0},
          {"text": f"{HEAD}| b | 2 |", "start": 38, "end": 47, "repeated": len(HEAD)}],
         f"{HEAD}| a | 1 |\n\n| b | 2 |"),
    ],
)  # fmt: skip
def test_given_chunks_that_fit_together_are_read_in_one_call(chunks: list[Any], text: str) -> None:
    pool = FakePool(answer=note)
    out = summarise(pool, chunks=chunks)
    (prompt,) = asked(pool)
    assert prompt.partition("\n\nSummarise")[0].strip("\n") == text
    assert (out.coverage.chunks, out.coverage.levels) == (1, 0)
    assert out.coverage.characters == len(text) or chunks[0].keys() != {"text", "start", "end"}


def test_a_map_template_sees_each_chunk_and_reduce_sees_the_notes() -> None:
    pool = FakePool(answer=lambda r: "N" if r.messages[-1].content.startswith("#") else "whole")
    out = summarise(
        pool,
        chunks=CHUNKS,
        map=Template.of("#{{ index }}/{{ chunk.index }} {{ chunk.text }} {{ previous | length }}"),
        reduce=Template.of("Make one of: {{ notes | join('; ') }}"),
    )
    assert asked(pool) == [
        "#0/0 chunk 0 says something. 0",
        "#1/1 chunk 1 says something. 0",
        "#2/2 chunk 2 says something. 0",
        "Make one of: N; N; N",
    ]
    assert (out.text, out.notes) == ("whole", ["N", "N", "N"])


def test_previous_notes_are_shown_in_order() -> None:
    chunks = [{"text": f"c{i} " * 80} for i in range(3)]
    pool = FakePool(n_ctx_tokens=200, answer=note, delay_s=0.001)
    out = summarise(pool, chunks=chunks, context={"previous": 1})
    assert pool.n_running_most == 1
    assert out.notes[0] == "c0 to c0"
    assert asked(pool)[1].startswith("What came before:\nc0 to c0\n\nText:\nc1 c1")
    assert asked(pool)[2].startswith(f"What came before:\n{out.notes[1]}\n\nText:\nc2 c2")


def test_previous_notes_that_do_not_fit_are_left_out_and_said() -> None:
    chunks = [{"text": f"c{i} " * 115} for i in range(3)]
    pool = FakePool(n_ctx_tokens=200, answer=lambda _: "word " * 30)
    hands = tools(Path(), pool=pool)
    params = SummariseParams(chunks=chunks, context=ContextParam(previous=2))
    asyncio.run(Summarise().run(params, hands))
    assert hands.notes == [
        "chunk 2: only 0 of the notes before it fit into its prompt.",
        "chunk 3: only 0 of the notes before it fit into its prompt.",
    ]


def test_refining_rewrites_one_summary_with_each_part() -> None:
    chunks = [{"text": f"c{i} " * 60} for i in range(3)]
    pool = FakePool(n_ctx_tokens=240, answer=lambda r: f"summary {len(pool.chats)}")
    out = summarise(pool, chunks=chunks, on_overflow="refine", words=30)
    assert out.text == "summary 3"
    assert out.notes == ["summary 1", "summary 2"]
    assert (out.coverage.chunks, out.coverage.levels, out.coverage.share) == (3, 0, 1.0)
    assert asked(pool)[2].startswith("Summary so far:\nsummary 2\n\nText:\nc2 c2")
    assert asked(pool)[2].endswith(
        "Rewrite the summary above so that it also covers the text in about 30 words."
    )


def test_truncating_reads_the_beginning_and_says_how_much() -> None:
    pool = FakePool(n_ctx_tokens=400, answer=note)
    hands = tools(Path(), pool=pool)
    params = SummariseParams(text=LONG, on_overflow="truncate")
    out = asyncio.run(Summarise().run(params, hands))
    read = out.coverage.characters_read
    assert 0.15 < out.coverage.share < 0.3
    assert out.coverage.share == read / len(LONG)
    assert out.usage.characters_cut == len(LONG) - read
    assert asked(pool)[0].startswith(LONG[:read] + "\n\nSummarise")
    assert hands.notes == [
        f"only the first {read:,} of {len(LONG):,} characters were read (on_overflow: truncate)."
    ]


def test_a_map_template_that_repeats_the_chunk_still_fits() -> None:
    pool = FakePool(n_ctx_tokens=200, answer=lambda _: "N")
    out = summarise(pool, text=LONG, map=Template.of("{{ chunk.text }}\n{{ chunk.text }} Sum up."))
    assert out.coverage.share == 1.0


def test_a_file_is_read_like_files_read_does(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<h1>Title</h1><p>Words.</p>")
    pool = FakePool()
    summarise(pool, tmp_path, file="a.html")
    assert asked(pool)[0].startswith("# Title\n\nWords.\n\nSummarise")
    assert Summarise().reads(SummariseParams(file="a.html")) == ["a.html"]
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(StepError, match=r"'b\.txt' is empty"):
        summarise(pool, tmp_path, file="b.txt")


@settings(max_examples=40, deadline=None)
@given(
    n_words=st.integers(1, 1500),
    n_ctx=st.integers(120, 600),
    strategy=st.sampled_from(["map-reduce", "refine"]),
)
def test_whatever_the_length_every_word_is_read(n_words: int, n_ctx: int, strategy: str) -> None:
    text = " ".join(f"w{i}." if i % 7 == 0 else f"w{i}" for i in range(n_words))
    pool = FakePool(n_ctx_tokens=n_ctx, answer=lambda _: "a note")
    out = summarise(pool, text=text, on_overflow=strategy)
    read = re.findall(r"\bw\d+\.?", "\n".join(asked(pool)))
    assert read == text.split()
    assert out.coverage.share == 1.0


def test_each_note_says_which_pages_it_is_of(tmp_path: Path) -> None:
    pages = [" ".join(f"p{p}w{w}" for w in range(60)) + "." for p in range(6)]
    (tmp_path / "a.pdf").write_bytes(pdf([page.replace(" p", "\np") for page in pages]))
    pool = FakePool(answer=note, n_ctx_tokens=256)
    out = summarise(pool, tmp_path, file="a.pdf", params={"max_tokens": 40})
    assert len(out.sources) == len(out.notes) > 1
    for one, said in zip(out.sources, out.notes, strict=True):
        first, last = (re.findall(r"p(\d)w", word) for word in said.split(" to "))
        assert [str((one.page or 0) - 1), str((one.page_end or 0) - 1)] == [*first, *last]


def test_what_is_read_at_once_has_one_source_over_all_chunks() -> None:
    chunks = [
        {"text": "One.", "start": 0, "end": 4, "page": 1, "page_end": 1, "headings": ["A"]},
        {"text": "Two.", "start": 6, "end": 10, "page": 2, "page_end": 4, "headings": ["B"]},
    ]
    [one] = summarise(FakePool(), chunks=chunks).sources
    assert one.model_dump() == {
        "index": 0, "start": 0, "end": 10, "page": 1, "page_end": 4, "headings": [],
    }  # fmt: skip


def test_sentences_are_cited_by_the_page_that_their_words_are_of(tmp_path: Path) -> None:
    pages = ["The mill was built of red stone.", "Its wheel turned until the flood came."]
    (tmp_path / "a.pdf").write_bytes(pdf(pages))
    said = "The wheel turned until a flood came. The mill of red stone was built. Nobody knows why."
    out = summarise(FakePool(answer=lambda _: said), tmp_path, file="a.pdf", cite=True)
    assert out.text == (
        "The wheel turned until a flood came. [p. 2] The mill of red stone was built. [p. 1] "
        "Nobody knows why."
    )


def test_only_summaries_of_files_are_made_again_when_documents_are_read_otherwise() -> None:
    of_text, of_file = (Summarise.facts.readers({name: "x"}) for name in ("text", "file"))
    assert [*of_text, "texts 4"] == list(of_file)


def failing(request: ChatRequest) -> str:
    raise WorkerLost("m", "killed")


EMPTY = "there is nothing to summarise: the text is empty"


@pytest.mark.parametrize(
    ("wishes", "n_ctx_tokens", "answer", "error"),
    [
        ({"text": LONG, "params": {"max_tokens": 80}}, 200, lambda _: "long note " * 100,
         "the notes do not get shorter, so they would never fit into one prompt. Set `words`, ask "
         "for less in `map` and `reduce`, or raise the model's `ctx`."),
        ({"text": " \n"}, 200, note, EMPTY),
        ({"chunks": [None, {"text": ""}]}, 200, note, EMPTY),
        ({"text": LONG, "on_overflow": "error"}, 400, note, PromptTooLong),
        ({"text": LONG}, 200, failing, WorkerLost),
    ],
)  # fmt: skip
def test_what_cannot_be_summarised_ends_with_an_error(
    wishes: dict[str, Any], n_ctx_tokens: int, answer: Any, error: str | type[Exception]
) -> None:
    kind = StepError if isinstance(error, str) else error
    with pytest.raises(kind) as caught:
        summarise(FakePool(n_ctx_tokens=n_ctx_tokens, answer=answer), **wishes)
    assert not isinstance(error, str) or str(caught.value).startswith(error)
