"""/v1/rerank: documents ordered by a reranker's scores. Pure but for the call on the pool.

It has the form of Jina and Cohere, as in llama-server; scores are the model's own, usually no
probabilities.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import PlainValidator, model_validator

from paddock.engine.api.body_models import Items, Needed, invalid_value, refused
from paddock.engine.api.errors import openai_errors
from paddock.engine.backends.local import LocalPool
from paddock.engine.request import RerankRequest

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

    @model_validator(mode="after")
    def _has_documents(self) -> Self:
        if not self.documents:
            raise invalid_value("documents", "at least one document is needed")
        if len(self.documents) > MAX_INPUTS:
            raise invalid_value("documents", f"at most {MAX_INPUTS:,} are scored at once.")
        return self


async def run_rerank(pool: LocalPool, body: RerankBody, caller: ApiCaller) -> dict[str, Any]:
    with openai_errors():
        request = RerankRequest(
            body.spec("rerank"),
            body.query,
            body.documents,
            priority=caller.priority,
            on_overflow="cut" if body.truncates else "error",
        )
        reply = await pool.rerank(request, waits=caller.waits)
    order = sorted(range(len(reply.scores)), key=lambda index: -reply.scores[index])
    results: list[dict[str, Any]] = []
    for index in order[: body.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": reply.scores[index]}
        if body.return_documents:
            result["document"] = {"text": body.documents[index]}
        results.append(result)
    usage = reading_usage(reply.usage)
    return {"model": body.model, "object": "list", "usage": usage, "results": results}
