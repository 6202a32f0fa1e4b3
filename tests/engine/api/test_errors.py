"""Errors in each dialect's shape."""

from typing import Any

import pytest

from paddock.engine.api.errors import ApiError, api_error, dialect_of, error_body
from paddock.engine.errors import StoreFull


@pytest.mark.parametrize(
    ("path", "dialect", "body"),
    [
        ("/api/chat", "ollama", {"error": "no"}),
        ("/v1/chat/completions", "openai", {"error": {
            "message": "no", "type": "not_found_error", "param": None, "code": None}}),
    ],
)  # fmt: skip
def test_each_dialect_has_its_own_shape_of_errors(
    path: str, dialect: str, body: dict[str, Any]
) -> None:
    assert dialect_of(path) == dialect
    assert error_body(dialect_of(path), ApiError(404, "no")) == body


def test_anthropics_errors_have_an_id() -> None:
    body = error_body(dialect_of("/v1/messages"), ApiError(503, "busy"))
    assert body["error"] == {"type": "overloaded_error", "message": "busy"}
    assert body["request_id"].startswith("req_")


def test_what_would_fail_again_says_that_it_is_not_to_be_tried_again() -> None:
    error = api_error(StoreFull("/models", 0))
    assert (error.status, error.headers["x-should-retry"]) == (507, "false")
