"""How a running service is found, asked, and what is said where it cannot be."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paddock.runner import service
from paddock.runner.service import Client, ServiceError
from paddock.runner.settings import Settings, read_settings


class _Server(http.server.ThreadingHTTPServer):
    """Answers from a table of paths: status, body, and how long it takes."""

    daemon_threads = True
    table: dict[str, tuple[int, bytes]]
    seen: list[tuple[str, str, dict[str, str], bytes]]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        status, content = self.server.table.get(self.path, (404, b"404 page not found"))
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_HEAD = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(**table: tuple[int, bytes]) -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.table = {"/" + path.replace("__", "/"): answer for path, answer in table.items()}
        server.seen = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


READY = (200, b'{"status":"ready"}')
OLLAMA = (200, b"Ollama is running")


def settings(tmp_path: Path, host: str, **more: str) -> Settings:
    return read_settings(environ={"PADDOCK_HOST": host, **more}, home=tmp_path)


def test_a_service_is_told_from_ollama_and_from_others(tmp_path: Path) -> None:
    with serving(readyz=READY) as ours, serving(**{"": OLLAMA}) as ollama, serving() as other:
        told = [
            service.identify(settings(tmp_path, one.host).address) for one in (ours, ollama, other)
        ]
    assert told == ["paddock", "Ollama", "another program"]
    assert service.identify(settings(tmp_path, "127.0.0.1:1").address) is None


def test_a_service_that_is_ending_is_still_ours(tmp_path: Path) -> None:
    with serving(readyz=(503, b'{"status":"stopping"}')) as server:
        assert service.identify(settings(tmp_path, server.host).address) == "paddock"


def test_on_this_machine_no_service_is_needed(tmp_path: Path) -> None:
    assert service.find(settings(tmp_path, "127.0.0.1:1")) is None
    with serving(**{"": OLLAMA}) as server:
        assert service.find(settings(tmp_path, server.host)) is None


def test_another_machine_that_does_not_answer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "is_near", lambda address: False)
    with pytest.raises(ServiceError) as caught:
        service.find(settings(tmp_path, "127.0.0.1:1"))
    assert str(caught.value) == (
        "No service answers at http://127.0.0.1:1 (PADDOCK_HOST).\n  Start one there: paddock serve"
    )
    with serving(**{"": OLLAMA}) as server, pytest.raises(ServiceError) as caught:
        service.find(settings(tmp_path, server.host))
    assert str(caught.value) == (
        f"At http://{server.host} (PADDOCK_HOST) Ollama answers, not Paddock."
    )


def test_what_only_a_service_can_do_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        service.demand(settings(tmp_path, "127.0.0.1:1"))
    assert str(caught.value) == (
        "No service of Paddock's answers at http://127.0.0.1:1.\n  Start one: paddock serve"
    )


def test_objects_are_asked_and_sent_with_the_key(tmp_path: Path) -> None:
    with serving(readyz=READY, api__tags=(200, b'{"models":[]}'), api__copy=(200, b"")) as server:
        client = service.find(settings(tmp_path, server.host, PADDOCK_API_KEY="a key"))
        assert client is not None
        with client:
            assert client.get("/api/tags") == {"models": []}
            assert client.post("/api/copy", {"source": "a", "destination": "b"}) == {}
    (_, _, headers, _), (method, path, _, body) = server.seen[-2:]
    assert headers["Authorization"] == "Bearer a key"
    assert (method, path, json.loads(body)) == (
        "POST",
        "/api/copy",
        {"source": "a", "destination": "b"},
    )


def test_a_file_of_the_working_folder_sends_no_key_to_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paddock.toml").write_text('host = "stranger.example"')
    wanted = read_settings(tmp_path, environ={"PADDOCK_API_KEY": "secret"}, home=tmp_path)
    assert service._key(wanted) == ""
    own = read_settings(
        tmp_path,
        environ={"PADDOCK_API_KEY": "secret", "PADDOCK_HOST": "gpu.example"},
        home=tmp_path,
    )
    assert service._key(own) == "secret"


def test_whoever_may_read_the_services_keys_needs_no_other(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    environ = {"PADDOCK_API_KEYS": str(keys)}
    assert service._key(read_settings(environ=environ, home=tmp_path)) == ""
    keys.write_text(f"# ours\nsha256:{'0' * 64} ops\nplain me # mine\n")
    assert service._key(read_settings(environ=environ, home=tmp_path)) == "plain"
    environ["PADDOCK_API_KEY"] = "own"
    assert service._key(read_settings(environ=environ, home=tmp_path)) == "own"
    del environ["PADDOCK_API_KEY"]
    environ["PADDOCK_HOST"] = "gpu.example"
    assert service._key(read_settings(environ=environ, home=tmp_path)) == ""


def test_a_stranger_that_is_asked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(service, "is_near", lambda address: False)
    with serving(readyz=READY) as server:
        file = tmp_path / "paddock.toml"
        file.write_text(f'host = "{server.host}"')
        client = service.find(read_settings(tmp_path, environ={}, home=tmp_path))
    assert client is not None
    with client:
        assert capsys.readouterr().err == f"Asking http://{server.host}, as {file}: host says.\n"


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
        serving(api__show=(status, body)) as server,
        Client(f"http://{server.host}") as client,
        pytest.raises(ServiceError) as caught,
    ):
        client.post("/api/show", {})
    assert (str(caught.value), caught.value.status) == (words, status)


def lines_of(content: bytes) -> list[dict[str, Any]]:
    with serving(api__chat=(200, content)) as server, Client(f"http://{server.host}") as client:
        return list(client.stream("/api/chat", {}))


def test_lines_end_at_line_feeds_alone() -> None:
    odd = "a\u2028b\x85c\u2029d"
    content = json.dumps({"text": odd}, ensure_ascii=False).encode() + b'\n{"done":true}'
    assert lines_of(content) == [{"text": odd}, {"done": True}]


def test_an_error_in_the_stream_is_raised() -> None:
    with pytest.raises(ServiceError, match="the worker died"):
        lines_of(b'{"a":1}\n{"error":"the worker died"}\n')


def test_an_answer_that_is_no_object_is_told() -> None:
    with pytest.raises(ServiceError, match="no JSON object"):
        lines_of(b"<html>\n")


def test_a_refused_stream_is_told() -> None:
    with serving(api__chat=(503, b'{"error":"busy"}')) as server:
        client = Client(f"http://{server.host}")
        with client, pytest.raises(ServiceError, match="busy"):
            next(client.stream("/api/chat", {}))


def test_a_connection_that_breaks_off_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]

        def break_off() -> None:
            link, _ = door.accept()
            link.recv(65536)
            link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}")
            link.close()

        thread = threading.Thread(target=break_off)
        thread.start()
        with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(ServiceError) as caught:
            client.get("/api/tags")
        thread.join()
    assert str(caught.value).startswith(f"The connection to http://127.0.0.1:{port} broke off: ")


def test_a_service_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        with Client(f"http://127.0.0.1:{port}") as client:
            began = time.monotonic()
            with pytest.raises(ServiceError) as caught:
                client.post("/api/show", {}, within_s=0.2)
    assert time.monotonic() - began < 5
    assert str(caught.value) == f"The service at http://127.0.0.1:{port} does not answer in time."


def test_a_blob_is_sent_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"x" * 3_000_000)
    with (
        serving(**{"api__blobs__sha256:ab": (200, b"")}) as server,
        Client(f"http://{server.host}") as client,
    ):
        assert client.has_blob("sha256:ab")
        assert not client.has_blob("sha256:cd")
