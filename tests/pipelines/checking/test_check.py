"""A check says in plain words what is wrong, and what it can never look at before it runs."""

from __future__ import annotations

from typing import Any

import pytest

from paddock.pipelines.checking.check import Check
from paddock.pipelines.checking.functions import BUILT_IN
from paddock.pipelines.expressions import ExpressionError


def failures(source: str, output: Any = None, **scope: Any) -> list[str]:
    return Check.of(source).failures({"output": output, **scope}, {**BUILT_IN, **OWN})


def shouts(value: str) -> str | None:
    return "Say it in small letters." if value.isupper() else None


OWN = {"shouts": shouts, "never": lambda value: False, "size": len}


def test_what_is_true_has_no_failures() -> None:
    assert failures("words(output.gist) <= 3 and 'a' in output.gist", {"gist": "a b c"}) == []
    assert failures("shouts(output)", "low") == []
    assert failures("true") == []


@pytest.mark.parametrize(
    ("source", "output", "sentences"),
    [
        ("shouts(output)", "LOUD", ["Say it in small letters."]),
        ("shouts(output.name)", {"name": "LOUD"}, ["`name`: Say it in small letters."]),
        ("output.n > 3", {"n": 2}, ["This must be true: output.n > 3."]),
        ("size(output) < 3", "long", ["This must be true: size(output) < 3 (size is 4)."]),
        ("never(output)", "x", ["This must be true: never(output)."]),
        ("not shouts(output)", "low", ["This must be true: not shouts(output)."]),
        (
            "shouts(output.a) or words(output.b, most=1)",
            {"a": "A", "b": "b c"},
            ["Say it in small letters.", "It has 2 words; write at most 1."],
        ),
        ("words(output.a, most=1)", {"a": "b c d"}, ["`a`: It has 3 words; write at most 1."]),
    ],
)
def test_what_is_not_true_is_said_by_the_function_or_by_the_check(
    source: str, output: Any, sentences: list[str]
) -> None:
    assert failures(source, output) == sentences


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("words(output.b)", "there is no 'b' here (in 'words(output.b)'). Known: 'a'."),
        ("unique(output.a)", "'unique(output.a)' failed: `unique` takes a list"),
        (
            "words(output, most='x')",
            "'words(output, most='x')' failed: a bound must be a whole number",
        ),
        (
            "matches(output.a, '(?=x)')",
            "'matches(output.a, '(?=x)')' failed: the pattern '(?=x)' cannot be used: look-around",
        ),
    ],
)
def test_a_check_that_cannot_be_evaluated_says_why(source: str, why: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        failures(source, {"a": "x"})
    assert str(caught.value).startswith(why)


def test_calls_that_can_never_work_are_found_in_advance() -> None:
    check = Check.of("wrods(text) < 3 and words() and words(text, 1, 2, 3) and words(*[text])")
    assert [message for message, _ in check.faults(BUILT_IN)] == [
        "there is no check function 'wrods'",
        "`words`: missing a required argument: 'value'",
        "`words`: too many positional arguments",
    ]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("matches(text, '(')", "`matches`: the pattern '(' cannot be used: unclosed group"),
        (
            "language(text, 'Klingon')",
            "`language`: there is no language 'Klingon'; write a code such as 'de'",
        ),
        ("matches(text, output.p) and language(text, inputs.l, 'pt-BR', 'Welsh'[:2])", None),
    ],
)
def test_what_is_written_out_is_looked_at_in_advance(source: str, sentence: str | None) -> None:
    told = [message for message, _ in Check.of(source).faults(BUILT_IN)]
    assert told == ([] if sentence is None else [sentence])


def test_functions_are_no_names_that_a_check_reads() -> None:
    check = Check.of("grounded(output.a, source=steps.text.text) or range(3)")
    assert check.references == {("output", "a"), ("steps", "text", "text")}


LOCATED = {
    "output": {"total": 84.5, "name": "Ann", "rows": [{"n": 3}, {"n": 4}], "note": None},
    "evidence": {
        "total": {"match": "none"},
        "name": {"match": "fuzzy"},
        "rows": [{"n": {"match": "exact"}}, {"n": {"match": "none"}}],
        "note": None,
    },
}
"""An answer and the evidence of it, as a check's scope has them."""


@pytest.mark.parametrize(
    ("source", "sentences"),
    [
        (
            "located(output)",
            [
                "This is not in the source: total (84.5), name (Ann), rows.1.n (4). Use only what"
                " is in it."
            ],
        ),
        (
            "located(output.name)",
            ["`name`: This is not in the source: name (Ann). Use only what is in it."],
        ),
        ("located(output.rows[0])", []),
        ("located(output.note)", []),
        (
            "located(output.total)",
            ["`total`: This is not in the source: total (84.5). Use only what is in it."],
        ),
        (
            "located(output.rows)",
            ["`rows`: This is not in the source: rows.1.n (4). Use only what is in it."],
        ),
    ],
)
def test_values_without_evidence_are_named_with_their_fields(
    source: str, sentences: list[str]
) -> None:
    assert Check.of(source).failures(LOCATED, BUILT_IN) == sentences


def test_without_evidence_nothing_can_be_located() -> None:
    with pytest.raises(ExpressionError, match="`located` needs the evidence of the answer"):
        failures("located(output)", {"n": 1})


def test_only_what_is_written_in_a_check_is_named_as_its_parameters() -> None:
    assert [*Check.of("located()").faults(BUILT_IN)] == [
        ("`located`: missing a required argument: 'value'", "It takes `value`.")
    ]
