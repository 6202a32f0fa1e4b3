"""Clients that vanish, and answers that fail on their way."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from paddock.engine.api import streaming
from paddock.engine.api.streaming import dumps, ndjson_response, sse_event, sse_response
from paddock.engine.errors import Busy
from tests.live import CHAT, Live
from tests.waiting import until

"""A decode step of the small model takes 10 ms; a machine that is shared may take its time.
An answer that nothing ends takes longer than this on every machine."""


class Client:
    """The other end of one request, which goes when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def request(self) -> Request:
        return Request({"type": "http", "method": "GET", "path": "/", "headers": []}, self.receive)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def respond(client: Client, items: AsyncGenerator[dict[str, Any], None]) -> None:
    response = await ndjson_response(client.request, items)
    await response(client.request.scope, client.receive, client.send)


def test_a_piece_is_one_line_to_clients_that_know_more_line_ends() -> None:
    value = {"text": "a\u2028b\u2029c\x85d\nü"}
    assert dumps(value).decode().splitlines() == [dumps(value).decode()]
    assert json.loads(dumps(value)) == value


async def test_headers_come_before_a_slow_first_piece_and_pings_while_nothing_else_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "HEADERS_S", 0.01)
    monkeypatch.setattr(streaming, "PING_S", 0.02)
    client, pings = Client(), asyncio.Queue[bytes]()

    async def send(message: Message) -> None:
        await client.send(message)
        if b"ping" in message.get("body", b""):
            pings.put_nowait(message["body"])

    async def items() -> AsyncGenerator[bytes, None]:
        assert [await pings.get(), await pings.get()] == 2 * [b": ping\n\n"]
        yield b"data: 1\n\n"
        await pings.get()
        raise Busy("full")

    response = await sse_response(client.request, items(), lambda error: sse_event(error.message))
    assert (response.status_code, client.sent) == (200, [])
    await response(client.request.scope, client.receive, send)
    before, after = client.body.split(b"data: 1\n\n")
    assert before.startswith(2 * b": ping\n\n")
    assert after.startswith(b": ping\n\n")
    assert b"data: server busy" in after
    assert client.sent[-1]["more_body"] is False


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ZeroDivisionError("secret"), "internal server error"),
        (asyncio.CancelledError(), "the server is shutting down"),
    ],
)
async def test_what_no_one_foresaw_is_logged_and_not_told_and_a_cancelled_answer_is_told_as_such(
    caplog: pytest.LogCaptureFixture, error: BaseException, told: str
) -> None:
    async def items() -> AsyncGenerator[dict[str, Any], None]:
        yield {"n": 1}
        raise error

    client = Client()
    await respond(client, items())
    assert json.loads(client.body.splitlines()[-1]) == {"error": told}
    assert ("secret" in caplog.text) == ("secret" in str(error))


# Against the live service


@contextmanager
def sent_request(live: Live, path: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """Send a request over a bare socket."""
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.service.settings.port), 120) as wire:
        wire.sendall(head.encode() + raw)
        yield wire


def is_at_rest(live: Live) -> bool:
    """Return whether no request is in a worker, and none computes."""
    before = live.n_decoded()
    time.sleep(0.3)
    return live.n_users() == 0 and live.n_decoded() == before


LONG = {"num_predict": 1500, "temperature": 1.2, "repeat_penalty": 1.5, "seed": 3}
ASK = {
    "model": CHAT, "options": LONG,
    "messages": [{"role": "user", "content": "Tell a very long story of the sea."}],
}  # fmt: skip
# No model can end it earlier, whatever this processor makes of its numbers.
ENDLESS: dict[str, Any] = {
    **ASK,
    "format": {"type": "array", "items": {"type": "integer"}, "minItems": 4000},
    "options": {**LONG, "num_predict": 4000},
}


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_vanishes_frees_its_sequence_in_one_step(
    live: Live, path: str, streams: bool
) -> None:
    with live.client() as client:
        client.post("/api/generate", json={"model": CHAT})
    n_before = live.n_decoded()
    body = {**ENDLESS, "stream": streams}
    if path == "/api/generate":
        body["prompt"] = body.pop("messages")[0]["content"]
    with sent_request(live, path, body) as wire:
        if streams:
            assert b"200 OK" in wire.recv(65536)
        until(lambda: live.n_users() == 1)
    until(lambda: is_at_rest(live))
    assert live.n_decoded() - n_before < 4000


def test_a_hundred_clients_that_vanish_leave_nothing(live: Live) -> None:
    n_before = live.n_decoded()
    for _ in range(4):
        wires = [sent_request(live, "/api/chat", ASK) for _ in range(25)]
        for wire in wires:
            wire.__enter__()
        until(live.n_users)
        for wire in wires:
            wire.__exit__(None, None, None)
    until(lambda: is_at_rest(live))
    assert live.n_decoded() - n_before < 100 * LONG["num_predict"]
    with live.client() as client:
        answer = client.post("/api/chat", json={**ASK, "stream": False,
                                                "options": {"num_predict": 3}})  # fmt: skip
        assert answer.json()["done"] is True


def test_a_worker_that_dies_in_mid_stream_ends_it_with_a_line(live: Live) -> None:
    import os
    import signal

    with live.client() as client, client.stream("POST", "/api/chat", json=ENDLESS) as answer:
        lines = answer.iter_lines()
        json.loads(next(lines))

        async def pids() -> list[int]:
            return list(live.service.pool.worker_pids())

        for pid in live.call(pids()):
            os.kill(pid, signal.SIGKILL)
        last = json.loads(list(lines)[-1])
    assert set(last) == {"error"}
    assert last["error"].startswith("model runner has unexpectedly stopped")
    with live.client() as client:
        answer = client.post("/api/chat", json={**ASK, "stream": False,
                                                "options": {"num_predict": 3}})  # fmt: skip
    assert answer.status_code == 200
