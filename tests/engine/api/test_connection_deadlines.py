"""Connections whose other side does not go on: they are ended, and no one else's is."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.sync.client import connect

from paddock.engine.api import connection_deadlines
from paddock.engine.api.connection_deadlines import deadline_protocol
from tests.waiting import PATIENCE_S, until

HEADER_S, IDLE_S = 0.4, 0.6
REQUEST = b"GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Application:
    """Answers at once, slowly, or with more than a socket holds."""

    ended: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await asyncio.sleep(3 * HEADER_S)
            await send({"type": "websocket.send", "text": "still here"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if path == "/slow":
            await asyncio.sleep(2 * IDLE_S)
        piece = b"x" * 1_000_000
        for _ in range(60 if path == "/large" else 0):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"done"})
        self.ended.append(path)


@contextmanager
def served(
    header_s: float = HEADER_S, idle_s: float = IDLE_S, kept_s: int = 1
) -> Iterator[tuple[int, Application]]:
    app = Application()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=deadline_protocol(header_s=header_s, idle_s=idle_s),
        lifespan="off",
        log_config=None,
        ws="websockets-sansio",
        timeout_keep_alive=kept_s,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
    thread.start()
    try:
        yield listener.getsockname()[1], app
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[int, Application]]:
    with served() as running:
        yield running


def call(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def until_closed(wire: socket.socket) -> bytes:
    """Read until the other side closes."""
    got = b""
    try:
        while part := wire.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    return got


def test_who_says_nothing_is_cut_off(service: tuple[int, Application]) -> None:
    began = time.monotonic()  # before the server's clock begins
    with call(service[0]) as wire:
        assert until_closed(wire) == b""
    assert time.monotonic() - began >= HEADER_S


def test_headers_that_trickle_do_not_win_time(service: tuple[int, Application]) -> None:
    with call(service[0]) as wire:
        wire.sendall(b"GET /quick HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for n in range(600):  # a minute, each line well within the deadline
                wire.sendall(f"X-{n}: y\r\n".encode())
                time.sleep(0.1)


def test_who_takes_nothing_of_an_answer_is_cut_off_and_its_work_ends(
    service: tuple[int, Application],
) -> None:
    port, app = service
    app.ended.clear()
    with call(port) as wire:
        wire.sendall(REQUEST.replace(b"quick", b"large"))
        until(lambda: app.ended)
        assert app.ended == ["/large"], "the application came free"
        assert len(until_closed(wire)) < 60_000_000


def test_who_takes_it_slowly_gets_all_of_it() -> None:
    with served(idle_s=5.0) as (port, _), call(port) as wire:
        wire.sendall(REQUEST.replace(b"quick", b"large"))
        size, began = 0, time.monotonic()
        while size < 50_000_000 or time.monotonic() - began < 6.0:  # no single wait is that long
            size += len(wire.recv(500_000))
            time.sleep(0.05)
        while part := wire.recv(4_000_000):
            size += len(part)
    assert size > 60_000_000


def test_who_opens_connections_and_says_nothing_shuts_no_one_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_deadlines, "MOST_IDLE", 8)
    with served(header_s=60.0) as (port, _), ExitStack() as stack:
        silent = [stack.enter_context(call(port)) for _ in range(12)]
        asking = stack.enter_context(call(port))
        asking.sendall(REQUEST)
        assert b"200 OK" in asking.recv(4096)
        assert until_closed(silent[0]) == b""
        silent[-1].sendall(REQUEST)
        assert b"200 OK" in silent[-1].recv(4096)


def test_a_websocket_has_no_deadline_of_requests(
    service: tuple[int, Application], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, _ = service
    monkeypatch.setattr(connection_deadlines, "MOST_IDLE", 3)
    with connect(f"ws://127.0.0.1:{port}/", proxy=None) as websocket, ExitStack() as silent:
        for _ in range(6):
            silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert websocket.recv(timeout=PATIENCE_S) == "still here"


FRAMED = {
    "a length": ("Content-Length: 4", b"body", 200),
    "chunks": ("Transfer-Encoding: chunked", b"4\r\nbody\r\n0\r\n\r\n", 200),
    "chunks with extensions": ("Transfer-Encoding: chunked", b"4;a=1\r\nbody\r\n0\r\n\r\n", 200),
    "a length that is stated twice": ("Content-Length: 4\r\nContent-Length: 4", b"body", 200),
    "a folded header": ("Content-Length: 4\r\nX-A: one\r\n two", b"body", 200),
    "a length and chunks": (
        "Content-Length: 4\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", 400
    ),
    "chunks and a length": (
        "Transfer-Encoding: chunked\r\nContent-Length: 0", b"0\r\n\r\n", 400
    ),
    "two lengths": ("Content-Length: 4\r\nContent-Length: 5", b"body", 400),
    "two lengths in a list": ("Content-Length: 4, 5", b"body", 400),
    "a length with a sign": ("Content-Length: +4", b"body", 400),
    "a length that is no number": ("Content-Length: four", b"body", 400),
    "chunks twice": (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", 400
    ),
    "another encoding": ("Transfer-Encoding: gzip, chunked", b"0\r\n\r\n", 400),
    "chunks without a size": ("Transfer-Encoding: chunked", b"x\r\nbody\r\n0\r\n\r\n", 400),
    "chunks longer than they say": (
        "Transfer-Encoding: chunked", b"2\r\nbody\r\n0\r\n\r\n", 400
    ),
    "a line without its end": ("X-A: one\rX-B: two\r\nContent-Length: 4", b"body", 400),
    "a blank before the colon": ("Content-Length : 4", b"body", 400),
    "a NUL": ("X-A: \0\r\nContent-Length: 4", b"body", 400),
}  # fmt: skip


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("case", FRAMED)
def test_a_request_is_served_if_its_end_is_the_same_for_all(
    service: tuple[int, Application], case: str, version: str
) -> None:
    headers, body, status = FRAMED[case]
    if version == "1.0" and "Transfer-Encoding" in headers:
        status = 400
    port, _ = service
    request = f"POST /quick HTTP/{version}\r\nHost: localhost\r\n{headers}\r\n\r\n"
    behind = REQUEST.replace(b"/quick", b"/behind").replace(
        b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as wire:
        wire.sendall(request.encode() + body + behind)
        told = b""
        while piece := wire.recv(65536):
            told += piece
    assert told.startswith(f"HTTP/1.1 {status} ".encode())
    n_answers = told.count(b"HTTP/1.1 ")
    assert n_answers == 1 + (status == 200 and version == "1.1")
