"""Requests and replies of the engine: frozen records that are safe to send through a pipe.

Knows no llama.cpp, no process, no clock. Times are seconds, sizes bytes, lengths tokens.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from paddock.engine.system.records import Struct, StructABCMeta, field, replace

from .sampling_values import OTHER_NAMES, checked_sampling

Role = Literal["chat", "embed", "rerank"]
Priority = Literal["interactive", "normal", "batch"]
PRIORITY_RANK: Mapping[Priority, int] = {"interactive": 0, "normal": 1, "batch": 2}
DoneReason = Literal["stop", "length", "repetition"]
"""`repetition`: the answer went in circles, and was ended."""
OnOverflow = Literal["error", "split", "cut"]
"""A text longer than the context: refused; read in parts whose vectors' mean, weighted by their
tokens, is its own; or cut, and the cut told."""
DEFAULT_CTX_TOKENS = 4096
"""Of a chat model that no one asked more of; embedding models get all that they were trained on."""
Think = bool | Literal["low", "medium", "high"]
EFFORTS: Mapping[str, Think] = {
    **{"none": False, "minimal": "low", "low": "low", "medium": "medium"},
    **dict.fromkeys(("high", "xhigh", "max", "ultra"), "high"),
}
"""By the words of all APIs."""


class Tool(Struct, frozen=True, omit_defaults=True):
    """A function that a model may ask for; `parameters` is a JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


def forced_call(tools: tuple[Tool, ...], name: str) -> tuple[tuple[Tool, ...], str]:
    """Return the tools and the `tool_choice` by which the tool of a name must be called."""
    if name not in ("auto", "none", "required"):  # a choice's own words
        return tools, name
    return tuple(tool for tool in tools if tool.name == name), "required"


class ToolCall(Struct, frozen=True, omit_defaults=True):
    name: str
    arguments: Mapping[str, Any]
    id: str = ""


class Message(Struct, frozen=True, omit_defaults=True):
    role: str
    content: str
    reasoning: str = ""
    """What an earlier answer thought before it spoke."""
    images: tuple[bytes, ...] = ()
    """Encoded as files are (PNG, JPEG, …)."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


def with_tool_names(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return the messages, each tool result with the name of its call: templates need it."""
    names: dict[str, str] = {}
    named: list[Message] = []
    for message in messages:
        names.update((call.id, call.name) for call in message.tool_calls)
        name = names.get(message.tool_call_id) if message.tool_call_id else None
        lacks_it = message.role == "tool" and name and not message.tool_name
        named.append(replace(message, tool_name=name) if lacks_it else message)
    return tuple(named)


def with_system_text(messages: Sequence[Message], text: str) -> list[Message]:
    """Append to the system turn, or insert one."""
    if messages and messages[0].role == "system":
        first = messages[0]
        content = f"{first.content}\n\n{text}" if first.content else text
        return [replace(first, content=content), *messages[1:]]
    return [Message("system", text), *messages]


def with_beginning(messages: Sequence[Message], words: str) -> list[Message]:
    """Put text where prompts of many items are still the same: their KV cache is shared.

    That is the end of a system message, else the beginning of the conversation.
    """
    if not words or not messages:
        return list(messages)
    first, is_system = messages[0], messages[0].role == "system"
    parts = (first.content.rstrip(), words) if is_system else (words, first.content)
    if not is_system and first.role != "user":
        return [Message("user", words), *messages]
    return [replace(first, content="\n\n".join(parts)), *messages[1:]]


def with_ending(messages: Sequence[Message], words: str) -> list[Message]:
    """Append text to the user's last message: small models respect what is last."""
    where = max((n for n, message in enumerate(messages) if message.role == "user"), default=None)
    if where is None:
        return [*messages, Message("user", words)]
    ended = replace(messages[where], content=f"{messages[where].content.rstrip()}\n\n{words}")
    return [*messages[:where], ended, *messages[where + 1 :]]


class ModelSpec(Struct, frozen=True, omit_defaults=True):
    ref: str
    role: Role = "chat"
    n_ctx_tokens: int | None = None
    keep_alive_s: float | None = None
    """None: the pool's setting; negative: for ever; 0: gone as soon as idle."""
    params: Mapping[str, Any] = field(default_factory=dict)
    adapters: tuple[str, ...] = ()
    """LoRA adapters by path or name, laid over the weights in this order."""
    is_pinned: bool = False
    """It never makes room for others."""
    keeps_reasoning: bool = True
    """Whether its author wants to see what it thought; of no matter to the engine."""
    pool: str = ""
    """The name of the pool that serves it, where there are several; no answer depends on it."""
    on_processor: bool | None = None
    """Whether it leaves the graphics devices, or returns; None: it stays where it is."""

    @property
    def key(self) -> tuple[str, str]:
        """Its pool and its name, which are one model whatever else is asked of it."""
        return self.pool, self.ref


class ModelFacts(Struct, frozen=True, omit_defaults=True):
    name: str
    path: str
    digest: str
    """sha256 of the file, hexadecimal."""
    size_bytes: int
    architecture: str
    role: Role
    n_ctx_train_tokens: int
    n_ctx_tokens: int
    """What one request may fill, answer included: the spec's wish within what the model can."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """The model's own sampling values; a spec's and a request's go before them."""
    tuned_from: str | None = None
    """Of a tuned copy: the digest of the file that the name stands for."""
    ir: str = ""
    """Of a tuned copy that OpenVINO computes: its file; `path` and `size_bytes` are the original's,
    which is loaded where a request or a spec has adapters."""
    ir_bytes: int = 0
    draft_path: str = ""
    """A smaller model's file that guesses ahead for this one."""
    projector: str | None = None
    """The file by which it sees images; None: it does not."""
    projector_digest: str = ""
    template: str | None = None
    """A chat template in place of the file's own, as a Modelfile names it; Go's: a package's."""
    system: str = ""
    """Said before a conversation that has no system turn."""
    messages: tuple[Message, ...] = ()
    """Said before every conversation, as a Modelfile's MESSAGE."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters that belong to it, by path; a spec's come after them."""
    takes_tools: bool | None = None
    """Whether its chat template has words for tools; None: unknown."""
    parts: tuple[str, ...] = ()
    """Of a split model: the files after the first one, in order."""
    n_parallel: int = 0
    compares_answers: bool = True
    """Whether it tells how likely given answers are (`ChatRequest.answers`)."""

    def with_context(self, n_ctx_tokens: int | None) -> ModelFacts:
        if n_ctx_tokens is None:
            return self
        return replace(self, n_ctx_tokens=min(n_ctx_tokens, self.n_ctx_train_tokens))

    @property
    def identity(self) -> str:
        """A digest of what answers depend on: the file, and a Modelfile's settings, if any.

        Of the file that the name stands for, even where a tuned copy serves.
        """
        return self._with_settings(self.tuned_from or self.digest)

    @property
    def served_digest(self) -> str:
        """As `identity`, but of the file that computes: where it serves, of the tuned copy."""
        return self._with_settings(self.digest)

    def _with_settings(self, digest: str) -> str:
        params = sorted(self.params.items())
        own: tuple[object, ...] = (
            self.template, self.system, self.messages, self.adapters, params
        )  # fmt: skip
        own += (self.projector_digest,) if self.projector_digest else ()
        return hashlib.sha256(repr((digest, *own)).encode()).hexdigest() if any(own) else digest


class Constraint(Struct, frozen=True, omit_defaults=True):
    """What an answer must match: `source` is a JSON Schema, a regular expression or a grammar.

    Of `json`, any JSON object, the source is empty.
    """

    kind: Literal["json", "json_schema", "regex", "lark", "gbnf"]
    source: str = ""


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen. The defaults are Paddock's: deterministic."""

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    """None: the smaller of 1,024 and a quarter of the context; -1 and -2: up to its end; 0: the
    prompt is read and kept in the cache, and nothing is said."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these token ids; -100 and less forbids one."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer, as the model's own do."""
    min_tokens: int = 0
    """No token ends the answer before it has so many."""
    ignore_eos: bool = False
    """Whether the model's own tokens end no answer."""
    guards_repetition: bool = True
    """Whether an answer that goes in circles is ended (`done_reason: repetition`)."""

    @property
    def is_greedy(self) -> bool:
        return self.temperature <= 0 or self.top_k == 1

    @property
    def has_penalties(self) -> bool:
        """Whether tokens said lately count less."""
        return self.repeat_last_n != 0 and (
            self.repeat_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )


class ChatRequest(Struct, frozen=True, omit_defaults=True):
    """One answer asked of one model.

    `params` are the request's own sampling values by the names of `Sampling` (`num_predict` is
    accepted for `max_tokens`); they go before `model.params`, and those before the defaults.
    """

    model: ModelSpec
    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = "normal"
    total_s: float | None = None
    """Counted from when the pool takes the request, not from when it queues."""
    idle_s: float | None = None
    """The longest time without a new token."""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the tool that must be called."""
    constraint: Constraint | None = None
    think: Think | None = None
    """Whether a model that can reason does so first; None: as its template has it."""
    n_logprobs: int | None = None
    """How many likely tokens are reported with each chosen one; None: no log probabilities. Under a
    `constraint` they are those of the allowed tokens, which add up to 1; forced ones have 0."""
    drafts: bool | None = None
    """Whether tokens may be guessed ahead. None: unless the profile found that this changes greedy
    answers on the device; True: even then."""
    prompt: str | None = None
    """Text to go on with, in place of `messages`: no template, control tokens read as such."""
    prompt_tokens: tuple[int, ...] = ()
    """Token ids that stand before all else, such as an earlier answer's `Reply.tokens`."""
    images: tuple[bytes, ...] = ()
    """With `prompt`: what stands before it, as in `Message.images`."""
    suffix: str | None = None
    """With `prompt`: what comes after the answer, for models that fill in the middle."""
    template: str | None = None
    """A chat template in Jinja in place of the model's."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    """What else its Jinja template reads, such as `documents`."""
    reserves_answer: bool = True
    """Whether room for the whole answer is demanded at once; else one token's is enough, and an
    answer that reaches the end of the context is done by `length`."""
    truncates: bool = False
    """Whether a prompt that is too long is shortened, and this told (`prompt_tokens_original`):
    the oldest turns go, never the system's nor the last; of a `prompt`, its middle, and of a last
    turn that is too long alone as well."""
    shifts: bool | None = None
    """True: an answer that reaches the end of the context goes on, after half of what came before
    was dropped (`Usage.shifted_tokens`). False: no text is cut in its middle either, so that
    `truncates` drops whole turns only. None: texts are cut, and such an answer ends by `length`,
    as any about images does."""
    n_keep_tokens: int = 4
    """Of a shortened or shifted prompt, how many stay at its beginning."""
    wants_tokens: bool = False
    keeps_images: bool = False
    """Whether what a projector makes of its images may be kept on the disk, as of a run's
    documents."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Sampling values where neither the request nor the model has its own: after all `params`."""
    answers: tuple[str, ...] = ()
    """Texts that may come next: nothing is sampled, and each gets its probability
    (`Reply.scores`). The reply's text is the likeliest."""
    scores_prompt: bool = False
    """With `n_logprobs`: whether `Reply.logprobs` begin with those of the prompt's own tokens, but
    its first."""


class Usage(Struct, frozen=True, omit_defaults=True):
    prompt_tokens: int = 0
    prompt_reused_tokens: int = 0
    """Of `prompt_tokens`, those found in the KV cache."""
    completion_tokens: int = 0
    drafted_tokens: int = 0
    """Guessed ahead, by the prompt's own words or a draft model."""
    accepted_tokens: int = 0
    """Of `drafted_tokens`, those that the model would have said itself."""
    n_preempted: int = 0
    shifted_tokens: int = 0
    """Dropped from the history while it answered, see `ChatRequest.shifts`."""
    load_s: float = 0.0
    """Waited for the model to be loaded."""
    queue_s: float = 0.0
    """Waited for its turn, outside of the worker and in it."""
    prefill_s: float = 0.0
    decode_s: float = 0.0


LOWEST_LOGPROB = -9999.0
"""Stands for an impossible token, as in OpenAI's API: JSON knows no infinity."""


class TokenLogprob(tuple[str, float, *tuple[tuple[str, float], ...]]):
    """One chosen token with its natural log probability, and those of the likeliest tokens.

    It is what JSON has of it, since most are written and never read: the token's bytes as text, one
    character for each, its log probability, and a pair of these for each alternative.
    """

    __slots__ = ()

    def __new__(
        cls, raw: bytes, logprob: float, top: Iterable[tuple[bytes, float]] = ()
    ) -> TokenLogprob:
        alternatives = [(other.decode("latin-1"), value) for other, value in top]
        return super().__new__(cls, (raw.decode("latin-1"), logprob, *alternatives))

    @property
    def token(self) -> str:
        return self.raw.decode(errors="replace")

    @property
    def logprob(self) -> float:
        return float(self[1])

    @property
    def raw(self) -> bytes:
        """The token's own bytes: a character may span several tokens."""
        return bytes(self[0], "latin-1")

    @property
    def top(self) -> list[tuple[bytes, float]]:
        return [(other.encode("latin-1"), value) for other, value in self[2:]]


class AnswerScore(Struct, frozen=True, omit_defaults=True):
    """How likely a given answer is after a prompt."""

    logprob: float
    """The natural logarithm of the probability of its tokens."""
    n_tokens: int = 1
    """Those up to the first by which it is like no other answer."""


def answer_shares(scores: Sequence[AnswerScore]) -> list[float]:
    """Return the probability of each answer if it is one of them; together they are 1.

    >>> answer_shares([AnswerScore(-700.0), AnswerScore(-700.0)])
    [0.5, 0.5]
    """
    highest = max(score.logprob for score in scores)
    weights = [math.exp(score.logprob - highest) for score in scores]
    return [weight / sum(weights) for weight in weights]


class Chunk(Struct, frozen=True, omit_defaults=True):
    """A piece of an answer: whole UTF-8 characters."""

    text: str
    n_tokens: int = 1
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Whole calls, each once."""
    logprobs: tuple[TokenLogprob, ...] = ()


class Reply(Struct, frozen=True, omit_defaults=True):
    text: str
    done_reason: DoneReason
    usage: Usage
    digest: str
    """`ModelFacts.served_digest` of the model that really served it."""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    is_shortened: bool = False
    """Near its limit, a constrained answer was brought to a valid end."""
    tokens: tuple[int, ...] = ()
    """Ids of prompt and answer, where they were wanted."""
    prompt_tokens_original: int | None = None
    """What the prompt had before it was shortened; None: it was not."""
    stop: str = ""
    n_reasoning_tokens: int = 0
    """Of the completion's tokens, those of its reasoning."""
    fingerprint: str = ""
    """Of all by which its numbers were rounded: equal requests with equal ones have equal greedy
    answers. Empty: not known."""
    scores: tuple[AnswerScore, ...] = ()
    """Of `ChatRequest.answers`, in their order."""


class Stream(Protocol):
    """An answer on its way: iterate its chunks, or await `reply()`; `cancel()` ends it soon."""

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks in order; raises what `reply` raises."""
        ...

    async def reply(self) -> Reply:
        """Wait for the end.

        Raises:
            EngineError: see `paddock.engine.errors`.
        """
        ...

    def cancel(self) -> None: ...


REQUEST_TEXTS = 256
"""Texts of one `EmbedRequest`, of many: the vectors of finished requests survive a kill."""


class EmbedRequest(Struct, frozen=True, omit_defaults=True):
    model: ModelSpec
    texts: tuple[str, ...]
    """An empty one gets the vector of what the model puts around a text, if it puts anything."""
    dimensions: int | None = None
    """Cut to the first so many, then normalised again."""
    priority: Priority = "normal"
    total_s: float | None = None
    on_overflow: OnOverflow = "error"


class PackedVectors(
    Struct, Sequence[tuple[float, ...]], frozen=True, array_like=True, metaclass=StructABCMeta
):
    """Vectors of float32 as they lie in memory; a tuple is made of each when it is read."""

    n_rows: int
    packed: bytes

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> PackedVectors:
        if len({len(row) for row in rows}) > 1:
            raise ValueError("vectors of one list have different lengths")
        return cls(len(rows), b"".join([array("f", row).tobytes() for row in rows]))

    def __post_init__(self) -> None:
        n = len(self.packed) // 4
        if not 0 <= self.n_rows <= n or len(self.packed) % (4 * self.n_rows or 4):
            raise ValueError(f"{n} values are not {self.n_rows} vectors")

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return PackedVectors.of([self[row] for row in range(self.n_rows)[at]])
        n_bytes = len(self.packed) // (self.n_rows or 1)
        start = range(self.n_rows)[at] * n_bytes
        return struct.unpack_from(f"{n_bytes // 4}f", self.packed, start)


class EmbedReply(Struct, frozen=True, omit_defaults=True):
    vectors: PackedVectors
    usage: Usage
    digest: str
    n_pieces: tuple[int, ...] = ()
    """Into how many parts each text was split; empty: every one was read whole."""
    n_cut_tokens: tuple[int, ...] = ()
    """How many tokens of each text were left out; empty: none."""
    unknown_shares: tuple[float, ...] = ()
    """Of the letters of each text, those that no token has; empty: none, or not known."""

    def unknown_letters(self, index: int) -> str:
        share = max(0.01, self.unknown_shares[index])
        return f"the model's vocabulary lacks {share:.0%} of the letters of text {index}"


class RerankRequest(Struct, frozen=True):
    model: ModelSpec
    query: str
    documents: tuple[str, ...]
    priority: Priority = "normal"
    total_s: float | None = None
    on_overflow: OnOverflow = "error"
    """Of a document that is too long with the query; `split` is not known here."""


class RerankReply(Struct, frozen=True):
    scores: tuple[float, ...]
    usage: Usage
    digest: str


class Pool(Protocol):
    """What steps see of the engine. `paddock.engine.backends.local.LocalPool` is the real one."""

    async def ready(self, model: ModelSpec) -> None:
        return  # most are open from the start

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Return what is known of a model without loading it.

        Raises:
            ModelNotFound, ModelBroken: with the known names; with path and reason.
        """

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count the prompt's tokens, the model's chat template and `tools` included."""

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens with the model's own tokenizer, without special tokens."""

    def chat(self, request: ChatRequest) -> Stream:
        """Queue a request; errors come out of the stream."""
        ...

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts.

        Raises:
            TextTooLong: a text exceeds the model's context; nothing was cut.
        """
        ...


class ForwardingPool(Pool):
    """Base of pools that ask another one; they say which, and how `chat` goes."""

    async def pool_of(self, model: ModelSpec) -> Pool:
        raise NotImplementedError

    async def ready(self, model: ModelSpec) -> None:
        await (await self.pool_of(model)).ready(model)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        return await (await self.pool_of(model)).facts(model)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        return await (await self.pool_of(model)).count_chat(model, messages, tools)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        return await (await self.pool_of(model)).count_texts(model, texts)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        return await (await self.pool_of(request.model)).embed(request)


def resolve_sampling(*layers: Mapping[str, Any]) -> Sampling:
    """Merge parameter layers, the most specific first, over the defaults.

    >>> resolve_sampling({"temperature": 0.5}, {"temperature": 1, "num_predict": 9}).max_tokens
    9
    """
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        for name, value in layer.items():
            if value is not None:
                merged[OTHER_NAMES.get(name, name)] = value
    return Sampling(**checked_sampling(merged))


def reserved_tokens(max_tokens: int | None, n_ctx_tokens: int) -> int:
    """Return how many tokens are kept free for the answer.

    >>> reserved_tokens(None, 2048), reserved_tokens(None, 16384), reserved_tokens(80, 2048)
    (512, 1024, 80)
    """
    if max_tokens is None:
        return min(1024, n_ctx_tokens // 4)
    return max_tokens if max_tokens > 0 else 1  # up to the context's end: one must have room
