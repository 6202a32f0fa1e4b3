"""A form is drawn in a line that a small model understands."""

from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import Message
from paddock.pipelines import reply_schema
from paddock.steps.llm.schema_hint import schema_hint, schema_sketch, with_schema_hint
from tests.fakes.form import FakeForm


@pytest.mark.parametrize(
    ("schema", "drawn"),
    [
        (
            {"title": "str", "points": "list[str]", "risk": "enum[low, high]", "score": "float?"},
            '{"title": text, "points": [text, …], "risk": "low" or "high", '
            '"score": number or null}',
        ),
        ([{"name": "str", "age": "int"}], '[{"name": text, "age": whole number}, …]'),
        (
            {"properties": {"day": {"type": "string", "format": "date", "description": "When."}}},
            '{"day": date (When)}',
        ),
        (
            {
                "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
                "$ref": "#/$defs/n",
            },
            "[[[…, …], …], …]",
        ),
        ({"anyOf": [{"type": "string"}, {"const": 3}, {}]}, "text or 3 or …"),
        (True, "…"),
    ],
)
def test_a_schema_is_drawn_as_json_with_words(schema: Any, drawn: str) -> None:
    assert schema_sketch(reply_schema.read_reply_schema(schema, Path()).schema) == drawn


def test_a_form_that_is_too_long_to_draw_is_only_named() -> None:
    long = {"properties": {f"field_{n}": {"type": "string"} for n in range(200)}}
    assert schema_hint(long) == "Answer with JSON."


def test_the_form_ends_the_last_thing_that_the_user_said() -> None:
    form = FakeForm({"type": "object"})
    said = [Message("user", "Add."), Message("tool", "3"), Message("assistant", "Now")]
    assert [one.content for one in with_schema_hint(said, form)] == [
        "Add.\n\nAnswer with JSON of this form: {…}",
        "3",
        "Now",
    ]
    assert with_schema_hint([Message("system", "x")], form)[-1].role == "user"
