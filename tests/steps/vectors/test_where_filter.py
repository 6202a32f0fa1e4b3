"""What an author may write under `where`, what it comes to, and what is refused."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.steps.vectors.where_filter import FILTER_COLUMNS, InvalidFilter, sql_condition


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (None, ""),
        ({}, ""),
        ({"source": "a.md"}, "source = 'a.md'"),
        ({"source": "it's.md"}, "source = 'it''s.md'"),
        ({"source": ["a.md", "notes/*"]}, "(source = 'a.md') OR (source LIKE 'notes/%')"),
        ({"source": {"is": "a*.md"}}, "source = 'a*.md'"),
        ({"source": "100%_?.md"}, "source LIKE '100\\%\\__.md'"),
        ({"page": None}, "page IS NULL"),
        ({"page": {"not": 3}}, "NOT coalesce(page = 3, false)"),
        ({"index": 0}, "`index` = 0"),
        ({"source": []}, "false"),
        ({"headings": "It's"}, "array_has(headings, 'It''s')"),
        ("page >= 3", "page >= 3"),
        ("3 <= page", "page >= 3"),
        ("1 < page <= 9", "(page > 1) AND (page <= 9)"),
        ("source in ['a.md', 'b.md']", "(source = 'a.md') OR (source = 'b.md')"),
        ("'ferry' in text and not page == none",
         "(strpos(text, 'ferry') > 0) AND (NOT coalesce(page IS NULL, false))"),
        ("source != 'a.md'", "NOT coalesce(source = 'a.md', false)"),
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
        ({"page": True}, "'page' holds a number; 'True' is none"),
        ({"source": 3}, "'source' holds a text; '3' is none"),
        ({"page": {"above": 3}},
         "'above' is not supported for 'page': use `is`, `not`, `from`, `to`"),
        ({"page": {}}, "'page' has no condition"),
        ({"headings": {"from": "A"}}, "'headings' cannot be compared by `>=` with 'A'"),
        ("page = 3",
         "'page = 3' is not a condition: compare a column by ==, !=, <, <=, >, >= or `in`"),
        ("page is none", "`is` is not supported: use `==`"),
        ("page", "'page' is not a condition: compare a column, such as "
         "`page >= 3 and source == 'a.md'`"),
        ("source == a.md", "'a.md' is not a value: write texts in quotes"),
        ("__import__('os').system('x') == 1", "'__import__('os').system('x')' is not a column. "
         "They have `source`, `item`, `step`, `text`, `index`, `page`, `page_end`, `headings`, "
         "and `columns.NAME`"),
        ("'x' in page", "'page' holds a number: nothing can be in it"),
        ("source in 'a.md'", "''a.md'' is not a list: write `source in ['a', 'b']`"),
        ("(" * 5000, "it is longer than 2,000 characters"),
        ("(" * 900 + "page == 1" + ")" * 900, None),
        ("", "'' is not a condition: compare a column by ==, !=, <, <=, >, >= or `in`"),
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
