"""A pool whose answers come out of a cassette, or go into one.

Without a real pool behind it, it needs no model, no device and no model's file: facts and token
counts are in the cassette as well, and a call that was never recorded fails. Knows no test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from paddock.engine.errors import BadRequest, EngineError, PromptTooLong, TextTooLong
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
from paddock.runner.calls import asked_of_chat, asked_of_embed
from paddock.runner.freshness import canonical

from .cassette import Cassette, CassetteError, Kind
from .differences import difference, nearest
from .stage import Stage, everywhere

_LASTING = (PromptTooLong, TextTooLong, BadRequest)
"""Refusals that the same request meets again; they are recorded as an answer is."""
SAVE_EVERY_S = 10.0
_USUAL = asdict(Sampling())
# So many characters a token has where nobody counted; only a text that is new is guessed.
_CHARS_A_TOKEN = 4


R = TypeVar("R", Reply, EmbedReply)


class Unrecorded(EngineError):
    """What was asked is not in the cassette."""


class Refused(EngineError):
    """A refusal of the engine that was recorded."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """A call that nobody recorded."""

    kind: Kind
    asked: Mapping[str, Any]
    cassette: Cassette

    @property
    def difference(self) -> str:
        """Show how it differs from the nearest recorded one; looks at them all, so ask for few."""
        near = nearest(self.asked, self.cassette.of_kind(self.kind))
        return difference(self.asked, near.asked if near else None)


@dataclass(frozen=True, slots=True)
class Wording:
    """How texts are written in a cassette: without secrets, wherever the test runs."""

    stage: Stage
    redact: Callable[[str], str]

    def kept(self, value: Any) -> Any:
        """Give plain data as it is recorded."""
        return everywhere(value, lambda text: self.stage.marked(self.redact(text)))

    def given(self, value: Any) -> Any:
        """Give recorded data as the test sees it."""
        return everywhere(value, self.stage.unmarked)


@dataclass(eq=False)
class Tape:
    """A cassette in use: what is asked of it, and what was not found."""

    cassette: Cassette
    wording: Wording
    is_replayed: bool
    """Nothing but recorded answers is given."""
    shown: str
    """The cassette's file, for people."""
    unseen: list[Unseen] = field(default_factory=list)
    test: str = ""
    _save_at: float = field(default_factory=lambda: time.monotonic() + SAVE_EVERY_S)

    def find(self, kind: Kind, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Give what a call was given, None where it must be asked.

        Raises:
            Unrecorded: it was not recorded, and nothing else may be asked.
        """
        kept = self.wording.kept(asked)
        given = self.cassette.find(kind, kept)
        if given is not None:
            return dict(self.wording.given(given))
        if not self.is_replayed:
            return None
        self.unseen.append(Unseen(kind, kept, self.cassette))
        what = {"chat": "this prompt", "embed": "these texts"}.get(kind, "this call of a tool")
        raise Unrecorded(f"{what} is not among the recorded ones in {self.shown}.")

    def keep(self, kind: Kind, asked: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Record a call; now and then all that is recorded so far, lest a kill costs hours."""
        self.cassette.keep(kind, self.wording.kept(asked), self.wording.kept(given))
        began = time.monotonic()
        if began >= self._save_at:
            with contextlib.suppress(CassetteError):  # said at the end, if it is so then
                self.cassette.write(self.test, keeps_stale=True)
            ended = time.monotonic()
            self._save_at = ended + max(SAVE_EVERY_S, 50 * (ended - began))

    def count(self, model: str, text: str) -> int | None:
        """Give a text's tokens; where nothing may be asked, a text that is new is estimated.

        Whatever such a text becomes part of was not recorded either, and fails with a difference.
        """
        text = self.wording.kept(text)
        n_tokens = self.cassette.count(model, text)
        if n_tokens is None and self.is_replayed:
            return max(1, len(text) // _CHARS_A_TOKEN)
        return n_tokens

    def keep_count(self, model: str, text: str, n_tokens: int) -> None:
        """Record a text's tokens."""
        self.cassette.keep_count(model, self.wording.kept(text), n_tokens)


class TapedPool:
    """Implements `paddock.engine.request.Pool` over a tape, and the real pool when recording."""

    def __init__(self, tape: Tape, real: Pool | None) -> None:
        self._tape = tape
        self._real = real

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model."""
        name = model_name(model)
        if self._real is None:
            return _replayed_facts(self._tape, name, model)
        facts = await self._real.facts(model)
        self._tape.cassette.keep_model(name, _kept_facts(model, facts))
        return facts

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens."""
        said = [[one.role, one.content, len(one.images)] for one in messages]
        # Longer than a short text in any case, so that it never meets a text of that wording.
        text = canonical(["a conversation", said, [asdict(tool) for tool in tools]])
        n_tokens = self._tape.count(model.ref, text)
        if n_tokens is None and self._real is not None:
            n_tokens = await self._real.count_chat(model, messages, tools)
            self._tape.keep_count(model.ref, text, n_tokens)
        return n_tokens or 0

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens."""
        known = {text: self._tape.count(model.ref, text) for text in texts}
        asked = [text for text, n_tokens in known.items() if n_tokens is None]
        if asked and self._real is not None:
            counted = await self._real.count_texts(model, asked)
            for text, n_tokens in zip(asked, counted, strict=True):
                self._tape.keep_count(model.ref, text, n_tokens)
                known[text] = n_tokens
        return [known[text] or 0 for text in texts]

    def chat(self, request: ChatRequest) -> Stream:
        """Give the recorded answer, or ask for one and record it."""
        return _TapedStream(self._answer(request))

    async def _answer(self, request: ChatRequest) -> Reply:
        asked = _asked(request.model, asked_of_chat(request, ""))
        given, digest = await self._found("chat", asked, request.model)
        if given is not None:
            return self._read(_reply, given, digest)
        if self._real is None:
            raise Unrecorded("nothing is recorded.")
        try:
            reply = await self._real.chat(request).reply()
        except _LASTING as error:
            self._tape.keep("chat", asked, {"error": str(error)})
            raise
        self._tape.keep("chat", asked, _kept_reply(reply))
        return reply

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Give the recorded vectors, or ask for them and record them."""
        asked = _asked(request.model, asked_of_embed(request, ""))
        given, digest = await self._found("embed", asked, request.model)
        if given is not None:
            return self._read(_vectors, given, digest)
        if self._real is None:
            raise Unrecorded("nothing is recorded.")
        try:
            reply = await self._real.embed(request)
        except _LASTING as error:
            self._tape.keep("embed", asked, {"error": str(error)})
            raise
        self._tape.keep("embed", asked, _kept_vectors(reply))
        return reply

    async def _found(
        self, kind: Kind, asked: Mapping[str, Any], model: ModelSpec
    ) -> tuple[Mapping[str, Any] | None, str]:
        """Give what was recorded, and the model's digest."""
        if self._real is not None:
            await self.facts(model)  # replies of another model of this name go before any is found
        given = self._tape.find(kind, asked)
        return given, (await self.facts(model)).digest

    def _read(
        self, read: Callable[[Mapping[str, Any], str], R], given: Mapping[str, Any], digest: str
    ) -> R:
        try:
            return read(given, digest)
        except (TypeError, ValueError, KeyError) as error:  # somebody has edited it by hand
            what = f"a reply in {self._tape.shown} is not as it was recorded."
            raise Unrecorded(f"{what} Delete the file, and record it again.") from error


class Reseeded:
    """Implements `Pool`: where a model samples, with another seed for each turn of a test."""

    def __init__(self, pool: Pool, turn: int) -> None:
        self._pool = pool
        self._turn = turn
        self.facts = pool.facts
        self.count_chat = pool.count_chat
        self.count_texts = pool.count_texts
        self.embed = pool.embed

    def chat(self, request: ChatRequest) -> Stream:
        """Ask with the turn's seed."""
        sampling = resolve_sampling(request.params, request.model.params, request.defaults)
        if self._turn and not sampling.is_greedy:
            seed = sampling.seed + self._turn
            request = replace(request, params={**request.params, "seed": seed})
        return self._pool.chat(request)


class _TapedStream:
    """Implements `paddock.engine.request.Stream`: the whole answer at once."""

    def __init__(self, answer: Coroutine[Any, Any, Reply]) -> None:
        self._answer = answer
        self._task: asyncio.Task[Reply] | None = None
        self._is_cancelled = False

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        reply = await self.reply()
        yield Chunk(reply.text, reply.usage.completion_tokens, reply.reasoning, reply.tool_calls)

    async def reply(self) -> Reply:
        """Wait for the end."""
        if self._is_cancelled:
            raise asyncio.CancelledError
        if self._task is None:
            self._task = asyncio.ensure_future(self._answer)
        return await self._task

    def cancel(self) -> None:
        """Give up."""
        self._is_cancelled = True
        if self._task is None:
            self._answer.close()
        else:
            self._task.cancel()


def model_name(model: ModelSpec) -> str:
    """Name a model as it is wanted."""
    n = model.n_ctx_tokens
    return f"{model.ref} ({model.role}{f', ctx {n}' if n else ''})"


def _asked(model: ModelSpec, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is asked for a person to read: the model by its name, what is usual left out."""
    plain = {"model": model.ref, **asked}
    del plain["digest"]
    if "sampling" in plain:
        chosen = plain.pop("sampling").items()
        chosen = {name: value for name, value in chosen if _plain(value) != _plain(_USUAL[name])}
        plain |= {"sampling": everywhere(chosen, str)} if chosen else {}
    return {name: value for name, value in plain.items() if value is not None}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _kept_facts(model: ModelSpec, facts: ModelFacts) -> dict[str, Any]:
    """Give what a test needs to know of a model; no path, which is another one elsewhere."""
    return {
        "ref": model.ref,
        "digest": facts.identity,
        "architecture": facts.architecture,
        "ctx": facts.n_ctx_tokens,
        "ctx_train": facts.n_ctx_train_tokens,
        "takes_tools": facts.takes_tools,
        "sees_images": facts.projector is not None,
    }


def _replayed_facts(tape: Tape, name: str, model: ModelSpec) -> ModelFacts:
    known = tape.cassette.model(name)
    if known is None:
        names = ", ".join(f"'{one}'" for one in sorted(tape.cassette.models)) or "none"
        raise Unrecorded(
            f"model '{name}' is not among the recorded ones in {tape.shown}. Recorded: {names}. "
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


def _kept_reply(reply: Reply) -> dict[str, Any]:
    kept: dict[str, Any] = {"text": reply.text}
    if reply.reasoning:
        kept["reasoning"] = reply.reasoning
    if reply.tool_calls:
        kept["tool_calls"] = [asdict(call) for call in reply.tool_calls]
    if reply.is_shortened:
        kept["is_shortened"] = True
    return {**kept, "done_reason": reply.done_reason, "usage": _kept_usage(reply.usage)}


def _kept_usage(usage: Usage) -> dict[str, int]:
    """Give what is the same on every machine: no times, and nothing of what was cached."""
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}


def _reply(given: Mapping[str, Any], digest: str) -> Reply:
    if "error" in given:
        raise Refused(given["error"])
    return Reply(
        text=given["text"],
        done_reason=given["done_reason"],
        usage=Usage(**given["usage"]),
        digest=digest,
        reasoning=given.get("reasoning", ""),
        tool_calls=tuple(ToolCall(**call) for call in given.get("tool_calls", ())),
        is_shortened=given.get("is_shortened", False),
    )


def _kept_vectors(reply: EmbedReply) -> dict[str, Any]:
    return {
        "vectors": [base64.b64encode(array("f", one).tobytes()).decode() for one in reply.vectors],
        "usage": _kept_usage(reply.usage),
        **({"n_pieces": list(reply.n_pieces)} if reply.n_pieces else {}),
    }


def _vectors(given: Mapping[str, Any], digest: str) -> EmbedReply:
    if "error" in given:
        raise Refused(given["error"])
    vectors = []
    for packed in given["vectors"]:
        values = array("f")
        values.frombytes(base64.b64decode(packed, validate=True))
        vectors.append(tuple(values))
    usage = Usage(**given["usage"])
    return EmbedReply(tuple(vectors), usage, digest, tuple(given.get("n_pieces", ())))
