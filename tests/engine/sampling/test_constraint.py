"""Answers are held to a schema, an expression or a grammar, over the real vocabulary."""

import json

import numpy as np

from paddock.engine.request import Constraint
from paddock.engine.sampling.constraint import TokenMatcher
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


def test_half_characters_are_never_whole_answers() -> None:
    token_matcher = matcher(Constraint("regex", "é+"))
    assert token_matcher.take(token_matcher.vocabulary.tokens_of(b"\xc3"))
    assert not token_matcher.may_end
    assert token_matcher.take(token_matcher.vocabulary.tokens_of(b"\xa9"))
    assert token_matcher.may_end
