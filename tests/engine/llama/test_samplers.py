"""Whole rows through llama.cpp's own chain are the reference for what is found in another way."""

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from paddock.engine.arrays import Logits
from paddock.engine.llama.library import lib
from paddock.engine.llama.samplers import SamplerChain
from paddock.engine.request import Sampling
from paddock.engine.sampling import picker as picker_module
from paddock.engine.sampling.logits import top_candidates
from paddock.engine.sampling.penalties import Penalties
from paddock.engine.sampling.picker import RowScanner
from tests.engine.sampling.world import picker

N_VOCAB = 3000  # of this, 56 tokens are beyond the last full line
PROMPT = [5, 6, 7, 7, 8, 8, 8, 2999]


def rows(n: int) -> Iterator[Logits]:
    """Yield random rows: flat ones and steep ones, with equal logits, with impossible tokens."""
    random = np.random.default_rng(0)
    for number in range(n):
        row = random.standard_normal(N_VOCAB, np.float32) * np.float32(random.choice([0.5, 2, 6]))
        if number % 5 == 0:
            row = np.round(row * 4) / 4
        if number % 7 == 0:
            row[random.permutation(N_VOCAB)[random.integers(1, 60) :]] = -np.inf
        yield row


def sampled(**settings: float) -> Sampling:
    return Sampling(temperature=0.8, seed=3, guards_repetition=False, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampling",
    [
        sampled(),
        sampled(top_p=1.0),
        sampled(top_k=5, top_p=0.5, min_p=0.1),
        sampled(top_k=300, typical_p=0.7),
        sampled(top_k=10_000),
        sampled(top_k=0, top_p=0.7),
        sampled(top_k=20, typical_p=0.5),
    ],
)
def test_draws_are_those_of_the_whole_row(sampling: Sampling) -> None:
    row_picker, whole = picker(None, sampling=sampling), SamplerChain(sampling)
    drawn = [(row_picker.pick(row.copy()).token, whole.pick_of_all(row)) for row in rows(400)]
    assert [ours for ours, _ in drawn] == [theirs for _, theirs in drawn]
    whole.close()


def typical_tokens(row: Logits, top_k: int, share: float) -> set[int]:
    """Return the tokens nearest to the entropy that have this share, from 64-bit numbers."""
    tokens = np.argsort(-row, kind="stable")[: top_k or None]
    tokens = tokens[row[tokens] > -np.inf]
    logs = row[tokens].astype(np.float64) - row.max()
    logs -= np.log(np.exp(logs).sum())
    order = np.argsort(np.abs(logs + (np.exp(logs) * -logs).sum()), kind="stable")
    n_within = int(np.searchsorted(np.cumsum(np.exp(logs[order])), share)) + 2  # and rounding
    return {int(token) for token in tokens[order[:n_within]]}


@pytest.mark.parametrize("top_k", [0, 20, 4000])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("lowered", [-np.inf, -1e30, -200.0, -99.0, -70.0, 0.0])
@pytest.mark.parametrize("n_lowered", [1, 2900, 2995])
def test_typical_tokens_are_drawn_whatever_is_forbidden(
    top_k: int, share: float, lowered: float, n_lowered: int
) -> None:
    sampling = sampled(top_k=top_k, top_p=1.0, typical_p=share)
    row_picker = picker(None, sampling=sampling)
    random = np.random.default_rng(1)
    for _ in range(5):
        row = random.standard_normal(N_VOCAB, np.float32) * np.float32(2)
        row[random.permutation(N_VOCAB)[:n_lowered]] += np.float32(lowered)
        assert row_picker.pick(row.copy()).token in typical_tokens(row, top_k, share)


def test_where_all_tokens_are_forbidden_one_is_taken() -> None:
    row = np.full(N_VOCAB, -np.inf, np.float32)
    for sampling in (sampled(), sampled(top_k=0), sampled(top_k=0, typical_p=0.5)):
        assert picker(None, sampling=sampling).pick(row.copy()).token == 0


@pytest.mark.parametrize("top_k", [40, 0])
def test_draws_do_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch, top_k: int) -> None:
    monkeypatch.setattr(picker_module, "LOGITS_WORTH_THREADS", 0)

    def drawn(n_threads: int) -> list[int]:
        scanner, every = RowScanner(n_threads), list(rows(60))
        pickers = [picker(None, sampling=sampled(top_k=top_k)) for _ in range(6)]
        tokens = []
        for start in range(0, len(every), len(pickers)):
            scanned = [
                (row_picker, row.copy())
                for row_picker, row in zip(pickers, every[start:], strict=False)
            ]
            for (row_picker, row), scan in zip(scanned, scanner.scan(scanned), strict=True):
                tokens.append(row_picker.pick(row, scan).token)
        return tokens

    assert drawn(3) == drawn(1)


def test_most_rows_need_no_more_than_their_likeliest_tokens() -> None:
    few = [len(top_candidates(row, 40).tokens) for row in rows(200)]
    assert max(few) <= N_VOCAB
    assert sum(n == 40 for n in few) > 100


@pytest.mark.parametrize("n", [1, 2, 40, 3000])
def test_the_likeliest_are_found_in_their_order(n: int) -> None:
    for row in rows(50):
        found = top_candidates(row, n)
        order = [token for token in np.argsort(-row, kind="stable") if row[token] > -np.inf]
        n_found = len(found.tokens)
        assert found.tokens.tolist() == order[:n_found]
        assert n_found >= min(n, len(order))
        bound = row[order[min(n, len(order)) - 1]]
        assert n_found == np.count_nonzero(row >= bound)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(repeat_penalty=1.3, repeat_last_n=4),
        Sampling(frequency_penalty=0.3, presence_penalty=0.7, repeat_penalty=1.1),
        Sampling(frequency_penalty=-0.1, repeat_last_n=6),
    ],
)
def test_penalties_are_llama_cpps_to_the_bit(sampling: Sampling) -> None:
    theirs = lib.llama_sampler_init_penalties(
        N_VOCAB,
        sampling.repeat_last_n,
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    )
    ours = Penalties(sampling, np.array(PROMPT, np.int32))
    for token in PROMPT:
        lib.llama_sampler_accept(theirs, token)
    for number, row in enumerate(rows(100)):
        pairs = enumerate(row.tolist())
        data = (lib.llama_token_data * N_VOCAB)(*(lib.llama_token_data(*pair) for pair in pairs))
        array = lib.llama_token_data_array(data, N_VOCAB, -1, False)
        lib.llama_sampler_apply(theirs, ctypes.byref(array))
        ours.apply(row)
        assert row.tolist() == [candidate.logit for candidate in data]
        token = number * 7 % 11
        lib.llama_sampler_accept(theirs, token)
        ours.add(token)
    lib.llama_sampler_free(theirs)
