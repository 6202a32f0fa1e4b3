"""The probability of each field of an answer, and its runner-up, from the tokens' probabilities."""

import json
import math
from typing import Any

from paddock.engine.request import TokenLogprob
from paddock.steps.llm.confidence import confidence, leaf_spans

Written = str | tuple[str, float, dict[str, float]]
"""A forced token; or a token with its probability, and those of its alternatives."""


def tokens(*written: Written) -> list[TokenLogprob]:
    found = []
    for one in written:
        text, p, others = (one, 1.0, {}) if isinstance(one, str) else one
        likely = sorted({text: p, **others}.items(), key=lambda item: -item[1])
        top = tuple((raw, math.log(share), raw.encode()) for raw, share in likely)
        found.append(TokenLogprob(text, math.log(p), text.encode(), top))
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


def test_a_label_has_the_product_of_its_tokens_and_the_one_other_that_fits() -> None:
    found = of(LABEL, '{"tone":"', ("g", 0.8, {"sad": 0.2}), ("lad", 0.75, {"rim": 0.25}), '"}')
    assert brief(found["tone"]) == (0.6, "grim", 0.2)


def test_an_alternative_that_leaves_two_labels_open_names_none() -> None:
    found = of(LABEL, '{"tone":"', ("sad", 0.6, {"g": 0.4}), '"}')
    assert brief(found["tone"]) == (0.6, None, None)


def test_another_way_to_spell_the_same_label_counts_for_it() -> None:
    found = of(LABEL, '{"tone":"', ("sad", 0.6, {"s": 0.3, "grim": 0.1}), '"}')
    assert brief(found["tone"]) == (0.9, "grim", 0.1)


def test_a_token_that_begins_before_the_field_counts_from_the_fields_own_signs() -> None:
    """`:"s` against `:"gl` decides the label; `: ` would be another way to write the form."""
    likely = {':"gl': 0.2, ": ": 0.3}
    found = of(LABEL, '{"tone"', (':"s', 0.5, likely), "ad", '"}')
    assert brief(found["tone"]) == (0.7143, "glad", 0.2857)


def test_a_number_has_ended_only_with_the_sign_after_it() -> None:
    found = of(NUMBER, '{"total":', "8", "4", ("}", 0.6, {"0": 0.4}))
    assert brief(found["total"]) == (0.6, 840, 0.4)


def test_all_signs_that_end_a_number_count_together() -> None:
    schema = record(total={"type": "number"}, tone={"type": "string"})
    found = of(schema, '{"total":', "84", (",", 0.5, {',"': 0.3, "0": 0.2}), '"tone":"', "x", '"}')
    assert brief(found["total"]) == (0.8, 840, 0.2)


def test_a_digit_in_place_of_another_is_completed_by_what_follows() -> None:
    found = of(NUMBER, '{"total":', ("8", 0.62, {"9": 0.3, "-": 0.08}), "4", ".", "00", "}")
    assert brief(found["total"]) == (0.62, 94.0, 0.3)


def test_a_runner_up_that_is_no_valid_value_is_not_named() -> None:
    ends_in = record(total={"type": "number", "maximum": 90})
    found = of(ends_in, '{"total":', ("8", 0.62, {"9": 0.3}), "4", "}")
    assert brief(found["total"]) == (0.62, None, None)
    found = of(DAY, '{"day":"2026-', ("1", 0.7, {"2": 0.3}), '1-05"}')  # there is no month 21
    assert brief(found["day"]) == (0.7, None, None)
    found = of(DAY, '{"day":"2026-1', ("1", 0.7, {"2": 0.3}), '-05"}')
    assert brief(found["day"]) == (0.7, "2026-12-05", 0.3)


def test_of_words_nothing_is_guessed_but_an_ended_text_is_known() -> None:
    found = of(TEXT, '{"name":"', ("Paris", 0.7, {"Lon": 0.3}), '"}')
    assert brief(found["name"]) == (0.7, None, None)
    found = of(TEXT, '{"name":"Ann', ("a", 0.7, {'"}': 0.3}), '"}')
    assert brief(found["name"]) == (0.7, "Ann", 0.3)
    found = of(TEXT, '{"name":"INV-', ("12", 0.7, {"72": 0.3}), '"}')
    assert brief(found["name"]) == (0.7, "INV-72", 0.3)


def test_null_in_place_of_a_value_is_a_runner_up() -> None:
    schema = record(total={"anyOf": [{"type": "number"}, {"type": "null"}]})
    found = of(schema, '{"total":', ("8", 0.55, {"null": 0.45}), "4", "}")
    assert brief(found["total"]) == (0.55, None, 0.45)


def test_yes_and_no() -> None:
    found = of(record(is_paid={"type": "boolean"}), '{"is_paid":', ("tr", 0.9, {"f": 0.1}), "ue}")
    assert brief(found["is_paid"]) == (0.9, False, 0.1)


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


def test_a_value_alone_is_a_field() -> None:
    assert brief(of({"enum": ["a", "b"]}, '"', ("a", 0.75, {"b": 0.25}), '"')) == (0.75, "b", 0.25)


def test_an_empty_field_that_the_schema_requires_is_sure_of_nothing() -> None:
    written = '{"name":"', ('"', 0.9, {"A": 0.1}), "}"
    found = of(TEXT, *written)["name"]
    assert (found["p"], found["raw"], found["is_empty"]) == (0.0, 0.9, True)
    optional = record(name={"type": ["string", "null"]})
    assert of(optional, *written)["name"]["p"] == 0.9
    listed = record(tags={"type": "array", "minItems": 1})
    assert of(listed, '{"tags":', "[]", "}")["tags"]["p"] == 0.0
    assert of(record(tags={"type": "array"}), '{"tags":', "[]", "}")["tags"] == []
