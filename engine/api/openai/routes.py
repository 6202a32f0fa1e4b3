"""OpenAI's API: which handler answers which path. Knows nothing of their work."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from paddock.engine.api.errors import Handler, guarded

from . import models
from .batch import batches, files
from .handlers import EMBEDDINGS, GENERATING, embeddings, generating, rerank
from .reranking import PATHS as RERANK_PATHS


def routes() -> list[BaseRoute]:
    """Give every route of this dialect."""
    table: list[tuple[str, str, Handler]] = [
        *(("POST", path, generating(read)) for path, read in GENERATING.items()),
        ("POST", EMBEDDINGS, embeddings),
        *(("POST", path, rerank) for path in RERANK_PATHS),
        ("GET", "/v1/models", models.listing),
        ("GET", "/v1/models/{name:path}", models.one),
        ("POST", "/v1/files", files.upload),
        ("GET", "/v1/files", files.listing),
        ("GET", "/v1/files/{file_id}", files.one),
        ("DELETE", "/v1/files/{file_id}", files.delete),
        ("GET", "/v1/files/{file_id}/content", files.content),
        ("POST", "/v1/batches", batches.create),
        ("GET", "/v1/batches", batches.listing),
        ("GET", "/v1/batches/{batch_id}", batches.one),
        ("POST", "/v1/batches/{batch_id}/cancel", batches.cancel),
    ]
    return [Route(path, guarded(handler), methods=[verb]) for verb, path, handler in table]
