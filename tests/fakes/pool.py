"""A pool without a model: counts words, answers from the prompt, remembers what it was asked.

The same request always gets the same answer, in another process too. What the real pool refuses
(a prompt or a text that does not fit, an answer at its limit) this one refuses as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from paddock.engine.errors import PromptTooLong, TextTooLong
from paddock.engine.request import (
    AnswerScore,
    ChatRequest,
    Chunk,
    DoneReason,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    PackedVectors,
    Pool,
    Reply,
    Tool,
    ToolCall,
    Usage,
    reserved_tokens,
    resolve_sampling,
)

# A word is a token; so is each Chinese, Japanese or Korean character.
TOKEN = re.compile(r"[⺀-鿿가-힯豈-﫿]|[^\s⺀-鿿가-힯豈-﫿]+")
MESSAGE_OVERHEAD_TOKENS = 4


def count(text: str) -> int:
    """Count as this pool's models do."""
    return len(TOKEN.findall(text))


def echo(request: ChatRequest) -> str:
    """Answer with a fingerprint of the conversation and the first words of its last message."""
    conversation = "\n".join(f"{m.role}: {m.content}" for m in request.messages)
    fingerprint = hashlib.sha256(conversation.encode()).hexdigest()[:8]
    words = request.messages[-1].content.split()[:8] if request.messages else []
    return " ".join([f"[{fingerprint}]", *words])


class FakeStream:
    """An answer, word by word."""

    def __init__(self, pool: FakePool, request: ChatRequest) -> None:
        self._pool = pool
        self._request = request
        self._is_cancelled = False
        self._answered: Reply | None = None

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        reply = await self.reply()
        for word in re.findall(r"\s*\S+|\s+$", reply.text):
            yield Chunk(word)

    async def reply(self) -> Reply:
        if self._is_cancelled:
            raise asyncio.CancelledError
        if self._answered is None:
            self._answered = await self._pool.answer_to(self._request)
        return self._answered

    def cancel(self) -> None:
        self._is_cancelled = True


class FakePool(Pool):
    """Implements `paddock.engine.request.Pool`.

    `answer` makes the text of a reply, or the calls that it asks for; it may raise an
    `EngineError`. `delay_s` is waited before each reply, and none comes before `together` calls
    were under way at once. `chats` and `embeds` are the requests in the order in which they were
    taken, without prompts that are too long; `counted` the batches given to `count_texts`.
    """

    def __init__(
        self,
        *,
        answer: Callable[[ChatRequest], str | Sequence[ToolCall]] = echo,
        n_ctx_tokens: int = 4096,
        n_dimensions: int = 8,
        delay_s: float = 0.0,
        takes_tools: bool | None = True,
        n_parallel: int = 0,
        together: int = 0,
    ) -> None:
        self.answer = answer
        self.n_ctx_tokens = n_ctx_tokens
        self.n_dimensions = n_dimensions
        self.delay_s = delay_s
        self.takes_tools = takes_tools
        self.n_parallel = n_parallel
        self.together = together
        self.chats: list[ChatRequest] = []
        self.embeds: list[EmbedRequest] = []
        self.counted: list[tuple[str, ...]] = []
        self.n_running = 0
        self.n_running_most = 0

    async def aclose(self) -> None:
        """Close nothing, in place of a pool that has processes."""

    async def facts(self, model: ModelSpec) -> ModelFacts:
        return ModelFacts(
            name=model.ref,
            path=f"/models/{model.ref}.gguf",
            digest=hashlib.sha256(model.ref.encode()).hexdigest(),
            size_bytes=1,
            architecture="fake",
            role=model.role,
            n_ctx_train_tokens=self.n_ctx_tokens,
            n_ctx_tokens=min(model.n_ctx_tokens or self.n_ctx_tokens, self.n_ctx_tokens),
            takes_tools=self.takes_tools if model.role == "chat" else None,
            n_parallel=self.n_parallel,
        )

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        told = [m.content for m in messages]
        told += [json.dumps(call.arguments) for m in messages for call in m.tool_calls]
        told += [f"{tool.name} {tool.description} {json.dumps(tool.parameters)}" for tool in tools]
        return sum(map(count, told)) + MESSAGE_OVERHEAD_TOKENS * len(messages)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        self.counted.append(tuple(texts))
        return [count(text) for text in texts]

    def chat(self, request: ChatRequest) -> FakeStream:
        self.chats.append(request)
        return FakeStream(self, request)

    async def answer_to(self, request: ChatRequest) -> Reply:
        self.n_running += 1
        self.n_running_most = max(self.n_running_most, self.n_running)
        try:
            await asyncio.sleep(self.delay_s)
            while self.n_running_most < self.together:  # noqa: ASYNC110 - a stand-in waits simply
                await asyncio.sleep(0.005)
            return await self._reply(request)
        finally:
            self.n_running -= 1

    async def _reply(self, request: ChatRequest) -> Reply:
        facts = await self.facts(request.model)
        sampling = resolve_sampling(request.params, request.model.params)
        n_prompt = await self.count_chat(request.model, request.messages, request.tools)
        n_answer = reserved_tokens(sampling.max_tokens, facts.n_ctx_tokens)
        if n_prompt + n_answer > facts.n_ctx_tokens:
            self.chats.remove(request)
            raise PromptTooLong(n_prompt, n_answer, facts.n_ctx_tokens)
        answer = self.answer(request)
        calls = () if isinstance(answer, str) else tuple(answer)
        text, reason = _within(answer, n_answer) if isinstance(answer, str) else ("", "stop")
        usage = Usage(prompt_tokens=n_prompt, completion_tokens=count(text))
        digest = (await self.facts(request.model)).digest  # as the real pool: that of the end
        scores = tuple(AnswerScore(-0.25 if one == text else -3.0) for one in request.answers)
        return Reply(text, reason, usage, digest, tool_calls=calls, scores=scores)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        self.embeds.append(request)
        await asyncio.sleep(self.delay_s)
        facts = await self.facts(request.model)
        n_pieces = tuple(-(-count(text) // facts.n_ctx_tokens) for text in request.texts)
        for index, text in enumerate(request.texts):
            if n_pieces[index] > 1 and request.on_overflow == "error":
                raise TextTooLong(index, count(text), facts.n_ctx_tokens)
        width = request.dimensions or self.n_dimensions
        return EmbedReply(
            vectors=PackedVectors.of([vector(text, width) for text in request.texts]),
            usage=Usage(prompt_tokens=sum(map(count, request.texts))),
            digest=facts.digest,
            n_pieces=n_pieces if any(n > 1 for n in n_pieces) else (),
        )


Said = str | Sequence[ToolCall]


def saying(*turns: Said, **wishes: Any) -> FakePool:
    """Return a model that says this, turn by turn, and then `The end.`"""
    left = list(turns)
    return FakePool(answer=lambda _: left.pop(0) if left else "The end.", **wishes)


def _within(text: str, n_tokens: int) -> tuple[str, DoneReason]:
    """Cut an answer at its limit, as a model does."""
    ends = [match.end() for match in TOKEN.finditer(text)]
    return (text, "stop") if len(ends) <= n_tokens else (text[: ends[n_tokens - 1]], "length")


def vector(text: str, n_dimensions: int) -> tuple[float, ...]:
    """Return a unit vector of float32, as a model's, that is the same for the same text."""
    values = [
        hashlib.sha256(f"{i} {text}".encode()).digest()[0] - 127.5 for i in range(n_dimensions)
    ]
    length = math.sqrt(sum(value * value for value in values))
    return tuple(array("f", [value / length for value in values]))
