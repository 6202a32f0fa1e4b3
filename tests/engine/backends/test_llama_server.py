"""A real llama-server: what it tells, counts, answers and refuses."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from paddock.engine.backends.balancer import BalancedPool, ServerMember
from paddock.engine.backends.model_servers import detect_server
from paddock.engine.errors import (
    DeadlineExceeded,
    EngineError,
    ModelBroken,
    NotServed,
    PromptTooLong,
    TextTooLong,
)
from paddock.engine.request import ChatRequest, Constraint, EmbedRequest, Message, ModelSpec
from paddock.engine.system.server_address import ServerAddress
from tests.live import COUNTING
from tests.llama_server import EMBEDDER, KEY, MODEL, LlamaServer, llama_server

SPEC = ModelSpec(MODEL, params={"max_tokens": 12})
VECTORS = ModelSpec(EMBEDDER, "embed")


@pytest.fixture(scope="module")
def chatting() -> Iterator[LlamaServer]:
    with llama_server() as server:
        yield server


@pytest.fixture(scope="module")
def embedding() -> Iterator[LlamaServer]:
    with llama_server(role="embed") as server:
        yield server


@asynccontextmanager
async def opened(server: LlamaServer, key: str = KEY) -> AsyncIterator[BalancedPool]:
    notes: list[str] = []
    address = ServerAddress(server.url, key)
    far = ServerMember(address.url, partial(detect_server, address, notes.append))
    async with BalancedPool([far], notes.append) as pool:
        yield pool
    assert notes == []


def chat_request(text: str, **extra: object) -> ChatRequest:
    return ChatRequest(SPEC, (Message("user", text),), **extra)  # type: ignore[arg-type]


async def test_a_model_is_known_by_what_the_server_tells_of_it(chatting: LlamaServer) -> None:
    async with opened(chatting) as pool:
        facts = await pool.facts(SPEC)
        same = await pool.facts(ModelSpec(MODEL.removesuffix(".gguf"), n_ctx_tokens=600))
    assert (facts.architecture, facts.role, facts.n_ctx_tokens) == ("llama-server", "chat", 1024)
    assert facts.size_bytes == 96_576_768
    # Not by its name here, nor by where it is asked, nor by how much of it is wanted.
    assert (same.identity, same.n_ctx_tokens) == (facts.identity, 600)


async def test_prompts_are_counted_as_the_server_reads_them(chatting: LlamaServer) -> None:
    async with opened(chatting) as pool:
        messages = (Message("system", "Be brief."), Message("user", "Where is the ferry?"))
        counted = await pool.count_chat(SPEC, messages)
        reply = await pool.chat(ChatRequest(SPEC, messages)).reply()
        assert await pool.count_texts(SPEC, ["Hello there", ""]) == [2, 0]
    assert reply.usage.prompt_tokens == counted


async def test_an_answer_comes_in_pieces_and_the_same_again(chatting: LlamaServer) -> None:
    request = ChatRequest(SPEC, tuple(Message(turn["role"], turn["content"]) for turn in COUNTING))
    async with opened(chatting) as pool:
        stream = pool.chat(request)
        pieces = [chunk.text async for chunk in stream]
        reply = await stream.reply()
        again = await pool.chat(request).reply()
    assert "".join(pieces) == reply.text == again.text
    assert len(pieces) > 3
    assert reply.done_reason in ("stop", "length")
    assert 0 < reply.usage.completion_tokens <= 12
    assert again.usage.prompt_reused_tokens > 0


async def test_an_answer_matches_its_schema(chatting: LlamaServer) -> None:
    schema = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'
    async with opened(chatting) as pool:
        constraint = Constraint("json_schema", schema)
        request = chat_request("Give a number.", constraint=constraint, params={"max_tokens": 60})
        reply = await pool.chat(request).reply()
    if reply.done_reason == "stop":
        assert isinstance(json.loads(reply.text)["n"], int)
    assert reply.text.lstrip().startswith("{")


async def test_a_prompt_that_does_not_fit_is_never_sent(chatting: LlamaServer) -> None:
    async with opened(chatting) as pool:
        with pytest.raises(PromptTooLong) as caught:
            await pool.chat(chat_request("word " * 2000)).reply()
    error = caught.value
    assert (error.n_prompt_tokens, error.n_reserved_tokens, error.n_ctx_tokens) == (2031, 12, 1024)


async def test_deadlines_hold(chatting: LlamaServer) -> None:
    async with opened(chatting) as pool:
        request = chat_request("Tell a long story.", params={"max_tokens": 900}, total_s=0.5)
        with pytest.raises(DeadlineExceeded) as caught:
            await pool.chat(request).reply()
    assert str(caught.value) == "no answer within 0.5 s (timeout.total)"


@pytest.mark.parametrize(
    ("spec", "key", "kind", "message"),
    [
        (ModelSpec("qwen3"), KEY, NotServed, "has no model 'qwen3'. It has: '"),
        (SPEC, "sk-wrong", ModelBroken, "the server refuses the key that it is shown (401: "),
        (SPEC, "", ModelBroken, "the server asks for a key (401: Invalid API Key). Give it as "),
        (ModelSpec(MODEL, "embed"), KEY, ModelBroken, "does not support embeddings"),
    ],
)
async def test_what_the_server_refuses_is_said_in_its_words(
    chatting: LlamaServer, spec: ModelSpec, key: str, kind: type[EngineError], message: str
) -> None:
    async with opened(chatting, key) as pool:
        with pytest.raises(kind) as caught:
            if spec.role == "embed":
                await pool.embed(EmbedRequest(spec, ("a",)))
            await pool.chat(ChatRequest(spec, (Message("user", "x"),))).reply()
    assert message in str(caught.value)


async def test_vectors_have_length_one_and_come_in_the_order_of_their_texts(
    embedding: LlamaServer,
) -> None:
    texts = tuple(f"Ferry number {i}" for i in range(70))
    async with opened(embedding) as pool:
        reply = await pool.embed(EmbedRequest(VECTORS, texts))
        alone = await pool.embed(EmbedRequest(VECTORS, (texts[69],)))
        short = await pool.embed(EmbedRequest(VECTORS, (texts[69],), dimensions=16))
    assert [len(vector) for vector in reply.vectors] == [384] * 70
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-5 for vector in reply.vectors)
    assert sum(a * b for a, b in zip(reply.vectors[69], alone.vectors[0], strict=True)) > 0.999
    assert abs(sum(x * x for x in short.vectors[0]) - 1) < 1e-5
    assert len(short.vectors[0]) == 16
    assert reply.usage.prompt_tokens > 70


async def test_a_text_that_is_too_long_is_refused_or_read_in_pieces(embedding: LlamaServer) -> None:
    long = "The ferry leaves the harbour. " * 200
    async with opened(embedding) as pool:
        with pytest.raises(TextTooLong) as caught:
            await pool.embed(EmbedRequest(VECTORS, ("short", long)))
        split = await pool.embed(EmbedRequest(VECTORS, ("short", long), on_overflow="split"))
    assert (caught.value.index, caught.value.n_ctx_tokens) == (1, 512)
    assert split.n_pieces[0] == 1
    assert split.n_pieces[1] >= 3
    assert abs(sum(x * x for x in split.vectors[1]) - 1) < 1e-5
