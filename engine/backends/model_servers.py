"""Servers behind an address: any of OpenAI's API, or another Paddock.

Each method asks once. After `ServerAway` and `ServerBusy`, asking again or asking another server
may help; `balancer` decides that. Another Paddock is asked by RPC, where models are identified by
the digests of their files, as here.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from paddock.engine.errors import (
    BadRequest,
    Busy,
    EngineError,
    ModelBroken,
    ModelReplaced,
    PromptTooLong,
    TextTooLong,
)
from paddock.engine.models.model_defaults import merged_sampling
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
    reserved_tokens,
)
from paddock.engine.system.records import replace
from paddock.engine.system.server_address import PoolAddress, ServerAddress
from paddock.engine.workers.worker_protocol import AnswerEnd, Embedded

from .answer import deadlines, total_deadline
from .model_discovery import ServedModel, look_up_model
from .openai_client import ServerAway, ServerBusy, ServerConnection
from .openai_codec import StreamDecoder, chat_body, unsupported_sampling
from .option_wires import cannot_compare, option_scoring_body, read_answer_scores
from .rpc import PREFIX, RemotePool
from .token_bounds import least_tokens, most_tokens
from .token_counting import LocalTokenizer, TokenCount, count_chat, count_texts
from .truncation_check import ReadLimits, SentPrompt, TruncationCheck

if TYPE_CHECKING:
    import httpx

EMBED_S = 600.0
"""For a portion of texts without a deadline."""
OPTIONS_S = 600.0
"""For the answers of one prompt without a deadline."""
_AROUND_TOKENS = 2
"""What a model puts before and after a text."""
_SHORTEST_PIECE = 8

NoteLine = Callable[[str], None]


class OpenAIServer:
    def __init__(
        self,
        line: ServerConnection,
        note: NoteLine,
        tokenizer: LocalTokenizer | None = None,
        limits: ReadLimits | None = None,
        usual_ctx_tokens: int | None = None,
    ) -> None:
        """`usual_ctx_tokens`: the context of models of which neither server nor author says it."""
        self.url = line.url
        self._usual_ctx_tokens = usual_ctx_tokens
        self._line = line
        self._note = note
        self._tokenizer = tokenizer
        self._truncation = TruncationCheck(
            line, note, limits or ReadLimits(), can_count=tokenizer is not None
        )
        self._looked: dict[ModelKey, ServedModel] = {}

    async def aclose(self) -> None:
        await self._line.aclose()
        if self._tokenizer is not None:
            await self._tokenizer.aclose()

    async def is_alive(self, within_s: float) -> bool:
        return await self._line.answers("/v1/models", within_s)

    async def is_resident(self, spec: ModelSpec) -> bool | None:
        looked = await self._look(spec)
        if looked.kind != "ollama":
            return True  # such servers have what they were started with
        return await _is_listed(self._line, looked.name)

    async def n_slots(self, spec: ModelSpec) -> int | None:
        return (await self._look(spec)).n_slots

    async def facts(self, spec: ModelSpec, *, is_refresh: bool = False) -> ModelFacts:
        if is_refresh:
            self._looked.pop(model_key_of(spec), None)
        return (await self._look(spec)).facts

    async def count_chat(
        self, spec: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> TokenCount:
        looked = await self._look(spec)
        return await count_chat(self._line, looked, messages, tools, self._tokenizer)

    async def count_texts(self, spec: ModelSpec, texts: Sequence[str]) -> list[TokenCount]:
        return await count_texts(self._line, await self._look(spec), texts, self._tokenizer)

    async def chat(self, request: ChatRequest, on_chunk: Callable[[Chunk], None]) -> AnswerEnd:
        """Get one answer, piece by piece.

        Raises:
            PromptTooLong: nothing was sent.
            PromptCut: the server read less than it was sent.
            ModelReplaced: another model answered.
            DeadlineExceeded: the request's time is up.
        """
        looked = await self._look(request.model)
        sampling = merged_sampling(request, looked.facts)
        n_ctx_tokens = looked.facts.n_ctx_tokens
        reserved = reserved_tokens(sampling.max_tokens, n_ctx_tokens)
        reserved = reserved if request.reserves_answer else 1
        count = await self.count_chat(request.model, request.messages, request.tools)
        if count.n_most + reserved > n_ctx_tokens:
            raise PromptTooLong(count.n_most, reserved, n_ctx_tokens)
        for name in unsupported_sampling(sampling, looked.kind):
            self._note(f"{self.url} takes no `{name}`; it is left out.")
        if request.answers:
            return await self._compare_answers(request, looked)
        body = chat_body(
            request, sampling, model=looked.name, kind=looked.kind, n_ctx_tokens=n_ctx_tokens
        )
        sent = SentPrompt(looked, count, count.n_most, request.total_s)
        await self._truncation.before(sent)
        # Get an answer, without log probabilities from a server that refuses these
        decoder = StreamDecoder(bool(request.tools))
        try:
            await self._read_stream(request, body, decoder, on_chunk)
        except BadRequest as error:
            if request.n_logprobs is None or "logprobs" not in str(error):
                raise
            plain = {name: body[name] for name in body if "logprobs" not in name}
            decoder = StreamDecoder(bool(request.tools))
            await self._read_stream(request, plain, decoder, on_chunk)
        if request.n_logprobs is not None and not decoder.has_logprobs:
            self._note(f"{self.url} sends no log probabilities: how sure it was is not known.")
        if looked.kind == "llama-server" and decoder.model not in ("", looked.name):
            raise ModelReplaced(request.model.ref)  # it was restarted with another one in between
        usage = decoder.ended()
        await self._truncation.after(sent, usage)
        assert decoder.reason is not None
        return AnswerEnd(decoder.reason, usage, is_shortened=False)

    async def _compare_answers(self, request: ChatRequest, looked: ServedModel) -> AnswerEnd:
        wire = looked.option_wire
        if wire is None:
            raise ModelBroken(request.model.ref, *cannot_compare(self.url))
        body = option_scoring_body(wire, looked.name, request)
        answer = await self._line.post(wire, body, request.total_s or OPTIONS_S)
        scores, usage = read_answer_scores(wire, answer, request)
        return AnswerEnd("stop", usage, is_shortened=False, scores=scores)

    async def _read_stream(
        self,
        request: ChatRequest,
        body: dict[str, Any],
        decoder: StreamDecoder,
        on_chunk: Callable[[Chunk], None],
    ) -> None:
        async with (
            total_deadline(request.total_s),
            deadlines(None, request.idle_s) as step,
            self._line.events("/v1/chat/completions", body) as events,
        ):
            async for event in events:
                step()
                for chunk in decoder.chunks(event):
                    on_chunk(chunk)
        if decoder.reason is None:
            raise ServerAway(f"the answer of {self.url} has no end", was_sent=True)

    async def embed(self, request: EmbedRequest) -> Embedded:
        looked = await self._look(request.model)
        if request.on_overflow == "cut":
            raise BadRequest("a text can only be cut by a pool of this machine")
        pieces = [await self._pieces(request, looked, at) for at in range(len(request.texts))]
        flat = [piece for parts in pieces for piece in parts]
        vectors, n_tokens = await self._vectors(looked, flat, request.total_s)
        found = iter(vectors)
        whole = [_weighted_mean([(next(found), len(piece)) for piece in parts]) for parts in pieces]
        cut = [
            _normalised(vector[: request.dimensions] if request.dimensions else vector)
            for vector in whole
        ]
        return Embedded(
            PackedVectors.of(cut), n_tokens, tuple(map(len, pieces)), (0,) * len(pieces)
        )

    async def _vectors(
        self, looked: ServedModel, texts: Sequence[str], total_s: float | None
    ) -> tuple[list[list[float]], int]:
        n_most = [most_tokens(text) for text in texts]
        count = TokenCount(sum(n_most), sum(map(least_tokens, texts)))
        sent = SentPrompt(looked, count, max(n_most, default=0), total_s)
        await self._truncation.before(sent)
        body = {"model": looked.name, "input": list(texts), "encoding_format": "float"}
        within_s = min(total_s or EMBED_S, EMBED_S)
        answer = await self._line.post("/v1/embeddings", body, within_s)
        vectors = _read_vectors(answer.get("data"), len(texts))
        if vectors is None:
            raise BadRequest(f"{self.url} gives no vectors for {len(texts)} texts")
        usage = answer.get("usage")
        n_read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        n_tokens = n_read if isinstance(n_read, int) else 0
        await self._truncation.after(sent, Usage(n_tokens))
        return vectors, n_tokens

    async def _pieces(self, request: EmbedRequest, looked: ServedModel, at: int) -> list[str]:
        """Return a text whole or, where that is allowed, in halves of halves that fit."""
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
        return [*await self._pieces(halves, looked, 0), *await self._pieces(halves, looked, 1)]

    async def _look(self, spec: ModelSpec) -> ServedModel:
        key = model_key_of(spec)
        if key not in self._looked:
            found = await look_up_model(self._line, spec, self._usual_ctx_tokens)
            if found.kind == "other":  # another model under the same name cannot be detected
                self._note(
                    f"{self.url} tells of '{found.name}' nothing but its name: its answers are "
                    "known by that, also when another model comes under the same name."
                )
            self._looked[key] = found
        return self._looked[key]


async def _is_listed(line: ServerConnection, name: str) -> bool | None:
    """Return whether a server lists a model as loaded; None: it does not say."""
    answer = await line.find("/api/ps")
    listed = answer.get("models") if answer else None
    if not isinstance(listed, list):
        return None
    loaded = [entry for entry in listed if isinstance(entry, dict)]
    return any(name in (entry.get("name"), entry.get("model")) for entry in loaded)


ModelKey = tuple[str, str, int | None]
"""A model as it is asked for: name, role, context."""


def model_key_of(spec: ModelSpec) -> ModelKey:
    return spec.ref, spec.role, spec.n_ctx_tokens


def _read_vectors(data: Any, n: int) -> list[list[float]] | None:
    if not isinstance(data, list) or len(data) != n:
        return None
    by_index = {entry.get("index", at): entry.get("embedding") for at, entry in enumerate(data)}
    vectors = [by_index.get(at) for at in range(n)]
    if not all(isinstance(vector, list) and vector for vector in vectors):
        return None
    read = [[float(x) for x in vector] for vector in vectors if vector is not None]
    return read if len({len(vector) for vector in read}) == 1 else None


def _weighted_mean(parts: Sequence[tuple[Sequence[float], int]]) -> Sequence[float]:
    if len(parts) == 1:
        return parts[0][0]
    total = sum(weight for _, weight in parts) or 1
    columns = zip(*(_normalised(vector) for vector, _ in parts), strict=True)
    weights = [weight / total for _, weight in parts]
    return [sum(x * w for x, w in zip(column, weights, strict=True)) for column in columns]


def _normalised(vector: Sequence[float]) -> tuple[float, ...]:
    length = math.sqrt(sum(x * x for x in vector))
    return tuple(x / length for x in vector) if length else tuple(vector)


_T = TypeVar("_T")


async def is_paddock(line: ServerConnection) -> bool:
    """Return whether a service of Paddock's answers.

    Raises:
        ModelBroken: it does, and refuses the key.
        ServerAway: nothing answers.
    """
    status = await line.status("POST", f"{PREFIX}/stats")
    if status in (401, 403) and await line.status("GET", "/readyz") in (200, 503):
        raise ModelBroken(line.url, *line.key_advice(str(status)))
    return status == 200


class _ConnectionLost(EngineError):
    """The connection to another Paddock broke."""


class PaddockServer:
    """Another Paddock. Raises `ServerAway` or `ServerBusy` where asking elsewhere may help."""

    def __init__(self, address: ServerAddress, line: ServerConnection) -> None:
        self.url = address.url
        self._place = PoolAddress(url=address.url, key=address.key)
        self._line = line
        self._pool = RemotePool(self._find)
        self._identities: dict[tuple[str, str], str] = {}

    async def _find(self, failed: PoolAddress | None) -> PoolAddress:
        if failed is not None:
            raise _ConnectionLost(f"the connection to {self.url} broke")
        return self._place

    async def aclose(self) -> None:
        await self._pool.__aexit__(None, None, None)
        await self._line.aclose()

    async def is_alive(self, within_s: float) -> bool:
        return await self._line.answers("/readyz", within_s)

    async def is_resident(self, spec: ModelSpec) -> bool | None:
        facts = await self.facts(spec)
        return await _is_listed(self._line, facts.name)

    async def n_slots(self, spec: ModelSpec) -> int | None:
        """Return None: the service decides how many requests a model answers at a time."""
        return None

    async def facts(self, spec: ModelSpec, *, is_refresh: bool = False) -> ModelFacts:
        # asked each time: its file may be replaced
        facts = await self._with_server_errors(self._pool.facts(_without_pool(spec)))
        if is_refresh:
            self._identities.pop((spec.ref, spec.role), None)
        self._identities.setdefault((spec.ref, spec.role), facts.identity)
        return facts

    async def count_chat(
        self, spec: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> TokenCount:
        n_tokens = await self._with_server_errors(
            self._pool.count_chat(_without_pool(spec), messages, tools)
        )
        return TokenCount.exactly(n_tokens)

    async def count_texts(self, spec: ModelSpec, texts: Sequence[str]) -> list[TokenCount]:
        counts = await self._with_server_errors(self._pool.count_texts(_without_pool(spec), texts))
        return [TokenCount.exactly(n_tokens) for n_tokens in counts]

    async def chat(self, request: ChatRequest, on_chunk: Callable[[Chunk], None]) -> AnswerEnd:
        answer = self._pool.chat(replace(request, model=_without_pool(request.model)))
        answer.on_chunk(on_chunk)
        reply = await self._with_server_errors(answer.reply())
        await self._check_not_replaced(request.model)
        return AnswerEnd(
            reply.done_reason,
            reply.usage,
            reply.is_shortened,
            reply.tokens,
            reply.stop,
            reply.fingerprint,
            reply.scores,
        )

    async def embed(self, request: EmbedRequest) -> Embedded:
        pool_request = replace(request, model=_without_pool(request.model))
        reply = await self._with_server_errors(self._pool.embed(pool_request))
        await self._check_not_replaced(request.model)
        n = len(reply.vectors)
        n_pieces, n_cut = reply.n_pieces or (1,) * n, reply.n_cut_tokens or (0,) * n
        n_tokens = reply.usage.prompt_tokens
        return Embedded(reply.vectors, n_tokens, n_pieces, n_cut, reply.unknown_shares)

    async def _check_not_replaced(self, spec: ModelSpec) -> None:
        known = self._identities.get((spec.ref, spec.role))
        if (await self.facts(spec)).identity != known and known is not None:
            raise ModelReplaced(spec.ref)

    async def _with_server_errors(self, work: Awaitable[_T]) -> _T:
        try:
            return await work
        except _ConnectionLost as error:
            raise ServerAway(str(error), was_sent=True) from None
        except Busy as error:
            raise ServerBusy(str(error)) from None


def _without_pool(spec: ModelSpec) -> ModelSpec:
    return replace(spec, pool="")


class ModelServer(Protocol):
    """One server. Every method but the first two raises `ServerAway` or `ServerBusy`."""

    url: str

    async def aclose(self) -> None:
        """Close the connections."""

    async def is_alive(self, within_s: float) -> bool:
        """Return whether anybody answers."""

    async def is_resident(self, spec: ModelSpec) -> bool | None:
        """Return whether a model is in memory; None: the server does not say."""

    async def n_slots(self, spec: ModelSpec) -> int | None:
        """Return how many requests it answers at a time; None: it does not say."""

    async def facts(self, spec: ModelSpec, *, is_refresh: bool = False) -> ModelFacts:
        """Return what is known of a model."""

    async def count_chat(
        self, spec: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> TokenCount:
        """Count a conversation."""

    async def count_texts(self, spec: ModelSpec, texts: Sequence[str]) -> list[TokenCount]:
        """Count texts."""

    async def chat(self, request: ChatRequest, on_chunk: Callable[[Chunk], None]) -> AnswerEnd:
        """Get one answer, piece by piece."""

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Get vectors of length 1."""


async def detect_server(
    address: ServerAddress,
    note: NoteLine,
    *,
    tokenizer: Path | None = None,
    limits: ReadLimits | None = None,
    usual_ctx_tokens: int | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> ModelServer:
    """Return a connection that fits what answers at an address.

    `tokenizer` is a GGUF file to count with where the server cannot.

    Raises:
        ModelBroken: it refuses the key, or no header can carry the key.
        ServerAway: nothing answers.
    """
    line = ServerConnection(address, transport=transport)
    try:
        if await is_paddock(line):
            return PaddockServer(address, line)
    except BaseException:
        await line.aclose()
        raise
    own = LocalTokenizer(tokenizer) if tokenizer is not None else None
    return OpenAIServer(line, note, own, limits, usual_ctx_tokens)
