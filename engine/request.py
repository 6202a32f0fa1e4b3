"""The nouns that enter and leave the engine: frozen, plain, safe to send through a pipe.

Knows no llama_cpp, no process, no clock. Times are seconds, sizes bytes, lengths tokens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["chat", "embed"]
Priority = Literal["interactive", "normal", "batch"]
DoneReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model, and how it is wanted. `params` are the author's defaults for its requests."""

    ref: str
    role: Role = "chat"
    n_ctx_tokens: int | None = None
    keep_alive_s: float | None = None
    """None: the pool's setting; negative: for ever; 0: gone as soon as idle."""
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model without loading it."""

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


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. The defaults are Paddock's: deterministic."""

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    """None: the smaller of 1,024 and a quarter of the context."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
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


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request cost."""

    prompt_tokens: int = 0
    prompt_reused_tokens: int = 0
    """Of `prompt_tokens`, those found in the KV cache."""
    completion_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer: whole UTF-8 characters."""

    text: str
    n_tokens: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer."""

    text: str
    done_reason: DoneReason
    usage: Usage
    digest: str
    """Of the model file that really served it."""


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

    def cancel(self) -> None:
        """Stop at the next decode step; `reply` then raises `asyncio.CancelledError`."""
        ...


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Vectors asked for whole texts, in their order."""

    model: ModelSpec
    texts: tuple[str, ...]
    dimensions: int | None = None
    """Cut to the first so many, then normalised again."""
    priority: Priority = "normal"
    total_s: float | None = None


@dataclass(frozen=True, slots=True)
class EmbedReply:
    """L2-normalised vectors, one for each text, in the order of the texts."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    digest: str


class Pool(Protocol):
    """What steps see of the engine. `paddock.engine.pool.LocalPool` is the real one."""

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model without loading it.

        Raises:
            ModelNotFound: with the known names.
            ModelBroken: with path and reason.
        """
        ...

    async def count_chat(self, model: ModelSpec, messages: Sequence[Message]) -> int:
        """Count the prompt's tokens, the model's chat template included."""
        ...

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens with the model's own tokenizer, without special tokens."""
        ...

    def chat(self, request: ChatRequest) -> Stream:
        """Queue a request; errors come out of the stream."""
        ...

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts.

        Raises:
            TextTooLong: a text exceeds the model's context; nothing was cut.
        """
        ...


def resolve_sampling(*layers: Mapping[str, Any]) -> Sampling:
    """Merge parameter layers, the most specific first, over the defaults.

    >>> resolve_sampling({"temperature": 0.5}, {"temperature": 1, "num_predict": 9}).max_tokens
    9
    """
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        for name, value in layer.items():
            if value is not None:
                merged["max_tokens" if name == "num_predict" else name] = value
    stop = merged.get("stop", ())
    merged["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    return Sampling(**merged)


def reserved_tokens(max_tokens: int | None, n_ctx_tokens: int) -> int:
    """Tell how many tokens are kept free for the answer.

    >>> reserved_tokens(None, 2048), reserved_tokens(None, 16384), reserved_tokens(80, 2048)
    (512, 1024, 80)
    """
    return max_tokens if max_tokens is not None else min(1024, n_ctx_tokens // 4)
