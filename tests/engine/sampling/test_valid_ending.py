"""Whatever the limit, as long as any end fits: the answer is valid."""

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paddock.engine.request import Constraint
from paddock.engine.sampling.json_schema import check_schema
from paddock.engine.sampling.valid_ending import EndingSearch
from tests.engine.sampling.world import Babbler, matcher, model, picker, say, tokens

NAMES = ("a", "title", "some_long_name", "ü", "c d")
VALUES = ("low", "high", 'x"y', "ünï", None, 3, True, {"a": [1, 2]})
PATTERNS = ("^[A-Z]{3}-[0-9]{4}$", "^(a|b)*c$", "[0-9]+", "^x?$", "^.{3,7}$", "^\\d+(,\\d+)*$")
FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email", "hostname", "duration", "uri")


@st.composite
def bounded(draw: st.DrawFn, base: dict[str, Any], least: str, most: str, upto: int) -> Any:
    low = draw(st.none() | st.integers(0, upto))
    high = draw(st.none() | st.integers(low or 0, (low or 0) + upto))
    bounds = {least: low, most: high}
    return base | {name: value for name, value in bounds.items() if value is not None}


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Any:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    schema = {
        "type": "object",
        "properties": {name: draw(inner) for name in names},
        "required": [name for name in names if draw(st.booleans())],
    }
    others = draw(st.sampled_from([None, True, False, {"type": "integer"}]))
    return schema if others is None else schema | {"additionalProperties": others}


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = inner.map(lambda schema: {"type": "array", "items": schema})
    return items.flatmap(lambda base: bounded(base, "minItems", "maxItems", 3))


SCALARS = (
    st.sampled_from(["boolean", "null", "integer", "number"]).map(lambda kind: {"type": kind})
    | bounded({"type": "string"}, "minLength", "maxLength", 30)
    | bounded({"type": "integer"}, "minimum", "maximum", 3000)
    | bounded({"type": "number"}, "minimum", "maximum", 90)
    | st.integers(1, 20).map(lambda n: {"type": "integer", "multipleOf": n})
    | st.lists(st.sampled_from(VALUES), min_size=1, max_size=4).map(lambda all_: {"enum": all_})
    | st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern})
    | st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name})
    | st.sampled_from(["string", "number"]).map(lambda kind: {"type": [kind, "null"]})
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: (
        objects(inner)
        | arrays(inner)
        | st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    ),
    max_leaves=6,
)

# Each text takes some twenty steps until a digit is tried.
LIST_OF_DIGITS = {"type": "array", "items": {"type": "string", "pattern": "[0-9]+"}, "minItems": 20}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    schema=SCHEMAS, seed=st.integers(0, 10**6), n_extra=st.sampled_from([0, 0, 1, 3, 9, 30, 120])
)
@example(schema=LIST_OF_DIGITS, seed=1, n_extra=0)
def test_an_answer_is_valid_at_every_limit_that_holds_one(
    schema: Any, seed: int, n_extra: int
) -> None:
    assert check_schema(schema) == ()
    constraint = Constraint("json_schema", json.dumps(schema))
    guide = matcher(constraint)
    shortest = EndingSearch(is_json=True).find(guide.byte_matcher)
    assert shortest is not None
    limit = len(guide.vocabulary.tokens_of(shortest)) + n_extra
    row_picker = picker(constraint, limit)
    text, reason = say(row_picker, Babbler(seed), limit)
    assert reason in ("stop", "repetition")
    jsonschema.validate(json.loads(text), schema)


NEWS = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 20},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "risk": {"enum": ["low", "high"]},
    },
    "required": ["title", "tags", "risk"],
}


def test_a_limit_below_every_end_is_told_as_such() -> None:
    constraint = Constraint("json_schema", json.dumps(NEWS))
    row_picker = picker(constraint, 5)
    text, reason = say(row_picker, Babbler(3), 5)
    assert reason == "length"
    assert not row_picker.is_shortened
    assert len(text) > 0


@pytest.mark.parametrize(
    ("kind", "source", "limit"),
    [
        ("regex", "(ab|cd){20}x?", 30),
        ("regex", "(yes|no)( and (yes|no))*", 8),
        ("regex", "(ab)*", 3),
        ("lark", 'start: "a" b\nb: "x" b | "y"', 7),
        ("json", "", 9),
    ],
)
def test_grammars_of_every_kind_come_to_an_end(kind: Any, source: str, limit: int) -> None:
    for seed in range(5):
        constraint = Constraint(kind, source)
        text, reason = say(picker(constraint, limit), Babbler(seed), limit)
        assert reason == "stop"
        guide = matcher(constraint)
        assert guide.ends_with(guide.vocabulary.tokens_of(text))


def test_what_is_settled_is_guessed_ahead() -> None:
    row_picker = picker(Constraint("json_schema", json.dumps(NEWS)), 40)
    likely = np.zeros(model().n_vocab, np.float32)
    likely[tokens(" apple")[0]] = 20
    chosen = []
    while not row_picker.is_shortened:
        chosen.append(row_picker.pick(likely.copy()).token)
    forced = row_picker.forced()
    rest = [row_picker.pick(likely.copy()) for _ in forced]
    assert [choice.token for choice in rest] == forced
    assert rest[-1].ends == "stop"
    assert len(chosen) + len(forced) <= 40
    text = b"".join(map(model().piece, chosen + forced))
    jsonschema.validate(json.loads(text), NEWS)


def test_tokens_that_a_grammar_names_by_number_are_said_at_the_end_too() -> None:
    source = (
        'start: <[1]> inner <[3]>\ninner: %json {"type": "object", "properties": {"city": '
        '{"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"]}'
    )
    row_picker = picker(Constraint("lark", source), 14)
    text, reason = say(row_picker, Babbler(0), 14)
    assert reason == "stop"
    assert set(json.loads(text)) == {"city", "days"}
    assert row_picker.is_shortened


@pytest.mark.parametrize(
    "thought", ['thought[suffix="</think>"]: /(.|\\n)*/', "thought: /(.|\\n)*/ <[3]>"]
)
def test_reasoning_is_closed_in_time_for_the_answer(thought: str) -> None:
    schema = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    source = f'start: thought "\\n" inner\n{thought}\ninner: %json {schema}'
    row_picker = picker(Constraint("lark", source), 30)
    text, reason = say(row_picker, Babbler(2), 30)
    assert (reason, row_picker.is_shortened) == ("stop", True)
    assert json.loads(text[text.rindex(b"\n{") :]).keys() == {"city"}
