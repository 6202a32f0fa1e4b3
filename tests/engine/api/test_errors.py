"""Errors in each dialect's shape."""

from paddock.engine.api.errors import api_error
from paddock.engine.errors import StoreFull


def test_what_would_fail_again_says_that_it_is_not_to_be_tried_again() -> None:
    error = api_error(StoreFull("/models", 0))
    assert (error.status, error.headers["x-should-retry"]) == (507, "false")
