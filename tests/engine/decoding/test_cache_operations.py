"""What a scheduler's operations leave in the streams of a split cache, on a real small model."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.decoding.draft_prices import UNMEASURED_PRICE
from paddock.engine.decoding.kv_cache import KvCache
from paddock.engine.decoding.layout_plans import CacheOptions
from paddock.engine.decoding.running_request import DecodeRequest
from paddock.engine.decoding.scheduler_data import (
    CacheOperation,
    CopyPrefix,
    RestoreFromHost,
    SaveToHost,
    TrimCells,
    batch_arrays,
)
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.request import Sampling
from paddock.engine.sampling.picker import Picker
from paddock.engine.system.records import replace
from tests.calls import note_calls
from tests.engine.decoding.test_loop import Bench, closed, job

__all__ = ["closed"]

N_STREAMS, N_TOKENS = 4, 24


@pytest.fixture(scope="module")
def cache(tiny_model: Callable[[str], Model]) -> Iterator[KvCache[Any]]:
    """A split cache that copies streams as on a graphics device."""
    options = ContextOptions(n_ctx_tokens=1024, n_batch_tokens=256, n_seq_max=8, n_threads=1)
    cache_options = CacheOptions(256, 8 * 256, N_STREAMS, options, "split", is_gpu=True)
    cache = KvCache(tiny_model("llama"), cache_options)
    yield cache
    cache.close()


def test_where_the_price_of_drafts_was_not_measured_steps_tell_it(cache: KvCache[Any]) -> None:
    assert cache.draft_price(1) == UNMEASURED_PRICE
    for _ in range(20):
        cache.draft_prices.note_step(1, 0, 0.006)
        cache.draft_prices.note_step(1, 4, 0.006 + 4 * 0.0048)
    assert cache.draft_price(1) == pytest.approx(0.8, abs=0.01)


def known(kind: int) -> Tokens:
    """What stream `kind` holds at first."""
    return np.random.default_rng(kind).integers(0, 255, N_TOKENS).astype(np.int32)


def read(
    cache: KvCache[Any], held: dict[int, Tokens], *, pos: int | None = None
) -> dict[int, Logits]:
    """Decode tokens into streams; return the logits after the last of each."""
    logits = {}
    for seq_id, tokens in held.items():
        start = 0 if pos is None else pos
        n_rows = cache.context.decode(*batch_arrays([tokens], [start], [seq_id], [1]))
        logits[seq_id] = cache.context.logits(n_rows)[0].copy()
    return logits


def after(cache: KvCache[Any], operations: list[CacheOperation], held: dict[int, Tokens]) -> None:
    """Assert that after the operations the streams hold these tokens."""
    next_token = np.array([7], np.int32)
    cache.clear()
    read(cache, {kind: known(kind) for kind in range(N_STREAMS)})
    cache.apply_operations(operations)
    predicted = {
        seq_id: read(cache, {seq_id: next_token}, pos=len(tokens))[seq_id]
        for seq_id, tokens in held.items()
    }
    cache.clear()
    for seq_id, tokens in held.items():
        (expected,) = read(cache, {seq_id: np.append(tokens, next_token)}).values()
        assert np.abs(predicted[seq_id] - expected).max() < 1e-3, f"stream {seq_id}"


def noted_copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return what gets the source and target of each copy on the device."""
    copies: list[tuple[int, int]] = []
    note_calls(
        monkeypatch, Context, "copy",
        lambda _, __, source, target, ___: copies.append((source, target)),
    )  # fmt: skip
    return copies


def test_a_copy_into_a_stream_that_was_just_saved_stays_on_the_device(
    cache: KvCache[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = noted_copies(monkeypatch)
    operations: list[CacheOperation] = [SaveToHost(2, 5), TrimCells(2, 0), CopyPrefix(0, 2, 16)]
    after(cache, operations, {0: known(0), 2: known(0)[:16]})
    assert copied == [(0, 2)]


STREAM = st.integers(0, N_STREAMS - 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["copy", "save", "restore"]), STREAM, STREAM),
        min_size=2,
        max_size=8,
    )
)
def test_streams_hold_what_operations_in_any_order_leave_there(
    cache: KvCache[Any], moves: list[tuple[str, int, int]]
) -> None:
    held = {kind: known(kind) for kind in range(N_STREAMS)}
    kept: dict[int, Tokens] = {}
    operations: list[CacheOperation] = []
    for kind, first, other in moves:
        if kind == "save":
            operations.append(SaveToHost(first, first))
            kept[first] = held[first]
        elif kind == "restore" and first in kept:
            operations += [TrimCells(other, 0), RestoreFromHost(first, other)]
            held[other] = kept[first]
        elif kind == "copy" and first != other:
            n_tokens = len(held[first]) - 1
            operations += [TrimCells(other, 0), CopyPrefix(first, other, n_tokens)]
            held[other] = held[first][:n_tokens]
    after(cache, operations, held)


@pytest.fixture(params=["copying", "mamba", "hybrid", "sliding"])
def model(request: pytest.FixtureRequest, tiny_model: Callable[[str], Model]) -> Model:
    return tiny_model(request.param)


def test_answers_in_streams_with_gaps_between_them_go_on_as_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_answers = (3, 60, 9, 45, 6, 30)

    def requests() -> list[DecodeRequest]:
        texts = [letter * 20 + "0123456789"[number:] for number, letter in enumerate("abcdef")]
        return [
            job(model, number, text, max_tokens=n_tokens, drafts=False)
            for number, (text, n_tokens) in enumerate(zip(texts, n_answers, strict=True))
        ]

    moved = noted_copies(monkeypatch)
    answers = Bench(model, "split", n_parallel=6, is_gpu=True).run(requests())
    if model.memory != "cells":  # else gaps are filled up
        assert len(moved) >= 2
    assert all(source > target for source, target in moved)
    for request in requests():
        assert Bench(model, "split").run([request]).items() <= answers.items()


def test_a_conversation_that_was_set_aside_on_the_device_goes_on(model: Model) -> None:
    def chat(number: int, text: str) -> DecodeRequest:
        return job(model, number, text, max_tokens=8, priority="interactive", drafts=False)

    bench = Bench(model, "split", n_host_cache_tokens=2000, is_gpu=True)
    answer = Sampling(logit_bias={token: 100 for token in b"!"})
    first = chat(0, "a" * 200)
    bench.run([replace(first, picker=Picker(answer, first.prompt, model))])
    bench.run([chat(1, "b" * 300)])
    bench.run([chat(2, "c" * 150)])
    assert not bench.cache._saved, "nothing was copied to main memory"
    following = "a" * 200 + "!" * 8 + "d" * 20
    texts = bench.run([chat(3, following)])
    assert bench.usages[3]["prompt_reused_tokens"] >= 207, "all but the last token, never computed"
    assert Bench(model, "split").run([chat(3, following)]) == texts
