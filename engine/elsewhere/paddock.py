"""One service of Paddock's on another machine, by its own door: nothing is lost on the way.

Asks once, as `server` does; models are known there by the digests of their files, as here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from paddock.engine.elsewhere.address import ServerAddress
from paddock.engine.elsewhere.counting import Count
from paddock.engine.elsewhere.faults import Away, Later
from paddock.engine.elsewhere.line import Line
from paddock.engine.errors import Busy, EngineError, ModelBroken, ModelReplaced
from paddock.engine.remote.pool import Place, RemotePool
from paddock.engine.remote.wire import PREFIX
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

_T = TypeVar("_T")


async def is_paddock(line: Line) -> bool:
    """Tell whether a service of Paddock's answers.

    Raises:
        ModelBroken: it does, and refuses the key.
        Away: nobody answers.
    """
    status = await line.status("POST", f"{PREFIX}/stats")
    if status in (401, 403) and await line.status("GET", "/readyz") in (200, 503):
        raise ModelBroken(line.url, line.about_key(str(status)))
    return status == 200


class _Broke(EngineError):
    """The connection broke; said to whoever asked."""


class PaddockServer:
    """Asks one service; every method raises `Away` or `Later` where asking elsewhere helps."""

    def __init__(self, address: ServerAddress, line: Line) -> None:
        self.url = address.url
        self._place = Place(url=address.url, key=address.key)
        self._line = line
        self._pool = RemotePool(self._find)
        self._identities: dict[tuple[str, str], str] = {}

    async def _find(self, failed: Place | None) -> Place:
        if failed is not None:
            raise _Broke(f"the connection to {self.url} broke")
        return self._place

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.__aexit__(None, None, None)
        await self._line.aclose()

    async def is_alive(self, within_s: float) -> bool:
        """Tell whether anybody answers."""
        return await self._line.answers("/readyz", within_s)

    async def is_resident(self, spec: ModelSpec) -> bool | None:
        """Tell whether a model is in memory; None: the service does not say."""
        facts = await self.facts(spec)
        told = await self._line.find("/api/ps")
        listed = told.get("models") if told else None
        if not isinstance(listed, list):
            return None
        return any(isinstance(one, dict) and one.get("name") == facts.name for one in listed)

    async def n_slots(self, spec: ModelSpec) -> int | None:
        """Tell nothing: how many requests a model answers at a time, its service decides."""
        return None

    async def facts(self, spec: ModelSpec, *, anew: bool = False) -> ModelFacts:
        """Tell what is known of a model; asked each time, since its file may be replaced."""
        facts = await self._asked(self._pool.facts(_plain(spec)))
        if anew:
            self._identities.pop((spec.ref, spec.role), None)
        self._identities.setdefault((spec.ref, spec.role), facts.identity)
        return facts

    async def count_chat(
        self, spec: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> Count:
        """Count a conversation."""
        n_tokens = await self._asked(self._pool.count_chat(_plain(spec), messages, tools))
        return Count.exactly(n_tokens)

    async def count_texts(self, spec: ModelSpec, texts: Sequence[str]) -> list[Count]:
        """Count texts."""
        counts = await self._asked(self._pool.count_texts(_plain(spec), texts))
        return [Count.exactly(n_tokens) for n_tokens in counts]

    async def chat(self, request: ChatRequest, hear: Callable[[Chunk], None]) -> Ended:
        """Get one answer, piece by piece."""
        answer = self._pool.chat(replace(request, model=_plain(request.model)))
        answer.heard_by(hear)
        reply = await self._asked(answer.reply())
        await self._still(request.model)
        return Ended(reply.done_reason, reply.usage, reply.is_shortened, reply.tokens, reply.stop)

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Get vectors of length 1."""
        wanted = replace(request, model=_plain(request.model))
        reply = await self._asked(self._pool.embed(wanted))
        await self._still(request.model)
        n = len(reply.vectors)
        n_pieces, n_cut = reply.n_pieces or (1,) * n, reply.n_cut_tokens or (0,) * n
        return Embedded(list(reply.vectors), reply.usage.prompt_tokens, list(n_pieces), list(n_cut))

    async def _still(self, spec: ModelSpec) -> None:
        """Make sure that the model is the one that it was, since its file may be replaced there.

        Raises:
            ModelReplaced: it is another one.
        """
        known = self._identities.get((spec.ref, spec.role))
        if (await self.facts(spec)).identity != known and known is not None:
            raise ModelReplaced(spec.ref)

    async def _asked(self, work: Awaitable[_T]) -> _T:
        try:
            return await work
        except _Broke as error:
            raise Away(str(error), was_sent=True) from None
        except Busy as error:
            raise Later(str(error)) from None


def _plain(spec: ModelSpec) -> ModelSpec:
    """Leave out by which pool it is served here."""
    return replace(spec, pool="")
