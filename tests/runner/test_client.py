"""How a service is asked, and what is said where it does not answer well."""

import json
import socket
import threading
import time
from typing import Any

import pytest

from paddock.runner.daemon.service_client import ServiceClient, ServiceError
from tests.fakes.http_server import by_path, serving


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b'{"error":"model \'x\' not found"}', "model 'x' not found"),
        (400, b'{"error":{"message":"too long","type":"x"}}', "too long"),
        (500, b"", "the service answered with status 500"),
        (
            401,
            b'{"error":"an API key is needed"}',
            "an API key is needed\n  Set PADDOCK_API_KEY to one of the service's keys.",
        ),
    ],
)
def test_what_the_service_refuses_is_told_in_its_words(
    status: int, body: bytes, words: str
) -> None:
    with (
        serving(by_path(api__show=(status, body))) as server,
        ServiceClient(f"http://{server.host}") as client,
        pytest.raises(ServiceError) as caught,
    ):
        client.post("/api/show", {})
    assert (str(caught.value), caught.value.status) == (words, status)


def lines_of(content: bytes) -> list[dict[str, Any]]:
    with (
        serving(by_path(api__chat=(200, content))) as server,
        ServiceClient(f"http://{server.host}") as client,
    ):
        return list(client.stream("/api/chat", {}))


def test_lines_end_at_line_feeds_alone() -> None:
    odd = "a\u2028b\x85c\u2029d"
    content = json.dumps({"text": odd}, ensure_ascii=False).encode() + b'\n{"done":true}'
    assert lines_of(content) == [{"text": odd}, {"done": True}]


def test_a_refused_stream_is_told() -> None:
    with serving(by_path(api__chat=(503, b'{"error":"busy"}'))) as server:
        client = ServiceClient(f"http://{server.host}")
        with client, pytest.raises(ServiceError, match="busy"):
            next(client.stream("/api/chat", {}))


def test_a_connection_that_breaks_off_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def break_off() -> None:
            link, _ = listener.accept()
            link.recv(65536)
            link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}")
            link.close()

        thread = threading.Thread(target=break_off)
        thread.start()
        with (
            ServiceClient(f"http://127.0.0.1:{port}") as client,
            pytest.raises(ServiceError) as caught,
        ):
            client.get("/api/tags")
        thread.join()
    assert str(caught.value).startswith(
        f"The connection to the service at http://127.0.0.1:{port} broke ("
    )


def test_a_service_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with ServiceClient(f"http://127.0.0.1:{port}") as client:
            began = time.monotonic()
            with pytest.raises(ServiceError) as caught:
                client.post("/api/show", {}, within_s=0.2)
    assert time.monotonic() - began < 30  # not the minute that it else may take
    assert str(caught.value) == f"The service at http://127.0.0.1:{port} does not answer in time."
