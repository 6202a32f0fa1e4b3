"""Embeddings through a real pool and a real worker."""

import asyncio
import struct
from pathlib import Path

import numpy as np
import pytest

from paddock.engine.errors import TextRefused, TextTooLong
from paddock.engine.gguf import read_header
from paddock.engine.llama.library import route_llama_log
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.profile import PrefillPoint, Profile
from paddock.engine.request import EmbedReply, EmbedRequest, ModelSpec
from paddock.engine.system.frames import FrameHead
from paddock.engine.workers import embed_service
from paddock.engine.workers.embed_service import EmbedService, gpu_batch_tokens
from paddock.engine.workers.worker_protocol import WorkerOptions
from tests.engine.pools import VECTORS, opened
from tests.fakes import tiny

SENTENCE = "The boat leaves at nine and comes back in the evening. "


def far(vector: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the largest difference of two vectors' components."""
    return float(np.abs(np.array(vector) - np.array(other)).max())


async def test_many_requests_at_once_get_what_each_would_get_alone() -> None:
    async with opened() as pool:
        texts = tuple(f"Number {n} is about {'llamas ' * (n % 40)}" for n in range(90))
        small = [pool.embed(EmbedRequest(VECTORS, (text,))) for text in texts[:6]]
        large, *replies = await asyncio.gather(pool.embed(EmbedRequest(VECTORS, texts)), *small)
        for index, reply in enumerate(replies):
            assert far(reply.vectors[0], large.vectors[index]) < 1e-3
        (last,) = (await pool.embed(EmbedRequest(VECTORS, texts[-1:]))).vectors
        assert far(last, large.vectors[-1]) < 1e-3
        assert (len(large.vectors), large.n_pieces) == (90, ())


async def test_a_long_text_is_split_where_that_is_asked_for_and_the_reply_says_so() -> None:
    async with opened() as pool:
        long = SENTENCE * 60
        with pytest.raises(TextTooLong) as caught:
            await pool.embed(EmbedRequest(VECTORS, (*("short",) * 70, long)))
        assert (caught.value.index, caught.value.n_ctx_tokens) == (70, 512)
        assert caught.value.n_tokens > 600
        reply = await pool.embed(EmbedRequest(VECTORS, ("short", long), on_overflow="split"))
        assert reply.n_pieces == (1, 2)
        (short,) = (await pool.embed(EmbedRequest(VECTORS, ("short",)))).vectors
        assert far(short, reply.vectors[0]) < 1e-3
        (half,) = (await pool.embed(EmbedRequest(VECTORS, (SENTENCE * 30,)))).vectors
        assert far(half, reply.vectors[1]) < 1e-3, "both parts are the same thirty sentences"
        narrow = ModelSpec("all-minilm", role="embed", n_ctx_tokens=64)
        reply = await pool.embed(EmbedRequest(narrow, (SENTENCE * 6,), on_overflow="split"))
        assert reply.n_pieces == (2,), "a smaller `ctx` holds for the request"
        assert pool.stats().loads["all-minilm"].loads == 1


async def test_a_large_request_does_not_hold_up_a_small_one_and_can_be_given_up() -> None:
    async with opened() as pool:
        await pool.embed(EmbedRequest(VECTORS, ("warm",)))
        texts = tuple(SENTENCE * 8 for _ in range(2000))  # seconds of work on any processor
        n_all = sum(await pool.count_texts(VECTORS, texts))
        large = asyncio.ensure_future(pool.embed(EmbedRequest(VECTORS, texts)))
        await asyncio.sleep(0.3)
        small: EmbedReply = await pool.embed(EmbedRequest(VECTORS, ("small",)))
        assert len(small.vectors) == 1 and not large.done()
        large.cancel()
        with pytest.raises(asyncio.CancelledError):
            await large
        await pool.embed(EmbedRequest(VECTORS, ("after",)))
        n_before = -1
        while (n_now := pool.stats().resident[0].n_decoded_tokens) != n_before:
            n_before = n_now  # a busy worker reports what it had begun a moment later
            await asyncio.sleep(0.5)
        assert n_now < n_all / 2, "texts of a call that was left are computed"


def write_pooling(path: Path) -> None:
    """Write the small chat model so that it gives its last token's state, as embedders do."""
    source = ModelFinder(Path("/nonexistent"), path.parent).locate("smollm2:135m").path
    raw, header = source.read_bytes(), read_header(source)
    values = struct.pack("<Q18sII", 18, b"llama.pooling_type", 4, 3)
    # 64 bytes with this one, so that the tensors stay where they are aligned.
    values += struct.pack("<Q9sIQ1s", 9, b"general.x", 8, 1, b"x")
    (n_values,) = struct.unpack_from("<Q", raw, 16)
    at = header.tensors_at
    path.write_bytes(raw[:16] + struct.pack("<Q", n_values + 2) + raw[24:at] + values + raw[at:])


async def test_a_causal_model_embeds_by_its_last_token_alike_in_any_company(tmp_path: Path) -> None:
    path = tmp_path / "causal.gguf"
    write_pooling(path)
    async with opened() as pool:
        model = ModelSpec(str(path))
        texts = ("one", "a llama and its wool", *(SENTENCE * n for n in (1, 2, 9)))
        together = (await pool.embed(EmbedRequest(model, texts))).vectors
        for text, vector in zip(texts, together, strict=True):
            (alone,) = (await pool.embed(EmbedRequest(model, (text,)))).vectors
            assert far(alone, vector) < 1e-3
        with pytest.raises(TextRefused) as caught:
            await pool.embed(EmbedRequest(model, (*("one",) * 70, "")))
        assert str(caught.value) == "text 70 has no tokens, so it has no vector"


async def test_a_bert_whose_file_names_no_pooling_gives_the_mean(tmp_path: Path) -> None:
    files = {"mean": 1, "none": 0, "absent": None}
    for name, pooling in files.items():
        tiny.reranker(tmp_path / f"{name}.gguf", pooling=pooling)
    async with opened() as pool:
        texts = ("a b c", "d e, f " * 40)
        models = [ModelSpec(str(tmp_path / f"{name}.gguf")) for name in files]
        mean, *others = [(await pool.embed(EmbedRequest(model, texts))).vectors for model in models]
        for vectors in others:
            assert max(far(*pair) for pair in zip(mean, vectors, strict=True)) < 1e-6


def test_a_batch_of_a_graphics_device_is_what_it_computes_at_once() -> None:
    def profile(tokens_per_s: float) -> Profile:
        points = tuple(PrefillPoint(n, tokens_per_s) for n in (64, 512))
        return Profile("", "gpu", "", 0.0, prefill=points)

    speeds = (10_000, 60_000, 250_000, 1_000_000)
    assert [gpu_batch_tokens(profile(speed)) for speed in speeds] == [512, 1024, 4096, 8192]
    assert gpu_batch_tokens(None) == 512


class WatchedContext(Context):
    """A context that fails instead of crashing the process when it is read after its end."""

    @property
    def n_pooled(self) -> int:
        assert self.pointer, "llama.cpp would read freed memory"
        return super().n_pooled


def test_a_text_may_come_while_the_context_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    route_llama_log()
    model = Model(
        tiny.reranker(tmp_path / "vectors.gguf", pooling=1, n_ctx=2048),
        ModelOptions(n_gpu_layers=0),
    )
    embedded: list[int] = []

    def send(head: FrameHead, _body: bytes) -> None:
        if head["event"] == "embedded":
            embedded.append(head["id"])
            if len(embedded) == 2:
                service.close()

    def take(number: int, text: str) -> None:
        service.take({"op": "embed", "id": number, "order": {"texts": [text]}}, b"")

    def make(model: Model, options: ContextOptions) -> Context:
        if options.n_batch_tokens > embed_service.FIRST_BATCH_TOKENS:  # the first one is closed
            take(1, "c d")
        return WatchedContext(model, options)

    monkeypatch.setattr(Model, "open_context", make)
    load = WorkerOptions(str(tmp_path), "embed", 2048, 2048, 4, 2048, n_threads=1)
    service = EmbedService(model, load, send)
    take(0, "a b " * 450)
    service.run()
    assert embedded == [0, 1]
    service._context.close()
    model.close()
