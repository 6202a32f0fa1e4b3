"""One pool over several servers: each request goes where it is answered soonest, or to the next.

A server that goes away loses nothing: its requests go to the others, and it is tried again with
growing pauses. One that has come back with another model under the same name is left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from paddock.engine.answer import Answer
from paddock.engine.elsewhere.any_server import Server
from paddock.engine.elsewhere.choice import Seen, choose
from paddock.engine.elsewhere.counting import Count
from paddock.engine.elsewhere.faults import Away, Later
from paddock.engine.elsewhere.member import Key, Member, key_of, pause_after
from paddock.engine.errors import (
    Busy,
    DeadlineExceeded,
    EngineError,
    ModelBroken,
    NoServer,
    NotServed,
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
    ) -> None:
        self._members = [Member(server) for server in servers]
        self._note = note
        self._reach_s = reach_s
        self._pulse_s = pulse_s
        self._facts: dict[Key, ModelFacts] = {}
        self._specs: dict[Key, ModelSpec] = {}
        self._looking = asyncio.Lock()
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: set[Answer] = set()

    async def __aenter__(self) -> SpreadPool:
        """Begin to watch the servers; none is asked yet."""
        self._start(self._pulses())
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for member in self._members:
            await member.server.aclose()

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
                    self._facts[key] = await self._look(model)
        return self._facts[key]

    async def count_chat(self, model: ModelSpec, messages: Sequence[Message]) -> int:
        """Count the prompt's tokens; where no server counts, at most so many."""

        async def work(member: Member) -> Count:
            return await member.server.count_chat(model, messages)

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
            member = await self._taken(model, failed_at, is_brief=is_brief)
            try:
                done = await member.while_up(work(member))
            except Later as error:
                self._pause(member, error, until)
            except Away as error:
                self._fell(member, error.reason)
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
                member.n_running -= not is_brief
                self._wake()

    async def _taken(self, model: ModelSpec, failed_at: set[Member], *, is_brief: bool) -> Member:
        """Wait for a server that has room.

        Raises:
            NoServer: there has been none for too long.
        """
        key = key_of(model)
        while True:
            seen = [one.seen(key, failed_before=one in failed_at) for one in self._members]
            at = choose([_without_load(one) for one in seen] if is_brief else seen)
            if at is not None:
                self._members[at].n_running += not is_brief
                return self._members[at]
            left_s = self._left_s(model, any(one.is_up for one in self._having(key)))
            moved = self._moved
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await moved.wait()

    def _left_s(self, model: ModelSpec, has_one: bool) -> float | None:
        """Tell how long to wait yet for a server that is down; None: one is up, only full.

        Raises:
            NoServer: all have been down for too long, or those that are up have lost the model.
        """
        if has_one:
            return None
        since = [one.down_since for one in self._members if one.down_since is not None]
        if not since:
            raise NoServer(model.ref, f"{self._urls()} has it no more", 0.0)
        left_s = max(since) + self._reach_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise NoServer(model.ref, self._reasons(), self._reach_s)
        return left_s

    def _having(self, key: Key) -> list[Member]:
        return [one for one in self._members if key in one.digests]

    def _pause(self, member: Member, error: Later, until: float) -> None:
        """Let a full server be for a while.

        Raises:
            Busy: it has been full for too long.
        """
        loop = asyncio.get_running_loop()
        if loop.time() >= until:
            raise Busy(f"{error.reason}, for {BUSY_S:g} s. Try again later.") from None
        loop.call_later(member.pause(error.after_s) + 0.01, self._wake)

    def _wake(self) -> None:
        """Let everybody who waits look again."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    # looking

    async def _look(self, model: ModelSpec) -> ModelFacts:
        """Ask every server for a model; those that cannot be reached now may come later."""
        self._specs[key_of(model)] = model
        looks = (self._met(member, model) for member in self._members)
        errors = [error for error in await asyncio.gather(*looks) if error is not None]
        having = self._having(key_of(model))
        if having:
            away = [f"{one.reason}: the others go on." for one in self._members if not one.is_up]
            for told in (*map(str, errors), *away):
                self._note(told)
            facts = [await one.server.facts(model) for one in having]
            return replace(facts[0], n_ctx_tokens=min(one.n_ctx_tokens for one in facts))
        raise self._nobody(model, errors)

    async def _met(self, member: Member, model: ModelSpec) -> EngineError | None:
        """Ask one server for a model; gives why it is not used for it, if that is to be said."""
        if not member.is_up:
            return None
        try:
            self._know(member, model, await member.look(model))
        except (Away, Later) as error:
            self._fell(member, error.reason)
        except EngineError as error:
            return error
        return None

    def _know(self, member: Member, model: ModelSpec, digest: str) -> None:
        """Take it that a server has a model.

        Raises:
            ModelBroken: another one than the first server that was asked.
        """
        key = key_of(model)
        others = (one for one in self._members if one is not member and key in one.digests)
        for other in others:
            if other.digests[key] != digest:
                why = f"it has another model under the name '{model.ref}' than {other.server.url}"
                member.digests.pop(key, None)
                raise ModelBroken(member.server.url, f"{why}; it is left out")
        if member.digests.setdefault(key, digest) != digest:
            del member.digests[key]
            why = f"another model has come under the name '{model.ref}'; it is left out"
            raise ModelBroken(member.server.url, why)

    def _nobody(self, model: ModelSpec, errors: Sequence[EngineError]) -> EngineError:
        """Say why no server can be asked."""
        away = [one for one in self._members if not one.is_up]
        if not errors or away:
            return NoServer(model.ref, self._reasons() or str(errors[0]), 0.0)
        known = dict.fromkeys(
            name for error in errors if isinstance(error, NotServed) for name in error.known
        )
        if len(self._members) > 1 and all(isinstance(error, NotServed) for error in errors):
            return NotServed(model.ref, tuple(known), self._urls())
        return errors[0]

    def _reasons(self) -> str:
        return "; ".join(one.reason for one in self._members if not one.is_up)

    def _urls(self) -> str:
        return ", ".join(one.server.url for one in self._members)

    # coming and going

    def _fell(self, member: Member, reason: str) -> None:
        if member.fell(reason):
            others = any(one.is_up for one in self._members)
            what = "the others go on" if others else "it is tried again"
            self._note(f"{reason}: {what}.") if self._facts else None
            self._start(self._recover(member))
        self._wake()

    async def _recover(self, member: Member) -> None:
        """Try a server again until it is back with the models that it had."""
        n_tries = 0
        while not member.is_up:
            n_tries += 1
            await asyncio.sleep(pause_after(n_tries))
            with suppress(Away, Later):
                for spec in tuple(self._specs.values()):
                    try:
                        self._know(member, spec, await member.look(spec, anew=True))
                    except EngineError as error:
                        member.digests.pop(key_of(spec), None)
                        self._note(str(error))
                member.rose()
                self._note(f"{member.server.url} is there.")
        self._wake()

    async def _pulses(self) -> None:
        """While something runs, see whether the servers still answer."""
        while True:
            await asyncio.sleep(self._pulse_s)
            specs = list(self._specs.values())
            busy = [one for one in self._members if one.is_up and one.n_running]
            await asyncio.gather(*(one.pulse(specs) for one in busy))
            for member in busy:
                if not member.is_up:
                    self._start(self._recover(member))
                    self._note(f"{member.reason}: its requests go to others.")
            self._wake()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _without_load(one: Seen) -> Seen:
    """See a server as one that has nothing to do."""
    return replace(one, n_running=0)
