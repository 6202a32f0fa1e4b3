"""Answers are held to a schema, an expression or a grammar, over the real vocabulary."""

from __future__ import annotations

import json

import numpy as np
import pytest

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint
from paddock.engine.sampling.constraint import TokenMatcher
from tests.engine.sampling.world import grammars, matcher, model


def text(one: TokenMatcher, said: str) -> bool:
    return one.new().take(one.vocabulary.tokens_of(said.encode()))


def test_json_is_compact() -> None:
    one = matcher(Constraint("json"))
    assert text(one, '{"a":[1,{"b":null}],"c":"x y"}')
    assert not text(one, '{ "a"')
    assert not text(one, '{"a": 1')
    assert not text(one, "[1]")


def test_what_is_forced_is_known() -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    one = matcher(Constraint("json_schema", json.dumps(schema)))
    assert one.vocabulary.bytes_of(one.forced_tokens()).startswith(b'{"title')
    assert one.take(one.vocabulary.tokens_of(b'{"title":"'))
    assert one.forced_tokens() == []


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


def test_an_answer_that_failed_leaves_nothing_to_others() -> None:
    constraint = Constraint("regex", "one|two")
    failed = matcher(constraint)
    assert not failed.take(failed.vocabulary.tokens_of(b"x"))
    failed.close()
    assert matcher(constraint).take(failed.vocabulary.tokens_of(b"two"))


def test_an_end_is_allowed_only_where_the_answer_is_whole() -> None:
    one = matcher(Constraint("regex", "ab*"))
    (end, *_) = one.vocabulary.ends
    assert not one.allows(end)
    assert one.take(one.vocabulary.tokens_of(b"a"))
    assert one.allows(end)
    assert one.may_end
    assert not one.must_end


def test_masks_made_next_to_are_those_made_on_the_spot() -> None:
    sources = ["[0-9]+", "(yes|no)", ".*", "a{3}"]
    ones = [matcher(Constraint("regex", source)) for source in sources]
    alone = [one.new().mask() for one in ones]
    TokenMatcher.begin_masks(ones)
    assert all(one.has_mask for one in ones)
    for one, mask in zip(ones, alone, strict=True):
        assert np.array_equal(one.mask(), mask)
        assert len(mask) * 8 >= model().n_vocab


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (
            Constraint("json_schema", "{"),
            "the JSON Schema is not JSON: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1)",
        ),
        (
            Constraint("json_schema", '{"type": "array", "uniqueItems": true}'),
            "the JSON Schema cannot be enforced:\n"
            "  at /uniqueItems: `uniqueItems` cannot be enforced while the answer is generated. "
            "Remove it, and check the answer afterwards.",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_in_plain_words(
    constraint: Constraint, text: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        grammars().matcher(constraint)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (Constraint("regex", "(a"), "the regular expression cannot be used: .*unclosed group"),
        (Constraint("lark", "start: foo"), 'the Lark grammar cannot be used: .*name: "foo"'),
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused_with_its_place(
    constraint: Constraint, text: str
) -> None:
    with pytest.raises(BadRequest, match=f"(?s){text}"):
        grammars().matcher(constraint)


def test_half_characters_are_never_whole_answers() -> None:
    one = matcher(Constraint("regex", "é+"))
    assert one.take(one.vocabulary.tokens_of(b"\xc3"))
    assert not one.may_end
    assert one.take(one.vocabulary.tokens_of(b"\xa9"))
    assert one.may_end
