"""Models of bodies: strict types, faults with their place, little work for a hostile body."""

from typing import Any

import pytest
from pydantic import Field

from paddock.engine.api.body_models import Base64, Body, Few, Items, Needed, Texts, Tree, Whole
from paddock.engine.api.errors import ApiError


class Inner(Body):
    text: str = ""
    needed: Needed = "x"


class Outer(Body):
    text: str = ""
    flag: bool = False
    whole: Whole = 0
    number: float | None = Field(None, ge=0, le=2)
    tree: Tree = Field(default_factory=dict)
    texts: Texts = Field(default_factory=dict)
    few: Few = Field(default_factory=dict)
    items: Items[Inner] = ()
    image: Base64 = b""


def refused(fields: dict[str, Any]) -> str:
    with pytest.raises(ApiError) as caught:
        Outer.read(fields)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": 1}, "text: must be a string, not an integer"),
        ({"flag": "true"}, "flag: must be a boolean, not a string"),
        ({"whole": 1.5}, "whole: must be an integer, not a number"),
        ({"whole": True}, "whole: must be an integer, not a boolean"),
        ({"number": "1"}, "number: must be a number, not a string"),
        ({"number": True}, "number: must be a number, not a boolean"),
        ({"number": 3}, "number: expected at most 2, not 3."),
        ({"tree": []}, "tree: must be an object, not an array"),
        ({"texts": {"a": 1}}, "texts: its values must be strings."),
        ({"texts": {f"{n}": "" for n in range(1_001)}},
         "texts: it has 1,001 members; at most 1,000 are read."),
        ({"few": {f"{n}": n for n in range(20_000)}},
         "few: it has 20,000 members; at most 1,000 are read."),
        ({"items": {}}, "items: must be an array, not an object"),
        ({"items": ["a"]}, "items.0: must be an object, not a string"),
        ({"items": [{}, {"Text": 1}]}, "items.1.text: must be a string, not an integer"),
        ({"items": [{"needed": ""}]}, "items.0.needed is required"),
        ({"image": "!!"}, "image: illegal base64 data"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_place_and_type(fields: dict[str, Any], expected: str) -> None:
    assert refused(fields) == expected


def test_an_object_that_is_passed_on_is_shallow() -> None:
    deep: dict[str, Any] = {}
    for _ in range(80):
        deep = {"a": deep}
    assert refused({"tree": deep}) == "tree: it is nested more than 64 levels deep."


def test_a_list_of_a_million_faults_is_refused_at_its_first() -> None:
    assert refused({"items": [1] * 1_000_000}) == "items.0: must be an object, not an integer"
    assert refused({"texts": dict.fromkeys(map(str, range(100_000)), 1)}).startswith("texts: ")
