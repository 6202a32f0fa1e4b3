"""POST /v1/embeddings and /v1/rerank: body → request, reply → body.

OpenAI's client requests embeddings as base64 by default: little-endian float32. /v1/rerank has the
form of Jina and Cohere, as in llama-server; scores are the model's own, usually no probabilities.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from paddock.engine.api.errors import InvalidValue, openai_errors
from paddock.engine.api.streaming import dumps, nanoseconds
from paddock.engine.backends.local import LocalPool
from paddock.engine.request import EmbedReply, EmbedRequest, RerankReply, RerankRequest

from .chat_completions import Prompt, read_prompts
from .generation_calls import ApiCaller
from .requests import Fields, read_model

Encoding = Literal["float", "base64"]
_ENCODINGS = ("float", "base64")


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """A request for embeddings; token ids become texts before the pool gets them."""

    model: str
    inputs: tuple[Prompt, ...]
    request: EmbedRequest
    encoding: Encoding


def read_embedding(body: Fields, caller: ApiCaller) -> EmbeddingCall:
    model, spec = read_model(body, "embed")
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


async def run_embedding(pool: LocalPool, call: EmbeddingCall, caller: ApiCaller) -> EmbedReply:
    """Return the pool's vectors; raise ApiError with OpenAI's texts."""
    spec = call.request.model
    with openai_errors():
        texts = [
            one if isinstance(one, str) else await pool.detokenise(spec, one) for one in call.inputs
        ]
        return await pool.embed(replace(call.request, texts=tuple(texts)), waits=caller.waits)


def embedding_body(call: EmbeddingCall, reply: EmbedReply) -> bytes:
    """Return the vectors as JSON. Slow for many floats: not for the event loop."""
    # One by one: `json.dumps` holds the GIL until a value is complete.
    rows = b",".join(_embedding_value(call.encoding, *one) for one in enumerate(reply.vectors))
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


RERANK_PATHS = ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking")


@dataclass(frozen=True, slots=True)
class RerankCall:
    """A request for a rerank."""

    model: str
    request: RerankRequest
    top_n: int
    returns_documents: bool


def read_rerank(body: Fields, caller: ApiCaller) -> RerankCall:
    model, spec = read_model(body, "rerank")
    values = body.list("documents")
    if not values:
        raise body.refused("documents", "at least one document is needed")
    documents = tuple(_document_text(body, *one) for one in enumerate(values))
    request = RerankRequest(
        spec,
        body.needed_text("query"),
        documents,
        priority=caller.priority,
        on_overflow="cut" if body.flag("truncate") else "error",
    )
    top_n = body.whole("top_n", 1) or len(documents)
    return RerankCall(model, request, top_n, body.flag("return_documents"))


def _document_text(body: Fields, number: int, value: Any) -> str:
    """Return a document's text: the document itself, or its `text`."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise body.refused(f"documents[{number}]", "a document is a string or has a `text`")
    return text


async def run_rerank(pool: LocalPool, call: RerankCall, caller: ApiCaller) -> RerankReply:
    """Return the pool's scores; raise ApiError with OpenAI's texts."""
    with openai_errors():
        return await pool.rerank(call.request, waits=caller.waits)


def rerank_body(call: RerankCall, reply: RerankReply) -> dict[str, Any]:
    """Return the best documents by index and score, equal ones in the order of the request."""
    order = sorted(range(len(reply.scores)), key=lambda index: -reply.scores[index])
    results: list[dict[str, Any]] = []
    for index in order[: call.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": reply.scores[index]}
        if call.returns_documents:
            result["document"] = {"text": call.request.documents[index]}
        results.append(result)
    n_tokens = reply.usage.prompt_tokens
    return {
        "model": call.model,
        "object": "list",
        "usage": {
            "prompt_tokens": n_tokens,
            "total_tokens": n_tokens,
            "queue_duration": nanoseconds(reply.usage.queue_s),
        },
        "results": results,
    }
