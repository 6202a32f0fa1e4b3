"""What `reply.evidence` may name: texts, documents, hits of a search, lists of these."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Expression
from paddock.pipelines.model import EvidenceSpec
from paddock.pipelines.text_cells import SourceText, TextCell, pack_cells
from paddock.runner.answers.evidence import EvidenceFinder, read_sources
from paddock.runner.bind.scope import Scope
from paddock.runner.rules.document_offers import offers_of
from paddock.steps.base import StepError, Tools
from paddock.steps.readers.reader_pool import ReaderLimits, ReaderPool
from tests.fakes.tools import tools

SCHEMA = {"type": "object", "properties": {"price": {"type": "number"}}}


def sources(value: Any, base: Path | None = None) -> tuple[SourceText, ...]:
    spec = EvidenceSpec((Expression.of("doc.x"),))
    scope = Scope.of({})
    return read_sources(spec, scope.child({"doc": {"x": value}}), base)


def document(*pages: str, media_type: str = "application/pdf", path: str = "/a/b.pdf") -> Any:
    return {
        "text": "\n\n".join(pages),
        "pages": [{"number": n, "text": text} for n, text in enumerate(pages, 1)],
        "media_type": media_type,
        "path": path,
        "skipped": False,
    }


def test_hits_and_lists_have_a_name_each() -> None:
    hit = {"text": "The price is 84.", "source": "a.pdf", "page": 3, "page_end": 3}
    found = sources({"hits": [hit, {**hit, "text": "Rope", "page_end": 4}], "skipped": False})
    assert [(source.name, source.only_page) for source in found] == [
        ("a.pdf", 3),
        ("a.pdf#2", None),
    ]
    assert [source.name for source in sources(["a", None, ["b"]])] == ["doc.x[0]", "doc.x[2][0]"]


NOT_A_TEXT = "not a text. Name a text, the outputs of `files.read`, or the hits of `search`."
NO_TEXT = (
    "'doc.x' has no text to look in. Skip this step by `if` where there is none, "
    "or name another text as well."
)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (5, f"'doc.x' is a whole number, {NOT_A_TEXT}"),
        (True, f"'doc.x' is true or false, {NOT_A_TEXT}"),
        ({"skipped": False}, f"'doc.x' is an empty mapping, {NOT_A_TEXT}"),
        ([["a", {"n": 1}]], f"'doc.x[0][1]' is a mapping with `n`, {NOT_A_TEXT}"),
        ({"text": None}, f"'doc.x' is a mapping with `text`, {NOT_A_TEXT}"),
        (None, NO_TEXT),
        ([], NO_TEXT),
        ([None], NO_TEXT),
        pytest.param(
            [{"text": "a", "pages": []}, "b" * 8_000_000],
            "'doc.x' has 8,000,001 characters, of which at most 8,000,000 can be searched. "
            "Name a part of it, such as the chunk that the model reads.",
            id="a text that would take minutes",
        ),
    ],
)
def test_what_is_no_text_or_too_long_a_one_is_named(value: Any, why: str) -> None:
    with pytest.raises(StepError) as caught:
        sources(value)
    assert str(caught.value) == f"`evidence`: {why}"


def test_a_value_in_a_hit_is_on_the_page_of_the_hit(tmp_path: Path) -> None:
    hit = {"text": "The price is 84.00.", "source": "a.pdf", "page": 3, "page_end": 3}
    finder = EvidenceFinder(SCHEMA, (), sources([hit]), tools(tmp_path))
    at = asyncio.run(finder.located({"price": 84.0}))["price"]
    assert (at["source"], at["page"], at["line"], at["column"]) == ("a.pdf", 3, None, None)


def test_a_quote_over_a_page_break_has_the_box_of_its_first_part(tmp_path: Path) -> None:
    """Pages that OCR has read: their boxes came with the text."""
    found = document("We agree to pay", "the whole sum.", media_type="image/tiff", path="a.tif")
    found["cells"] = {
        "1": pack_cells([TextCell(0, 15, (0.1, 0.8, 0.9, 0.9))]),
        "2": pack_cells([TextCell(0, 14, (0.1, 0.1, 0.9, 0.2))]),
    }
    schema = {"type": "object", "properties": {"clause": {"type": "string"}}}
    finder = EvidenceFinder(schema, (), sources(found), tools(tmp_path))
    at = asyncio.run(finder.located({"clause": "agree to pay the whole sum"}))["clause"]
    assert at["page"] == 1
    left, top, right, bottom = at["box"]
    assert (top, right, bottom) == (0.8, 0.9, 0.9)
    assert 0.1 < left < 0.4


def test_the_column_that_a_page_shows_tells_equal_amounts_apart(tmp_path: Path) -> None:
    """The text alone has one blank between all its words."""
    text, boxes = "Paid in May Paid in June\nNails 5.00 5.00", list[TextCell]()
    for word, left in (
        *(("Paid", 0.4), ("in", 0.45), ("May", 0.48), ("Paid", 0.7), ("in", 0.75), ("June", 0.78)),
        *(("Nails", 0.1), ("5.00", 0.47), ("5.00", 0.78)),
    ):
        start = text.index(word, boxes[-1].end if boxes else 0)
        top = 0.1 if start < text.index("\n") else 0.2
        box = (left, top, left + 0.01 * len(word), top + 0.02)
        boxes.append(TextCell(start, start + len(word), box))
    found = document(text)
    found["cells"] = {"1": pack_cells(boxes)}
    finder = EvidenceFinder({}, (), sources(found), tools(tmp_path))
    at = asyncio.run(finder.located({"paid_in_june": 5.0}))["paid_in_june"]
    assert (at["start"], at["box"]) == (text.rindex("5.00"), [0.78, 0.2, 0.82, 0.22])


def test_a_source_has_cells_of_each_part_by_places_in_its_text() -> None:
    [source] = sources(document("# Bills", "| EUR |\n| --- |\n| 5 |", media_type="text/x"))
    assert [
        (number, source.text[cell.start : cell.end], cell.row)
        for number in (1, 2)
        for cell in source.cells(number)
    ] == [(1, "# Bills", 0), (2, "EUR", 1), (2, "5", 2)]


LONG = "1,1, " * 60_000


def in_processes(folder: Path, limits: ReaderLimits | None = None) -> tuple[Tools, ReaderPool]:
    readers = ReaderPool(limits)
    made = tools(folder)
    return replace(made, files=replace(made.files, readers=readers)), readers


def test_long_texts_are_searched_in_another_process_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"\x00The price is 84.00 \ud800.\n{'Nothing here. ' * 2_000}\nThe price: 9."
    short = EvidenceFinder(SCHEMA, (), sources(["The price is 84.00."]), tools(tmp_path))
    here = asyncio.run(short.located({"price": 84.0}))["price"]

    def never(*_: Any) -> None:
        raise AssertionError("a long text is not searched in the run's own process")

    monkeypatch.setattr("paddock.pipelines.checking.evidence.locate", never)
    both, readers = in_processes(tmp_path)
    with closing(readers):
        finder = EvidenceFinder(SCHEMA, (), sources([text, "More."]), both)
        there = asyncio.run(finder.located({"price": 84.0}))["price"]
    names = ("quote", "match", "line", "page", "ratio")
    assert {name: there[name] for name in names} == {name: here[name] for name in names}
    assert text[there["start"] : there["end"]] == "84.00"


def test_a_text_that_takes_too_long_fails_its_item_with_a_sentence(tmp_path: Path) -> None:
    both, readers = in_processes(tmp_path, ReaderLimits(timeout_s=0.05))
    with closing(readers):
        finder = EvidenceFinder(SCHEMA, (), sources([LONG * 20]), both)
        with pytest.raises(StepError) as raised:
            asyncio.run(finder.located({"price": 84.0}))
    assert str(raised.value) == (
        "`evidence`: the text is not read: it takes more than 0.05 s for one of its pages or "
        "parts. Raise PADDOCK_READ_TIMEOUT to read it."
    )


def test_a_text_has_the_name_of_its_expression() -> None:
    assert sources("words") == (SourceText("doc.x", "words"),)


def test_a_document_has_its_path_and_pages() -> None:
    [source] = sources(document("One", "Two"), Path("/a"))
    assert (source.name, source.path, source.page_starts) == ("b.pdf", "/a/b.pdf", (0, 5))
    assert sources(document("One"), Path("/c"))[0].name == "/a/b.pdf"


@pytest.mark.parametrize("given", [[1], "R-7", [{"number": "R-7"}], [{"page": "one"}]])
def test_what_is_no_e_invoice_is_none_under_its_name(given: Any) -> None:
    (source,) = sources({"text": "Total: 84.00", "invoices": given})
    assert offers_of([source]).stated == {}


def test_a_document_of_a_plug_in_has_pages_if_it_has_several() -> None:
    assert sources(document("One", "Two", media_type="text/x-log"))[0].page_starts == (0, 5)
    assert sources(document("One", media_type="text/x-log"))[0].page_starts == ()
    assert sources(document("One", media_type="image/png"))[0].page_starts == (0,)


@pytest.mark.parametrize("media_type", ["message/rfc822", "text/plain", "application/epub+zip"])
def test_parts_of_mails_and_books_are_no_pages(media_type: str) -> None:
    assert sources(document("One", "Two", media_type=media_type))[0].page_starts == ()


def test_a_made_name_is_not_that_of_another_document() -> None:
    hits = [{"text": text, "source": text} for text in ("a", "a", "a#2")]
    named = {source.name: source.text for source in sources({"hits": hits, "skipped": False})}
    assert named == {"a": "a", "a#2": "a", "a#2#2": "a#2"}
