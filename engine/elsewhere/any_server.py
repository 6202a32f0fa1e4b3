"""A server of which only the address is known: finds out at first use what it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from paddock.engine.elsewhere.address import ServerAddress
from paddock.engine.elsewhere.counting import Count
from paddock.engine.elsewhere.line import Line
from paddock.engine.elsewhere.paddock import PaddockServer, is_paddock
from paddock.engine.elsewhere.server import Note, OpenAIServer
from paddock.engine.elsewhere.tokenizer import Tokenizer
from paddock.engine.elsewhere.truncation import ReadLimits
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Tool,
)
from paddock.engine.workers.ticket import Ended
from paddock.engine.workers.wire import Embedded

if TYPE_CHECKING:
    import httpx


class Server(Protocol):
    """One server. Every method but the first two raises `Away` or `Later` where others may do."""

    url: str

    async def aclose(self) -> None:
        """Close the connections."""

    async def is_alive(self, within_s: float) -> bool:
        """Tell whether anybody answers."""

    async def is_resident(self, spec: ModelSpec) -> bool | None:
        """Tell whether a model is in memory; None: the server does not say."""

    async def n_slots(self, spec: ModelSpec) -> int | None:
        """Tell how many requests it answers at a time; None: it does not say."""

    async def facts(self, spec: ModelSpec, *, anew: bool = False) -> ModelFacts:
        """Tell what is known of a model."""

    async def count_chat(
        self, spec: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> Count:
        """Count a conversation."""

    async def count_texts(self, spec: ModelSpec, texts: Sequence[str]) -> list[Count]:
        """Count texts."""

    async def chat(self, request: ChatRequest, hear: Callable[[Chunk], None]) -> Ended:
        """Get one answer, piece by piece."""

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Get vectors of length 1."""


class AnyServer:
    """Implements `Server` by whichever fits what answers at an address."""

    def __init__(
        self,
        address: ServerAddress,
        note: Note,
        *,
        tokenizer: Path | None = None,
        limits: ReadLimits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = address.url
        self._address = address
        self._note = note
        self._tokenizer = tokenizer
        """A GGUF file to count with where the server cannot."""
        self._limits = limits
        self._line = Line(address, transport=transport)
        self._real: Server | None = None
        self._finding = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._real is not None:
            await self._real.aclose()
        await self._line.aclose()

    async def is_alive(self, within_s: float) -> bool:
        """Tell whether anybody answers."""
        return await self._line.answers("/v1/models", within_s)

    async def is_resident(self, spec: ModelSpec) -> bool | None:
        """Tell whether a model is in memory."""
        return await (await self._found()).is_resident(spec)

    async def n_slots(self, spec: ModelSpec) -> int | None:
        """Tell how many requests it answers at a time."""
        return await (await self._found()).n_slots(spec)

    async def facts(self, spec: ModelSpec, *, anew: bool = False) -> ModelFacts:
        """Tell what is known of a model."""
        return await (await self._found()).facts(spec, anew=anew)

    async def count_chat(
        self, spec: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> Count:
        """Count a conversation."""
        return await (await self._found()).count_chat(spec, messages, tools)

    async def count_texts(self, spec: ModelSpec, texts: Sequence[str]) -> list[Count]:
        """Count texts."""
        return await (await self._found()).count_texts(spec, texts)

    async def chat(self, request: ChatRequest, hear: Callable[[Chunk], None]) -> Ended:
        """Get one answer."""
        return await (await self._found()).chat(request, hear)

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Get vectors."""
        return await (await self._found()).embed(request)

    async def _found(self) -> Server:
        if self._real is None:
            async with self._finding:
                if self._real is None:
                    self._real = await self._find()
        return self._real

    async def _find(self) -> Server:
        if await is_paddock(self._line):
            return PaddockServer(self._address, self._line)
        tokenizer = Tokenizer(self._tokenizer) if self._tokenizer is not None else None
        return OpenAIServer(self._line, self._note, tokenizer, self._limits)
