"""/v1/embeddings: vectors as numbers, or as base64 of little-endian float32.

OpenAI's client requests base64 by default.
"""

from __future__ import annotations

import base64
from typing import Self

import numpy as np
from pydantic import model_validator

from paddock.engine.api.body_models import invalid_value, shown
from paddock.engine.api.errors import InvalidValue, openai_errors
from paddock.engine.api.streaming import dumps, vectors_json
from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import BadRequest, TextRefused
from paddock.engine.request import EmbedReply, EmbedRequest

from .chat_completions import Prompts
from .requests import ApiCaller, Limit, ModelBody, reading_usage

MAX_INPUTS = 2048
"""As OpenAI. A vector of 384 numbers takes 12 kB until it is written."""


class EmbeddingBody(ModelBody):
    """The fields of a request; token ids become texts before the pool gets them."""

    input: Prompts = ()
    encoding_format: str = "float"
    dimensions: Limit | None = None

    @model_validator(mode="after")
    def _is_embeddable(self) -> Self:
        if self.encoding_format not in ("float", "base64"):
            raise InvalidValue(
                f"Invalid value for 'encoding_format' = {shown(self.encoding_format)}. "
                "Supported values: ['float', 'base64'].",
                "encoding_format",
            )
        if not self.input:
            raise InvalidValue("invalid input", "input")
        if len(self.input) > MAX_INPUTS:
            why = f"at most {MAX_INPUTS:,} inputs are embedded at once, not {len(self.input):,}."
            raise invalid_value("input", why)
        return self


async def run_embedding(pool: LocalPool, body: EmbeddingBody, caller: ApiCaller) -> EmbedReply:
    with openai_errors():
        spec = body.spec("embed")
        try:
            texts = [
                prompt if isinstance(prompt, str) else await pool.detokenise(spec, prompt)
                for prompt in body.input
            ]
        except BadRequest as error:
            raise InvalidValue(str(error), "input") from error
        request = EmbedRequest(
            spec,
            tuple(texts),
            dimensions=body.dimensions,
            priority=caller.priority,
            on_overflow="cut" if body.truncates else "error",
        )
        try:
            return await pool.embed(request, waits=caller.waits)
        except BadRequest as error:
            is_of_text = isinstance(error, TextRefused) or body.dimensions is None
            raise InvalidValue(str(error), "input" if is_of_text else "dimensions") from error


def embedding_answer(body: EmbeddingBody, reply: EmbedReply) -> bytes:
    """Return the vectors as JSON. Slow for many floats: not for the event loop."""
    rows = []
    for index, vector in enumerate(reply.vectors):
        if body.encoding_format == "float":
            written = vectors_json([vector])[1:-1]
        else:
            written = b'"%b"' % base64.b64encode(np.asarray(vector, "<f4").tobytes())
        rows.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (index, written))
    rest: dict[str, object] = {"model": body.model, "usage": reading_usage(reply.usage)}
    if any(reply.n_cut_tokens):
        rest["truncated"] = True
    return b'{"object":"list","data":[' + b",".join(rows) + b"]," + dumps(rest)[1:]


EMBEDDINGS_PATH = "/v1/embeddings"
