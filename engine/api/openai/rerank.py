"""/v1/rerank: documents ordered by a reranker's scores. Pure but for the call on the pool.

It has the form of Jina and Cohere, as in llama-server; scores are the model's own, usually no
probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator

from paddock.engine.api.body_models import Items, Needed, invalid_value, refused
from paddock.engine.api.errors import openai_errors
from paddock.engine.backends.local import LocalPool
from paddock.engine.request import RerankReply, RerankRequest

from .embeddings import MAX_INPUTS
from .requests import ApiCaller, Limit, ModelBody, reading_usage

RERANK_PATHS = ("/v1/rerank", "/v1/reranking")


def _document_text(value: Any) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise refused("a document is a string or has a `text`")
    return text


class RerankBody(ModelBody):
    query: Needed
    documents: Items[Annotated[str, PlainValidator(_document_text)]] = ()
    top_n: Limit | None = None
    return_documents: bool = False


def read_rerank(fields: Mapping[str, Any], caller: ApiCaller) -> RerankBody:
    body = RerankBody.read(fields)
    if not body.documents:
        raise invalid_value("documents", "at least one document is needed")
    if len(body.documents) > MAX_INPUTS:
        raise invalid_value("documents", f"at most {MAX_INPUTS:,} are scored at once.")
    return body


async def run_rerank(pool: LocalPool, body: RerankBody, caller: ApiCaller) -> RerankReply:
    with openai_errors():
        request = RerankRequest(
            body.spec("rerank"),
            body.query,
            body.documents,
            priority=caller.priority,
            on_overflow="cut" if body.truncates else "error",
        )
        return await pool.rerank(request, waits=caller.waits)


def rerank_answer(body: RerankBody, reply: RerankReply) -> dict[str, Any]:
    order = sorted(range(len(reply.scores)), key=lambda index: -reply.scores[index])
    results: list[dict[str, Any]] = []
    for index in order[: body.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": reply.scores[index]}
        if body.return_documents:
            result["document"] = {"text": body.documents[index]}
        results.append(result)
    usage = reading_usage(reply.usage)
    return {"model": body.model, "object": "list", "usage": usage, "results": results}
