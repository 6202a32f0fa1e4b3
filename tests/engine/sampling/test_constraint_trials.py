"""Hostile schemas and grammars: refused in plain words, whatever they do to what compiles them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from paddock.engine.errors import BadRequest, ConstraintRefused
from paddock.engine.request import Constraint
from paddock.engine.sampling.constraint_trials import ConstraintTrials
from paddock.engine.sampling.json_schema import check_schema
from tests.engine.sampling import world
from tests.optional import present


@pytest.fixture(scope="module")
def trials() -> Iterator[ConstraintTrials]:
    trials = ConstraintTrials()
    yield trials
    trials.close()


def chain(n: int) -> dict[str, Any]:
    """Return a chain of objects, each within the one before."""
    links: dict[str, Any] = {
        f"d{i}": {
            "type": "object",
            "properties": {"n": {"$ref": f"#/$defs/d{i + 1}"}},
            "required": ["n"],
        }
        for i in range(n)
    }
    return {"$defs": {**links, f"d{n}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def product(n: int) -> dict[str, Any]:
    """Return what has 4 ** n cases."""

    def case(i: int, j: int) -> dict[str, Any]:
        name = f"k{i}{j}"
        return {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}

    return {"allOf": [{"anyOf": [case(i, j) for j in range(4)]} for i in range(n)]}


def rules(n: int) -> str:
    lines = [f'r{i}: "a" r{i + 1}' for i in range(n)]
    return "\n".join(["start: r0", *lines, f'r{n}: "x"'])


LARGE = "it is too large or too complex"
HOSTILE: list[tuple[Constraint, str]] = [
    (
        Constraint("json_schema", json.dumps(chain(3000))),
        "the schema goes through more than 500 levels, each `$ref` followed.",
    ),
    (Constraint("json_schema", json.dumps(product(6))), LARGE),  # a panic in Rust
    (Constraint("json_schema", json.dumps(product(10))), LARGE),
    (Constraint("json_schema", '{"type": "integer", "multipleOf": 999983, "minimum": 1}'), LARGE),
    (
        Constraint("json_schema", json.dumps({"enum": [f"value {i}" for i in range(100_000)]})),
        "the JSON Schema has 1,488,900 characters; the limit is 524,288",
    ),
    (
        Constraint("json_schema", json.dumps({"anyOf": [{"type": "string"}] * 20_001})),
        "the schema has more than 20,000 subschemas.",
    ),
    (Constraint("json_schema", "[" * 100_000), "the JSON Schema is nested too deeply"),
    # A stack that overflows ends the process, and no other one.
    (
        Constraint("lark", rules(20_000)),
        "the Lark grammar is too complex: it cannot be computed within 3 s and 512 MiB. "
        "Use fewer options, `$ref`s or repetitions",
    ),
    (Constraint("regex", "(" * 5_000 + "a" + ")" * 5_000), "exceed the maximum number of nested"),
    (
        Constraint("regex", "a" * 40_000),
        "the regular expression has 40,000 characters; the limit is 32,768",
    ),
]


@pytest.mark.parametrize(("constraint", "why"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_constraint_is_refused_in_plain_words_and_the_next_one_is_tried(
    trials: ConstraintTrials, constraint: Constraint, why: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        trials.check(constraint)
    message = str(caught.value)
    assert why in message
    assert len(message) < 500
    assert not any(word in message for word in ("panic", "backtrace", ".rs", "fuel"))
    trials.check(Constraint("json_schema", '{"type": "object"}'))


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("json"),
        Constraint("json_schema", json.dumps(chain(200))),
        Constraint("json_schema", '{"type": "array", "items": {}, "minItems": 1000000000}'),
        Constraint("json_schema", json.dumps({"enum": [f"value {i}" for i in range(5_000)]})),
        Constraint("regex", "(a{1,1000}){1,1000}"),
        Constraint("lark", 'start: <[7]> "a"+ <|some_control|>'),  # for a model's own tokens
    ],
)
def test_what_can_be_compiled_passes(trials: ConstraintTrials, constraint: Constraint) -> None:
    trials.check(constraint)


def test_a_process_that_was_killed_is_replaced(trials: ConstraintTrials) -> None:
    trials.check(Constraint("json"))
    process = present(trials._process._shared).process
    process.kill()
    process.wait()
    trials.check(Constraint("json"))


def test_a_chain_that_ends_is_found_to_end_in_one_turn() -> None:
    # Quadratic before: 600 links took 1.8 s, and 20,000 nodes are allowed.
    defs = {f"d{i}": {"$ref": "#/$defs/end"} for i in range(5_000)}
    schema = {"$defs": {**defs, "end": {"type": "string"}}, "$ref": "#/$defs/d0"}
    assert check_schema(schema) == ()


def test_a_demanded_tools_schema_is_looked_at_in_the_process_too_and_once() -> None:
    compiler = world.grammars()
    constraint = Constraint("json_schema", '{"properties": {"a": {"type": "string, integer"}}}')
    with pytest.raises(ConstraintRefused) as first:
        compiler.matcher(constraint, None, (("f", constraint.source),))
    with pytest.raises(ConstraintRefused) as again:
        compiler.known(constraint)
    assert str(first.value) == str(again.value)
    assert "the tool 'f' cannot be demanded: at /properties/a/type: " in str(again.value)
