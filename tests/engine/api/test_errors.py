"""Errors in each dialect's shape."""

from paddock.engine.api.errors import ApiError, api_error, dialect_of, error_body
from paddock.engine.errors import StoreFull


def test_anthropics_errors_have_an_id() -> None:
    body = error_body(dialect_of("/v1/messages"), ApiError(503, "busy"))
    assert body["error"] == {"type": "overloaded_error", "message": "busy"}
    assert body["request_id"].startswith("req_")


def test_what_would_fail_again_says_that_it_is_not_to_be_tried_again() -> None:
    error = api_error(StoreFull("/models", 0))
    assert (error.status, error.headers["x-should-retry"]) == (507, "false")
