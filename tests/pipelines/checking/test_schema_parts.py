"""Fields that an answer leaves empty though its schema requires them."""

from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.checking.evidence import locate
from paddock.pipelines.checking.functions import located
from paddock.pipelines.checking.schema_parts import empty_fields
from paddock.pipelines.reply_schema import read_reply_schema
from paddock.pipelines.text_cells import SourceText
from tests.pipelines.checked import missing_paths

SHORT = read_reply_schema(
    {
        "number": "str",
        "seen": "str?",
        "kind": "enum[bill, '']",
        "items": [{"name": "str", "price": "float?"}],
        "buyer": {"name": "str"},
        "tags": "list[str]",
    },
    Path(),
).schema
LONG = {
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "ways": {"type": "array", "minItems": 0},
        "note": {"type": "string"},
        "any": {},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "same": {"$ref": "#/$defs/name"},
    },
    "required": ["tags", "ways", "any", "maybe", "same"],
    "$defs": {"name": {"type": "string"}},
}


@pytest.mark.parametrize(
    ("answer", "schema", "empty"),
    [
        ({"number": "", "seen": "", "kind": ""}, SHORT, {("number",)}),
        ({"number": " \n", "seen": None, "kind": "bill"}, SHORT, {("number",)}),
        ({"number": "7", "tags": ["", "a"]}, SHORT, set()),
        ({"number": None, "tags": []}, SHORT, {("number",)}),
        ({"items": [{"name": "", "price": None}, {"name": "a"}], "buyer": {"name": ""}}, SHORT,
         {("items", 0, "name"), ("buyer", "name")}),
        ({"tags": [], "ways": [], "note": "", "any": None, "maybe": "", "same": ""}, LONG,
         {("tags",), ("any",), ("same",)}),
        ({"other": ""}, LONG, set()),
        ({"a": "", "b": None, "c": []}, {}, set()),
        ("", {"type": "string"}, {()}),
        ("", True, set()),
        (0, {"type": "number"}, set()),
        ({"number": False}, SHORT, set()),
    ],
)  # fmt: skip
def test_a_field_is_empty_where_the_schema_requires_it_and_it_says_nothing(
    answer: Any, schema: Any, empty: set[Any]
) -> None:
    assert empty_fields(answer, schema) == empty


def test_an_empty_field_stands_nowhere_in_the_sources() -> None:
    text = [SourceText("bill", "No. 7, paint, an empty line:\n\n")]
    answer = {"number": "", "seen": "", "items": [{"name": "", "price": None}], "tags": ["", "7"]}
    found = locate(answer, SHORT, text)
    assert missing_paths(found) == ["number", "items.0.name"]
    assert (found["seen"], found["tags"][0], found["items"][0]["price"]) == (None, None, None)
    assert found["number"]["quote"] is None
    assert missing_paths(locate(answer, SHORT, text, only=["items"])) == ["items.0.name"]
    assert missing_paths(locate({"tags": []}, LONG, text)) == ["tags"]
    assert located(answer, output=answer, evidence=found) == (
        "This is not in the source: number (empty), items.0.name (empty). Use only what is in it."
    )
    assert located("", output=answer, evidence=found) is not None
    assert located("7", output=answer, evidence=found) is None
