"""Record and replay: a pool, tools and commands that answer from a cassette, or record into it.

A replay needs no model, device or model file: facts and token counts are in the cassette, and an
unrecorded call fails. Recorded are model calls, tools of MCP servers and installed packages, `now`,
`http.get`, and commands; a replay starts no server and no command. Everything else runs again.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

from paddock.engine.backends.answer import Answer
from paddock.engine.errors import (
    BadRequest,
    DeadlineExceeded,
    EngineError,
    PromptTooLong,
    TextTooLong,
)
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedReply,
    EmbedRequest,
    ForwardingPool,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Reply,
    Stream,
    Tool,
    Usage,
    reserved_tokens,
    resolve_sampling,
)
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import canonical_json, map_texts
from paddock.engine.wire import from_plain, to_plain
from paddock.runner.core.calls.call_rows import chat_key, embed_key, recorded_logprobs
from paddock.steps.base import BoundTool, CallCache, StepError, ToolResult, Toolset
from paddock.steps.tools.tool_names import BUILT_IN_TOOLS

from .cassette import CallKind, Cassette, CassetteError
from .cassette_differences import call_difference, nearest_call
from .sandbox_copy import SandboxCopy

_REPEATABLE_REFUSALS = (TextTooLong, BadRequest)
"""Deterministic refusals, which are recorded like replies."""
SAVE_EVERY_S = 10.0
# Estimate for texts that were not recorded.
_CHARS_PER_TOKEN = 4


R = TypeVar("R", Reply, EmbedReply)


class NotRecorded(EngineError):
    """The call is not in the cassette."""


class RecordedRefusal(EngineError):
    """A refusal of the engine that was recorded."""


class UnrecordedCall(Struct, frozen=True):
    kind: CallKind
    asked: Mapping[str, Any]
    cassette: Cassette

    @property
    def difference(self) -> str:
        """The diff to the nearest recorded call; compares all of them, which is slow."""
        near = nearest_call(self.asked, self.cassette.of_kind(self.kind))
        return call_difference(self.asked, near.asked if near else None)


class CassetteSession(Struct, eq=False):
    """A cassette in use, and the calls that were not found."""

    cassette: Cassette
    stage: SandboxCopy
    redact: Callable[[str], str]
    is_replayed: bool
    shown: str
    """The cassette's path in messages."""
    unseen: list[UnrecordedCall] = field(default_factory=list)
    test: str = ""
    _save_at: float = field(default_factory=lambda: time.monotonic() + SAVE_EVERY_S)

    def masked(self, value: Any) -> Any:
        """Return a value as a cassette may have it: no secrets, no paths of the sandbox."""
        return map_texts(value, lambda text: self.stage.marked(self.redact(text)))

    def find(self, kind: CallKind, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the recorded reply of a call; None if it must be made.

        Raises:
            NotRecorded: it is not recorded, and this is a replay.
        """
        kept = self.masked(request)
        given = self.cassette.find(kind, kept)
        if given is not None:
            return dict(map_texts(given, self.stage.unmarked))
        if not self.is_replayed:
            return None
        self.unseen.append(UnrecordedCall(kind, kept, self.cassette))
        what = {"chat": "this prompt", "embed": "these texts"}.get(kind, "this call of a tool")
        raise NotRecorded(f"{what} is not recorded in {self.shown}.")

    def keep(self, kind: CallKind, request: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Record a call; save the cassette every `SAVE_EVERY_S`, so that a kill loses little."""
        self.cassette.keep(kind, self.masked(request), self.masked(given))
        began = time.monotonic()
        if began >= self._save_at:
            with contextlib.suppress(CassetteError):  # reported at the end
                self.cassette.write(self.test, keeps_stale=True)
            ended = time.monotonic()
            self._save_at = ended + max(SAVE_EVERY_S, 50 * (ended - began))

    def count(self, model: str, text: str) -> int | None:
        """Return a text's token count; in a replay, estimate that of an unrecorded text.

        A call with such a text is not recorded either, and fails with a diff.
        """
        text = self.masked(text)
        n_tokens = self.cassette.count(model, text)
        if n_tokens is None and self.is_replayed:
            return max(1, len(text) // _CHARS_PER_TOKEN)
        return n_tokens

    def keep_count(self, model: str, text: str, n_tokens: int) -> None:
        self.cassette.keep_count(model, self.masked(text), n_tokens)


class CassettePool(Pool):
    """Implements `engine.request.Pool` over a cassette and, when recording, the real pool."""

    def __init__(self, session: CassetteSession, real: Pool | None) -> None:
        self._session = session
        self._real = real

    async def facts(self, model: ModelSpec) -> ModelFacts:
        n_ctx = model.n_ctx_tokens
        name = f"{model.ref} ({model.role}{f', ctx {n_ctx}' if n_ctx else ''})"
        if self._real is None:
            known = self._session.cassette.model(name)
            if known is None:
                models = self._session.cassette.models
                names = ", ".join(f"'{model}'" for model in sorted(models)) or "none"
                raise NotRecorded(
                    f"model '{name}' is not recorded in {self._session.shown}. Recorded: {names}. "
                    f"Record the test again with `--record`."
                )
            return ModelFacts(
                name=model.ref,
                path="",
                digest=known["digest"],
                size_bytes=0,
                architecture=known["architecture"],
                role=model.role,
                n_ctx_train_tokens=known["ctx_train"],
                n_ctx_tokens=known["ctx"],
                takes_tools=known["takes_tools"],
                projector="" if known["sees_images"] else None,
            )
        facts = await self._real.facts(model)
        # The facts that a test needs; no path, which differs between machines.
        facts_json = {
            "ref": model.ref,
            "digest": facts.identity,
            "architecture": facts.architecture,
            "ctx": facts.n_ctx_tokens,
            "ctx_train": facts.n_ctx_train_tokens,
            "takes_tools": facts.takes_tools,
            "sees_images": facts.projector is not None,
        }
        self._session.cassette.keep_model(name, facts_json)
        return facts

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        text = _conversation(messages, tools)
        n_tokens = self._session.count(model.ref, text)
        if n_tokens is None and self._real is not None:
            n_tokens = await self._real.count_chat(model, messages, tools)
            self._session.keep_count(model.ref, text, n_tokens)
        return n_tokens or 0

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        known = {text: self._session.count(model.ref, text) for text in texts}
        uncounted = [text for text, n_tokens in known.items() if n_tokens is None]
        if uncounted and self._real is not None:
            counted = await self._real.count_texts(model, uncounted)
            for text, n_tokens in zip(uncounted, counted, strict=True):
                self._session.keep_count(model.ref, text, n_tokens)
                known[text] = n_tokens
        return [known[text] or 0 for text in texts]

    def chat(self, request: ChatRequest) -> Stream:
        async def serve(answer: Answer) -> Reply:
            """Answer with all of it as one chunk."""
            reply = await self._answer(request)
            n_tokens = reply.usage.completion_tokens
            answer.add(Chunk(reply.text, n_tokens, reply.reasoning, reply.tool_calls))
            return reply

        return Answer(request, serve)

    async def _answer(self, request: ChatRequest) -> Reply:
        async def ask(pool: Pool) -> Reply:
            try:
                reply = await pool.chat(request).reply()
            except PromptTooLong as error:
                text = _conversation(request.messages, request.tools)
                self._session.keep_count(request.model.ref, text, error.n_prompt_tokens)
                raise
            if self._session.masked(reply.text) != reply.text:
                reply = replace(reply, logprobs=())  # its tokens spell what is masked
            return replace(reply, logprobs=recorded_logprobs(reply))

        await self._check_fit(request)
        return await self._recorded(Reply, request.model, chat_key(request, ""), ask)

    async def _check_fit(self, request: ChatRequest) -> None:
        """Raise PromptTooLong where the count of a prompt is recorded, and is too large."""
        n_ctx_tokens = (await self.facts(request.model)).n_ctx_tokens
        text = self._session.masked(_conversation(request.messages, request.tools))
        n_tokens = self._session.cassette.count(request.model.ref, text)
        if n_tokens is None:
            return
        max_tokens = resolve_sampling(request.params, request.model.params).max_tokens
        reserved = reserved_tokens(max_tokens, n_ctx_tokens)
        if n_tokens + reserved > n_ctx_tokens:
            raise PromptTooLong(n_tokens, reserved, n_ctx_tokens)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        key = embed_key(request, "")
        return await self._recorded(
            EmbedReply, request.model, key, lambda pool: pool.embed(request)
        )

    async def _recorded(
        self,
        reply_kind: type[R],
        model: ModelSpec,
        key: Mapping[str, Any],
        ask: Callable[[Pool], Awaitable[R]],
    ) -> R:
        kind: CallKind = "chat" if reply_kind is Reply else "embed"
        # In readable form: the model by name, without default values
        plain = {"model": model.ref, **key}
        del plain["digest"]
        if "sampling" in plain:
            plain |= {"sampling": map_texts(plain.pop("sampling"), str)}
        request_json = {name: value for name, value in plain.items() if value not in (None, {})}
        if self._real is not None:
            await self.facts(model)  # first drops replies of another model of this name
        given = self._session.find(kind, request_json)
        digest = (await self.facts(model)).served_digest
        if given is not None and "error" in given:
            raise RecordedRefusal(given["error"])
        if given is not None:
            try:
                return from_plain(reply_kind, {**given, "digest": digest})
            except ValueError as error:  # edited by hand
                what = f"a reply in {self._session.shown} is damaged."
                raise NotRecorded(f"{what} Delete the file, and record it again.") from error
        if self._real is None:
            raise NotRecorded("nothing is recorded.")
        try:
            reply = await ask(self._real)
        except PromptTooLong:  # its count is recorded
            raise
        except _REPEATABLE_REFUSALS as error:
            self._session.keep(kind, request_json, {"error": str(error)})
            raise
        # No times, no cache hits, no digest
        usage = Usage(reply.usage.prompt_tokens, completion_tokens=reply.usage.completion_tokens)
        new: dict[str, Any] = to_plain(replace(reply, usage=usage, digest=""))
        kept = {name: new[name] for name in new if name not in ("digest", "fingerprint")}
        self._session.keep(kind, request_json, kept)
        return reply


def _conversation(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """Return the text under which a prompt's count is kept.

    Longer than `SHORT_CHARS`, so that its key is a hash and never equals a short text.
    """
    plain_messages = [[message.role, message.content, len(message.images)] for message in messages]
    described = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in tools
    ]
    return canonical_json(["a conversation", plain_messages, described])


class ReseededPool(ForwardingPool):
    """A pool with another seed for each repetition of a test, unless greedy."""

    def __init__(self, pool: Pool, turn: int) -> None:
        self._pool = pool
        self._turn = turn

    async def pool_of(self, model: ModelSpec) -> Pool:
        return self._pool

    def chat(self, request: ChatRequest) -> Stream:
        sampling = resolve_sampling(request.params, request.model.params, request.defaults)
        if self._turn and not sampling.is_greedy:
            seed = sampling.seed + self._turn
            request = replace(request, params={**request.params, "seed": seed})
        return self._pool.chat(request)


T = TypeVar("T")
_EXTERNAL_TOOLS = frozenset(("now", "http.get"))
RUN_COMMAND = "run"


class CassetteTape:
    """Implements `paddock.runner.core.run_options.CallTape` over a cassette."""

    def __init__(self, session: CassetteSession, turn: int = 0) -> None:
        self._session = session
        self._turn = {"turn": turn} if turn else {}
        self._turns: Counter[str] = Counter()
        self._results: dict[str, list[Any]] = {}

    def toolset(self, inner: Toolset) -> Toolset:
        return _CassetteToolset(inner, self)

    def memo(self, inner: CallCache) -> CallCache:
        return _CassetteCallCache(inner, self)

    @property
    def is_replayed(self) -> bool:
        return self._session.is_replayed

    def recorded(self, kind: Literal["tool", "listing"], request: Mapping[str, Any]) -> Any:
        """Return the next recorded result of a call; after the last one, that again.

        Raises:
            StepError: the recorded result is an error, or nothing is recorded.
        """
        given = self._session.find(kind, request)
        if given is None:
            raise StepError("nothing is recorded.")
        results = given["results"]
        name = f"{kind} {self._session.masked(sorted(request.items(), key=str))}"
        turn = min(self._turns[name], len(results) - 1)
        self._turns[name] += 1
        result = results[turn]
        if isinstance(result, dict) and "raised" in result:
            raise StepError(result["raised"], remedy=result["remedy"], kind=result["kind"])
        return result

    def record(
        self, kind: Literal["tool", "listing"], request: Mapping[str, Any], got: Any
    ) -> None:
        name = f"{kind} {sorted(request.items(), key=str)}"
        results = self._results.setdefault(name, [])
        results.append(got)
        kept = results[:1] if all(result == got for result in results) else results
        self._session.keep(kind, request, {"results": kept})

    async def replay_or_record(
        self,
        kind: Literal["tool", "listing"],
        request: Mapping[str, Any],
        do: Callable[[], Awaitable[Any]],
    ) -> Any:
        if kind == "tool":
            request = {**request, **self._turn}
        if self.is_replayed:
            return self.recorded(kind, request)
        try:
            got = await do()
        except StepError as error:
            raised = {"raised": error.reason, "remedy": error.remedy, "kind": error.kind}
            self.record(kind, request, raised)
            raise
        except DeadlineExceeded as error:
            self.record(kind, request, {"raised": str(error), "remedy": "", "kind": "timeout"})
            raise
        self.record(kind, request, got)
        return got


_CallTool = Callable[[Mapping[str, Any]], Awaitable[ToolResult]]


async def _unavailable(args: Mapping[str, Any]) -> ToolResult:
    raise StepError("this tool is not available in a replay.")


class _CassetteToolset:
    """Implements `paddock.steps.base.Toolset`."""

    def __init__(self, inner: Toolset, tape: CassetteTape) -> None:
        self._inner = inner
        self._tape = tape

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        is_own = name in BUILT_IN_TOOLS or ".py:" in name
        if server is None and is_own and name not in _EXTERNAL_TOOLS:
            return await self._inner.tool(name, server, options)
        opened: list[BoundTool] = []

        async def ask() -> dict[str, Any]:
            opened.append(await self._inner.tool(name, server, options))
            return _plain_facts(
                {
                    "name": opened[0].name,
                    "description": opened[0].description,
                    "schema": dict(opened[0].schema) or {"type": "object"},
                    "has_effects": opened[0].has_effects,
                    "timeout_s": opened[0].timeout_s,
                    "server": opened[0].server,
                }
            )

        listing_request = _plain_facts(
            {"tool": name, "server": server, "options": dict(options or {})}
        )
        facts = await self._tape.replay_or_record("listing", listing_request, ask)
        if opened:
            return replace(opened[0], do=self._calling(opened[0].do, listing_request))
        do = self._calling(_unavailable, listing_request)
        return BoundTool(**{"server": None, **facts}, do=do)

    async def names(self, server: str | None = None) -> Sequence[str]:
        if server is None:
            return await self._inner.names()

        async def ask() -> list[str]:
            return list(await self._inner.names(server))

        return tuple(await self._tape.replay_or_record("listing", {"server": server}, ask))

    def _calling(self, real: _CallTool, of: Mapping[str, Any]) -> _CallTool:
        async def do(args: Mapping[str, Any]) -> ToolResult:
            async def ask() -> dict[str, Any]:
                got = await real(args)
                return {"text": got.text, "value": got.value, "is_error": got.is_error}

            call_request = {**of, "args": dict(args)}
            return ToolResult(**await self._tape.replay_or_record("tool", call_request, ask))

        return do


class _CassetteCallCache:
    """Implements `paddock.steps.base.CallCache`: commands are recorded, other calls are made."""

    def __init__(self, inner: CallCache, tape: CassetteTape) -> None:
        self._inner = inner
        self._tape = tape

    async def once(
        self,
        kind: str,
        request: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        if kind != "tool" or request.get("tool") != RUN_COMMAND:
            return await self._inner.once(kind, request, do, keeps=keeps)

        async def answer() -> T:
            return cast("T", await self._tape.replay_or_record("tool", request, do))

        return await self._inner.once(kind, request, answer, keeps=keeps)


def _plain_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None and value != {}}
