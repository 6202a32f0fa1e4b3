"""Errors as HTTP tells them: a status, a sentence, and each dialect's own shape.

Knows no model and no route. The texts are those that Ollama's clients know; where a client of
ours would retry in vain, `x-should-retry: false` says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from paddock.engine.errors import (
    AdapterBroken,
    BadDigest,
    BadRequest,
    BlobMissing,
    Busy,
    DeadlineExceeded,
    DigestMismatch,
    EngineError,
    InvalidName,
    ManifestBroken,
    ModelBroken,
    ModelNotFound,
    ModelTooLarge,
    ModelUnusable,
    NoPlace,
    PromptTooLong,
    StoreFull,
    StoreReadOnly,
    TextTooLong,
    WorkerLost,
    WrongRole,
)

Dialect = Literal["ollama", "openai", "anthropic"]
Handler = Callable[[Request], Awaitable[Response]]

log = logging.getLogger(__name__)

CLIENT_GONE = 499
RETRY_AFTER_S = 2
"""A place comes free within seconds where answers are short; clients double it themselves."""

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)
BUSY = "server busy, please try again.  maximum pending requests exceeded"
LOST = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an "
    "internal error, check ollama server logs for details"
)


class ApiError(Exception):
    """A request that is answered with an error.

    `kind`, `code` and `param` are told to clients of OpenAI's and Anthropic's dialects; `kind`
    follows from the status where it is empty.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        kind: str = "",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        self.kind = kind
        self.code = code
        self.param = param
        super().__init__(message)


class ClientGone(ApiError):
    """The client went before there was an answer; nobody reads this one."""

    def __init__(self) -> None:
        super().__init__(CLIENT_GONE, "request canceled")


def stopping() -> ApiError:
    """Say that an answer was cancelled because the service ends."""
    return ApiError(503, "the server is shutting down")


def as_api_error(error: EngineError) -> ApiError:
    """Give the status and the words for what the engine raised."""
    match error:
        case ModelNotFound():
            return ApiError(404, f"model '{error.ref}' not found", code="model_not_found")
        case PromptTooLong():
            return ApiError(400, TOO_LONG, code="context_length_exceeded")
        case TextTooLong():
            return ApiError(400, "the input length exceeds the context length")
        case WrongRole():
            asked = "embeddings" if error.asked == "embed" else error.asked
            return ApiError(400, f'"{error.ref}" does not support {asked}{error.hint}')
        case BadRequest():
            return ApiError(400, str(error))
        case InvalidName():
            return ApiError(400, "invalid model name")
        case BadDigest() | DigestMismatch() | BlobMissing():
            return ApiError(400, str(error))
        case StoreFull() | StoreReadOnly():
            return ApiError(507, str(error), {"x-should-retry": "false"})
        case Busy():
            return ApiError(503, BUSY)
        case NoPlace():
            return ApiError(503, str(error))
        case DeadlineExceeded():
            return ApiError(504, str(error))
        case WorkerLost():
            return ApiError(500, f"{LOST}: {error.reason}")
        case ModelBroken() | ManifestBroken() | ModelTooLarge() | ModelUnusable() | AdapterBroken():
            # The next try would end alike.
            return ApiError(500, str(error), {"x-should-retry": "false"})
        case _:
            return ApiError(500, str(error))


def api_error(error: Exception) -> ApiError:
    """Give what a client is told of any exception; what nobody foresaw is logged, not told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineError):
        return as_api_error(error)
    if isinstance(error, ClientDisconnect):
        return ClientGone()
    log.error("a request ended with an unforeseen error", exc_info=error)
    return ApiError(500, "internal server error")


# Shapes


def dialect_of(path: str) -> Dialect:
    """Tell by its path in which dialect a request wants its errors."""
    if path.startswith("/v1/messages"):
        return "anthropic"
    return "openai" if path == "/v1" or path.startswith(("/v1/", "/rerank")) else "ollama"


def error_body(dialect: Dialect, error: ApiError) -> dict[str, Any]:
    """Write an error as a dialect's clients read it."""
    if dialect == "openai":
        kind = error.kind or _openai_kind(error.status)
        told = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
        return {"error": told}
    if dialect == "anthropic":
        told = {"type": error.kind or _anthropic_kind(error.status), "message": error.message}
        return {"type": "error", "error": told, "request_id": f"req_{secrets.token_hex(12)}"}
    return {"error": error.message}


_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def _openai_kind(status: int) -> str:
    return {**_KINDS, 413: "invalid_request_error"}.get(status, "api_error")


def _anthropic_kind(status: int) -> str:
    own = {413: "request_too_large", 503: "overloaded_error"}
    return {**_KINDS, **own}.get(status, "api_error")


def error_response(path: str, error: ApiError) -> Response:
    """Answer a request for `path` with an error."""
    told = error_body(dialect_of(path), error)
    body = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    raw = body.encode("utf-8", "replace")  # a client's own words may be no text
    return Response(raw, error.status, error.headers, "application/json; charset=utf-8")


def guarded(handler: Handler) -> Handler:
    """Wrap a handler so that whatever it raises is answered as an error of its dialect."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except asyncio.CancelledError:  # by the server, which has waited for long enough
            return error_response(request.url.path, stopping())
        except Exception as error:  # the rim: nothing may reach a client as a traceback
            return error_response(request.url.path, api_error(error))

    return endpoint
