"""Answers are held to a schema, an expression or a grammar, over the real vocabulary."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint
from paddock.engine.sampling.constraint import TokenMatcher, as_lark, compile_error
from tests.engine.sampling.world import matcher, model


def text(token_matcher: TokenMatcher, answer: str) -> bool:
    return token_matcher.new().take(token_matcher.vocabulary.tokens_of(answer.encode()))


def test_json_is_compact() -> None:
    token_matcher = matcher(Constraint("json"))
    assert text(token_matcher, '{"a":[1,{"b":null}],"c":"x y"}')
    assert not text(token_matcher, '{ "a"')
    assert not text(token_matcher, '{"a": 1')
    assert not text(token_matcher, "[1]")


def test_what_is_forced_is_known() -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    token_matcher = matcher(Constraint("json_schema", json.dumps(schema)))
    assert token_matcher.vocabulary.bytes_of(token_matcher.forced_tokens()).startswith(b'{"title')
    assert token_matcher.take(token_matcher.vocabulary.tokens_of(b'{"title":"'))
    assert token_matcher.forced_tokens() == []


def test_answers_to_one_grammar_share_what_was_worked_out_and_nothing_else() -> None:
    constraint = Constraint("regex", "one|two|three of them")
    alone = matcher(constraint).mask()
    first, other = matcher(constraint), matcher(constraint)
    assert first.take(first.vocabulary.tokens_of(b"t"))
    first.close()
    again = matcher(constraint)
    assert np.array_equal(again.mask(), alone), "it begins where an answer begins"
    assert other.take(other.vocabulary.tokens_of(b"one"))
    assert other.may_end
    assert not again.may_end


def test_an_end_is_allowed_only_where_the_answer_is_whole() -> None:
    token_matcher = matcher(Constraint("regex", "ab*"))
    (end, *_) = token_matcher.vocabulary.ends
    assert not token_matcher.allows(end)
    assert token_matcher.take(token_matcher.vocabulary.tokens_of(b"a"))
    assert token_matcher.allows(end)
    assert token_matcher.may_end
    assert not token_matcher.must_end


def test_masks_made_next_to_are_those_made_on_the_spot() -> None:
    sources = ["[0-9]+", "(yes|no)", ".*", "a{3}"]
    matchers = [matcher(Constraint("regex", source)) for source in sources]
    alone = [regex_matcher.new().mask() for regex_matcher in matchers]
    TokenMatcher.begin_masks(matchers)
    assert all(regex_matcher.has_mask for regex_matcher in matchers)
    for regex_matcher, mask in zip(matchers, alone, strict=True):
        assert np.array_equal(regex_matcher.mask(), mask)
        assert len(mask) * 8 >= model().n_vocab


@pytest.mark.parametrize(
    ("pattern", "is_accepted"),
    [
        (r"\d", {"1": True, "٣": False, "२": False, "\U0001fbf8": False, "a": False}),
        (r"[\d.]", {"1": True, ".": True, "٣": False, "[": False, "\\": False}),
        (r"\D", {"1": False, "٣": True, "a": True}),
        (r"[^\d]", {"1": False, "٣": True, "a": True}),
        (r"\w", {"a": True, "_": True, "9": True, "é": False, "\U0001fbf1": False, "中": False}),
        (r"[\w-]", {"a": True, "-": True, "é": False}),
        (r"\W", {"a": False, "é": True, " ": True}),
        (r".", {"a": True, "é": True, "\U0001fbf8": True, "\n": False}),
        (r"(?s:.)", {"\n": True}),
        (r"[a-zé]", {"é": True}),
        (r"\p{Nd}", {"٣": True}),
        (r"\\d", {"\\d": True, "1": False}),
        (r"No\. \d{3,5}", {"No. 2018": True, "No. 2018\U0001fbf8": False}),
        (r"\d/\d", {"1/2": True, "٣/٣": False}),
        (r"\d\/\d", {"1/2": True, "٣/٣": False}),
        (r"\b\d", None),
        (r"\d\b", None),
        (r"\B", None),
    ],
)
def test_a_pattern_means_the_same_however_it_comes_in(
    pattern: str, is_accepted: dict[str, bool] | None
) -> None:
    in_lark = pattern.replace("\\/", "/").replace("/", "\\/")
    grammar = f'start: "" _x ""  // 1/\\d/"\n# and /"\n_x: /{in_lark}/'
    ways: dict[Constraint, Callable[[str], str]] = {
        Constraint("regex", pattern): str,
        Constraint("lark", grammar): str,
        Constraint("lark", f"start: part\npart: %lark {{\nstart: /{in_lark}/\n}}"): str,
        Constraint("json_schema", json.dumps({"type": "string", "pattern": f"^(?:{pattern})$"})): (
            lambda answer: json.dumps(answer, ensure_ascii=False)
        ),
    }
    for constraint, spelt in ways.items():
        if is_accepted is None:
            with pytest.raises(BadRequest):
                matcher(constraint)
            continue
        for answer, is_right in is_accepted.items():
            token_matcher = matcher(constraint)
            taken = token_matcher.take(token_matcher.vocabulary.tokens_of(spelt(answer).encode()))
            assert (taken and token_matcher.may_end) is is_right, (constraint, answer)


@pytest.mark.parametrize(
    ("grammar", "is_accepted"),
    [
        (r'root ::= "caf\u00e9"', {"café": True, "cafe": False}),
        (r'root ::= "\u0041\u0000"', {"A\0": True, "A": False}),
        (r'root ::= "\U0001F600"', {"😀": True}),
        (r'root ::= "\xe9\x41"', {"éA": True}),
        (r'root ::= "\u005c\u0022"', {'\\"': True}),
        (r'root ::= "\\u0041"', {r"\u0041": True, "A": False}),
        (r"root ::= [a-z\u00c0-\u00ff]+", {"é": True, "zÿa": True, "Ā": False, "A": False}),
        (r"root ::= [\u0000-\u001f]", {"\n": True, " ": False}),
        (r"root ::= [^\u0041]", {"B": True, "A": False, "\n": True}),
        (r"root ::= [\U0001F600-\U0001F64F]", {"😃": True, "a": False}),
        (r"root ::= [\u005d\u005b]", {"]": True, "[": True, "u": False}),
        (r"root ::= [a&&b]", {"a": True, "&": True, "b": True, "c": False}),
        (r"root ::= [a~~b]+", {"a~b": True, "c": False}),
        ('root ::= "a&&b~~" # && "x"', {"a&&b~~": True}),
        ("root ::= .", {"\n": True, "é": True, "ab": False}),
        ('root ::= "a\u2028b" x\r\nx ::= "c"', {"a\u2028bc": True}),
        ('root ::= "." [.] . "/./"', {"..\n/./": True, "..x/x/": False}),
        (r'root ::= "\u12"', None),
        (r'root ::= "\ud800"', None),
        (r'root ::= "\U00110000"', None),
        (r'root ::= "\q"', None),
    ],
)
def test_gbnf_is_read_as_llama_cpp_reads_it(
    grammar: str, is_accepted: dict[str, bool] | None
) -> None:
    if is_accepted is None:
        with pytest.raises(BadRequest):
            matcher(Constraint("gbnf", grammar))
        return
    for answer, is_right in is_accepted.items():
        token_matcher = matcher(Constraint("gbnf", grammar))
        taken = token_matcher.take(token_matcher.vocabulary.tokens_of(answer.encode()))
        assert (taken and token_matcher.may_end) is is_right, answer


def test_texts_and_comments_of_a_grammar_are_no_patterns() -> None:
    grammar = 'start: "a/\\\\d/" /\\d/i "\\"/\\\\d/"  // "/\\d\n'
    assert text(matcher(Constraint("lark", grammar)), 'a/\\d/1"/\\d/')


@pytest.mark.parametrize(
    ("kind", "source", "why"),
    [
        ("gbnf", 'root ::= "a', "read: line 1, column 12: Unexpected end of input"),
        ("gbnf", 'root ::= a\n# one\na ::= (("b")', "read: line 3, column 13: Expected ')'"),
        ("gbnf", 'root ::= "\\u00e9" )', "read: line 1, column 19: Expected name"),
        ("gbnf", 'root ::= "a" b\n\nb ::= b c', "read: line 3, column 9: Rule 'c' not found"),
        ("gbnf", 'root ::= "\\uD800"', "'\\uD800' is no character"),
        ("gbnf", "root ::= " + "(" * 30_000, "it is nested too deeply"),
        ("gbnf", 'root ::= x-y\nx-y ::= [z-a]', "the GBNF grammar cannot be used: line 2, rule "
         "'x-y': invalid character class range, the start must be <= the end"),
        ("gbnf", 'root ::= "a"{3,1}', "used: line 1, rule 'root': range end must be >= start"),
        ("gbnf", "root ::= root", "the GBNF grammar cannot be used: no answer matches it"),
        ("lark", "start: foo", "used: line 1, column 8: unknown name: \"foo\""),
        ("lark", 'start: "a"\nstart: "b"', "the Lark grammar cannot be used: line 2, column 8:"),
        ("lark", "start: x\nx: /a(?=b)/", "used: line 2, column 4: look-around"),
        ("regex", "(a", "the regular expression cannot be used: at '(': unclosed group"),
        ("regex", r"x\d+[z-a]", "used: at 'z-a': invalid character class range"),
        ("regex", "a(?=b)", "used: at '(?=': look-around"),
        ("regex", r"\bword\b", r"used: `\b` and `\B`, and `^` and `$` within a pattern, are not"),
        ("regex", "a$b", r"used: `\b` and `\B`, and `^` and `$` within a pattern, are not"),
        ("lark", r"start: /a\Bb/", r"column 8: `\b` and `\B`, and `^` and `$` within a pattern, "),
        ("json_schema", '{"properties": {"a": {"pattern": "("}}}', "at /properties/a/pattern:"),
    ],
)  # fmt: skip
def test_a_fault_is_told_in_the_words_and_places_of_its_notation(
    kind: Any, source: str, why: str
) -> None:
    try:
        found = compile_error(as_lark(Constraint(kind, source)))
    except BadRequest as error:
        found = str(error)
    assert why in found


def test_half_characters_are_never_whole_answers() -> None:
    token_matcher = matcher(Constraint("regex", "é+"))
    assert token_matcher.take(token_matcher.vocabulary.tokens_of(b"\xc3"))
    assert not token_matcher.may_end
    assert token_matcher.take(token_matcher.vocabulary.tokens_of(b"\xa9"))
    assert token_matcher.may_end
