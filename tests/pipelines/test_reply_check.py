"""A check says in plain words what is wrong, and what it can never look at before it runs."""

# ruff: noqa: RUF001 - words of many scripts

from typing import Any

import pytest

from paddock.pipelines.checking.functions import BUILT_IN
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.reply_check import Check


def failures(source: str, output: Any = None, **scope: Any) -> list[str]:
    return Check.of(source).failures({"output": output, **scope}, {**BUILT_IN, **OWN})


def shouts(value: str) -> str | None:
    return "Say it in small letters." if value.isupper() else None


OWN = {"shouts": shouts, "never": lambda value: False, "size": len}


@pytest.mark.parametrize(
    ("source", "output", "sentences"),
    [
        ("shouts(output)", "LOUD", ["Say it in small letters."]),
        ("shouts(output.name)", {"name": "LOUD"}, ["`name`: Say it in small letters."]),
        ("output.n > 3", {"n": 2}, ["This must be true: output.n > 3."]),
        ("size(output) < 3", "long", ["This must be true: size(output) < 3 (size is 4)."]),
        ("never(output)", "x", ["This must be true: never(output)."]),
        ("not shouts(output)", "low", ["This must be true: not shouts(output)."]),
        ("shouts(output.a) or words(output.b, most=1)", {"a": "A", "b": "b c"},
         ["Say it in small letters.", "It has 2 words; write at most 1."]),
        ("words(output.a, most=1)", {"a": "b c d"}, ["`a`: It has 3 words; write at most 1."]),
        ("words(output.a, most=0)", {"a": "b"}, ["`a`: It has 1 word; write at most 0."]),
    ],
)  # fmt: skip
def test_what_is_not_true_is_said_by_the_function_or_by_the_check(
    source: str, output: Any, sentences: list[str]
) -> None:
    assert failures(source, output) == sentences


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("words(output.b)", "there is no 'b' here (in 'words(output.b)'). Known: 'a'."),
        ("unique(output.a)", "'unique(output.a)' failed: `unique` takes a list"),
        ("words(output, most='x')",
         "'words(output, most='x')' failed: a bound must be a whole number"),
        ("words(output, least=-1)",
         "'words(output, least=-1)' failed: a bound must be a whole number"),
        ("matches(output.a, '(?=x)')",
         "'matches(output.a, '(?=x)')' failed: the pattern '(?=x)' cannot be used: look-around"),
    ],
)  # fmt: skip
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
        ("language(text, 'Klingon')",
         "`language`: there is no language 'Klingon'; write a code such as 'de'"),
        ("matches(text, output.p) and language(text, inputs.l, 'pt-BR', 'Welsh'[:2])", None),
    ],
)  # fmt: skip
def test_what_is_written_out_is_looked_at_in_advance(source: str, sentence: str | None) -> None:
    told = [message for message, _ in Check.of(source).faults(BUILT_IN)]
    assert told == ([] if sentence is None else [sentence])


def test_functions_are_no_names_that_a_check_reads() -> None:
    check = Check.of("numbers_found(output.a, source=steps.text.text) or range(3)")
    assert check.references == {("output", "a"), ("steps", "text", "text")}


def test_without_evidence_nothing_can_be_located() -> None:
    with pytest.raises(ExpressionError, match="`located` needs the evidence of the answer"):
        failures("located(output)", {"n": 1})


@pytest.mark.parametrize(
    ("source", "text", "is_right"),
    [
        (r"matches(output, '^\\d+$')", "123", True),
        (r"matches(output, '^\\d+$')", "١٢٣", False),
        (r"matches(output, '^\\w$')", "ä", False),
        (r"matches(output, '(?i)^yes\\b')", "Yes, sir", True),
        ("contains(output, 'café')", "Das Cafe\u0301", True),
        ("contains(output, 'Fähre')", "Die Fäh\u00adre", True),
        ("contains(output, 'istanbul')", "İstanbul", True),
        ("lacks(output, 'as an AI')", "As an A\u200bI", False),
        ("lacks(output, '\\n')", "two\nlines", False),
        ("one_of(output, [1, 2])", True, False),
        ("unique(output)", [1, 1.0], False),
        ("unique(output)", [{"a": 1, "b": "x"}, {"b": "X", "a": 1}], False),
        ("unique(output)", ["café", "cafe\u0301"], False),
        ("is_email(output)", "ann+x@sub.example.org", True),
        ("is_email(output)", "müller@fähre.example", True),
        ("is_email(output)", "a..b@example.org", False),
        ("is_email(output)", "ann@-example.org", False),
        ("is_url(output)", "http://[::1]:8080/", True),
        ("is_url(output)", "https://a.example:99999/", False),
        ("cites(output, ['a', 'b'])", "浮いている【2】", True),
        ("cites(output, ['a', 'b'])", "It floats [1], 【4】", False),
    ],
)
def test_a_check_minds_what_is_seen_and_meant(source: str, text: Any, is_right: bool) -> None:
    assert (failures(source, text) == []) == is_right


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("नमस्ते दुनिया", 2),
        ("کتاب\u200cخانه ملی", 2),
        ("cafe\u0301 noir, co\u2011op", 3),
        ("渡船九点", 4),
        ("e-mail ann@example.org at 3,000.50", 4),
    ],
)
def test_marks_and_unseen_signs_end_no_word(text: str, n: int) -> None:
    assert BUILT_IN["words"](text) == n


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("Das gilt z. B. am 3. Mai.", 1),
        ("A. B. Carter wrote it. Why?", 2),
        ("Er sagte: „Ja.“ Dann ging er.", 2),
        ("هل أنت هنا؟ نعم.", 2),
        ("今日は。明日！", 2),
        ("No mark\n\nNor here", 2),
        ("", 0),
    ],
)
def test_sentences_end_at_the_marks_of_their_script_and_not_at_abbreviations(
    text: str, n: int
) -> None:
    assert BUILT_IN["sentences"](text) == n
