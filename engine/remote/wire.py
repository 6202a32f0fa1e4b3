"""What goes between a pool and who asks it from another process: requests, answers, errors as JSON.

Both ends use this module, so what one writes the other reads. Images and vectors travel as base64;
no pickle, so nothing can run.
"""

from __future__ import annotations

import base64
import json
from array import array
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError

from paddock.engine import errors
from paddock.engine.errors import EngineError
from paddock.engine.ranges import checked
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Reply,
    Tool,
)
from paddock.engine.residency.stats import PoolStats

PREFIX = "/paddock/pool"
MEDIA_TYPE = "application/x-ndjson"

_T = TypeVar("_T")


class _Json(BaseModel, Generic[_T]):
    """One value with its types, as JSON and back."""

    model_config = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"
    )
    value: _T


@dataclass(frozen=True, slots=True)
class Counting:
    """Texts or turns whose tokens are counted."""

    model: ModelSpec
    texts: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    """What the turns may call; told in the prompt, so counted with it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an answer. Without anything it is a sign of life."""

    chunk: Chunk | None = None
    reply: Reply | None = None
    facts: ModelFacts | None = None
    embedded: EmbedReply | None = None
    vectors: bytes = b""
    """Of `embedded`: one after the other, as float64."""
    n_dimensions: int = 0
    stats: PoolStats | None = None
    number: float | None = None
    numbers: tuple[int, ...] | None = None
    error: dict[str, Any] | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.chunk is None and self != _BEAT


_BEAT = Line()
BEAT = b"{}\n"


class Wire:
    """Writes and reads; made once for each side, since its parts take some milliseconds to make."""

    def __init__(self) -> None:
        self._chat = _Json[ChatRequest]
        self._embed = _Json[EmbedRequest]
        self._counting = _Json[Counting]
        self._model = _Json[ModelSpec]
        self._line = _Json[Line]

    def write(self, value: ChatRequest | EmbedRequest | Counting | ModelSpec) -> bytes:
        """Write a request."""
        kinds: dict[type, Any] = {
            ChatRequest: self._chat, EmbedRequest: self._embed, Counting: self._counting,
            ModelSpec: self._model,
        }  # fmt: skip
        return _dumped(kinds[type(value)](value=value))

    def chat(self, body: bytes) -> ChatRequest:
        """Read a chat; raises `ValueError` where it is none."""
        return self._chat.model_validate_json(body).value

    def embed(self, body: bytes) -> EmbedRequest:
        """Read an order for vectors; raises `ValueError` where it is none."""
        return self._embed.model_validate_json(body).value

    def counting(self, body: bytes) -> Counting:
        """Read what is to be counted; raises `ValueError` where it is nothing."""
        return self._counting.model_validate_json(body).value

    def model(self, body: bytes) -> ModelSpec:
        """Read a model's name and wishes; raises `ValueError` where it is none."""
        return self._model.model_validate_json(body).value

    def write_line(self, line: Line) -> bytes:
        """Write a line of an answer."""
        if line.embedded is not None and line.embedded.vectors:
            rows = line.embedded.vectors
            packed = array("d", [value for row in rows for value in row]).tobytes()
            bare = replace(line.embedded, vectors=())
            line = replace(line, embedded=bare, vectors=packed, n_dimensions=len(rows[0]))
        return _dumped(self._line(value=line)) + b"\n"

    def line(self, raw: bytes) -> Line:
        """Read a line of an answer; raises `ValueError` where it is none."""
        if raw.strip() == BEAT.strip():
            return _BEAT
        line = self._line.model_validate_json(raw).value
        if line.facts is not None:
            return replace(line, facts=_as_found(line.facts))
        if line.embedded is None or not line.n_dimensions:
            return line
        values, width = array("d", line.vectors), line.n_dimensions
        rows = (values[start : start + width] for start in range(0, len(values), width))
        whole = replace(line.embedded, vectors=tuple(map(tuple, rows)))
        return replace(line, embedded=whole, vectors=b"")


def _as_found(facts: ModelFacts) -> ModelFacts:
    """Give sampling values the types that they have on the other side: the identity counts them."""
    return replace(facts, params=checked(facts.params))


def pack_error(error: Exception) -> dict[str, Any]:
    """Write an error with its data; one that is not the engine's own tells its name."""
    known = next((kind for kind in type(error).__mro__ if _named(kind.__name__) is kind), None)
    if known is None:
        text = f"the pool met an error of its own: {type(error).__name__}: {error}"
        return {"kind": EngineError.__name__, "text": text, "data": {}}
    return {"kind": known.__name__, "text": str(error), "data": dict(vars(error))}


def read_error(fields: dict[str, Any]) -> EngineError:
    """Give the same error again, of the same class and with the same data."""
    kind = _named(str(fields["kind"])) or EngineError
    error = kind.__new__(kind)
    error.args = (str(fields["text"]),)
    for name, value in fields["data"].items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error


def _named(name: str) -> type[EngineError] | None:
    kind = getattr(errors, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, EngineError) else None


def _dumped(model: BaseModel) -> bytes:
    try:
        return model.model_dump_json(exclude_defaults=True).encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        # Halves of characters, which are no Unicode; a tokenizer could not read them either.
        fields = model.model_dump(exclude_defaults=True)
        return json.dumps(fields, default=_as_text, ensure_ascii=False).encode(errors="replace")


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return base64.urlsafe_b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
