"""Errors over HTTP: status, message, and the body of each API.

Ollama's clients know the texts of its errors, so these are the same word for word.
`x-should-retry: false` is sent where a retry would fail again. OpenAI's clients read `code` and
`param` (openai-python, `_exceptions.py`), so its endpoints raise errors that name the field;
Anthropic's recover by `details.error_code` (anthropic 2.14, `lib/threads/_thread_state.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from traceback import clear_frames
from typing import Any, Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from paddock.engine.errors import (
    AdapterBroken,
    BadDigest,
    BadRequest,
    BlobMissing,
    Busy,
    ConstraintRefused,
    DeadlineExceeded,
    DigestMismatch,
    EngineError,
    InvalidName,
    ModelBroken,
    ModelNotFound,
    ModelTooLarge,
    ModelUnusable,
    NoInsert,
    NoPlace,
    PromptTooLong,
    StoreFull,
    StoreReadOnly,
    TextRefused,
    TextTooLong,
    TrialTimeout,
    WorkerLost,
    WrongRole,
)

Dialect = Literal["ollama", "openai", "anthropic"]
Handler = Callable[[Request], Awaitable[Response]]

log = logging.getLogger(__name__)

CLIENT_GONE = 499
RETRY_AFTER_S = 2
"""Short answers free a place within seconds; clients double the pause themselves."""

PROMPT_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)
SERVER_BUSY = "server busy, please try again.  maximum pending requests exceeded"
WORKER_LOST = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an "
    "internal error, check ollama server logs for details"
)


class ApiError(Exception):
    """A request that is answered with an error; some APIs send `code` and `param` with it."""

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        self.code = code
        self.param = param
        super().__init__(message)


class ClientGone(ApiError):
    """The client disconnected before it was answered. For logs only."""

    def __init__(self) -> None:
        super().__init__(CLIENT_GONE, "request canceled")


def shutting_down() -> ApiError:
    """Return the error for an answer that was cancelled because the service stops."""
    return ApiError(503, "the server is shutting down")


# A retry would fail again.
_FINAL_ERRORS = (
    AdapterBroken, ModelBroken, ModelTooLarge, ModelUnusable, StoreFull, StoreReadOnly,
)  # fmt: skip
_STATUS_OF_OWN_TEXT = {
    400: (BadDigest, BadRequest, BlobMissing, DigestMismatch),
    503: (NoPlace,),
    504: (DeadlineExceeded,),
    507: (StoreFull, StoreReadOnly),
}


def as_api_error(error: EngineError) -> ApiError:
    match error:
        case ModelNotFound():
            return ApiError(404, f"model '{error.ref}' not found", code="model_not_found")
        case PromptTooLong():
            return ApiError(400, PROMPT_TOO_LONG, code=CONTEXT_LENGTH_EXCEEDED)
        case TextTooLong():
            return ApiError(400, "the input length exceeds the context length")
        case WrongRole():
            requested = "embeddings" if error.asked == "embed" else error.asked
            return ApiError(400, f'"{error.ref}" does not support {requested}{error.hint}')
        case InvalidName():
            return ApiError(400, "invalid model name")
        case Busy():
            return ApiError(503, str(error) if isinstance(error, TrialTimeout) else SERVER_BUSY)
        case WorkerLost():
            return ApiError(500, f"{WORKER_LOST}: {error.reason}")
        case _:
            of_text = _STATUS_OF_OWN_TEXT.items()
            status = next((status for status, kinds in of_text if isinstance(error, kinds)), 500)
            is_final = isinstance(error, _FINAL_ERRORS)
            return ApiError(status, str(error), {"x-should-retry": "false"} if is_final else None)


def api_error(error: Exception) -> ApiError:
    """Return the error to send for any exception; an unexpected one is logged, not sent."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineError):
        return as_api_error(error)
    if isinstance(error, ClientDisconnect):
        return ClientGone()
    if isinstance(error, RecursionError):
        return ApiError(400, "the request is nested too deeply")
    log.error("a request failed with an unexpected error", exc_info=error)
    return ApiError(500, "internal server error")


_OPENAI_PATHS = ("/v1/", "/chat/completions", "/completions", "/responses", "/embeddings",
                 "/rerank", "/models", "/files", "/batches")  # fmt: skip


def dialect_of(path: str) -> Dialect:
    """Return whose errors a path answers with; OpenAI's and Anthropic's need no `/v1` before."""
    if path.removeprefix("/v1").startswith("/messages"):
        return "anthropic"
    return "openai" if path.startswith(_OPENAI_PATHS) or path == "/v1" else "ollama"


def error_body(dialect: Dialect, error: ApiError) -> dict[str, Any]:
    kind = _ERROR_TYPES[dialect].get(error.status, "api_error")
    if dialect == "openai":
        value = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
        return {"error": value}
    if dialect == "anthropic":
        fault: dict[str, Any] = {"type": kind, "message": error.message}
        if error.code:
            fault["details"] = {"error_code": error.code}
        return {"type": "error", "error": fault, "request_id": f"req_{secrets.token_hex(12)}"}
    return {"error": error.message}


_SHARED_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ERROR_TYPES: Mapping[Dialect, Mapping[int, str]] = {
    "ollama": {},
    "openai": {**_SHARED_ERROR_TYPES, 413: "invalid_request_error"},
    "anthropic": {**_SHARED_ERROR_TYPES, 413: "request_too_large", 503: "overloaded_error"},
}


def error_response(path: str, error: ApiError) -> Response:
    value = error_body(dialect_of(path), error)
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    raw = body.encode("utf-8", "replace")  # the client's words may hold half a surrogate pair
    return Response(raw, error.status, error.headers, "application/json; charset=utf-8")


def with_error_responses(handler: Handler) -> Handler:
    """Wrap a handler so that every exception is answered as an error of its dialect."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except asyncio.CancelledError:  # by the server, when the time to stop is up
            return error_response(request.url.path, shutting_down())
        except Exception as error:  # no traceback may reach a client
            response = error_response(request.url.path, api_error(error))
            clear_frames(error.__traceback__)  # they hold the body until Python looks for cycles
            return response

    return endpoint


CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"


class InvalidValue(ApiError):
    """A field with an invalid value; `param` is its path (`messages[2].content`)."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(400, message, code=code, param=param)


class NoSuchObject(ApiError):
    def __init__(self, what: str, found_id: str) -> None:
        super().__init__(404, f"No such {what}: '{found_id[:80]}'", code="not_found", param="id")


def as_openai_error(error: Exception, constraint: str = "") -> ApiError:
    """Return an error with the field that it is about.

    `constraint`: the field that says what the answer must match.
    """
    match error:
        case ConstraintRefused():
            return ApiError(400, str(error), param=constraint or None)
        case NoInsert():
            return ApiError(400, str(error), param="suffix")
        case TextRefused():
            return ApiError(400, str(error), param="input")
        case WrongRole():
            return ApiError(400, as_api_error(error).message, param="model")
        case PromptTooLong():
            # LangChain knows it by this sentence, since openai 3.57 shows it no code.
            known, n_given, what = "The prompt is too long. ", error.n_prompt_tokens, "your prompt"
        case TextTooLong():
            known, n_given, what = "", error.n_tokens, f"input {error.index}"
        case ModelNotFound():
            message = f"model '{error.ref}' not found"
            return ApiError(404, message, code="model_not_found", param="model")
        case InvalidName():
            return ApiError(400, "invalid model name", code="invalid_model", param="model")
        case _:
            return api_error(error)
    return ApiError(
        400,
        f"{known}This model's maximum context length is {error.n_ctx_tokens} tokens. However, "
        f'{what} has {n_given} tokens. Please shorten it, or ask for `"truncate": true`.',
        code=CONTEXT_LENGTH_EXCEEDED,
        param="input" if isinstance(error, TextTooLong) else None,
    )


@contextmanager
def openai_errors(constraint: str = "") -> Iterator[None]:
    """Raise every exception of the block as an ApiError with OpenAI's texts."""
    try:
        yield
    except ApiError:
        raise
    except Exception as error:
        raise as_openai_error(error, constraint) from error


def openai_error_body(error: Exception) -> dict[str, Any]:
    return error_body("openai", as_openai_error(error))
