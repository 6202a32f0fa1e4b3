"""What handlers are told of the service and of a request."""

import pytest
from starlette.requests import Request

from paddock.engine.api.service import priority_of
from paddock.engine.request import Priority


@pytest.mark.parametrize(
    ("header", "priority"),
    [
        (None, "interactive"),
        ("batch", "batch"),
        ("Normal", "normal"),
        ("interactive", "interactive"),
        ("urgent", "interactive"),
    ],
)
def test_a_header_may_lower_the_priority_and_knows_no_higher_one(
    header: str | None, priority: Priority
) -> None:
    headers = [] if header is None else [(b"x-paddock-priority", header.encode())]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers})
    assert priority_of(request) == priority
    lower = "normal" if priority == "interactive" else priority
    assert priority_of(request, streams=False) == lower, "a streamed answer is read along"
