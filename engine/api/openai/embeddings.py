"""/v1/embeddings: vectors as numbers, or as base64 of little-endian float32.

OpenAI's client requests base64 by default.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from paddock.engine.api.body_models import invalid_value, shown
from paddock.engine.api.errors import InvalidValue, openai_errors
from paddock.engine.api.streaming import dumps, nanoseconds
from paddock.engine.backends.local import LocalPool
from paddock.engine.request import EmbedReply, EmbedRequest

from .chat_completions import Prompt, Prompts
from .requests import ApiCaller, Limit, ModelBody

Encoding = Literal["float", "base64"]
_ENCODINGS = ("float", "base64")

MAX_INPUTS = 2048
"""As OpenAI. A vector of 384 numbers takes 12 kB until it is written."""


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """A request for embeddings; token ids become texts before the pool gets them."""

    model: str
    inputs: tuple[Prompt, ...]
    request: EmbedRequest
    encoding: Encoding


class _EmbeddingBody(ModelBody):
    input: Prompts = ()
    encoding_format: str = "float"
    dimensions: Limit | None = None


def read_embedding(fields: Mapping[str, Any], caller: ApiCaller) -> EmbeddingCall:
    body = _EmbeddingBody.read(fields)
    if body.encoding_format not in _ENCODINGS:
        raise InvalidValue(
            f"Invalid value for 'encoding_format' = {shown(body.encoding_format)}. "
            "Supported values: ['float', 'base64'].",
            "encoding_format",
        )
    if not body.input:
        raise InvalidValue("invalid input", "input")
    if len(body.input) > MAX_INPUTS:
        why = f"at most {MAX_INPUTS:,} inputs are embedded at once, not {len(body.input):,}."
        raise invalid_value("input", why)
    request = EmbedRequest(
        body.spec("embed"),
        (),
        dimensions=body.dimensions,
        priority=caller.priority,
        on_overflow="cut" if body.truncates else "error",
    )
    return EmbeddingCall(body.model, body.input, request, cast(Encoding, body.encoding_format))


async def run_embedding(pool: LocalPool, call: EmbeddingCall, caller: ApiCaller) -> EmbedReply:
    """Return the pool's vectors; raise ApiError with OpenAI's texts."""
    spec = call.request.model
    with openai_errors():
        texts = [
            prompt if isinstance(prompt, str) else await pool.detokenise(spec, prompt)
            for prompt in call.inputs
        ]
        return await pool.embed(replace(call.request, texts=tuple(texts)), waits=caller.waits)


def embedding_body(call: EmbeddingCall, reply: EmbedReply) -> bytes:
    """Return the vectors as JSON. Slow for many floats: not for the event loop."""
    # One by one: `json.dumps` holds the GIL until a value is complete.
    rows = b",".join(
        _embedding_value(call.encoding, *numbered) for numbered in enumerate(reply.vectors)
    )
    usage = {
        "prompt_tokens": reply.usage.prompt_tokens,
        "total_tokens": reply.usage.prompt_tokens,
        "queue_duration": nanoseconds(reply.usage.queue_s),
    }
    rest: dict[str, object] = {"model": call.model, "usage": usage}
    if any(reply.n_cut_tokens):
        rest["truncated"] = True
    return b'{"object":"list","data":[' + rows + b"]," + dumps(rest)[1:]


def _embedding_value(encoding: Encoding, index: int, vector: Sequence[float]) -> bytes:
    if encoding == "float":
        text = json.dumps(vector, separators=(",", ":"), allow_nan=False)
    else:
        text = f'"{base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")}"'
    return f'{{"object":"embedding","index":{index},"embedding":{text}}}'.encode("ascii")


EMBEDDINGS_PATH = "/v1/embeddings"
