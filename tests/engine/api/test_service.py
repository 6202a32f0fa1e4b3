"""What handlers are told of the service and of a request."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from paddock.engine.api.service import priority_of
from paddock.engine.request import Priority


@pytest.mark.parametrize(
    ("header", "usual", "priority"),
    [
        (None, "interactive", "interactive"),
        ("batch", "interactive", "batch"),
        ("Normal", "interactive", "normal"),
        ("interactive", "batch", "batch"),
        ("normal", "batch", "batch"),
        ("urgent", "normal", "normal"),
    ],
)
def test_a_header_may_lower_the_priority_and_never_raise_it(
    header: str | None, usual: Priority, priority: Priority
) -> None:
    headers = [] if header is None else [(b"x-paddock-priority", header.encode())]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers})
    assert priority_of(request, usual) == priority
