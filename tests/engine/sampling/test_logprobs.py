import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.arrays import Logits
from paddock.engine.request import LOWEST_LOGPROB, Constraint, Sampling
from paddock.engine.sampling.constraint import TokenMatcher
from paddock.engine.sampling.logits import FEW_FORBIDDEN_BYTES
from paddock.engine.sampling.logprobs import RowLogprobs
from paddock.engine.sampling.picker import Picker
from paddock.engine.system.records import replace
from tests.engine.sampling.world import matcher, model, tokens

PIECES = [b"a", b"\xc3", b"bc", b""]


def test_they_are_the_models_own() -> None:
    row = np.array([1.0, 3.0, 2.0, -np.inf], np.float32)
    likely = RowLogprobs(row, 2, PIECES.__getitem__)
    chosen = likely.of(2)
    norm = math.log(sum(math.exp(x) for x in (1, 3, 2)))
    assert (chosen.token, chosen.raw) == ("bc", b"bc")
    assert chosen.logprob == pytest.approx(2 - norm, abs=1e-5)
    assert [raw for raw, _ in chosen.top] == [b"\xc3", b"bc"]
    assert chosen.top[0][1] == pytest.approx(3 - norm, abs=1e-5)


def test_none_next_to_it_are_told_where_none_were_asked() -> None:
    assert RowLogprobs(np.zeros(4, np.float32), 0, PIECES.__getitem__).of(0).top == []


def test_large_logits_do_not_overflow() -> None:
    row = np.array([3e4, 3e4, 0.0, 0.0], np.float32)
    token = RowLogprobs(row, 1, PIECES.__getitem__).of(0)
    assert token.logprob == pytest.approx(math.log(0.5), abs=1e-4)


def mask_of(allowed: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> np.ndarray:
    return np.packbits(allowed, bitorder="little")


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    n_allowed=st.integers(1, 60),
    scale=st.sampled_from([0.1, 3.0, 40.0, 2e3]),
)
def test_the_masked_probabilities_of_a_row_add_up_to_one(
    seed: int, n_allowed: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    row = random.standard_normal(500, np.float32) * np.float32(scale)
    allowed = np.zeros(500, np.bool_)
    allowed[random.choice(500, n_allowed, replace=False)] = True
    likely = RowLogprobs(row, 60, lambda token: str(token).encode(), mask_of(allowed))
    top = likely.of(int(np.flatnonzero(allowed)[0])).top
    assert {int(raw) for raw, _ in top} == set(np.flatnonzero(allowed).tolist())
    assert sum(math.exp(logprob) for _, logprob in top) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("gap", [0.0, 30.0, 300.0])
def test_many_allowed_tokens_far_below_the_likeliest_of_all_keep_their_digits(gap: float) -> None:
    n = 16 * FEW_FORBIDDEN_BYTES
    row = np.random.default_rng(1).standard_normal(n, np.float32)
    row[0] += np.float32(gap)
    allowed = np.ones(n, np.bool_)
    allowed[0] = False
    likely = RowLogprobs(row, 3, lambda _: b"x", mask_of(allowed))
    best = int(row[1:].argmax()) + 1
    norm = math.log(np.exp(row[1:].astype(np.float64)).sum())
    assert likely.of(best).logprob == pytest.approx(float(row[best]) - norm, abs=1e-3)
    assert likely.of(best).top[0][1] == likely.of(best).logprob


def test_where_a_bias_forbids_all_allowed_tokens_they_are_equally_likely() -> None:
    row = np.full(40, 1.0, np.float32)
    row[[3, 7]] = -np.inf
    allowed = np.zeros(40, np.bool_)
    allowed[[3, 7]] = True
    likely = RowLogprobs(row, 2, lambda _: b"x", mask_of(allowed))
    assert [entry[1] for entry in likely.of(3).top] == [pytest.approx(math.log(0.5))] * 2
    assert likely.of(5).logprob == LOWEST_LOGPROB  # JSON knows no infinity


LABELS = Constraint("regex", "(red|green|blue|grey)")


def row_after(path: tuple[int, ...]) -> Logits:
    """Return logits that depend on all tokens so far, as a model's do."""
    row = np.random.default_rng([len(path), *path]).standard_normal(model().n_vocab, np.float32)
    row[[tokens(text)[0] for text in ("red", "gre", "green", "b", "e", "Hello")]] += 9
    return row


@pytest.mark.parametrize("sampling", [Sampling(), *(Sampling(0.9, seed=n) for n in range(6))])
def test_the_product_over_an_answer_is_its_probability_by_brute_force(sampling: Sampling) -> None:
    n_none = np.zeros(0, np.int32)
    constraint = matcher(LABELS)
    picker = Picker(replace(sampling, top_k=0), n_none, model(), matcher=constraint, n_logprobs=3)
    path: tuple[int, ...] = ()
    product, ends = 1.0, None
    while ends is None:
        choice = picker.pick(row_after(path))
        assert choice.logprob is not None
        product *= math.exp(choice.logprob.logprob)
        path, ends = (*path, choice.token), choice.ends
    expected = 1.0
    token_matcher = matcher(LABELS)
    for number, token in enumerate(path):
        forced = token_matcher.forced_tokens()
        if not forced:
            expected *= share_of(token_matcher, path[:number], token)
        assert token_matcher.take([token])
    assert product == pytest.approx(expected, rel=1e-3)


def share_of(token_matcher: TokenMatcher, path: tuple[int, ...], token: int) -> float:
    row = row_after(path).astype(np.float64)
    allowed = [other for other in range(model().n_vocab) if token_matcher.allows(other)]
    return float(np.exp(row[token]) / np.exp(row[allowed]).sum())


def test_what_a_grammar_forces_is_certain_and_needs_no_row() -> None:
    constraint = matcher(Constraint("regex", "aaaa bbbb cccc(x|y)"))
    row_picker = Picker(
        Sampling(), np.zeros(0, np.int32), model(), matcher=constraint, n_logprobs=2
    )
    forced = []
    while (choice := row_picker.follow()) is not None:
        forced.append(choice)
    assert b"".join(model().piece(choice.token) for choice in forced).startswith(b"aaaa bbbb")
    assert all(choice.logprob and choice.logprob.logprob == 0 for choice in forced)
    assert all(choice.logprob and len(choice.logprob.top) == 1 for choice in forced)


def test_an_ending_for_the_token_limit_is_not_certain() -> None:
    """The limit chose it, not the grammar: what the model thinks of it is reported."""
    fields = {"a": {"type": "string"}, "b": {"type": "integer"}}
    schema = {"type": "object", "properties": fields, "required": ["a", "b"]}
    constraint = matcher(Constraint("json_schema", json.dumps(schema)))
    row_picker = Picker(
        Sampling(), np.zeros(0, np.int32), model(), matcher=constraint, max_tokens=16, n_logprobs=1
    )
    row = np.zeros(model().n_vocab, np.float32)
    row[tokens(" word")[0]] = 9
    answer, likely = b"", []
    for _ in range(16):
        choice = row_picker.follow() or row_picker.pick(row.copy())
        if model().ends_generation(choice.token):
            break
        assert choice.logprob is not None
        answer += choice.logprob.raw
        likely.append((choice.logprob.raw, choice.logprob.logprob))
        if choice.ends:
            break
    assert row_picker.is_shortened
    zero = next(logprob for raw, logprob in reversed(likely) if b"0" in raw)
    assert zero < -1, likely
