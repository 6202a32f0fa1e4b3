"""One pool over several servers: each request goes where it is answered soonest, or to the next.

A server that goes away loses nothing: its requests go to the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from paddock.engine.answer import Answer
from paddock.engine.elsewhere.any_server import Server
from paddock.engine.elsewhere.counting import Count
from paddock.engine.elsewhere.faults import Away, Later
from paddock.engine.elsewhere.member import Key, Member, key_of
from paddock.engine.elsewhere.roster import Roster
from paddock.engine.errors import (
    Busy,
    DeadlineExceeded,
    ServerLost,
    WrongRole,
)
from paddock.engine.portions import embed_in_portions
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Reply,
    Tool,
    Usage,
)
from paddock.engine.workers.wire import Embedded

MAX_ATTEMPTS = 3
REACH_S = 120.0
"""So long a machine takes to start again; then a run stops, and can go on later."""
BUSY_S = 600.0
PULSE_S = 5.0

_T = TypeVar("_T")


class SpreadPool:
    """Implements `paddock.engine.request.Pool`. Use it as `async with SpreadPool(…) as pool`."""

    def __init__(
        self,
        servers: Sequence[Server],
        note: Callable[[str], None],
        *,
        reach_s: float = REACH_S,
        pulse_s: float = PULSE_S,
        is_patient: bool = False,
    ) -> None:
        self._roster = Roster(
            servers, note, reach_s=reach_s, pulse_s=pulse_s, is_patient=is_patient
        )
        self._facts: dict[Key, ModelFacts] = {}
        self._looking = asyncio.Lock()
        self._answers: set[Answer] = set()

    async def __aenter__(self) -> SpreadPool:
        """Begin to watch the servers; none is asked yet."""
        self._roster.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what runs, and every connection."""
        for answer in tuple(self._answers):
            answer.cancel()
        await asyncio.gather(*(answer.ended() for answer in self._answers))
        await self._roster.close()

    # what a pool does

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model; the first time, every server is asked.

        Raises:
            NotServed, ModelBroken: with what the servers have, or why they cannot be used.
            NoServer: none can be reached.
        """
        key = key_of(model)
        if key not in self._facts:
            async with self._looking:
                if key not in self._facts:
                    self._facts[key] = await self._roster.look(model)
        return replace(self._facts[key], n_parallel=self._roster.n_parallel(key))

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count the prompt's tokens; where no server counts, at most so many."""

        async def work(member: Member) -> Count:
            return await member.server.count_chat(model, messages, tools)

        return (await self._asked(model, work, is_brief=True)).n_most

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens; where no server counts, at most so many."""

        async def work(member: Member) -> list[Count]:
            return await member.server.count_texts(model, texts)

        return [count.n_most for count in await self._asked(model, work, is_brief=True)]

    def chat(self, request: ChatRequest) -> Answer:
        """Queue a request; errors come out of the stream."""
        answer = Answer(request, self._serve)
        self._answers.add(answer)
        answer.when_ended(self._answers.discard)
        return answer

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts, in portions that may go to different servers.

        Raises:
            TextTooLong: a text exceeds the model's context; nothing was cut.
            DeadlineExceeded: not within `total_s`.
        """
        facts = await self.facts(request.model)
        if facts.role != "embed":
            raise WrongRole(request.model.ref, "embed")
        began = time.monotonic()

        async def send(texts: tuple[str, ...], start: int) -> Embedded:
            portion = replace(request, texts=texts)

            async def work(member: Member) -> Embedded:
                return await member.server.embed(portion)

            return await self._asked(request.model, work)

        try:
            async with asyncio.timeout(request.total_s):
                whole = await embed_in_portions(request.texts, send)
        except TimeoutError:
            raise DeadlineExceeded("total", request.total_s or 0.0) from None
        usage = Usage(whole.n_tokens, prefill_s=time.monotonic() - began)
        return EmbedReply(whole.vectors, usage, facts.digest, whole.n_pieces, whole.n_cut_tokens)

    async def _serve(self, answer: Answer) -> Reply:
        request = answer.request
        facts = await self.facts(request.model)
        if facts.role != "chat":
            raise WrongRole(request.model.ref, "chat")

        async def work(member: Member) -> Reply:
            ended = await member.server.chat(request, answer.add)
            return answer.reply_of(ended, facts.digest)

        return await self._asked(request.model, work, answer=answer)

    # asking until somebody answers

    async def _asked(
        self,
        model: ModelSpec,
        work: Callable[[Member], Awaitable[_T]],
        *,
        answer: Answer | None = None,
        is_brief: bool = False,
    ) -> _T:
        """Do something at a server, at another one if it goes away, later if all are full."""
        await self.facts(model)
        n_lost, failed_at = 0, set[Member]()
        until = asyncio.get_running_loop().time() + BUSY_S
        while True:
            member = await self._roster.take(model, failed_at, is_brief=is_brief)
            try:
                done = await member.while_up(work(member))
            except Later as error:
                if asyncio.get_running_loop().time() >= until:
                    raise Busy(f"{error.reason}, for {BUSY_S:g} s. Try again later.") from None
                self._roster.pause(member, error)
            except Away as error:
                self._roster.fell(member, error.reason)
                n_lost += error.was_sent
                if n_lost == MAX_ATTEMPTS or (answer is not None and answer.was_read):
                    raise ServerLost(model.ref, error.reason) from None
                failed_at.add(member)
                if answer is not None:
                    answer.forget()
            else:
                member.succeeded()
                return done
            finally:
                self._roster.give_back(member, is_brief=is_brief)
