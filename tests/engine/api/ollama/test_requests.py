"""What Ollama's clients ask, in the engine's words."""

from typing import Any

import pytest

from paddock.engine.api.ollama.requests import possible_refs, read_format, read_think
from paddock.engine.errors import InvalidName
from paddock.engine.models.model_names import parse_name
from paddock.engine.request import Constraint

THINKER, OTHER = frozenset({"completion", "thinking"}), frozenset({"completion"})


@pytest.mark.parametrize(
    ("value", "abilities", "think"),
    [
        (None, THINKER, True),
        (True, THINKER, True),
        (False, THINKER, False),
        ("low", THINKER, "low"),
        ("max", THINKER, "high"),
        (None, OTHER, None),
        (False, OTHER, False),
    ],
)
def test_a_model_that_can_think_does_unless_it_is_told_otherwise(
    value: Any, abilities: frozenset[str], think: Any
) -> None:
    assert read_think(value, "m", abilities) == think


@pytest.mark.parametrize(
    ("value", "constraint"),
    [
        (None, None),
        ("", None),
        ("json", Constraint("json")),
        ({"type": "object"}, Constraint("json_schema", '{"type": "object"}')),
        ({}, Constraint("json_schema", "{}")),
    ],
)
def test_a_format_is_json_or_a_schema(value: Any, constraint: Constraint | None) -> None:
    assert read_format(value) == constraint


def test_a_name_may_say_that_the_model_is_here() -> None:
    def read(model: str) -> str:
        return parse_name(model).short

    assert possible_refs(read, "a") == ["a:latest"]
    assert possible_refs(read, "a:local") == ["a:local", "a:latest"]
    assert possible_refs(read, "a:7b:local") == ["a:7b"]
    assert possible_refs(read, "") == []
    with pytest.raises(InvalidName):
        possible_refs(read, ":local")
