"""Token counts for other servers' models.

By their tokenizer, by a local vocabulary, else estimated. The upper bound is for what must fit,
the lower one for what must have been read. The local vocabulary is read in a process of its own
(`tokenizer_process`), without weights: 50,000 tokens take a fifth of a second and 30 MB.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.errors import BadRequest, EngineError, ModelBroken
from paddock.engine.request import Message, Tool
from paddock.engine.system.processes import FrameProcess, python_command
from paddock.engine.system.tasks import run_concurrently

from .model_discovery import ServedModel
from .openai_client import ServerConnection
from .openai_codec import messages_body as as_json
from .openai_codec import tools_body as tools_as_json

# Around each message a template writes its role and marks: 4 to 12 tokens with common ones.
MESSAGE_TOKENS = 12
# Before a conversation some templates write a system text of their own (SmolLM2's has 22).
OPENING_TOKENS = 32

_WORD = re.compile(r"[A-Za-z]+|[0-9]|[^\x00-\x7f]|\n+|[^\sA-Za-z0-9]")
_LONGEST_WORD = 24
_HAN = re.compile(r"[\u3400-\u9fff]+")
_HAN_TOKENS = 0.2  # stock phrases of politics have 0.2 in the vocabulary that knows most of them
_DIGITS = re.compile(r"\d+")
_NUMBERS_IN_TOKEN = 3  # "1,5" and "10:00" are single tokens of some vocabularies
_SPACES = re.compile(r"[ \t\r\f\v]{2,}")


def most_tokens(text: str) -> int:
    """Return a number that no common tokenizer exceeds on ordinary text.

    Two letters of the Latin alphabet are a token at the least in what vocabularies of 32,000 and
    more make of Europe's languages; a digit and a sign count as one each, so do the letters of
    what is no word (keys, base64); another character counts as many as it has bytes.

    >>> most_tokens("The ferry leaves at 7:40."), most_tokens("")
    (14, 0)
    """
    n_tokens = sum(map(_most_in_word, _WORD.findall(text)))
    return n_tokens + sum(len(run) // 2 for run in _SPACES.findall(text))


def _most_in_word(word: str) -> int:
    if not (word.isascii() and word.isalpha()):
        return len(word.encode())
    is_a_word = word[1:].islower() or word.isupper() or len(word) == 1
    return (len(word) + 1) // 2 if is_a_word and len(word) <= _LONGEST_WORD else len(word)


def least_tokens(text: str) -> int:
    """Return a number that every common tokenizer reaches.

    No vocabulary joins two words that a space divides. Characters of Chinese are 0.44 to 2 tokens
    each in running text, and stock phrases are one token for up to ten, so that a pair counts once.
    Held against the fewest tokens of 21 vocabularies by
    `tests/engine/backends/test_token_counting.py`.

    >>> least_tokens("The ferry — leaves at 7:40.")
    5
    """
    pairs: set[str] = set()
    n_tokens = 0.0
    for word in text.split():
        n_before = len(pairs)
        for run in _HAN.findall(word):
            pairs.update(run[at : at + 2] for at in range(len(run) - 1))
        n_han = (len(pairs) - n_before) * _HAN_TOKENS
        n_numbers = len(_DIGITS.findall(word)) / _NUMBERS_IN_TOKEN
        if any(sign.isalnum() for sign in word):
            n_tokens += max(1.0, n_han, n_numbers)
    return int(n_tokens)


def most_in_chat(messages: Sequence[Message]) -> int:
    """Return an upper bound for a conversation, a template's additions included."""
    return OPENING_TOKENS + sum(
        most_tokens(text) + MESSAGE_TOKENS for text in _message_texts(messages)
    )


def least_in_chat(messages: Sequence[Message]) -> int:
    """Return a lower bound for a conversation, whatever its template leaves out of reasoning."""
    return sum(least_tokens(message.content) for message in messages)


def _message_texts(messages: Sequence[Message]) -> list[str]:
    return [
        message.content
        + message.reasoning
        + "".join(f"{call.name} {dict(call.arguments)}" for call in message.tool_calls)
        for message in messages
    ]


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
        return (await self._counts({"messages": turns}))[0]

    async def count_texts(self, texts: Sequence[str]) -> list[int]:
        return await self._counts({"texts": list(texts)}) if texts else []

    async def aclose(self) -> None:
        self._process.close()

    async def _counts(self, order: dict[str, Any]) -> list[int]:
        async with self._turn:
            answer = await self._send(order)
        if "error" in answer:
            raise BadRequest(f"{self.path} cannot count it: {answer['error']}")
        return [int(count) for count in answer["counts"]]

    async def _send(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send an order; a process that died is started once more."""
        try:
            for _ in range(2):
                if not self._process.is_running:
                    ready = await asyncio.to_thread(self._process.ask, {"texts": []}, START_S)
                    if ready is None:
                        raise ModelBroken(str(self.path), "its vocabulary cannot be read")
                answer = await asyncio.to_thread(self._process.ask, order, COUNT_S)
                if answer is not None:
                    return answer
        except asyncio.CancelledError:
            self._process.close()  # the thread that waits for its answer ends
            raise
        raise ModelBroken(str(self.path), "its vocabulary cannot be asked: the process ended")


_COUNTS_AT_ONCE = 8
# A server may count its BOS token where the tokenizer's endpoint does not, or the reverse.
_SLACK_TOKENS = 2


@dataclass(frozen=True, slots=True)
class TokenCount:
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
    """Count a conversation, the chat template included."""
    body: dict[str, object] = {"model": looked.name, "messages": as_json(messages)}
    if tools:
        body["tools"] = tools_as_json(tools)
    if any(message.images for message in messages):
        return _estimated_count(messages, tools)  # what a picture takes only the server knows
    if looked.kind == "llama-server":
        prompt = (await line.post("/apply-template", body)).get("prompt")
        if not isinstance(prompt, str):
            raise _no_count(line, "/apply-template")
        return TokenCount.exactly(
            await _count_at_llama_server(line, looked, prompt, is_prompt=True)
        )
    if looked.kind == "vllm":
        return TokenCount.exactly(await _count_at_vllm(line, body))
    if tokenizer is not None:
        n_content = sum(await tokenizer.count_texts([message.content for message in messages]))
        n_whole = await tokenizer.count_chat(messages)
        if tools:
            n_whole += sum(await tokenizer.count_texts([json.dumps(tools_as_json(tools))]))
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
    """Count texts, without special tokens."""

    async def count_text(text: str) -> TokenCount:
        if looked.kind == "llama-server":
            return TokenCount.exactly(
                await _count_at_llama_server(line, looked, text, is_prompt=False)
            )
        body = {"model": looked.name, "prompt": text, "add_special_tokens": False}
        return TokenCount.exactly(await _count_at_vllm(line, body))

    if looked.kind in ("llama-server", "vllm"):
        return await run_concurrently(count_text, texts, _COUNTS_AT_ONCE)
    if tokenizer is not None:
        return [TokenCount.exactly(n_tokens) for n_tokens in await tokenizer.count_texts(texts)]
    return [TokenCount(most_tokens(text), least_tokens(text)) for text in texts]


def _estimated_count(messages: Sequence[Message], tools: Sequence[Tool]) -> TokenCount:
    n_tools = most_tokens(json.dumps(tools_as_json(tools))) if tools else 0
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
