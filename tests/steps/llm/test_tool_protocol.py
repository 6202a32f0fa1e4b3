import json
from typing import Any

import pytest

from paddock.engine.request import Tool
from paddock.engine.sampling import json_schema
from paddock.steps.llm.tool_protocol import arguments_schema, tools_description, turn_schema

NOTE = {"$defs": {"Note": {"enum": ["a.md", "b.md"], "type": "string"}}}
READ = Tool(
    "read",
    "Read a note.\nSlowly.",
    {
        **NOTE,
        "type": "object",
        "properties": {"name": {"$ref": "#/$defs/Note"}, "n": {"type": "integer"}},
        "required": ["name"],
    },
)
OTHER = Tool(
    "other",
    "",
    {
        "$defs": {"Note": {"type": "number", "description": "how much of it"}},
        "properties": {"x": {"$ref": "#/$defs/Note"}},
    },
)


def test_tools_are_told_of_as_programmers_write_them() -> None:
    lines = tools_description([READ, OTHER]).splitlines()
    assert '- read(name: "a.md" | "b.md", n?: integer): Read a note.' in lines
    assert "- other(x?: number (how much of it))" in lines


def test_the_definitions_of_tools_stand_together_and_are_not_mixed_up() -> None:
    whole = turn_schema([READ, OTHER])
    assert whole["$defs"] == {
        "read_Note": NOTE["$defs"]["Note"],
        "other_Note": OTHER.parameters["$defs"]["Note"],
    }
    arguments = [one["properties"].get("arguments") for one in whole["anyOf"]]
    assert arguments[0]["properties"]["name"] == {"$ref": "#/$defs/read_Note"}
    assert arguments[1]["properties"]["x"] == {"$ref": "#/$defs/other_Note"}
    assert arguments[2] is None, "the answer"
    assert json_schema.check_schema(whole) == ()


@pytest.mark.parametrize(
    ("choice", "tools"), [("read", ["read"]), ("required", ["read", "other"]), ("none", [])]
)
def test_a_choice_leaves_only_what_may_be_said(choice: str, tools: list[str]) -> None:
    text = json.dumps(turn_schema([READ, OTHER], choice))
    assert [name for name in ("read", "other") if f'"enum": ["{name}"]' in text] == tools
    assert ("answer" in text) == (choice == "none")


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"x": {"type": "string", "format": "nonsense"}}},
        {"type": "object", "properties": {"x": {"$ref": "https://example.org/x.json"}}},
        {"type": "object", "properties": {"x": {"$ref": "#/properties/y"}}},
    ],
)
def test_arguments_that_no_answer_can_be_held_to_may_be_any_object(
    parameters: dict[str, Any],
) -> None:
    assert arguments_schema(Tool("t", "", parameters)) == {"type": "object"}


def test_any_tool_makes_a_form_that_can_be_decoded() -> None:
    tools = [READ, OTHER, Tool("bare"), Tool("any", "", {"type": "object"})]
    sound = [Tool(tool.name, tool.description, arguments_schema(tool)) for tool in tools]
    assert json_schema.check_schema(turn_schema(sound)) == ()
