"""Load balancer: one pool over several servers, with failover.

Each request goes to the least busy server that is up and has the model in memory. When a server
goes down, its requests go to the others, and it is tried again with growing pauses. One that comes
back with another model under the same name is left out, as is one that refuses a request and then
the same request without a document (a neutral request): only what a server refuses of one document
alone is that document's fault. Lives in one event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from paddock.engine.errors import (
    BadRequest,
    Busy,
    EngineError,
    ModelBroken,
    NoServer,
    NotServed,
    PromptCut,
    ServerLost,
    ServersFull,
    ToolsRefused,
    WrongRole,
)
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Reply,
    Tool,
    Usage,
)
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.retry import Backoff, Pauses
from paddock.engine.system.tasks import StopRequested, TaskSet, run_unless_stopped, wait_for_event
from paddock.engine.workers.worker_protocol import Embedded

from .answer import Answer, OpenAnswers, total_deadline
from .embed_portions import embed_in_portions
from .model_servers import ModelKey, ModelServer, model_key_of
from .neutral_request import (
    NEUTRAL_TEXT,
    begin_neutral_chat,
    neutral_embed,
    neutral_messages,
    refusal_of,
)
from .openai_client import ServerAway, ServerBusy

# A server that does not say how many requests it answers at a time is taken for one of so many.
USUAL_SLOTS = 4
# To load a model elsewhere costs as much as waiting behind one full round of requests.
LOADING_ROUNDS = 1.0


class ServerState(Struct, frozen=True):
    is_up: bool
    n_running: int
    n_slots: int | None = None
    is_resident: bool | None = None
    """Whether the model is loaded; None: unknown."""
    failed_before: bool = False
    """This very request was lost there."""


def choose_server(servers: Sequence[ServerState]) -> int | None:
    """Return the index of the server to ask; None: all are full or down.

    >>> servers = [ServerState(True, 3, 4, True), ServerState(True, 1, 4, True)]
    >>> choose_server([*servers, ServerState(False, 0)])
    1
    """
    able = [
        at
        for at, server in enumerate(servers)
        if server.is_up and (server.n_slots is None or server.n_running < server.n_slots)
    ]
    if not able:
        return None

    def rank(at: int) -> tuple[bool, float, int]:
        """Return one that prefers few rounds of requests before the next one."""
        server = servers[at]
        rounds = server.n_running / (server.n_slots or USUAL_SLOTS)
        loading = LOADING_ROUNDS if server.is_resident is False else 0.0
        return server.failed_before, rounds + loading, at

    return min(able, key=rank)


RETRY_BACKOFF = Backoff(first_s=0.5, longest_s=30.0)
PING_ANSWER_S = 10.0
MOST_MISSES = 3

_T = TypeVar("_T")


class ServerMember:
    """One server and what is known of it. Lives in one event loop.

    What asks it raises ServerAway, ServerBusy or an EngineError.
    """

    def __init__(self, url: str, find: Callable[[], Awaitable[ModelServer]]) -> None:
        self.url = url
        self.reason = ""
        """Why it was down last."""
        self.is_failing = False
        """Whether it answered then, but by an error of its own."""
        self.n_running = 0
        self.down_since: float | None = None
        """By the loop's clock; None: it is up."""
        self.facts: dict[ModelKey, ModelFacts] = {}
        """Of the models that it has been seen to have."""
        self.refusals: dict[ModelKey, EngineError] = {}
        """Of the models of which it refuses every request."""
        self.asking_neutral = asyncio.Lock()
        self._find = find
        self._server: ModelServer | None = None
        self._finding = asyncio.Lock()
        self._is_down = asyncio.Event()
        self._paused_until = 0.0
        self._n_pauses = 0
        self._n_misses = 0
        self._n_slots: dict[ModelKey, int | None] = {}
        self._resident: dict[ModelKey, bool | None] = {}

    async def server(self) -> ModelServer:
        async with self._finding:
            if self._server is None:
                self._server = await self._find()
            return self._server

    async def aclose(self) -> None:
        if self._server is not None:
            await self._server.aclose()

    @property
    def is_up(self) -> bool:
        return self.down_since is None

    def state(self, key: ModelKey, *, failed_before: bool) -> ServerState:
        is_open = asyncio.get_running_loop().time() >= self._paused_until
        return ServerState(
            self.is_up and is_open and key in self.facts,
            self.n_running,
            self._n_slots.get(key),
            self._resident.get(key),
            failed_before,
        )

    async def fetch_facts(self, spec: ModelSpec, *, is_refresh: bool = False) -> ModelFacts:
        server = await self.server()
        facts = await server.facts(spec, is_refresh=is_refresh)
        self._n_slots[model_key_of(spec)] = await server.n_slots(spec)
        return facts

    def n_parallel(self, key: ModelKey) -> int:
        return self._n_slots.get(key) or self.facts[key].n_parallel

    def mark_down(self, reason: str, *, is_failing: bool = False) -> bool:
        """Note that it is down, and end the requests there; return whether that is new."""
        if not self.is_up:
            return False
        self.reason, self.is_failing = reason, is_failing
        self.down_since = asyncio.get_running_loop().time()
        self._is_down.set()
        return True

    def mark_up(self) -> None:
        self.down_since = None
        self._is_down = asyncio.Event()
        self._paused_until, self._n_pauses, self._n_misses = 0.0, 0, 0

    def pause(self, after_s: float | None) -> float:
        """Send it nothing for a while; return for how long."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._paused_until:
            self._n_pauses += 1
        pause_s = RETRY_BACKOFF.pause_s(self._n_pauses) if after_s is None else after_s
        self._paused_until = max(self._paused_until, loop.time() + pause_s)
        return pause_s

    def succeeded(self) -> None:
        self._n_pauses = 0

    async def ping(self, specs: list[ModelSpec]) -> bool:
        """Check that it answers, and what it has loaded; return whether it is down by this."""
        server = await self.server()
        if not await server.is_alive(PING_ANSWER_S):
            self._n_misses += 1
            is_gone = self._n_misses >= MOST_MISSES
            return is_gone and self.mark_down(f"{self.url} does not answer any more")
        self._n_misses = 0
        for spec in specs:
            if model_key_of(spec) in self.facts:
                with suppress(ServerAway, ServerBusy, EngineError):
                    self._resident[model_key_of(spec)] = await server.is_resident(spec)
        return False

    async def ask(self, work: Callable[[ModelServer], Awaitable[_T]]) -> _T:
        """Wait for a request there; raise ServerAway when the server is known to be down."""

        async def reply() -> _T:
            return await work(await self.server())

        try:
            return await run_unless_stopped(reply(), self._is_down)
        except StopRequested:
            raise ServerAway(self.reason, was_sent=True) from None


GRACE_S = 5.0
"""How long a silent server is waited for after others have answered; it may join later."""
_LOADING_PAUSE_S = 1.0


class ServerRoster:
    """The servers of a pool: which are up, and what each has. Use between `start` and `close`."""

    def __init__(
        self,
        members: Sequence[ServerMember],
        note: Callable[[str], None],
        *,
        reach_s: float,
        ping_s: float,
        is_patient: bool,
    ) -> None:
        self._members = members
        self._note = note
        self._reach_s = reach_s
        self._is_patient = is_patient
        """Whether servers that are all away at the start are waited for, too."""
        self._ping_s = ping_s
        self._specs: dict[ModelKey, ModelSpec] = {}
        self._has_begun = False
        """Whether a model was found; before that, servers that are down are reported together."""
        self._moved = asyncio.Event()
        self._tasks = TaskSet()

    def start(self) -> None:
        self._tasks.start(self._pings())

    async def close(self) -> None:
        await self._tasks.close()
        for member in self._members:
            await member.aclose()

    async def take(
        self, model: ModelSpec, failed_at: set[ServerMember], *, is_brief: bool
    ) -> ServerMember:
        """Wait for a server with a free slot and occupy it; brief requests occupy none.

        Raises:
            NoServer: there has been none for too long.
        """
        key = model_key_of(model)
        while True:
            states = [
                member.state(key, failed_before=member in failed_at) for member in self._members
            ]
            if is_brief:  # needs no slot
                states = [replace(state, n_running=0) for state in states]
            at = choose_server(states)
            if at is not None:
                self._members[at].n_running += not is_brief
                return self._members[at]
            left_s = self._left_s(model, any(member.is_up for member in self._members_with(key)))
            moved = self._moved
            await wait_for_event(moved, left_s)

    def _left_s(self, model: ModelSpec, is_any_up: bool) -> float | None:
        """Return how long to wait yet for a server that is down; None: one is up, only full.

        Raises NoServer where all have been down for too long, or those that are up lost the model.
        """
        if is_any_up:
            return None
        since = [member.down_since for member in self._members if member.down_since is not None]
        if not since:
            key = model_key_of(model)
            for member in self._members:
                if key in member.refusals:
                    raise member.refusals[key]
            raise NoServer(model.ref, f"{self._urls()} has it no more", 0.0)
        left_s = max(since) + self._reach_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise NoServer(model.ref, self._reasons(), self._reach_s, is_failing=self._fail)
        return left_s

    def n_parallel(self, key: ModelKey) -> int:
        return sum(member.n_parallel(key) for member in self._members_with(key))

    def _members_with(self, key: ModelKey) -> list[ServerMember]:
        return [member for member in self._members if key in member.facts]

    def pause(self, member: ServerMember, error: ServerBusy) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(member.pause(error.after_s) + 0.01, self.wake)

    def leave_out(self, member: ServerMember, key: ModelKey, refusal: EngineError) -> None:
        """Send no more requests for a model to a server that refuses all of them."""
        if member.facts.pop(key, None) is None:
            return  # known already
        member.refusals[key] = refusal
        if self._members_with(key):
            self._note(f"{refusal} It is left out: the others go on.")
        self.wake()

    def has_server(self, key: ModelKey) -> bool:
        return bool(self._members_with(key))

    def give_back(self, member: ServerMember, *, is_brief: bool) -> None:
        member.n_running -= not is_brief
        self.wake()

    def wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def fetch_facts(self, model: ModelSpec) -> ModelFacts:
        """Ask every server for a model; those that cannot be reached now may come later."""
        key = model_key_of(model)
        self._specs[key] = model
        # Ask all servers that are up at once; return their answers in order.
        looks = {
            member: asyncio.create_task(self._look_patiently(member, model))
            for member in self._members
            if member.is_up
        }
        left = set(looks.values())
        has_answer = False
        try:
            while left:
                done, left = await asyncio.wait(
                    left,
                    timeout=GRACE_S if has_answer else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    break
                has_answer = has_answer or any(task.exception() is None for task in done)
        finally:
            for task in left:
                task.cancel()
        await asyncio.gather(*looks.values(), return_exceptions=True)
        met = [self._take_facts(member, model, look) for member, look in looks.items()]
        errors = [error for error in met if error is not None]
        if self._is_patient and not self._members_with(key):
            # Wait for the first server that has a model, as long as one may come yet
            with suppress(TimeoutError):
                async with asyncio.timeout(self._reach_s):
                    while not self._members_with(key) and not all(
                        member.is_up for member in self._members
                    ):
                        self._note(f"{self._reasons()}: waiting.")
                        await self._moved.wait()
        if not self._members_with(key):
            self._specs.pop(key, None)  # none that comes back had it
            raise self._no_server_error(model, errors)
        away = [
            f"{member.reason}: the others go on." for member in self._members if not member.is_up
        ]
        for note in (*map(str, errors), *away):
            self._note(note)
        self._has_begun = True
        facts = [member.facts[key] for member in self._members_with(key)]
        return replace(
            facts[0], n_ctx_tokens=min(model_facts.n_ctx_tokens for model_facts in facts)
        )

    def _take_facts(
        self, member: ServerMember, model: ModelSpec, look: asyncio.Task[ModelFacts]
    ) -> EngineError | None:
        if look.cancelled():
            self.mark_down(member, f"{member.url} has not answered within {GRACE_S:g} s")
            return None
        try:
            self._record_facts(member, model, look.result())
        except ServerAway as error:
            self.mark_down(member, error.reason, is_failing=error.is_failing)
        except ServerBusy as error:
            self.mark_down(member, error.reason)
        except EngineError as error:
            return error
        return None

    async def _look_patiently(self, member: ServerMember, model: ModelSpec) -> ModelFacts:
        until = asyncio.get_running_loop().time() + self._reach_s
        while True:
            try:
                return await member.fetch_facts(model)
            except ServerBusy as error:
                if asyncio.get_running_loop().time() >= until:
                    raise
                self._note(f"{error.reason}: waiting for it.")
                await asyncio.sleep(error.after_s or _LOADING_PAUSE_S)

    def _record_facts(self, member: ServerMember, model: ModelSpec, facts: ModelFacts) -> None:
        key = model_key_of(model)
        others = (other for other in self._members if other is not member and key in other.facts)
        for other in others:
            if other.facts[key].identity != facts.identity:
                why = f"it has another model under the name '{model.ref}' than {other.url}"
                member.facts.pop(key, None)
                raise ModelBroken(member.url, f"{why}; it is left out")
        member.refusals.pop(key, None)
        if member.facts.setdefault(key, facts).identity != facts.identity:
            del member.facts[key]
            why = f"another model has come under the name '{model.ref}'; it is left out"
            raise ModelBroken(member.url, why)

    def _no_server_error(self, model: ModelSpec, errors: Sequence[EngineError]) -> EngineError:
        away = [member for member in self._members if not member.is_up]
        if not errors or away:
            reasons = self._reasons() or str(errors[0])
            return NoServer(model.ref, reasons, 0.0, is_failing=self._fail)
        known = dict.fromkeys(
            name for error in errors if isinstance(error, NotServed) for name in error.known
        )
        if len(self._members) > 1 and all(isinstance(error, NotServed) for error in errors):
            return NotServed(model.ref, tuple(known), self._urls())
        return errors[0]

    @property
    def _fail(self) -> bool:
        """Whether all servers that are down answer, but by errors of their own."""
        away = [member for member in self._members if not member.is_up]
        return bool(away) and all(member.is_failing for member in away)

    def _reasons(self) -> str:
        return "; ".join(member.reason for member in self._members if not member.is_up)

    def _urls(self) -> str:
        return ", ".join(member.url for member in self._members)

    def mark_down(self, member: ServerMember, reason: str, *, is_failing: bool = False) -> None:
        if member.mark_down(reason, is_failing=is_failing):
            others = any(other.is_up for other in self._members)
            what = "the others go on" if others else "it is tried again"
            self._note(f"{reason}: {what}.") if self._has_begun else None
            self._tasks.start(self._recover(member))
        self.wake()

    async def _recover(self, member: ServerMember) -> None:
        """Try a server again until it is back with the models that it had."""
        pauses = Pauses(RETRY_BACKOFF)
        while not member.is_up:
            await pauses.wait()
            with suppress(ServerAway, ServerBusy):
                for spec in tuple(self._specs.values()):
                    try:
                        self._record_facts(
                            member, spec, await member.fetch_facts(spec, is_refresh=True)
                        )
                    except EngineError as error:
                        member.facts.pop(model_key_of(spec), None)
                        self._note(str(error))
                member.mark_up()
                if not member.is_failing:  # it only says again what it has
                    self._note(f"{member.url} is there.")
        self.wake()

    async def _pings(self) -> None:
        while True:
            await asyncio.sleep(self._ping_s)
            specs = list(self._specs.values())
            busy = [member for member in self._members if member.is_up and member.n_running]
            fell = await asyncio.gather(*(member.ping(specs) for member in busy))
            for member, has_fallen in zip(busy, fell, strict=True):
                if has_fallen:
                    self._tasks.start(self._recover(member))
                    self._note(f"{member.reason}: its requests go to others.")
            self.wake()


MAX_ATTEMPTS = 3
REACH_S = 120.0
"""A machine takes so long to restart; then a run stops, and can be resumed."""
BUSY_S = 600.0
PING_S = 5.0


class _ServerRequest(Struct, Generic[_T], frozen=True):
    """A request that any server with the model can answer."""

    model: ModelSpec
    run: Callable[[ModelServer], Awaitable[_T]]
    neutral: Callable[[ModelServer], Awaitable[object]]
    """The same without a document: where a server refuses that too, the fault is the server's."""
    answer: Answer | None = None
    is_brief: bool = False

    @property
    def key(self) -> ModelKey:
        return model_key_of(self.model)


class BalancedPool(Pool):
    """A pool of several servers. Use it as `async with BalancedPool(…) as pool`."""

    def __init__(
        self,
        members: Sequence[ServerMember],
        note: Callable[[str], None],
        *,
        reach_s: float = REACH_S,
        ping_s: float = PING_S,
        is_patient: bool = False,
    ) -> None:
        self._roster = ServerRoster(
            members, note, reach_s=reach_s, ping_s=ping_s, is_patient=is_patient
        )
        self._facts: dict[ModelKey, ModelFacts] = {}
        self._looking = asyncio.Lock()
        self._answers = OpenAnswers()
        self._answered_at: dict[ModelKey, float] = {}
        self._attempts: dict[object, tuple[ModelKey, float]] = {}
        """Requests at a server, but for brief ones: their model, and since when."""

    async def __aenter__(self) -> BalancedPool:
        self._roster.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._answers.close()
        await self._roster.close()

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Return what is known of a model; the first time, every server is asked.

        Raises:
            NotServed, ModelBroken: with what the servers have, or why they cannot be used.
            NoServer: none can be reached.
        """
        key = model_key_of(model)
        if key not in self._facts:
            async with self._looking:
                if key not in self._facts:
                    self._facts[key] = await self._roster.fetch_facts(model)
        return replace(self._facts[key], n_parallel=self._roster.n_parallel(key))

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count the prompt's tokens; where no server counts, at most so many."""
        request = _ServerRequest(
            model,
            lambda server: server.count_chat(model, messages, tools),
            lambda server: server.count_chat(model, neutral_messages(messages), tools),
            is_brief=True,
        )
        return (await self._run(request)).n_most

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens; where no server counts, at most so many."""
        request = _ServerRequest(
            model,
            lambda server: server.count_texts(model, texts),
            lambda server: server.count_texts(model, [NEUTRAL_TEXT]),
            is_brief=True,
        )
        return [count.n_most for count in await self._run(request)]

    def chat(self, request: ChatRequest) -> Answer:
        return self._answers.start(request, self._serve)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts, in portions that may go to different servers."""
        facts = await self.facts(request.model)
        if facts.role != "embed":
            raise WrongRole(request.model.ref, "embed")
        began = time.monotonic()

        async def send(texts: tuple[str, ...], start: int) -> Embedded:
            portion = replace(request, texts=texts)
            return await self._run(
                _ServerRequest(
                    request.model,
                    lambda server: server.embed(portion),
                    lambda server: server.embed(neutral_embed(request)),
                )
            )

        async with total_deadline(request.total_s):
            whole = await embed_in_portions(request.texts, send)
        usage = Usage(whole.n_tokens, prefill_s=time.monotonic() - began)
        return EmbedReply(
            whole.vectors, usage, facts.served_digest, whole.n_pieces, whole.n_cut_tokens
        )

    async def _serve(self, answer: Answer) -> Reply:
        request = answer.request
        facts = await self.facts(request.model)
        if facts.role != "chat":
            raise WrongRole(request.model.ref, "chat")

        async def run(server: ModelServer) -> Reply:
            return answer.reply_of(await server.chat(request, answer.add), facts.served_digest)

        async def neutral(server: ModelServer) -> None:
            await begin_neutral_chat(partial(_begin_chat, server), server.url, request)

        return await self._run(_ServerRequest(request.model, run, neutral, answer))

    async def _run(self, request: _ServerRequest[_T]) -> _T:
        """Run a request at a server, and after a failure there at another one, or later.

        1. A full server is left alone for a while; the request ends after `BUSY_S` of refusals.
        2. One that goes down is left to recover. The request ends if a part of its answer was read,
           or after `MAX_ATTEMPTS` losses.
        3. One that refuses the neutral request, too, is left out for this model.
        """
        await self.facts(request.model)
        n_lost = 0
        failed_at = set[ServerMember]()
        answer = request.answer
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            member = await self._roster.take(request.model, failed_at, is_brief=request.is_brief)
            try:
                reply = await self._attempt(member, request)
            except ServerBusy as error:  # 1.
                if loop.time() >= began + BUSY_S:
                    raise self._busy_error(request.model, error.reason, began) from None
                self._roster.pause(member, error)
            except ServerAway as error:  # 2.
                self._roster.mark_down(member, error.reason, is_failing=error.is_failing)
                if answer is not None and answer.was_read:
                    raise ServerLost(request.model.ref, error.reason) from None
                n_lost += error.was_sent
                if n_lost == MAX_ATTEMPTS:
                    raise await self._loss(request, error.reason) from None
                failed_at.add(member)
                if answer is not None:
                    answer.drop_chunks()
            except _RefusesAll as error:  # 3.
                self._roster.leave_out(member, request.key, error.fault)
                if not self._roster.has_server(request.key):
                    self._facts.pop(request.key, None)  # the next request asks the servers again
            else:
                member.succeeded()
                return reply
            finally:
                self._roster.give_back(member, is_brief=request.is_brief)

    async def _attempt(self, member: ServerMember, request: _ServerRequest[_T]) -> _T:
        if request.is_brief:
            return await self._judged(member, request)
        loop, attempt = asyncio.get_running_loop(), object()
        self._attempts[attempt] = request.key, loop.time()
        try:
            reply = await self._judged(member, request)
        finally:
            del self._attempts[attempt]
        self._answered_at[request.key] = loop.time()
        return reply

    async def _judged(self, member: ServerMember, request: _ServerRequest[_T]) -> _T:
        try:
            return await member.ask(request.run)
        except PromptCut as error:
            if error.is_servers_fault:
                raise _RefusesAll(ModelBroken(member.url, str(error))) from error
            raise
        except (BadRequest, ModelBroken) as error:
            async with member.asking_neutral:  # the others that it refuses wait for one verdict
                if request.key in member.refusals:
                    raise _RefusesAll(member.refusals[request.key]) from None
                fault = await refusal_of(member.url, member.ask(request.neutral))
            if isinstance(fault, ToolsRefused):  # it can be asked without them
                raise fault from error
            if fault is not None:
                raise _RefusesAll(fault) from error
            if isinstance(error, ModelBroken):  # such as a moderated text, refused by 403
                raise BadRequest(str(error)) from error
            raise

    def _busy_error(self, model: ModelSpec, reason: str, since: float) -> EngineError:
        """Return the error of a request that full servers have refused for `BUSY_S`."""
        now, key = asyncio.get_running_loop().time(), model_key_of(model)
        begins = [began for other, began in self._attempts.values() if other == key]
        is_at_work = any(now - began > BUSY_S / 20 for began in begins)  # a refusal comes soon
        if is_at_work or self._answered_at.get(key, -math.inf) >= since:
            return Busy(f"{reason}, for {BUSY_S:g} s. Try again later.")
        return ServersFull(model.ref, reason, BUSY_S)

    async def _loss(self, request: _ServerRequest[_T], reason: str) -> EngineError:
        """Return the error of a request that was lost too often: its own fault, or the servers'.

        Raises:
            NoServer: none came back.
        """
        model = request.model
        is_failing = False
        for _ in range(MAX_ATTEMPTS):  # others' requests may bring a server down meanwhile
            member = await self._roster.take(model, set(), is_brief=True)
            try:
                await member.ask(request.neutral)
            except ServerAway as error:
                self._roster.mark_down(member, error.reason, is_failing=error.is_failing)
                is_failing = error.is_failing
            except (ServerBusy, EngineError):
                return ServerLost(model.ref, reason)  # it answers
            else:
                return ServerLost(model.ref, reason)
            finally:
                self._roster.give_back(member, is_brief=True)
        why = f"{reason}, also with a request without a document"
        return NoServer(model.ref, why, 0.0, is_failing=is_failing)


class _RefusesAll(Exception):
    """A server refuses a request without a document, too."""

    def __init__(self, fault: EngineError) -> None:
        self.fault = fault
        super().__init__(str(fault))


async def _begin_chat(server: ModelServer, request: ChatRequest) -> None:
    has_begun = asyncio.Event()
    with suppress(StopRequested):
        await run_unless_stopped(server.chat(request, lambda _: has_begun.set()), has_begun)
