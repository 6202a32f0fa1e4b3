"""POST /v1/rerank: documents scored by how well they answer a query, the best first.

The form is that of Jina and Cohere, as llama-server has it; the scores are the model's own, which
for most models are no probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paddock.engine.api.clock import nanoseconds
from paddock.engine.pool import LocalPool
from paddock.engine.request import RerankReply, RerankRequest

from . import wishes
from .calls import Caller
from .fields import Fields
from .refusals import in_openais_words

PATHS = ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking")


@dataclass(frozen=True, slots=True)
class RerankCall:
    """A query and its documents."""

    model: str
    request: RerankRequest
    top_n: int
    returns_documents: bool


def read_rerank(body: Fields, caller: Caller) -> RerankCall:
    """Read what is asked.

    Raises:
        InvalidValue: a field that cannot be used.
    """
    model, spec = wishes.model_of(body, "rerank")
    documents = tuple(_document(body, number, one) for number, one in enumerate(_given(body)))
    request = RerankRequest(
        spec,
        body.needed_text("query"),
        documents,
        priority=caller.priority,
        on_overflow="cut" if body.flag("truncate") else "error",
    )
    top_n = body.whole("top_n", 1) or len(documents)
    return RerankCall(model, request, top_n, body.flag("return_documents"))


def _given(body: Fields) -> list[Any]:
    documents = body.list("documents")
    if not documents:
        raise body.refused("documents", "at least one document is needed")
    return documents


def _document(body: Fields, number: int, value: Any) -> str:
    """Return a document's text; clients send it as it is, or as the `text` of an object."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise body.refused(f"documents[{number}]", "a document is a string or has a `text`")
    return text


async def reranked(pool: LocalPool, call: RerankCall, caller: Caller) -> RerankReply:
    """Ask the pool for the scores.

    Raises:
        ApiError: in OpenAI's words.
    """
    with in_openais_words():
        return await pool.rerank(call.request, waits=caller.waits)


def rerank_body(call: RerankCall, reply: RerankReply) -> dict[str, Any]:
    """Return the best documents, by index and score; equal ones in their order."""
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
