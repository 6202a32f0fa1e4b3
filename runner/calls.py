"""The pool as steps see it: every model call goes through the ledger, which spares known ones.

A call is known by its rendered request and the named model's digest. The raw reply is always
kept, also where nothing is looked up (`cache: off`, `--no-cache`).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from paddock.engine.errors import ModelReplaced
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Reply,
    Sampling,
    Stream,
    Tool,
    ToolCall,
    Usage,
    resolve_sampling,
)

from .freshness import canonical
from .ledger.entries import CallRow
from .ledger.ledger import Ledger
from .made import CallMade
from .tally import Tally

Fence = Callable[[], Awaitable[None]]
"""Raises `ClaimLost` where another machine has taken over the item that is worked on."""


class Digests:
    """The identity of each model that a run names, asked once."""

    def __init__(self, facts: Callable[[ModelSpec], Awaitable[ModelFacts]]) -> None:
        self._facts = facts
        self.known: dict[tuple[str, str], ModelFacts] = {}
        """What was asked for, by the names of pool and model."""

    async def of(self, spec: ModelSpec) -> str:
        """Give the sha256 of what the model's name stands for, whichever copy of a file serves.

        Raises:
            ModelNotFound, ModelBroken: it cannot be used.
        """
        name = (spec.pool, spec.ref)
        if name not in self.known:
            self.known[name] = await self._facts(spec)
        return self.known[name].identity


@dataclass(slots=True)
class Caller:
    """Whose calls these are, and what they came to."""

    scope: str
    step: str
    key: str
    looks_up: bool
    n_calls: int = 0
    n_tokens: int = 0
    made: list[CallMade] = field(default_factory=list)
    """Each call in the order in which it ended."""


@dataclass(frozen=True, slots=True)
class LookedUpCall:
    """A call as the ledger knows it, before it is made."""

    digest: str
    """Of the model."""
    asked: str
    """The request, as it is kept."""
    hash: str
    row: CallRow | None
    """None: the ledger has no reply, or none may be taken."""


class LedgerPool:
    """Implements `paddock.engine.request.Pool` around another one, for one step of one item."""

    def __init__(
        self,
        pool: Pool,
        ledger: Ledger,
        digests: Digests,
        tally: Tally,
        caller: Caller,
        fence: Fence | None = None,
    ) -> None:
        """`fence` is asked before each call of a model."""
        self._fence = fence
        self._pool = pool
        self._ledger = ledger
        self._digests = digests
        self._tally = tally
        self._caller = caller

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model."""
        return await self._pool.facts(model)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens."""
        return await self._pool.count_chat(model, messages, tools)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens."""
        return await self._pool.count_texts(model, texts)

    def chat(self, request: ChatRequest) -> Stream:
        """Give the known reply, or ask the pool for one."""
        return _LedgerStream(self, request)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Give the known vectors, or ask the pool for them."""
        began = time.time()
        found = await self.looked_up_vectors(request)
        digest, hash_, row = found.digest, found.hash, found.row
        if row is None:
            await self._fenced()
            reply = await self._pool.embed(request)
            await self._still(request.model, digest)
            usage = {**asdict(reply.usage), "n_vectors": len(reply.vectors)}
            usage |= {"n_pieces": list(reply.n_pieces)} if reply.n_pieces else {}
            packed = array("f", [x for vector in reply.vectors for x in vector]).tobytes()
            row = self._row(hash_, "embed", request.model, digest, found.asked)
            row = replace(row, reply=packed, served_digest=reply.digest, usage=usage)
            self._ledger.record_call(row, self._tally.run)
            self._count(row, began, reply.usage, is_cached=False)
        else:
            self._count(row, began, _usage(row), is_cached=True)
        # Unpacked in both cases: float32 is what is kept, and a second run must see the same.
        return unpacked(row)

    async def _fenced(self) -> None:
        if self._fence is not None:
            await self._fence()

    async def looked_up(self, request: ChatRequest) -> LookedUpCall:
        """Return the call that asks for an answer, with its row if the ledger has a reply."""
        digest = await self._digests.of(request.model)
        return await self._looked_up("chat", digest, asked_of_chat(request, digest))

    async def looked_up_vectors(self, request: EmbedRequest) -> LookedUpCall:
        """Return the call that asks for vectors, with its row if the ledger has them."""
        digest = await self._digests.of(request.model)
        wanted = asked_of_embed(request, digest)
        if request.on_overflow == "split":  # then what is one part depends on the context, too
            wanted["n_ctx_tokens"] = (await self._pool.facts(request.model)).n_ctx_tokens
        return await self._looked_up("embed", digest, wanted)

    async def _looked_up(self, kind: str, digest: str, wanted: dict[str, Any]) -> LookedUpCall:
        asked = self._tally.secrets.redact(canonical(wanted))
        hash_ = _hash(kind, asked)
        return LookedUpCall(digest, asked, hash_, await self._known(hash_))

    async def ask(self, request: ChatRequest, *, tells: bool) -> AsyncIterator[Chunk | Reply]:
        """Yield the chunks of an answer if `tells`, then its reply."""
        began = time.time()
        found = await self.looked_up(request)
        digest, hash_, row = found.digest, found.hash, found.row
        if row is not None:
            self._count(row, began, _usage(row), is_cached=True)
            reply = remembered(row)
            yield Chunk(
                reply.text, reply.usage.completion_tokens, reply.reasoning, reply.tool_calls
            )
            yield reply
            return
        ready = getattr(self._pool, "ready", None)
        if ready is not None:  # a pool that is opened when it is first needed
            await ready(request.model)
        await self._fenced()
        stream = self._pool.chat(request)
        # Who only hears leaves the pool free to begin anew where a worker or a server dies.
        hears = None if tells else getattr(stream, "heard_by", None)
        try:
            if hears is not None:
                hears(lambda chunk: self._tally.observer.tokens(chunk.n_tokens))
            else:
                async for chunk in stream:
                    self._tally.observer.tokens(chunk.n_tokens)
                    yield chunk
            reply = self._without_secrets(await stream.reply())
        except BaseException:
            stream.cancel()
            raise
        await self._still(request.model, digest)
        row = replace(
            self._row(hash_, "chat", request.model, digest, found.asked),
            reply=reply.text.encode(),
            served_digest=reply.digest,
            done_reason=reply.done_reason,
            usage={**asdict(reply.usage), **_beside_text(reply)},
        )
        self._ledger.record_call(row, self._tally.run)
        self._count(row, began, reply.usage, is_cached=False)
        yield reply

    def _without_secrets(self, reply: Reply) -> Reply:
        """Take out what a model repeats of them, now as well as when the reply is known."""
        redact = self._tally.secrets.redact
        calls = tuple(
            replace(call, arguments=self._tally.secrets.redacted(dict(call.arguments)))
            for call in reply.tool_calls
        )
        text, reasoning = redact(reply.text), redact(reply.reasoning)
        return replace(reply, text=text, reasoning=reasoning, tool_calls=calls)

    async def _still(self, model: ModelSpec, digest: str) -> None:
        """Make sure that a reply is of the model by whose digest it will be known.

        Asked afterwards: a worker that was started anew in the middle has read the new file.

        Raises:
            ModelReplaced: its name stands for another one by now.
        """
        facts = await self._pool.facts(model)
        if facts.identity != digest:
            raise ModelReplaced(model.ref)
        self._note_fallback(model, facts.name)

    def _note_fallback(self, model: ModelSpec, name: str) -> None:
        """Note once in a run that a model on this machine runs with a fallback of llama.cpp."""
        stats = getattr(self._pool, "stats", None)  # other pools need not count
        if stats is None or model.pool:
            return
        for one in stats().resident:
            if one.name == name and one.fallback:
                self._tally.note(f"{name} {one.fallback}")

    async def _known(self, hash_: str) -> CallRow | None:
        if not self._caller.looks_up:
            return None
        return await self._ledger.ask(self._ledger.call, hash_)

    def _count(self, row: CallRow, began: float, usage: Usage, *, is_cached: bool) -> None:
        made = CallMade.of(row.hash, row.kind, began, usage, is_known=is_cached)
        self._caller.made.append(made)
        self._caller.n_calls += 1
        self._caller.n_tokens += usage.prompt_tokens + usage.completion_tokens
        self._tally.call(self._caller.step, self._caller.key, usage, is_cached=is_cached)

    def _row(self, hash_: str, kind: str, model: ModelSpec, digest: str, asked: str) -> CallRow:
        """Give a call's row without its reply."""
        caller = self._caller
        return CallRow(
            hash=hash_,
            kind=kind,
            model=model.ref,
            digest=digest,
            served_digest=digest,
            request=asked,
            reply=b"",
            done_reason=None,
            usage={},
            scope=caller.scope,
            step=caller.step,
            key=caller.key,
        )


class _LedgerStream:
    """Implements `paddock.engine.request.Stream`; asks on first use."""

    def __init__(self, pool: LedgerPool, request: ChatRequest) -> None:
        self._pool = pool
        self._request = request
        self._events: AsyncIterator[Chunk | Reply] | None = None
        self._reply: Reply | None = None
        self._is_cancelled = False

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        self._events = self._events or self._pool.ask(self._request, tells=True)
        async for event in self._events:
            if self._is_cancelled:
                await self._events.aclose()  # type: ignore[attr-defined]
                raise asyncio.CancelledError
            if isinstance(event, Reply):
                self._reply = event
            else:
                yield event

    async def reply(self) -> Reply:
        """Wait for the end."""
        if self._reply is None:
            self._events = self._events or self._pool.ask(self._request, tells=False)
            async for _ in self:
                pass
        if self._reply is None:
            raise asyncio.CancelledError
        return self._reply

    def cancel(self) -> None:
        """Stop at the next chunk."""
        self._is_cancelled = True


def asked_of_embed(request: EmbedRequest, digest: str) -> dict[str, Any]:
    """Give all of a request that decides vectors."""
    wanted = {"texts": request.texts, "dimensions": request.dimensions, "digest": digest}
    return wanted | ({"on_overflow": "split"} if request.on_overflow == "split" else {})


def asked_of_chat(request: ChatRequest, digest: str) -> dict[str, Any]:
    """Give all that decides an answer; the context counts where it sets the answer's length."""
    sampling = resolve_sampling(request.params, request.model.params, request.defaults)
    return {
        "messages": [_said(message) for message in request.messages],
        "sampling": _plain(sampling),
        "digest": digest,
        "ctx": request.model.n_ctx_tokens if sampling.max_tokens is None else None,
        **_wishes(request),
    }


def _plain(sampling: Sampling) -> dict[str, Any]:
    """Give sampling values; those that came later only where they say something."""
    fields = asdict(sampling)
    if sampling.typical_p == 1:
        del fields["typical_p"]
    return fields


def _said(message: Message) -> list[Any]:
    """Give a turn; what it has besides role and text follows only where it has some."""
    more = {name: value for name, value in asdict(message).items() if value}
    more = {name: more[name] for name in more if name not in ("role", "content")}
    if message.images:
        more["images"] = [hashlib.sha256(image).hexdigest() for image in message.images]
    return [message.role, message.content, *([more] if more else [])]


def _wishes(request: ChatRequest) -> dict[str, Any]:
    """Give what a request asks for beyond an answer, so that plain ones keep their hashes."""
    wishes: dict[str, Any] = {}
    if request.tools:
        wishes["tools"] = [asdict(tool) for tool in request.tools]
        wishes["tool_choice"] = request.tool_choice
    if request.constraint is not None:
        wishes["constraint"] = asdict(request.constraint)
    if request.think is not None:
        wishes["think"] = request.think
    bare = ChatRequest(request.model, ())
    for name in _RARE:
        if getattr(request, name) != getattr(bare, name):
            wishes[name] = getattr(request, name)
    if request.images:
        wishes["images"] = [hashlib.sha256(image).hexdigest() for image in request.images]
    return wishes


_RARE = ("prompt", "prompt_tokens", "suffix", "template", "reserves_answer", "truncates",
         "n_keep_tokens")  # fmt: skip
"""Wishes that no step of ours has, and that decide an answer."""


def _beside_text(reply: Reply) -> dict[str, Any]:
    """Give what an answer has besides its text, to be kept with its usage."""
    said: dict[str, Any] = {}
    if reply.reasoning:
        said["reasoning"] = reply.reasoning
    if reply.tool_calls:
        said["tool_calls"] = [asdict(call) for call in reply.tool_calls]
    if reply.is_shortened:
        said["is_shortened"] = True
    return said


def remembered(row: CallRow) -> Reply:
    """Return the reply that the ledger has kept."""
    calls = tuple(ToolCall(**call) for call in row.usage.get("tool_calls", ()))
    return Reply(
        row.reply.decode(),
        _reason(row),
        _usage(row),
        row.served_digest,
        str(row.usage.get("reasoning", "")),
        calls,
        is_shortened=bool(row.usage.get("is_shortened")),
    )


def _hash(kind: str, asked: str) -> str:
    return hashlib.sha256(f"{kind}\n{asked}".encode()).hexdigest()


def _usage(row: CallRow) -> Usage:
    fields = {name: row.usage[name] for name in Usage.__slots__ if name in row.usage}
    return Usage(**fields)


def _reason(row: CallRow) -> Any:
    return row.done_reason or "stop"


def unpacked(row: CallRow) -> EmbedReply:
    """Return the vectors that the ledger has kept."""
    n_pieces = tuple((row.usage or {}).get("n_pieces", ()))
    return EmbedReply(_vectors(row), _usage(row), row.served_digest, n_pieces)


def _vectors(row: CallRow) -> tuple[tuple[float, ...], ...]:
    values = array("f")
    values.frombytes(row.reply)
    n_vectors = int(row.usage["n_vectors"])
    width = len(values) // n_vectors if n_vectors else 0
    return tuple(tuple(values[i * width : (i + 1) * width]) for i in range(n_vectors))
