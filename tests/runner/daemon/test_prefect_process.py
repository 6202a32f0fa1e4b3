"""Which requests reach Prefect's own application."""

import asyncio
import json
import socket
from typing import Any

import pytest

from paddock.runner.daemon.prefect_process import SameOriginOnly

PORT = 4200


def answered(kind: str, host: str, origin: str = "") -> tuple[bool, list[Any]]:
    """Return whether a request came through, and what was sent in its place."""
    reached: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def receive() -> Any:
        raise AssertionError("nothing is read of what is refused")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", host.encode())]
    if origin:
        headers.append((b"origin", origin.encode()))
    scope = {"type": kind, "headers": headers, "method": "POST", "path": "/api/flow_runs/"}
    asyncio.run(SameOriginOnly(app, PORT)(scope, receive, send))
    return bool(reached), sent


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_own_names_and_own_pages_come_through(kind: str) -> None:
    for host in ("127.0.0.1:4200", "localhost:4200", "[::1]:4200", socket.gethostname()):
        assert answered(kind, host) == (True, [])
    assert answered(kind, "127.0.0.1:4200", "http://localhost:4200") == (True, [])
    assert answered(kind, "localhost:9000", "http://localhost:9000") == (True, [])  # by `ssh -L`


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4200", "127.0.0.1.evil.example"])
def test_a_page_whose_name_points_here_is_refused(host: str) -> None:
    is_through, (start, body) = answered("http", host, f"http://{host}")
    assert (is_through, start["status"]) == (False, 403)
    message = json.loads(body["body"])["exception_message"]
    assert message == f"host '{host}' is not a name of this machine"
    assert answered("websocket", host) == (False, [{"type": "websocket.close", "code": 1008}])


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:80@evil.example",
        "https://localhost:4200", "file://", "http://127.0.0.1:4200.evil.example",
    ],
)  # fmt: skip
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    is_through, (start, _) = answered("http", "127.0.0.1:4200", origin)
    assert (is_through, start["status"]) == (False, 403)
    assert not answered("websocket", "127.0.0.1:4200", origin)[0]


def test_the_lifespan_of_the_application_is_its_own() -> None:
    assert answered("lifespan", "") == (True, [])
