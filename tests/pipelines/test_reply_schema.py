"""The form of an answer: JSON Schema, its short form, in place, as text or in a file."""

from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.reply_schema import ReplySchemaFault, is_json_schema, read_reply_schema

HERE = Path()


def test_the_short_form_names_each_field_with_its_type() -> None:
    form = read_reply_schema(
        {"title": "str", "points": "list[str]", "risk": "enum[low, high]", "score": "float?"}, HERE
    )
    assert form.is_short
    assert form.schema == {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "points": {"type": "array", "items": {"type": "string"}},
            "risk": {"enum": ["low", "high"]},
            "score": {"type": ["number", "null"]},
        },
        "required": ["title", "points", "risk", "score"],
        "additionalProperties": False,
    }
    nested = read_reply_schema(
        {"who": {"age": "int?"}, "all": [{"ok": "bool"}], "m": "list[list[int]]", "d": "date?"},
        HERE,
    ).schema["properties"]
    assert nested["who"]["properties"] == {"age": {"type": ["integer", "null"]}}
    assert nested["all"]["items"]["properties"] == {"ok": {"type": "boolean"}}
    assert nested["m"]["items"] == {"type": "array", "items": {"type": "integer"}}
    assert nested["d"] == {"type": ["string", "null"], "format": "date"}


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        ({"type": "object"}, True),
        ({"properties": {"a": {"type": "string"}}}, True),
        ({"enum": ["a", "b"]}, True),
        ({}, True),
        ({"enum": "list[str]"}, False),
        ({"properties": "list[str]", "title": "str"}, False),
    ],
)
def test_a_json_schema_is_told_from_the_short_form(data: dict[str, Any], is_one: bool) -> None:
    assert is_json_schema(data) is is_one


def test_a_wrong_type_is_told_with_its_place() -> None:
    form = read_reply_schema({"a": {"b": "strg"}, "c": 3, "d": "enum[]"}, HERE)
    names = "Known: 'str', 'int', 'float', 'bool', 'date', 'list[…]', 'enum[…, …]'."
    assert form.faults == (
        ReplySchemaFault(("a", "b"), "'strg' is not a type", f"{names} Did you mean 'str'?"),
        ReplySchemaFault(
            ("c",),
            "a field needs a type, such as str",
            'Write for example {title: str, points: "list[str]"}.',
        ),
        ReplySchemaFault(("d",), "'enum[]' is not a type", f"{names} Did you mean 'enum[…, …]'?"),
    )


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ('enum["New York, NY", "Boston, MA"]', ["New York, NY", "Boston, MA"]),
        ("enum['< 18', '18-25']", ["< 18", "18-25"]),
        ("enum['it''s', don't, a\"b]", ["it's", "don't", 'a"b']),
        ('enum["a \\"b\\"", "\\u00e9", "]", c]', ['a "b"', "é", "]", "c"]),
        ("enum[ \"a\" , b ,\n'c' ]", ["a", "b", "c"]),
        ('enum[""]', [""]),
    ],
)
def test_values_of_an_enum_may_stand_in_quotes(word: str, values: list[str]) -> None:
    assert read_reply_schema({"k": word}, HERE).schema["properties"]["k"] == {"enum": values}
    assert read_reply_schema({"k": f"list[{word}]"}, HERE).schema["properties"]["k"]["items"] == {
        "enum": values
    }
    assert read_reply_schema({"k": f"{word}?"}, HERE).schema["properties"]["k"] == {
        "enum": [*values, None]
    }


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ('enum["New York, NY]', 'the quoted value that begins at "New York, NY closes nowhere'),
        ("enum[a, 'b]", "the quoted value that begins at 'b closes nowhere"),
        ('enum["a" b, c]', 'the quoted value that begins at "a" b, c ends before its comma'),
        ('enum["a\\q"]', '"a\\q" has an escape that JSON does not know'),
        ("enum[a,,b]", "a value between two commas is empty"),
        ("enum[a,]", "a value between two commas is empty"),
    ],
)
def test_values_of_an_enum_that_cannot_be_read_are_a_fault_at_their_place(
    word: str, wrong: str
) -> None:
    assert read_reply_schema({"a": {"k": word}}, HERE).faults == (
        ReplySchemaFault(
            ("a", "k"),
            f"'{word}' cannot be parsed: {wrong}",
            'Write for example enum[low, "New York, NY"].',
        ),
    )


def test_a_schema_may_stand_in_a_file_or_in_a_text(tmp_path: Path) -> None:
    (tmp_path / "form.json").write_text('{\n\t"type": "object"}', encoding="utf-8")
    (tmp_path / "short.yaml").write_text("title: str\n", encoding="utf-8")
    assert read_reply_schema({"file": "form.json"}, tmp_path).schema == {"type": "object"}
    assert read_reply_schema({"file": "short.yaml"}, tmp_path).schema["required"] == ["title"]
    assert read_reply_schema('{"type": "array"}', tmp_path).schema == {"type": "array"}
    assert read_reply_schema("enum[low, high] ?", tmp_path).schema == {
        "enum": ["low", "high", None]
    }
    assert read_reply_schema('[{"a": "int"}]', tmp_path) == read_reply_schema(
        [{"a": "int"}], tmp_path
    )
    assert "neither a JSON Schema" in read_reply_schema("[" * 5000, tmp_path).faults[0].message
    assert read_reply_schema({"file": "str"}, tmp_path).schema["required"] == ["file"]


@pytest.mark.parametrize("name", [["a"], {"a": 1}, 5, "", None])
def test_a_file_whose_name_is_none_is_a_fault(name: Any, tmp_path: Path) -> None:
    assert read_reply_schema({"file": name}, tmp_path).faults == (
        ReplySchemaFault(("file",), "`file` must be the path of a file"),
    )
