"""A server that counts the requests it answered, by their keys of idempotency, with faults."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class CountingServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = int(self.server_address[1])
        self.seen: list[tuple[str, str, Any]] = []
        """Key, path and body of each request that arrived."""
        self.answered: Counter[str] = Counter()
        """How often a body was answered with success."""
        self.headers: list[dict[str, str]] = []
        self.faults: list[int | str] = []
        """Of the next requests: a status, with `Retry-After: 0`, or `cut` after it has arrived."""
        self.delay_s = 0.0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: CountingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.headers["Idempotency-Key"], self.path, body))
            self.server.headers.append(dict(self.headers))
            fault = self.server.faults.pop(0) if self.server.faults else 201
        if fault == "cut":
            self.close_connection = True
            return
        status = int(fault)
        time.sleep(self.server.delay_s)
        text = json.dumps({"id": len(self.server.seen)}).encode()
        self.send_response(status)
        if status >= 300:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        if status < 300:
            with self.server.lock:
                self.server.answered[json.dumps(body)] += 1

    def log_message(self, *_: object) -> None: ...


@contextmanager
def counting_server(faults: Sequence[int | str] = ()) -> Iterator[CountingServer]:
    with CountingServer() as server:
        server.faults += faults
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
