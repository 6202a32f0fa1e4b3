"""What is wrong with a request, in OpenAI's words: with the field to blame, and a code.

Knows which field it is where the frame's errors know only the status. Source: openai-python,
`_exceptions.py` (clients read `code` and `param`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paddock.engine.api.errors import ApiError, api_error, error_body
from paddock.engine.errors import InvalidName, ModelNotFound, PromptTooLong, TextTooLong

TOO_LONG = "context_length_exceeded"


class InvalidValue(ApiError):
    """A field that cannot be used as it stands; `param` says which (`messages[2].content`)."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(400, message, code=code, param=param)


class NotThere(ApiError):
    """Something asked for by its id that there is not."""

    def __init__(self, what: str, found_id: str) -> None:
        super().__init__(404, f"No such {what}: '{found_id[:80]}'", code="not_found", param="id")


def told(error: Exception) -> ApiError:
    """Give what a client of OpenAI's API is told of any exception."""
    match error:
        case PromptTooLong():
            n_given, what = error.n_prompt_tokens, "your prompt"
        case TextTooLong():
            n_given, what = error.n_tokens, f"input {error.index}"
        case ModelNotFound():
            said = f"model '{error.ref}' not found"
            return ApiError(404, said, code="model_not_found", param="model")
        case InvalidName():
            return ApiError(400, "invalid model name", code="invalid_model", param="model")
        case RecursionError():
            return ApiError(400, "the request is nested too deeply")
        case _:
            return api_error(error)
    return ApiError(
        400,
        f"This model's maximum context length is {error.n_ctx_tokens} tokens. However, {what} has "
        f'{n_given} tokens. Please shorten it, or ask for `"truncate": true`.',
        code=TOO_LONG,
    )


@contextmanager
def in_openais_words() -> Iterator[None]:
    """Turn whatever goes wrong within into what a client is told of it.

    Raises:
        ApiError: in OpenAI's words.
    """
    try:
        yield
    except ApiError:
        raise
    except Exception as error:
        raise told(error) from error


def error_value(error: Exception) -> dict[str, Any]:
    """Write any exception as OpenAI's API has it: `{"error": {…}}`."""
    return error_body("openai", told(error))
