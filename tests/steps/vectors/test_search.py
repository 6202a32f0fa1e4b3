"""Search in a store: the modes, the filters, and what is said where nothing can be found."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from paddock.pipelines.expressions import Template
from paddock.steps.base import ItemName, StepError
from paddock.steps.vectors.embed import Embed, EmbedOutput, EmbedParams
from paddock.steps.vectors.open_stores import OpenStores
from paddock.steps.vectors.search import Search, SearchOutput, SearchParams
from paddock.steps.vectors.where_filter import FILTER_COLUMNS, InvalidFilter, sql_condition
from tests.fakes.pool import FakePool
from tests.fakes.tools import FakeTools, tools

CHUNKS = [
    {"text": "The last ferry leaves at nine.", "page": 1, "page_end": 2, "headings": ["Boats"]},
    {"text": "The fog bell was cast in 1871.", "page": 3, "headings": []},
]


def with_store(folder: Path, pool: FakePool | None = None, key: str = "a.md") -> FakeTools:
    item = ItemName("index", key, key, f"docs/{key}", f"scope\n{key}")
    return tools(folder, pool=pool, stores=OpenStores(folder.resolve()), item=item)


def kept(beside: FakeTools, chunks: list[Any] = CHUNKS, **more: Any) -> EmbedOutput:
    params = EmbedParams(chunks=chunks, store="index.lance", **more)
    return asyncio.run(Embed().run(params, beside))


def found(folder: Path, query: str, pool: FakePool | None = None, **more: Any) -> SearchOutput:
    params = SearchParams(store="index.lance", query=query, **more)
    return asyncio.run(Search().run(params, with_store(folder, pool)))


def told(folder: Path, query: str = "ferry", **more: Any) -> str:
    with pytest.raises(StepError) as caught:
        found(folder, query, **more)
    return str(caught.value).replace(str(folder.resolve()), "…")


def test_a_hit_says_where_it_stands(tmp_path: Path) -> None:
    kept(with_store(tmp_path))
    (hit,) = found(tmp_path, "The last ferry leaves at nine.", k=1).hits
    assert hit.model_dump() == {
        "number": 1,
        "text": "The last ferry leaves at nine.",
        "score": 1.0,
        "source": "a.md",
        "page": 1,
        "page_end": 2,
        "headings": ["Boats"],
        "index": 0,
        "item": "a.md",
        "columns": {},
    }


def test_several_queries_go_in_few_requests_and_have_a_list_each(tmp_path: Path) -> None:
    kept(with_store(tmp_path), columns={"supplier": "ACME", "year": None})
    pool = FakePool()
    texts = ["The fog bell was cast in 1871.", "The last ferry leaves at nine."]
    params = SearchParams(store="index.lance", queries=texts, k=1, min_score=0.99)
    out = asyncio.run(Search().run(params, with_store(tmp_path, pool)))
    assert [request.texts for request in pool.embeds] == [tuple(texts)]
    assert [[hit.text for hit in one.hits] for one in out.results] == [[text] for text in texts]
    assert (out.hits, out.results[0].hits[0].columns) == ([], {"supplier": "ACME"})


def test_rows_below_the_least_score_are_no_hits(tmp_path: Path) -> None:
    kept(with_store(tmp_path))
    assert found(tmp_path, "The last ferry leaves at nine.", min_score=1.01).hits == []
    with pytest.raises(ValidationError, match="whose score only orders"):
        SearchParams(store="s", query="q", mode="hybrid", min_score=0.5)


@pytest.mark.parametrize("name", ["text", "Year", "a b", "", "_rowid"])
def test_a_column_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValidationError, match="is no name for a column"):
        EmbedParams(texts=["a"], store="s", columns={name: 1})


def test_only_texts_whose_vectors_are_not_there_are_embedded(tmp_path: Path) -> None:
    kept(with_store(tmp_path))
    pool = FakePool()
    more = [{"text": "Something new."}, *CHUNKS, {"text": "Something new."}]
    kept(with_store(tmp_path, pool), more)
    assert [request.texts for request in pool.embeds] == [("Something new.",)]
    assert [hit.index for hit in found(tmp_path, "new", mode="text").hits] == [0, 3]


def test_many_texts_go_in_requests_of_a_bounded_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.steps.vectors.embed.REQUEST_TEXTS", 2)
    pool = FakePool()
    kept(with_store(tmp_path, pool), ["a", "b", "a", "c"])
    assert [request.texts for request in pool.embeds] == [("a", "b"), ("c",)]


def test_parts_of_a_long_text_are_one_vector_that_depends_on_the_context(tmp_path: Path) -> None:
    kept(with_store(tmp_path, FakePool(n_ctx_tokens=14)), ["word " * 30], on_overflow="split")
    pools = [FakePool(n_ctx_tokens=14), FakePool(n_ctx_tokens=20)]
    for pool in pools:
        kept(with_store(tmp_path, pool), ["word " * 30], on_overflow="split")
    assert [len(pool.embeds) for pool in pools] == [0, 1]


def test_the_question_is_embedded_in_the_dimensions_of_the_store(tmp_path: Path) -> None:
    kept(with_store(tmp_path), dimensions=4)
    pool = FakePool()
    found(tmp_path, "ferry", pool)
    assert [request.dimensions for request in pool.embeds] == [4]


def test_words_need_no_model_and_both_orders_are_made_one(tmp_path: Path) -> None:
    kept(with_store(tmp_path))
    pool = FakePool()
    assert [h.text[:8] for h in found(tmp_path, "fog", pool, mode="text").hits] == ["The fog "]
    assert pool.embeds == []
    (first, second) = found(tmp_path, "fog bell", mode="hybrid").hits
    assert (first.text[:8], first.number, second.number) == ("The fog ", 1, 2)
    assert first.score > second.score


def test_filters_are_mappings_or_conditions(tmp_path: Path) -> None:
    kept(with_store(tmp_path))
    for where in ({"page": {"from": 2}}, Template.of("page == 3"), {"text": "*1871*"}):
        assert [h.page for h in found(tmp_path, "ferry", where=where).hits] == [3]
    assert found(tmp_path, "ferry", where={"source": "b.md"}).hits == []


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("source == '{{ inputs.file }}'", "a condition must not contain `{{ }}`, since a value could "  # noqa: E501
         'change its meaning: pass values as a mapping, such as {source: "{{ inputs.file }}"}'),
        ("page = 3",
         "'page = 3' is not a condition: compare a column by ==, !=, <, <=, >, >= or `in`"),
        ({"page": {"like": 3}},
         "'like' is not supported for 'page': use `is`, `not`, `from`, `to`"),
    ],
)  # fmt: skip
def test_a_filter_is_checked_before_anything_runs(where: Any, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        given = Template.of(where) if isinstance(where, str) else where
        SearchParams(store="x", query="q", where=given)
    assert str(caught.value.errors()[0]["ctx"]["error"]) == sentence


def test_what_cannot_be_searched_is_told_with_a_way_out(tmp_path: Path) -> None:
    assert told(tmp_path) == (
        "there is no store '…/index.lance'. "
        "First run the step that fills it (`embed` with `store`), or correct the path."
    )
    beside = with_store(tmp_path)
    kept(beside)
    assert told(tmp_path, model="other").startswith(
        "the store '…/index.lance' holds vectors of model 'default-embed', and those of 'other' "
    )
    assert told(tmp_path, " ") == "the `query` is empty. Set it to what to search for."


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_a_search_over_nothing_finds_nothing_and_asks_no_model(tmp_path: Path, mode: str) -> None:
    kept(with_store(tmp_path))
    kept(with_store(tmp_path), [])
    pool = FakePool()
    assert (found(tmp_path, "ferry", pool, mode=mode).hits, pool.embeds) == ([], [])


@pytest.mark.parametrize(
    ("written", "query"),
    [
        ("Ihre Strom\u00adrechnung liegt bei.", "Stromrechnung"),
        ("Ihre Stromrechnung liegt bei.", "Strom\u00adrechnung"),
        ("Hafen Ko\u0308ln, Steg 4", "Köln"),
        ("Hafen Köln, Steg 4", "Ko\u0308ln"),
        ("Hafen Köln, Steg 4", "koln"),
        ("L'e\u0301te\u0301 au port", "été"),
        ("Harbour\u200bmaster", "harbourmaster"),
        ("de Ve\u0301lo a\u0300 Nice", "à"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8 항구", "한국"),
        ("Tie\u0302\u0301ng Vie\u0323\u0302t", "Việt"),
        ("שָׁלוֹם", "שלום"),
    ],
)
def test_a_word_is_found_in_whatever_form_it_is_written(
    tmp_path: Path, written: str, query: str
) -> None:
    kept(with_store(tmp_path), ["Something else.", written])
    assert [hit.text for hit in found(tmp_path, query, mode="text").hits] == [written]
    assert found(tmp_path, written, k=1).hits[0].text == written
    pool = FakePool()  # its vector is known by the text as it was written
    kept(with_store(tmp_path, pool), ["Something new.", written])
    assert [request.texts for request in pool.embeds] == [("Something new.",)]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (None, ""),
        ({"source": "it's.md"}, "source = 'it''s.md'"),
        ({"source": ["a.md", "notes/*"]}, "(source = 'a.md') OR (source LIKE 'notes/%')"),
        ({"source": {"is": "a*.md"}}, "source = 'a*.md'"),
        ({"page": None}, "page IS NULL"),
        ({"page": {"not": 3}}, "NOT coalesce(page = 3, false)"),
        ({"index": 0}, "`index` = 0"),
        ({"source": []}, "false"),
        ({"headings": "It's"}, "array_has(headings, 'It''s')"),
        ("3 <= page", "page >= 3"),
        ("1 < page <= 9", "(page > 1) AND (page <= 9)"),
        ("source in ['a.md', 'b.md']", "(source = 'a.md') OR (source = 'b.md')"),
        ("'ferry' in text and not page == none",
         "(strpos(text, 'ferry') > 0) AND (NOT coalesce(page IS NULL, false))"),
        ("'Scope' not in headings", "NOT coalesce(array_has(headings, 'Scope'), false)"),
    ],
)  # fmt: skip
def test_a_filter_becomes_a_condition_on_known_columns(where: Any, wanted: str) -> None:
    assert sql_condition(where) == wanted


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"sorce": "a.md"}, "rows have no 'sorce' (did you mean 'source'?). They have `source`, "
         "`item`, `step`, `text`, `index`, `page`, `page_end`, `headings`, and `columns.NAME`"),
        ({"page": "3"}, "'page' holds a number; '3' is none"),
        ({"source": 3}, "'source' holds a text; '3' is none"),
        ({"page": {"above": 3}},
         "'above' is not supported for 'page': use `is`, `not`, `from`, `to`"),
        ({"headings": {"from": "A"}}, "'headings' cannot be compared by `>=` with 'A'"),
        ("page", "'page' is not a condition: compare a column, such as "
         "`page >= 3 and source == 'a.md'`"),
        ("__import__('os').system('x') == 1", "'__import__('os').system('x')' is not a column. "
         "They have `source`, `item`, `step`, `text`, `index`, `page`, `page_end`, `headings`, "
         "and `columns.NAME`"),
        ("'x' in page", "'page' holds a number: nothing can be in it"),
        ("source in 'a.md'", "''a.md'' is not a list: write `source in ['a', 'b']`"),
        ("(" * 5000, "it is longer than 2,000 characters"),
        ("(" * 900 + "page == 1" + ")" * 900, None),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_told_in_a_sentence(where: Any, told: str | None) -> None:
    with pytest.raises(InvalidFilter) as caught:
        sql_condition(where)
    assert told is None or str(caught.value) == told


SEVERAL = ["is", "not", "from"]
VALUES = st.text(max_size=20) | st.integers() | st.none() | st.floats() | st.booleans()
LITERAL = re.compile(r"'(?:[^']|'')*'")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*FILTER_COLUMNS, "nothing"]),
        VALUES
        | st.lists(VALUES, max_size=3)
        | st.dictionaries(st.sampled_from(SEVERAL), VALUES),
        max_size=4
    )
)  # fmt: skip
def test_no_value_ever_leaves_its_quotes(where: dict[str, Any]) -> None:
    """Without its quoted texts, a condition has only our own words in it."""
    try:
        made = sql_condition(where)
    except InvalidFilter:
        return
    bare = LITERAL.sub("?", made)
    words = {*FILTER_COLUMNS, "AND", "OR", "NOT", "LIKE", "IS", "NULL", "coalesce", "false", "array_has",  # noqa: E501
             "concat", "array_to_string"}  # fmt: skip
    assert set(re.findall(r"[A-Za-z_]+", re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "0", bare))) <= words
    assert "'" not in bare
