"""How many tokens a prompt has: by the server's own tokenizer, a local one, else estimated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from paddock.engine.elsewhere import estimate
from paddock.engine.elsewhere.line import Line
from paddock.engine.elsewhere.looking import Looked
from paddock.engine.elsewhere.telling import messages as as_json
from paddock.engine.elsewhere.telling import tools as tools_as_json
from paddock.engine.elsewhere.tokenizer import Tokenizer
from paddock.engine.errors import BadRequest, EngineError
from paddock.engine.request import Message, Tool

_AT_ONCE = 8
# A server may count its BOS token where the tokenizer's endpoint does not, or the reverse.
_SLACK_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens of a prompt: what must fit, and what must have been read."""

    n_most: int
    n_least: int

    @classmethod
    def exactly(cls, n_tokens: int) -> Count:
        """Take what the model's own tokenizer said."""
        return cls(n_tokens, max(0, n_tokens - _SLACK_TOKENS))


async def count_chat(
    line: Line,
    looked: Looked,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    tokenizer: Tokenizer | None = None,
) -> Count:
    """Count a conversation, the chat template included."""
    body: dict[str, object] = {"model": looked.name, "messages": as_json(messages)}
    if tools:
        body["tools"] = tools_as_json(tools)
    if any(message.images for message in messages):
        return _estimated(messages, tools)  # what a picture takes only the server knows
    if looked.kind == "llama-server":
        prompt = (await line.post("/apply-template", body)).get("prompt")
        if not isinstance(prompt, str):
            raise _mute(line, "/apply-template")
        return Count.exactly(await _llama_server(line, looked, prompt, is_prompt=True))
    if looked.kind == "vllm":
        return Count.exactly(await _vllm(line, body))
    if tokenizer is not None:
        n_content = sum(await tokenizer.count_texts([message.content for message in messages]))
        n_whole = await tokenizer.count_chat(messages)
        if tools:
            n_whole += sum(await tokenizer.count_texts([json.dumps(tools_as_json(tools))]))
        # The server's template may be another one than the file's.
        return Count(n_whole + _SLACK_TOKENS, max(0, n_content - _SLACK_TOKENS * len(messages)))
    return _estimated(messages, tools)


async def count_texts(
    line: Line, looked: Looked, texts: Sequence[str], tokenizer: Tokenizer | None = None
) -> list[Count]:
    """Count texts, without special tokens."""
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(text: str) -> Count:
        async with at_once:
            if looked.kind == "llama-server":
                return Count.exactly(await _llama_server(line, looked, text, is_prompt=False))
            body = {"model": looked.name, "prompt": text, "add_special_tokens": False}
            return Count.exactly(await _vllm(line, body))

    if looked.kind in ("llama-server", "vllm"):
        return list(await asyncio.gather(*map(one, texts)))
    if tokenizer is not None:
        return [Count.exactly(n_tokens) for n_tokens in await tokenizer.count_texts(texts)]
    return [Count(estimate.most_tokens(text), estimate.least_tokens(text)) for text in texts]


def _estimated(messages: Sequence[Message], tools: Sequence[Tool]) -> Count:
    n_tools = estimate.most_tokens(json.dumps(tools_as_json(tools))) if tools else 0
    return Count(estimate.most_in_chat(messages) + n_tools, estimate.least_in_chat(messages))


async def _llama_server(line: Line, looked: Looked, text: str, *, is_prompt: bool) -> int:
    body = {"model": looked.name, "content": text}
    told = await line.post(
        "/tokenize", body | {"add_special": is_prompt, "parse_special": is_prompt}
    )
    tokens = told.get("tokens")
    if not isinstance(tokens, list):
        raise _mute(line, "/tokenize")
    return len(tokens)


async def _vllm(line: Line, body: dict[str, object]) -> int:
    count = (await line.post("/tokenize", body)).get("count")
    if not isinstance(count, int):
        raise _mute(line, "/tokenize")
    return count


def _mute(line: Line, path: str) -> EngineError:
    return BadRequest(f"{line.url}{path} does not say how many tokens a text has")
