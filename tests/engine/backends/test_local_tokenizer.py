"""Counting with the vocabulary of a file on this machine."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paddock.engine.backends.model_servers import detect_server
from paddock.engine.backends.token_counting import LocalTokenizer
from paddock.engine.errors import ModelBroken, PromptCut
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, Message, ModelSpec
from paddock.engine.system.server_address import ServerAddress
from tests.fakes.openai_server import OpenAIService
from tests.optional import present


def path() -> Path:
    return ModelFinder(Path(os.devnull), Path(os.devnull)).locate("smollm2:135m").path


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[LocalTokenizer]:
    tokenizer = LocalTokenizer(file)
    try:
        yield tokenizer
    finally:
        await tokenizer.aclose()


async def test_it_counts_as_a_server_with_the_same_file_does() -> None:
    async with opened(path()) as tokenizer:
        assert await tokenizer.count_texts(["Hi there", "", "Paddock"]) == [2, 0, 3]
        assert await tokenizer.count_texts([]) == []
        # 31 tokens is what llama-server reads of it, with the template's own system text.
        assert await tokenizer.count_chat([Message("user", "Hi")]) == 31


async def test_a_process_that_is_killed_is_started_again() -> None:
    async with opened(path()) as tokenizer:
        await tokenizer.count_texts(["a"])
        process = present(tokenizer._process._shared).process
        process.kill()
        assert await tokenizer.count_texts(["Hi there"]) == [2]


async def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    async with opened(broken) as tokenizer:
        with pytest.raises(ModelBroken) as caught:
            await tokenizer.count_texts(["a"])
    assert str(caught.value) == f"{broken}: its vocabulary cannot be read"


async def test_a_server_that_cannot_count_is_checked_by_it() -> None:
    service = OpenAIService("ollama")
    service.n_most_tokens = 30
    spec = ModelSpec("m", n_ctx_tokens=400)
    server = await detect_server(
        ServerAddress("http://far:1"), print, tokenizer=path(), transport=service.transport
    )
    try:
        assert (await server.count_texts(spec, ["Hi there"]))[0].n_most == 2
        long = (Message("user", "7:40, 7:50, 8:00, 8:10, 8:20, 8:30"),)
        with pytest.raises(PromptCut, match="read 6 tokens of a prompt of at least 32"):
            await server.chat(ChatRequest(spec, long), lambda chunk: None)
    finally:
        await server.aclose()
