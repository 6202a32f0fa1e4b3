"""A small HTTP server that answers from a table of paths, and remembers what it was asked."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
        """Log nothing."""


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
