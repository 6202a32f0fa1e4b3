"""Servers elsewhere that do as they are told: answer, go away, come back, be full."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from paddock.engine.backends.openai_client import ServerAway, ServerBusy
from paddock.engine.backends.token_counting import TokenCount
from paddock.engine.errors import NotServed
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    PackedVectors,
    Tool,
    Usage,
)
from paddock.engine.workers.worker_protocol import AnswerEnd, Embedded


class FarServer:
    """Implements `paddock.engine.backends.model_servers.ModelServer`."""

    def __init__(
        self,
        name: str,
        *,
        models: Sequence[str] = ("m",),
        version: str = "1",
        n_slots: int | None = 2,
        resident: bool = True,
    ) -> None:
        self.url = f"http://{name}:1"
        self.models = tuple(models)
        self.version = version
        self.slots = n_slots
        self.resident = resident
        self.is_here = True
        self.loads = 0
        """How often it says that its model is being loaded."""
        self.answers_after_s = 0.0
        """So long it says nothing of its models."""
        self.hangs = False
        """Whether it takes requests and says nothing any more."""
        self.on_chat: Callable[[ChatRequest], None] = lambda request: None
        """May raise what a request comes to."""
        self.on_embed: Callable[[EmbedRequest], None] = lambda request: None
        self.asked: list[str] = []
        """The last words of each conversation, in the order of their coming."""
        self.n_running = self.n_running_most = 0
        self.breaks = asyncio.Event()
        self.is_closed = False

    async def found(self) -> FarServer:
        return self

    def die(self) -> None:
        """Go away with all that runs."""
        self.is_here = False
        self.breaks.set()

    def come_back(self) -> None:
        self.is_here = True
        self.hangs = False
        self.breaks = asyncio.Event()

    async def aclose(self) -> None:
        self.is_closed = True

    async def is_alive(self, within_s: float) -> bool:
        return self.is_here and not self.hangs

    async def is_resident(self, spec: ModelSpec) -> bool | None:
        return self.resident

    async def n_slots(self, spec: ModelSpec) -> int | None:
        return self.slots

    async def facts(self, spec: ModelSpec, *, is_refresh: bool = False) -> ModelFacts:
        await asyncio.sleep(self.answers_after_s)
        self._must_be_here()
        if self.loads:
            self.loads -= 1
            raise ServerBusy(f"{self.url} is busy: Loading model", 0.01)
        if spec.ref not in self.models:
            raise NotServed(spec.ref, self.models, self.url)
        digest = hashlib.sha256(f"{spec.ref} {self.version}".encode()).hexdigest()
        return ModelFacts(spec.ref, self.url, digest, 1, "far", spec.role, 1000, 1000)

    async def count_chat(
        self, spec: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> TokenCount:
        self._must_be_here()
        return TokenCount.exactly(sum(len(message.content.split()) for message in messages))

    async def count_texts(self, spec: ModelSpec, texts: Sequence[str]) -> list[TokenCount]:
        self._must_be_here()
        return [TokenCount.exactly(len(text.split())) for text in texts]

    async def chat(self, request: ChatRequest, on_chunk: Callable[[Chunk], None]) -> AnswerEnd:
        self._must_be_here()
        self.asked.append(request.messages[-1].content)
        self.n_running += 1
        self.n_running_most = max(self.n_running_most, self.n_running)
        try:
            self.on_chat(request)
            on_chunk(Chunk("from "))
            await self._pass()
            on_chunk(Chunk(self.url))
            return AnswerEnd("stop", Usage(3, completion_tokens=2), is_shortened=False)
        finally:
            self.n_running -= 1

    async def embed(self, request: EmbedRequest) -> Embedded:
        self._must_be_here()
        self.on_embed(request)
        await self._pass()
        n = len(request.texts)
        return Embedded(PackedVectors.of([(1.0, 0.0)] * n), n, (1,) * n, (0,) * n)

    async def _pass(self) -> None:
        """Take a moment, in which the server may go away."""
        broken = asyncio.ensure_future(self.breaks.wait())
        try:
            await asyncio.wait({broken}, timeout=None if self.hangs else 0.01)
        finally:
            broken.cancel()
        if not self.is_here:
            raise ServerAway(f"the connection to {self.url} broke", was_sent=True)

    def _must_be_here(self) -> None:
        if not self.is_here:
            raise ServerAway(f"{self.url} cannot be reached")
