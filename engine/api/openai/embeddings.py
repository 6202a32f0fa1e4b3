"""POST /v1/embeddings: texts or token ids in, vectors out, as floats or base64.

Base64 is what OpenAI's own client asks for: little-endian float32, a quarter of the text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from paddock.engine.api.clock import nanoseconds
from paddock.engine.api.streaming import dumps
from paddock.engine.pool import LocalPool
from paddock.engine.request import EmbedReply, EmbedRequest

from . import wishes
from .calls import Caller
from .completions import Prompt, read_prompts
from .fields import Fields
from .refusals import InvalidValue, in_openais_words

Encoding = Literal["float", "base64"]
_ENCODINGS = ("float", "base64")


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """Texts that are to be vectors; token ids are made texts before they are asked for."""

    model: str
    inputs: tuple[Prompt, ...]
    request: EmbedRequest
    encoding: Encoding


def read_embedding(body: Fields, caller: Caller) -> EmbeddingCall:
    """Read what is asked.

    Raises:
        InvalidValue: a field that cannot be used.
    """
    model, spec = wishes.model_of(body, "embed")
    encoding = body.text("encoding_format", "float")
    if encoding not in _ENCODINGS:
        raise InvalidValue(
            f"Invalid value for 'encoding_format' = {encoding[:80]}. "
            "Supported values: ['float', 'base64'].",
            "encoding_format",
        )
    inputs = read_prompts(body, "input")
    request = EmbedRequest(
        spec,
        (),
        dimensions=body.whole("dimensions", 1),
        priority=caller.priority,
        on_overflow="cut" if body.flag("truncate") else "error",
    )
    return EmbeddingCall(model, inputs, request, cast(Encoding, encoding))


async def embedded(pool: LocalPool, call: EmbeddingCall, caller: Caller) -> EmbedReply:
    """Ask the pool for the vectors.

    Raises:
        ApiError: in OpenAI's words.
    """
    spec = call.request.model
    with in_openais_words():
        texts = [
            one if isinstance(one, str) else await pool.detokenise(spec, one) for one in call.inputs
        ]
        return await pool.embed(replace(call.request, texts=tuple(texts)), waits=caller.waits)


def embedding_body(call: EmbeddingCall, reply: EmbedReply) -> bytes:
    """Write the vectors as JSON. Slow for many floats: not for the event loop."""
    # One by one: the JSON writer lets no other thread run before a value is whole.
    rows = b",".join(_row(call.encoding, *one) for one in enumerate(reply.vectors))
    usage = {
        "prompt_tokens": reply.usage.prompt_tokens,
        "total_tokens": reply.usage.prompt_tokens,
        "queue_duration": nanoseconds(reply.usage.queue_s),
    }
    rest: dict[str, object] = {"model": call.model, "usage": usage}
    if any(reply.n_cut_tokens):
        rest["truncated"] = True
    return b'{"object":"list","data":[' + rows + b"]," + dumps(rest)[1:]


def _row(encoding: Encoding, index: int, vector: Sequence[float]) -> bytes:
    if encoding == "float":
        told_as = json.dumps(vector, separators=(",", ":"), allow_nan=False)
    else:
        told_as = f'"{base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")}"'
    return f'{{"object":"embedding","index":{index},"embedding":{told_as}}}'.encode("ascii")
