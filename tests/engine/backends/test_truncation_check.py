"""A server that cuts prompts is found out, and one that reads them whole never is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends.model_servers import ModelServer, detect_server
from paddock.engine.backends.truncation_check import FRESH_S, ReadLimit, ReadLimits
from paddock.engine.errors import PromptCut
from paddock.engine.request import ChatRequest, EmbedRequest, Message, ModelSpec
from paddock.engine.system.server_address import ServerAddress
from tests.fakes.openai_server import OpenAIService

M = ModelSpec("m", n_ctx_tokens=8192)
VECTORS = ModelSpec("m", "embed", 512)
LAST = "FACT-BB1"
DOCUMENTS = {
    "Chinese": "渡轮每天早上七点四十分从港口出发如果天气允许中午到达岛上。" * 50 + LAST,
    "table": "".join(f"{n};{n % 7};boat\n" for n in range(400)) + LAST,
    "dicts": str([{"id": n, "name": "boat", "is_paid": True} for n in range(90)]) + LAST,
    "long words": "Internationalisation notwithstanding responsibilities " * 80 + LAST,
}
"""Each has 1,300 tokens and more by `three_bytes`, and a lower bound below 600."""


def three_bytes(text: str) -> int:
    """Count about as real vocabularies do."""
    return len(text.encode()) // 3


@asynccontextmanager
async def opened(
    service: OpenAIService, limits: ReadLimits | None = None
) -> AsyncIterator[tuple[ModelServer, list[str]]]:
    notes: list[str] = []
    address = ServerAddress("http://far:1")
    server = await detect_server(address, notes.append, limits=limits, transport=service.transport)
    yield server, notes
    await server.aclose()


async def ask(server: ModelServer, text: str, **extra: Any) -> str:
    texts: list[str] = []
    request = ChatRequest(M, (Message("user", text),), **extra)
    await server.chat(request, lambda chunk: texts.append(chunk.text))
    return "".join(texts)


@pytest.mark.parametrize("n_left", [None, 310], ids=["to its context", "to half of it"])
@pytest.mark.parametrize("kind", ["other", "ollama"])
@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_long_prompt_of_any_kind_fails_where_the_server_cuts_it(
    name: str, kind: str, n_left: int | None
) -> None:
    service = OpenAIService(kind)
    service.count = three_bytes
    service.n_most_tokens, service.n_cut_tokens = 600, n_left
    assert three_bytes(DOCUMENTS[name]) > 1300
    async with opened(service) as (server, _):
        with pytest.raises(PromptCut) as caught:
            await ask(server, DOCUMENTS[name])
    assert caught.value.n_read_tokens == (n_left or 600)
    assert [body["max_tokens"] for body in service.bodies] == [16]  # nothing but a probe


async def test_a_server_that_reads_everything_is_probed_once_and_short_prompts_never() -> None:
    service = OpenAIService()
    async with opened(service) as (server, notes):
        await ask(server, "Say noon.")
        assert len(service.bodies) == 1
        long = "The ferry leaves the harbour. " * 100
        await asyncio.gather(*(ask(server, f"{n} {long}") for n in range(5)))
    probes = [body for body in service.bodies if body["max_tokens"] == 16]
    assert (len(probes), len(service.bodies)) == (1, 7)
    assert notes[1:] == [
        "http://far:1 has no tokenizer to ask: a probe of 1501 tokens shows whether it reads "
        "prompts so long."
    ]


async def test_what_was_confirmed_is_known_to_the_next_run_for_a_day(tmp_path: Path) -> None:
    service, now = OpenAIService(), [1000.0]
    long = "The ferry leaves the harbour. " * 100
    for later_s, n_bodies in ((0, 2), (60, 3), (60 + FRESH_S, 5)):
        now[0] += later_s
        limits = ReadLimits(tmp_path / "servers.json", lambda: now[0])
        async with opened(service, limits) as (server, _):
            await ask(server, long)
        assert len(service.bodies) == n_bodies


@pytest.mark.parametrize("kept", ["", "[1]", '{"a": 1}', "\udcff", '{"a": [null, 1]}'])
def test_a_file_of_confirmations_that_cannot_be_read_only_costs_a_probe(
    kept: str, tmp_path: Path
) -> None:
    file = tmp_path / "servers.json"
    file.write_text(kept, "utf-8", errors="surrogateescape")
    limits = ReadLimits(file)
    assert limits.of("u", "d", "chat").n_tokens == 512
    limits.confirm("u", "d", "chat", 900)
    assert ReadLimits(file).of("u", "d", "chat").n_tokens == 900


async def test_a_server_that_refuses_what_is_too_long_cuts_nothing() -> None:
    service = OpenAIService()
    service.n_most_known = 1000
    async with opened(service) as (server, _):
        assert await ask(server, "harbour " * 900) == "It leaves at noon."


async def test_a_server_that_reports_no_counts_is_named_once() -> None:
    service = OpenAIService()
    service.tells_usage, service.n_most_tokens = False, 600
    async with opened(service) as (server, notes):
        await ask(server, DOCUMENTS["long words"])
    assert (
        "http://far:1 does not say how much it reads; a prompt that it cuts would go unseen."
        in notes
    )


async def test_a_server_that_counts_only_what_it_had_not_cached_is_no_false_alarm() -> None:
    service = OpenAIService("ollama")
    service.leaves_out_cached = True
    async with opened(service) as (server, _):
        for _ in range(4):
            await ask(server, "The ferry leaves the harbour. " * 100)
    assert len([body for body in service.bodies if body["max_tokens"] == 16]) == 2


async def test_a_server_that_comes_back_with_a_smaller_context_is_found_out() -> None:
    service = OpenAIService()
    service.count = three_bytes
    async with opened(service) as (server, _):
        for n in range(10):
            await ask(server, f"{n} " + DOCUMENTS["Chinese"])
        service.n_most_tokens = 600
        with pytest.raises(PromptCut, match="read 600 tokens of a probe"):
            await ask(server, DOCUMENTS["Chinese"])


async def test_texts_to_embed_that_a_server_cuts_are_a_failure_also_among_many() -> None:
    service = OpenAIService("ollama")
    async with opened(service) as (server, _):
        await server.embed(EmbedRequest(VECTORS, ("short", "the ferry " * 90)))
        assert [len(texts) for texts in service.inputs] == [1, 2]
        service.n_most_tokens = 150
    async with opened(service) as (server, _):
        with pytest.raises(PromptCut, match="read 150 tokens of a probe of "):
            await server.embed(EmbedRequest(VECTORS, ("short " * 100, "the ferry " * 90)))


def test_counts_that_drop_or_stand_still_are_odd() -> None:
    limit = ReadLimit(512)
    for n in range(1, 9):
        limit.add(400 + n, 900 + n)
    assert not limit.is_odd(300, 900)  # another language
    assert limit.is_odd(190, 900)
    limit.add(2048, 4000)
    assert limit.is_odd(2048, 6000)
    assert not limit.is_odd(2048, 4100)


def test_probes_double_and_end_at_the_context() -> None:
    limit = ReadLimit(512)
    assert limit.probe_tokens(512, 8192) == 0
    assert limit.probe_tokens(600, 8192) == 1024
    assert limit.probe_tokens(3000, 8192) == 3000
    assert limit.probe_tokens(8000, 8192) == 8000
    assert ReadLimit(8000).probe_tokens(8190, 8192) == 8192
