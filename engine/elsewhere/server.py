"""One server of OpenAI's API: asks it once, and says how that went. Decides nothing.

Whether to ask again, or another server, is for `spread` to say.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from paddock.engine.deadlines import Deadlines
from paddock.engine.elsewhere.counting import Count, count_chat, count_texts
from paddock.engine.elsewhere.estimate import least_tokens, most_tokens
from paddock.engine.elsewhere.faults import Away
from paddock.engine.elsewhere.hearing import Hearing
from paddock.engine.elsewhere.line import Line
from paddock.engine.elsewhere.looking import Looked, look
from paddock.engine.elsewhere.telling import chat_body, left_out
from paddock.engine.elsewhere.tokenizer import Tokenizer
from paddock.engine.elsewhere.truncation import ReadLimits, Sent, TruncationCheck
from paddock.engine.errors import (
    BadRequest,
    DeadlineExceeded,
    ModelReplaced,
    PromptTooLong,
    TextTooLong,
)
from paddock.engine.presets import sampling_of
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Tool,
    Usage,
    reserved_tokens,
)
from paddock.engine.workers.ticket import Ended
from paddock.engine.workers.wire import Embedded

EMBED_S = 600.0
"""For a portion of texts that its asker gives no time of its own."""
_AROUND_TOKENS = 2
"""What a model puts before and after a text."""
_SHORTEST_PIECE = 8

Note = Callable[[str], None]
"""Shows a person one line."""


class OpenAIServer:
    """Asks one server; every method raises `Away` or `Later` where asking elsewhere helps."""

    def __init__(
        self,
        line: Line,
        note: Note,
        tokenizer: Tokenizer | None = None,
        limits: ReadLimits | None = None,
    ) -> None:
        self.url = line.url
        self._line = line
        self._note = note
        self._tokenizer = tokenizer
        self._truncation = TruncationCheck(
            line, note, limits or ReadLimits(), can_count=tokenizer is not None
        )
        self._looked: dict[tuple[str, str, int | None], Looked] = {}

    async def aclose(self) -> None:
        """Close the connections, and end the tokenizer's process."""
        await self._line.aclose()
        if self._tokenizer is not None:
            await self._tokenizer.aclose()

    async def is_alive(self, within_s: float) -> bool:
        """Tell whether anybody answers."""
        return await self._line.answers("/v1/models", within_s)

    async def is_resident(self, spec: ModelSpec) -> bool | None:
        """Tell whether a model is in memory; None: the server does not say."""
        looked = await self._look(spec)
        if looked.kind != "ollama":
            return True  # such servers have what they were started with
        told = await self._line.find("/api/ps")
        listed = told.get("models") if told else None
        if not isinstance(listed, list):
            return None
        names = {one.get(key) for one in listed if isinstance(one, dict) for key in _NAMES}
        return looked.name in names

    async def n_slots(self, spec: ModelSpec) -> int | None:
        """Tell how many requests it answers at a time; None: it does not say."""
        return (await self._look(spec)).n_slots

    async def facts(self, spec: ModelSpec, *, anew: bool = False) -> ModelFacts:
        """Tell what is known of a model; `anew`: ask, also where it is known."""
        if anew:
            self._looked.pop(_key(spec), None)
        return (await self._look(spec)).facts

    async def count_chat(
        self, spec: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> Count:
        """Count a conversation."""
        looked = await self._look(spec)
        return await count_chat(self._line, looked, messages, tools, self._tokenizer)

    async def count_texts(self, spec: ModelSpec, texts: Sequence[str]) -> list[Count]:
        """Count texts."""
        return await count_texts(self._line, await self._look(spec), texts, self._tokenizer)

    async def chat(self, request: ChatRequest, hear: Callable[[Chunk], None]) -> Ended:
        """Get one answer, piece by piece.

        Raises:
            PromptTooLong: nothing was sent.
            PromptCut: the server read less than it was sent.
            ModelReplaced: another model answered.
            DeadlineExceeded: the request's time is up.
        """
        looked = await self._look(request.model)
        sampling = sampling_of(request, looked.facts)
        n_ctx_tokens = looked.facts.n_ctx_tokens
        reserved = reserved_tokens(sampling.max_tokens, n_ctx_tokens)
        reserved = reserved if request.reserves_answer else 1
        count = await self.count_chat(request.model, request.messages, request.tools)
        if count.n_most + reserved > n_ctx_tokens:
            raise PromptTooLong(count.n_most, reserved, n_ctx_tokens)
        for name in left_out(sampling, looked.kind):
            self._note(f"{self.url} takes no `{name}`; it is left out.")
        body = chat_body(
            request, sampling, model=looked.name, kind=looked.kind, n_ctx_tokens=n_ctx_tokens
        )
        sent = Sent(looked, count, count.n_most, request.total_s)
        await self._truncation.before(sent)
        hearing = Hearing()
        await self._heard(request, body, hearing, hear)
        if looked.kind == "llama-server" and hearing.model not in ("", looked.name):
            raise ModelReplaced(request.model.ref)  # started anew with another one in between
        usage = hearing.ended()
        await self._truncation.after(sent, usage)
        assert hearing.reason is not None
        return Ended(hearing.reason, usage, is_shortened=False)

    async def _heard(
        self,
        request: ChatRequest,
        body: dict[str, Any],
        hearing: Hearing,
        hear: Callable[[Chunk], None],
    ) -> None:
        idle = Deadlines(None, request.idle_s)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_Total(request.total_s))
            await stack.enter_async_context(idle)
            events = await stack.enter_async_context(
                self._line.events("/v1/chat/completions", body)
            )
            async for event in events:
                idle.step()
                for chunk in hearing.chunks(event):
                    hear(chunk)
        if hearing.reason is None:
            raise Away(f"the answer of {self.url} has no end", was_sent=True)

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Get vectors of length 1.

        Raises:
            TextTooLong: a text exceeds the model's context; nothing was cut.
        """
        looked = await self._look(request.model)
        if request.on_overflow == "cut":
            raise BadRequest("a text can only be cut by a pool of this machine")
        pieces = [await self._pieces(request, looked, at) for at in range(len(request.texts))]
        flat = [piece for parts in pieces for piece in parts]
        vectors, n_tokens = await self._vectors(looked, flat, request.total_s)
        found = iter(vectors)
        whole = [_mean([(next(found), len(piece)) for piece in parts]) for parts in pieces]
        cut = [_normal(one[: request.dimensions] if request.dimensions else one) for one in whole]
        return Embedded(cut, n_tokens, [len(parts) for parts in pieces], [0] * len(pieces))

    async def _vectors(
        self, looked: Looked, texts: Sequence[str], total_s: float | None
    ) -> tuple[list[list[float]], int]:
        """Return a vector for each text, and how many tokens were read."""
        n_most = [most_tokens(text) for text in texts]
        count = Count(sum(n_most), sum(map(least_tokens, texts)))
        sent = Sent(looked, count, max(n_most, default=0), total_s)
        await self._truncation.before(sent)
        body = {"model": looked.name, "input": list(texts), "encoding_format": "float"}
        within_s = min(total_s or EMBED_S, EMBED_S)
        told = await self._line.post("/v1/embeddings", body, within_s)
        vectors = _vectors(told.get("data"), len(texts))
        if vectors is None:
            raise BadRequest(f"{self.url} gives no vectors for {len(texts)} texts")
        usage = told.get("usage")
        n_read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        n_tokens = n_read if isinstance(n_read, int) else 0
        await self._truncation.after(sent, Usage(n_tokens))
        return vectors, n_tokens

    async def _pieces(self, request: EmbedRequest, looked: Looked, at: int) -> list[str]:
        """Give a text whole or, where that is allowed, in halves of halves that fit."""
        text, room = request.texts[at], looked.facts.n_ctx_tokens - _AROUND_TOKENS
        if len(text.encode()) <= room:  # a token is a byte at the least
            return [text]
        (count,) = await self.count_texts(request.model, [text])
        if count.n_most <= room:
            return [text]
        if request.on_overflow == "error" or len(text) < _SHORTEST_PIECE:
            raise TextTooLong(at, count.n_most, looked.facts.n_ctx_tokens)
        middle = text.rfind(" ", len(text) // 4, len(text) // 2) + 1 or len(text) // 2
        halves = replace(request, texts=(text[:middle], text[middle:]))
        return [
            *await self._pieces(halves, looked, 0),
            *await self._pieces(halves, looked, 1),
        ]

    async def _look(self, spec: ModelSpec) -> Looked:
        key = _key(spec)
        if key not in self._looked:
            found = await look(self._line, spec)
            if found.says_only_its_name:
                self._note(
                    f"{self.url} tells of '{found.name}' nothing but its name: its answers are "
                    "known by that, also when another model comes under the same name."
                )
            self._looked[key] = found
        return self._looked[key]


_NAMES = ("name", "model")


def _key(spec: ModelSpec) -> tuple[str, str, int | None]:
    return spec.ref, spec.role, spec.n_ctx_tokens


class _Total:
    """The time of a whole request, from when it is sent."""

    def __init__(self, total_s: float | None) -> None:
        self._total_s = total_s
        self._timeout = asyncio.timeout(total_s)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *how: Any) -> None:
        try:
            await self._timeout.__aexit__(*how)
        except TimeoutError:
            raise DeadlineExceeded("total", self._total_s or 0.0) from None


def _vectors(told: Any, n: int) -> list[list[float]] | None:
    """Read vectors in the order of the texts; None: they are not there."""
    if not isinstance(told, list) or len(told) != n:
        return None
    by_index = {one.get("index", at): one.get("embedding") for at, one in enumerate(told)}
    vectors = [by_index.get(at) for at in range(n)]
    if not all(isinstance(vector, list) and vector for vector in vectors):
        return None
    return [[float(x) for x in vector] for vector in vectors if vector is not None]


def _mean(parts: Sequence[tuple[Sequence[float], int]]) -> Sequence[float]:
    """Give the mean of vectors of length 1, weighted by how much each stands for."""
    if len(parts) == 1:
        return parts[0][0]
    total = sum(weight for _, weight in parts) or 1
    columns = zip(*(_normal(vector) for vector, _ in parts), strict=True)
    weights = [weight / total for _, weight in parts]
    return [sum(x * w for x, w in zip(column, weights, strict=True)) for column in columns]


def _normal(vector: Sequence[float]) -> tuple[float, ...]:
    length = math.sqrt(sum(x * x for x in vector))
    return tuple(x / length for x in vector) if length else tuple(vector)
