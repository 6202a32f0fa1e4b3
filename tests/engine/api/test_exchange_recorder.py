"""What is written down of a request: all of it but what was said."""

import asyncio
import contextlib
import time
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from paddock.engine.api.request_log import (
    Exchange,
    ExchangeRecorder,
    RequestLog,
    client_address,
    route_pattern,
)
from paddock.engine.settings import ServiceSettings
from tests.engine.api.small_service import SmallService


def scope(path: str = "/api/chat", **extra: Any) -> Scope:
    return {"type": "http", "method": "POST", "path": path, "headers": [], **extra}


def record(app: Any, *later_messages: str) -> tuple[Exchange, RequestLog, list[Message]]:
    """Send a request through; `later_messages` is what the client's side says after the request."""
    request_log = RequestLog()
    ended: list[Exchange] = []
    sent: list[Message] = []
    messages = iter(("http.request", *later_messages))

    async def receive() -> Message:
        return {"type": next(messages), "body": b"secret words"}

    async def send(message: Message) -> None:
        sent.append(message)

    recorder = ExchangeRecorder(app, request_log=request_log, on_end=ended.append)
    with contextlib.suppress(ZeroDivisionError):
        asyncio.run(recorder(scope(client=("10.0.0.9", 1)), receive, send))
    return ended[0], request_log, sent


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await send({"type": "http.response.body", "body": b"four"})


def test_an_answered_request_has_its_status_size_and_time() -> None:
    began = time.monotonic()
    exchange, request_log, sent = record(answering)
    took_s = time.monotonic() - began
    assert (exchange.method, exchange.path, exchange.client, exchange.status) == (
        "POST",
        "/api/chat",
        "10.0.0.9",
        201,
    )
    assert (exchange.fate, exchange.sent_bytes) == ("answered", 7)
    assert 0 < exchange.first_s <= exchange.seconds <= took_s
    assert (list(request_log.last), request_log.running) == ([exchange], {})
    assert len(sent) == 3, "pieces go through as they come"
    assert "secret" not in repr(exchange)


async def leaving_amid_the_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await receive()


async def leaving_before_it(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await receive()


async def leaving_after_it(scope: Scope, receive: Receive, send: Send) -> None:
    await answering(scope, receive, send)
    await receive()


async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("app", "status", "fate", "n_gone"),
    [
        (leaving_amid_the_answer, 200, "gone", 1.0),
        (leaving_before_it, 499, "gone", 1.0),
        (leaving_after_it, 201, "answered", 0.0),
        (breaking, 500, "failed", 0.0),
    ],
)
def test_how_a_request_ended_is_known_by_its_status_and_fate(
    app: Any, status: int, fate: str, n_gone: float
) -> None:
    exchange, request_log, _ = record(app, "http.disconnect")
    assert (exchange.status, exchange.fate, request_log.running) == (status, fate, {})
    assert f"paddock_http_clients_gone_total {n_gone}" in request_log.metrics.text().decode()


@pytest.mark.parametrize(
    ("peer", "passed_on", "client"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("127.0.0.1", "6.6.6.6, 203.0.113.5", "203.0.113.5"),  # the first was the client's word
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "six\nlines", "127.0.0.1"),
        ("192.168.1.9", "203.0.113.5", "192.168.1.9"),
        ("", "203.0.113.5", ""),
    ],
)
def test_only_a_proxy_on_this_machine_is_believed_whose_request_it_is(
    peer: str, passed_on: str, client: str
) -> None:
    headers = [(b"x-forwarded-for", passed_on.encode())] if passed_on else []
    request_scope = scope(client=(peer, 1) if peer else None, headers=headers)
    assert client_address(request_scope) == client


async def test_a_route_is_told_by_its_pattern() -> None:
    async def pattern(request: Request) -> PlainTextResponse:
        return PlainTextResponse(route_pattern(request.scope))

    routes = [Route("/api/blobs/{digest}", pattern), Route("/v1/models/{name:path}", pattern)]
    app, seen = Starlette(routes=routes), []

    async def send(message: Message) -> None:
        seen.append(message.get("body", b"").decode())

    async def receive() -> Message:
        return {"type": "http.request"}

    for path in ("/api/blobs/sha256:12", "/v1/models/a/b"):
        await app(scope(path, method="GET"), receive, send)
    assert [route for route in seen if route] == ["/api/blobs/{digest}", "/v1/models/{name}"]
    assert route_pattern(scope("/nowhere")) == ""


def test_words_from_outside_make_no_new_series() -> None:
    house = SmallService(ServiceSettings())
    for n in range(20):
        house.ask(f"/random/{n}", "GET")
        house.ask("/", f"METHOD{n}")
    lines = [line for line in house.metrics().splitlines() if "requests_total{" in line]
    assert len(lines) < 6


async def test_streams_go_through_every_door_piece_by_piece(tmp_path: Any) -> None:
    file = tmp_path / "keys"
    file.write_text("k\n")
    house = SmallService(ServiceSettings(api_keys_file=file, rate_per_minute=100, origins=("*",)))
    pieces: list[tuple[float, bytes]] = []

    loop = asyncio.get_running_loop()
    body: asyncio.Queue[Message] = asyncio.Queue()
    body.put_nowait({"type": "http.request", "body": b""})
    receive = body.get  # then it waits, as for a client that stays

    async def send(message: Message) -> None:
        if message.get("body"):
            pieces.append((loop.time(), message["body"]))

    headers = [(b"host", b"localhost"), (b"x-api-key", b"k"), (b"origin", b"http://a.example")]
    request_scope = {**scope("/api/slow"), "method": "GET", "headers": headers}
    await house.app(
        {**request_scope, "query_string": b"", "server": ("localhost", 1)}, receive, send
    )
    assert [piece for _, piece in pieces] == [b"one ", b"two ", b"three"]
    assert pieces[2][0] - pieces[0][0] >= 0.015
