"""What is written down of a request: all of it but what was said."""

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from paddock.engine.api.request_log import Exchange, ExchangeRecorder, RequestLog, client_address
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


def test_words_from_outside_make_no_new_series() -> None:
    house = SmallService(ServiceSettings())
    for n in range(20):
        house.ask(f"/random/{n}", "GET")
        house.ask("/", f"METHOD{n}")
    lines = [line for line in house.metrics().splitlines() if "requests_total{" in line]
    assert len(lines) < 6


def test_only_so_many_are_kept_and_none_that_only_looked() -> None:
    request_log = RequestLog()
    for n in range(300):
        for path in ("/api/tags", "/ui/state.json", "/metrics"):
            exchange = Exchange("POST", path, "")
            request_log.begin(exchange, {"headers": []})
            exchange.status = n
            request_log.end(exchange, "answered", "")
    assert [exchange.status for exchange in request_log.last] == list(range(200, 300))
    assert not request_log.running
