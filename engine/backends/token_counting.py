"""Token counts for other servers' models.

By their tokenizer, by a local vocabulary, else estimated (`token_bounds`). The local vocabulary is
read in a process of its own (`tokenizer_process`), without weights: 50,000 tokens take a fifth of a
second and 30 MB.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddock.engine.errors import BadRequest, EngineError, ModelBroken, TrialTimeout
from paddock.engine.request import Message, Tool
from paddock.engine.system.frame_processes import FrameProcess, NoAnswer
from paddock.engine.system.processes import python_command
from paddock.engine.system.records import Struct
from paddock.engine.system.tasks import run_concurrently

from .model_discovery import ServedModel
from .openai_client import ServerConnection
from .openai_codec import message_body, tools_body
from .token_bounds import least_in_chat, least_tokens, most_in_chat, most_tokens

START_S, COUNT_S = 60.0, 60.0
_TOKENIZER_MODULE = "paddock.engine.backends.tokenizer_process"


class LocalTokenizer:
    """Counts by a model file's vocabulary, in a process that starts at first use."""

    def __init__(self, path: Path, parts: Sequence[str] = ()) -> None:
        """`parts` are the files of a split model after the first."""
        self.path = path
        self._process = FrameProcess(python_command("-m", _TOKENIZER_MODULE, str(path), *parts))
        self._turn = asyncio.Lock()

    async def count_chat(self, messages: Sequence[Message]) -> int:
        """Count a conversation, by the template of the file; raises ModelBroken or BadRequest."""
        turns = [[message.role, message.content, message.reasoning] for message in messages]
        return int((await self._counts({"messages": turns}))[0])

    async def count_texts(self, texts: Sequence[str]) -> list[int]:
        return [*map(int, await self._counts({"texts": list(texts)}))] if texts else []

    async def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """Return which share of each text's letters the vocabulary lacks; raises ModelBroken."""
        return await self._counts({"letters": list(texts)})

    async def aclose(self) -> None:
        self._process.close()

    async def _counts(self, order: dict[str, Any]) -> list[float]:
        async with self._turn:
            answer = await self._send(order)
        if "error" in answer:
            raise BadRequest(f"{self.path} cannot count it: {answer['error']}")
        return list(answer["counts"])

    async def _send(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send an order; a process that died is started once more."""
        for is_last in (False, True):
            try:
                if not self._process.is_running:
                    ready = await asyncio.to_thread(self._process.ask, {"texts": []}, START_S)
                    if ready is None:
                        raise ModelBroken(str(self.path), "its vocabulary cannot be read")
                answer = await asyncio.to_thread(self._process.ask, order, COUNT_S)
            except asyncio.CancelledError:
                self._process.close()  # the thread that waits for its answer ends
                raise
            except NoAnswer:
                if is_last:
                    raise TrialTimeout("the number of tokens", COUNT_S) from None
                continue
            if answer is not None:
                return answer
        raise ModelBroken(str(self.path), "its vocabulary cannot be asked: the process ended")


_COUNTS_AT_ONCE = 8
# A server may count its BOS token where the tokenizer's endpoint does not, or the reverse.
_SLACK_TOKENS = 2


class TokenCount(Struct, frozen=True):
    """Tokens of a prompt: what must fit, and what must have been read."""

    n_most: int
    n_least: int

    @classmethod
    def exactly(cls, n_tokens: int) -> TokenCount:
        """Take what the model's own tokenizer said."""
        return cls(n_tokens, max(0, n_tokens - _SLACK_TOKENS))


async def count_chat(
    line: ServerConnection,
    looked: ServedModel,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    tokenizer: LocalTokenizer | None = None,
) -> TokenCount:
    body: dict[str, object] = {"model": looked.name, "messages": list(map(message_body, messages))}
    if tools:
        body["tools"] = tools_body(tools)
    if any(message.images for message in messages):
        return _estimated_count(messages, tools)  # what a picture takes only the server knows
    if looked.has_tokenizer and looked.kind == "llama-server":
        prompt = (await line.post("/apply-template", body)).get("prompt")
        if not isinstance(prompt, str):
            raise _no_count(line, "/apply-template")
        return TokenCount.exactly(
            await _count_at_llama_server(line, looked, prompt, is_prompt=True)
        )
    if looked.has_tokenizer:
        return TokenCount.exactly(await _count_at_vllm(line, body))
    if tokenizer is not None:
        n_content = sum(await tokenizer.count_texts([message.content for message in messages]))
        n_whole = await tokenizer.count_chat(messages)
        if tools:
            n_whole += sum(await tokenizer.count_texts([json.dumps(tools_body(tools))]))
        # The server's template may be another one than the file's.
        return TokenCount(
            n_whole + _SLACK_TOKENS, max(0, n_content - _SLACK_TOKENS * len(messages))
        )
    return _estimated_count(messages, tools)


async def count_texts(
    line: ServerConnection,
    looked: ServedModel,
    texts: Sequence[str],
    tokenizer: LocalTokenizer | None = None,
) -> list[TokenCount]:
    async def count_text(text: str) -> TokenCount:
        if looked.kind == "llama-server":
            return TokenCount.exactly(
                await _count_at_llama_server(line, looked, text, is_prompt=False)
            )
        body = {"model": looked.name, "prompt": text, "add_special_tokens": False}
        return TokenCount.exactly(await _count_at_vllm(line, body))

    if looked.has_tokenizer:
        return await run_concurrently(count_text, texts, _COUNTS_AT_ONCE)
    if tokenizer is not None:
        return [TokenCount.exactly(n_tokens) for n_tokens in await tokenizer.count_texts(texts)]
    return [TokenCount(most_tokens(text), least_tokens(text)) for text in texts]


def _estimated_count(messages: Sequence[Message], tools: Sequence[Tool]) -> TokenCount:
    n_tools = most_tokens(json.dumps(tools_body(tools))) if tools else 0
    return TokenCount(most_in_chat(messages) + n_tools, least_in_chat(messages))


async def _count_at_llama_server(
    line: ServerConnection, looked: ServedModel, text: str, *, is_prompt: bool
) -> int:
    body = {"model": looked.name, "content": text}
    answer = await line.post(
        "/tokenize", body | {"add_special": is_prompt, "parse_special": is_prompt}
    )
    tokens = answer.get("tokens")
    if not isinstance(tokens, list):
        raise _no_count(line, "/tokenize")
    return len(tokens)


async def _count_at_vllm(line: ServerConnection, body: dict[str, object]) -> int:
    count = (await line.post("/tokenize", body)).get("count")
    if not isinstance(count, int):
        raise _no_count(line, "/tokenize")
    return count


def _no_count(line: ServerConnection, path: str) -> EngineError:
    return BadRequest(f"{line.url}{path} does not say how many tokens a text has")
