from typing import Any

import pytest

from paddock.runner.compare.metrics import (
    FieldMetric,
    GoldNotFitting,
    edit_similarity,
    field_metrics,
    list_f1,
)

SCHEMA = {
    "type": "object",
    "properties": {
        "number": {"type": "string"},
        "total": {"type": "number"},
        "pay_by": {"type": "string", "format": "date"},
        "topic": {"enum": ["sport", "food"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"type": "string"},
        "paid": {"type": "boolean"},
    },
}


def metric(kind: Any, tolerance: float = 0.0) -> FieldMetric:
    return FieldMetric("f", kind, tolerance)


def test_the_schema_and_the_values_choose_the_metric_of_a_field() -> None:
    golds: dict[str, list[Any]] = {
        "number": ["R-1", "R-2"], "total": ["84.5"], "pay_by": ["3 May 2024"], "topic": ["food"],
        "tags": [["a"]], "note": ["a longer text " * 9], "paid": ["true"],
    }  # fmt: skip
    found = {field.name: field.kind for field in field_metrics(SCHEMA, golds, {})}
    assert found == {
        "number": "exact", "total": "number", "pay_by": "date", "topic": "label", "tags": "list",
        "note": "text", "paid": "label",
    }  # fmt: skip
    (chosen,) = field_metrics(SCHEMA, {"total": ["1"]}, {"total": ("number", 0.01)})
    assert (chosen.kind, chosen.tolerance) == ("number", 0.01)


def test_a_text_answer_is_a_label_where_gold_repeats_and_else_exact_or_a_text() -> None:
    def kind(*golds: str) -> str:
        return field_metrics(None, {"": golds}, {})[0].kind

    assert kind("food", "sport", "food", "sport ") == "label"
    assert kind("R-1", "R-2", "R-3") == "exact"
    assert kind("two\nlines", "one") == "text"


@pytest.mark.parametrize(
    ("kind", "tolerance", "answer", "gold", "score"),
    [
        ("exact", 0, " R-1\n", "R-1", 1),
        ("exact", 0, "Mu\u0308ller", "Müller", 1),
        ("label", 0, "Mu\u0308ller", "Müller", 1),
        ("exact", 0, {"a": 1}, {"a": 1.0}, 1),
        ("exact", 0, 1, True, 0),
        ("number", 0, 84.5, "84.50", 1),
        ("number", 0.01, "84.49", 84.5, 1),
        ("number", 0, 84.49, 84.5, 0),
        ("number", 0, "n/a", 84.5, 0),
        ("number", 0, 10**400, 84.5, 0),
        ("list", 0, [10**400], [10**400, 1], 2 / 3),
        ("exact", 0, 10**400, 1.5, 0),
        ("label", 0, 10**400, "food", 0),
        ("date", 0, "2024-05-03", "3 May 2024", 1),
        ("date", 0, "2024-05-04", "3 May 2024", 0),
        ("date", 0, "soon", "3 May 2024", 0),
        ("label", 0, " Food", "food", 1),
        ("label", 0, True, "true", 1),
        ("list", 0, ["B", "a"], ["a", "b"], 1),
        ("list", 0, ["a"], "a; b", 2 / 3),
        ("list", 0, "a", ["a"], 0),
        ("text", 0, "the  ferry", "the ferry", 1),
        ("text", 0, None, "the ferry", 0),
    ],
)
def test_an_answer_gets_its_score(
    kind: Any, tolerance: float, answer: Any, gold: Any, score: float
) -> None:
    field_metric = metric(kind, tolerance)
    assert field_metric.score(answer, field_metric.gold(gold)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("kind", "gold", "words"),
    [
        ("number", "n/a", "\"n/a\" is no number, so metric 'number' does not fit it"),
        ("number", "nan", "\"nan\" is no number, so metric 'number' does not fit it"),
        ("number", "inf", "\"inf\" is no number, so metric 'number' does not fit it"),
        ("number", 10**400, f"1{'0' * 39} is no number, so metric 'number' does not fit it"),
        ("date", "soon", "\"soon\" is no date, so metric 'date' does not fit it"),
        ("list", {"a": 1}, "{\"a\": 1} is no list, so metric 'list' does not fit it"),
        ("text", 3, "3 is no text, so metric 'text' does not fit it"),
        ("label", ["a"], "[\"a\"] is no label, so metric 'label' does not fit it"),
    ],
)
def test_a_metric_that_does_not_fit_its_gold_is_a_sentence(
    kind: Any, gold: Any, words: str
) -> None:
    with pytest.raises(GoldNotFitting) as caught:
        metric(kind).gold(gold)
    assert str(caught.value) == words


def test_lists_of_objects_are_aligned_so_that_a_missing_one_costs_itself_alone() -> None:
    lines = [{"name": name, "price": price} for price, name in enumerate("abcd")]
    assert list_f1(lines[1:], lines) == pytest.approx(2 * 3 / 7)
    assert list_f1([], []) == 1.0
    assert list_f1([], lines) == 0.0


@pytest.mark.parametrize("text", ["中文" * 4_000, "wörd " * 9_000, '{"a":[1,2]},' * 700])
def test_one_other_character_in_a_very_long_text_costs_little_with_or_without_spaces(
    text: str,
) -> None:
    assert 0.999 < edit_similarity(text + "x", text) < 1.0
    assert edit_similarity("q" * len(text), text) < 0.1
