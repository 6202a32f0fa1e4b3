"""What Ollama's clients ask, in the engine's words."""

import pytest

from paddock.engine.api.ollama.requests import possible_refs
from paddock.engine.errors import InvalidName
from paddock.engine.models.model_names import parse_name


def test_a_name_may_say_that_the_model_is_here() -> None:
    def read(model: str) -> str:
        return parse_name(model).short

    assert possible_refs(read, "a") == ["a:latest"]
    assert possible_refs(read, "a:local") == ["a:local", "a:latest"]
    assert possible_refs(read, "a:7b:local") == ["a:7b"]
    assert possible_refs(read, "") == []
    with pytest.raises(InvalidName):
        possible_refs(read, ":local")
