"""What Ollama's clients ask, in the engine's words: model, options, format, thinking, images.

Knows no stream. Every check that Ollama makes before it loads a model is made here, in its words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from paddock.engine.api.bodies import (
    decode_base64,
    flag_of,
    integer_of,
    object_of,
    read_json,
    text_of,
    texts_of,
)
from paddock.engine.api.errors import ApiError
from paddock.engine.api.keep_alive import read_keep_alive
from paddock.engine.api.options import Options, defaults, read_options
from paddock.engine.api.service import Service, priority_of, service_of
from paddock.engine.errors import InvalidName, ModelNotFound
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    ModelFacts,
    ModelSpec,
    Priority,
    Role,
    Think,
)
from paddock.engine.store.names import is_path, parse_name

MOST_TOP_LOGPROBS = 20
_HERE = ":local"


@dataclass(frozen=True, slots=True)
class Asked:
    """What every request that needs a model has."""

    service: Service
    body: Mapping[str, Any]
    model: str
    """As the client wrote it: answers repeat it."""
    spec: ModelSpec
    facts: ModelFacts
    options: Options
    streams: bool
    priority: Priority
    began: float
    """By `time.monotonic`."""

    @property
    def is_unload(self) -> bool:
        """Whether a request that asks nothing wants its model to go."""
        return self.spec.keep_alive_s == 0


async def fields_of(request: Request) -> dict[str, Any]:
    """Read a request's body.

    Raises:
        ApiError: it is no JSON object, or too large.
    """
    return await read_json(request, max_bytes=service_of(request).settings.max_body_bytes)


async def ask(request: Request, body: Mapping[str, Any], role: Role = "chat") -> Asked:
    """Read what every request has, and find its model.

    Raises:
        ApiError: 400, 404 or 500, in Ollama's words.
    """
    began = time.monotonic()
    service = service_of(request)
    model = text_of(body, "model")
    keep_alive_s = read_keep_alive(body.get("keep_alive"))
    options = read_options(object_of(body, "options"))
    streams = flag_of(body, "stream", True)
    for ref in meant(service.ref, model):
        spec = ModelSpec(ref, role, options.n_ctx_tokens, keep_alive_s)
        try:
            facts = await service.pool.facts(spec)
        except ModelNotFound:
            continue
        priority = priority_of(request)
        return Asked(service, body, model, spec, facts, options, streams, priority, began)
    raise missing(model)


def meant(read: Callable[[str], str], model: str) -> list[str]:
    """Return what a client may mean, as `read` has it: `:local` at the end says to look here.

    Raises:
        InvalidName: it cannot be a name.
    """
    if not model:
        return []
    if not model.endswith(_HERE) or model == _HERE:
        return [read(model)]
    refs = [read(model.removesuffix(_HERE))]
    with suppress(InvalidName):  # a tag stands before it
        refs.insert(0, read(model))
    return refs


def full_name(ref: str) -> str:
    """Return a model's whole name, as Ollama writes it in refusals; a path as it is.

    >>> full_name("smollm2:135m"), full_name("/models/a.gguf")
    ('registry.ollama.ai/library/smollm2:135m', '/models/a.gguf')
    """
    return ref if is_path(ref) else parse_name(ref).full


def missing(model: str) -> ApiError:
    """Say that there is no such model."""
    return ApiError(404, f"model '{model}' not found")


def base_request(asked: Asked, messages: tuple[Message, ...], think: Think | None) -> ChatRequest:
    """Give what generate and chat have in common."""
    body, options = asked.body, asked.options
    n_logprobs = top_logprobs(body)
    return ChatRequest(
        asked.spec,
        messages,
        options.params,
        asked.priority,
        constraint=read_format(body.get("format")),
        think=think,
        n_logprobs=n_logprobs if flag_of(body, "logprobs") else None,
        drafts=options.drafts,
        reserves_answer=False,
        truncates=flag_of(body, "truncate", True),
        shifts=flag_of(body, "shift") if body.get("shift") is not None else None,
        n_keep_tokens=options.n_keep_tokens,
        defaults=defaults(),
    )


def top_logprobs(body: Mapping[str, Any]) -> int:
    """Tell how many likely tokens are wanted beside each.

    Raises:
        ApiError: 400, too many.
    """
    n = integer_of(body, "top_logprobs") or 0
    if not 0 <= n <= MOST_TOP_LOGPROBS:
        raise ApiError(400, f"top_logprobs must be between 0 and {MOST_TOP_LOGPROBS}")
    return n


def read_format(value: Any) -> Constraint | None:
    """Give what an answer must match.

    Raises:
        ApiError: 500, neither "json" nor a schema; in Ollama's words.
    """
    if value is None or value == "":
        return None
    if value == "json":
        return Constraint("json")
    if isinstance(value, dict):
        return Constraint("json_schema", json.dumps(value))
    shown = json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)
    wanted = 'expected "json" or a valid JSON Schema object'
    raise ApiError(500, f"invalid format: {shown}; {wanted}")


_THINKS: Mapping[str, Think] = {"high": "high", "medium": "medium", "low": "low", "max": "high"}


def read_think(value: Any, model: str, abilities: frozenset[str]) -> Think | None:
    """Tell whether a model should reason first: it does where it can, unless told otherwise.

    Raises:
        ApiError: 400, no such value, or the model cannot.
    """
    think = _think(value)
    if "thinking" in abilities:
        return True if think is None else think
    if think:
        raise ApiError(400, f'"{model}" does not support thinking')
    return think


def _think(value: Any) -> Think | None:
    if value is None or isinstance(value, bool):
        return value
    levels = '"high", "medium", "low", "max", true, or false'
    if not isinstance(value, str):
        raise ApiError(400, f"think must be a boolean or string ({levels})")
    if value not in _THINKS:
        shown = json.dumps(value, ensure_ascii=False)
        raise ApiError(400, f"invalid think value: {shown} (must be {levels})")
    return _THINKS[value]


def read_images(body: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Give the images of a request or of a turn.

    Raises:
        ApiError: 400, one is no base64.
    """
    return tuple(decode_base64(text, "images") for text in texts_of(body, "images"))
