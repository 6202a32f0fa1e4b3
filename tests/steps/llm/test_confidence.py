"""The probability of each field of an answer, and its runner-up, from the tokens' probabilities."""

import json
import math
from typing import Any

import pytest

from paddock.engine.request import TokenLogprob
from paddock.steps.llm.confidence import confidence, leaf_spans

Written = str | tuple[str, float, dict[str, float]]
"""A forced token; or a token with its probability, and those of its alternatives."""


def tokens(*written: Written) -> list[TokenLogprob]:
    found = []
    for one in written:
        text, p, others = (one, 1.0, {}) if isinstance(one, str) else one
        likely = sorted({text: p, **others}.items(), key=lambda item: -item[1])
        top = [(raw.encode(), math.log(share)) for raw, share in likely]
        found.append(TokenLogprob(text.encode(), math.log(p), top))
    return found


def of(schema: Any, *written: Written, text: str | None = None) -> Any:
    told = tokens(*written)
    said = "".join(one.token for one in told) if text is None else text
    return confidence(said, told, json.loads(said), schema)


def brief(field: dict[str, Any]) -> tuple[float, Any, float | None]:
    assert field["raw"] == field["p"]
    assert field["is_calibrated"] is False
    return field["p"], field["second"], field["second_p"]


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


LABEL = record(tone={"enum": ["sad", "glad", "grim"]})
NUMBER = record(total={"type": "number"})
DAY = record(day={"type": "string", "format": "date"})
TEXT = record(name={"type": "string"})


def test_what_the_form_forces_is_certain() -> None:
    found = of(LABEL, '{"tone":"', "sad", '"}')
    assert found == {
        "tone": {
            "p": 1.0, "low": 1.0, "raw": 1.0, "second": None, "second_p": None,
            "is_calibrated": False,
        }
    }  # fmt: skip


UP_TO_90 = record(total={"type": "number", "maximum": 90})
TWO = record(total={"type": "number"}, tone={"type": "string"})
OR_NULL = record(total={"anyOf": [{"type": "number"}, {"type": "null"}]})
CASES: dict[str, tuple[Any, tuple[Written, ...], tuple[object, ...]]] = {
    "a label has the product of its tokens, and the one other that fits": (
        LABEL, ('{"tone":"', ("g", 0.8, {"sad": 0.2}), ("lad", 0.75, {"rim": 0.25}), '"}'),
        (0.6, "grim", 0.2)),
    "an alternative that leaves two labels open names none": (
        LABEL, ('{"tone":"', ("sad", 0.6, {"g": 0.4}), '"}'), (0.6, None, None)),
    "another way to spell the same label counts for it": (
        LABEL, ('{"tone":"', ("sad", 0.6, {"s": 0.3, "grim": 0.1}), '"}'), (0.9, "grim", 0.1)),
    # `:"s` against `:"gl` decides the label; `: ` would be another way to write the form.
    "a token that begins before the field counts from the field's own signs": (
        LABEL, ('{"tone"', (':"s', 0.5, {':"gl': 0.2, ": ": 0.3}), "ad", '"}'),
        (0.7143, "glad", 0.2857)),
    "a number has ended only with the sign after it": (
        NUMBER, ('{"total":', "8", "4", ("}", 0.6, {"0": 0.4})), (0.6, 840, 0.4)),
    "all signs that end a number count together": (
        TWO, ('{"total":', "84", (",", 0.5, {',"': 0.3, "0": 0.2}), '"tone":"', "x", '"}'),
        (0.8, 840, 0.2)),
    "a digit in place of another is completed by what follows": (
        NUMBER, ('{"total":', ("8", 0.62, {"9": 0.3, "-": 0.08}), "4", ".", "00", "}"),
        (0.62, 94.0, 0.3)),
    "a runner-up beyond the maximum is not named": (
        UP_TO_90, ('{"total":', ("8", 0.62, {"9": 0.3}), "4", "}"), (0.62, None, None)),
    "nor one that is no day, since there is no month 21": (
        DAY, ('{"day":"2026-', ("1", 0.7, {"2": 0.3}), '1-05"}'), (0.7, None, None)),
    "a month in place of another": (
        DAY, ('{"day":"2026-1', ("1", 0.7, {"2": 0.3}), '-05"}'), (0.7, "2026-12-05", 0.3)),
    "of words nothing is guessed": (
        TEXT, ('{"name":"', ("Paris", 0.7, {"Lon": 0.3}), '"}'), (0.7, None, None)),
    "but an ended text is known": (
        TEXT, ('{"name":"Ann', ("a", 0.7, {'"}': 0.3}), '"}'), (0.7, "Ann", 0.3)),
    "and a number": (
        TEXT, ('{"name":"INV-', ("12", 0.7, {"72": 0.3}), '"}'), (0.7, "INV-72", 0.3)),
    "null in place of a value is a runner-up": (
        OR_NULL, ('{"total":', ("8", 0.55, {"null": 0.45}), "4", "}"), (0.55, None, 0.45)),
    "yes and no": (
        record(is_paid={"type": "boolean"}), ('{"is_paid":', ("tr", 0.9, {"f": 0.1}), "ue}"),
        (0.9, False, 0.1)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_field_is_as_sure_as_its_own_tokens_and_names_the_runner_up(case: str) -> None:
    schema, written, expected = CASES[case]
    assert brief(next(iter(of(schema, *written).values()))) == expected


def test_lists_and_objects_are_mirrored_with_references_followed() -> None:
    schema = {
        "$defs": {"unit": {"enum": ["kg", "m"]}},
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": record(unit={"$ref": "#/$defs/unit"})},
            "none": {"type": "array"},
        },
    }
    found = of(
        schema, '{"items":[{"unit":"', ("kg", 0.9, {"m": 0.1}), '"},{"unit":"',
        ("m", 0.7, {"kg": 0.3}), '"}],"none":[]}',
    )  # fmt: skip
    assert [brief(one["unit"]) for one in found["items"]] == [(0.9, "m", 0.1), (0.7, "kg", 0.3)]
    assert found["none"] == []


def test_the_sign_between_two_items_decides_the_first_of_them_only() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    found = of(schema, '["a', ('","', 0.6, {'"]': 0.3, "b": 0.1}), 'b"]')
    assert [one["p"] for one in found] == [0.9, 1.0]


def test_white_space_between_values_and_signs_of_several_bytes() -> None:
    schema = record(größe={"type": "string"}, n={"type": "integer"})
    said: list[Written] = [
        '{\n "größe" : "',
        ("gr", 0.5, {}),
        "oß",
        '" ,\n "n": ',
        ("3", 0.25, {}),
        " \n}",
    ]
    found = of(schema, *said)
    assert (found["größe"]["p"], found["n"]["p"]) == (0.5, 0.25)


def test_reasoning_before_and_signs_after_the_answer_are_left_out() -> None:
    told = tokens('<think>{"tone":"sad"}?</think>', '{"tone":"', ("sad", 0.5, {}), '"}', "<|end|>")
    found = confidence('{"tone":"sad"}', told, {"tone": "sad"}, LABEL)
    assert found["tone"]["p"] == 0.5


def test_it_is_unknown_without_log_probabilities_or_with_those_of_another_text() -> None:
    assert confidence('{"tone":"sad"}', (), {"tone": "sad"}, LABEL) is None
    assert confidence('{"tone":"sad"}', tokens("Ġsad"), {"tone": "sad"}, LABEL) is None


def test_of_fields_with_the_same_name_the_last_one_counts() -> None:
    found = of({}, '{"a":', ("1", 0.5, {}), ',"a":', ("2", 0.25, {}), "}")
    assert found["a"]["p"] == 0.25
    assert leaf_spans(b'{"a":1,"a":2}')["a",].start == 11


def test_an_empty_field_that_the_schema_requires_is_sure_of_nothing() -> None:
    written = '{"name":"', ('"', 0.9, {"A": 0.1}), "}"
    found = of(TEXT, *written)["name"]
    assert (found["p"], found["raw"], found["is_empty"]) == (0.0, 0.9, True)
    optional = record(name={"type": ["string", "null"]})
    assert of(optional, *written)["name"]["p"] == 0.9
    listed = record(tags={"type": "array", "minItems": 1})
    assert of(listed, '{"tags":', "[]", "}")["tags"]["p"] == 0.0
    assert of(record(tags={"type": "array"}), '{"tags":', "[]", "}")["tags"] == []
