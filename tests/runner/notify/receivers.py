"""Receivers of messages: a web server and a mail server, real ones, on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from paddock.runner.progress.report import ItemReport, Report, Status
from tests.benchmarks.processes import free_port


@dataclass
class Hook:
    """A web server that keeps what it gets; `answers` are the statuses it gives, then 204."""

    answers: list[int] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def hook(*answers: int) -> Iterator[Hook]:
    kept = Hook(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append(json.loads(body))
            kept.paths.append(self.path)
            kept.headers.append(dict(self.headers))
            self.send_response(kept.answers.pop(0) if kept.answers else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}/hook?token=t0ken"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Box:
    """What a mail server was given; `refusal` is its answer to a mail, when it takes none."""

    mails: list[Any] = field(default_factory=list)
    refusal: str = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refusal:
            return self.refusal
        self.mails.append(envelope)
        return "250 taken"


@contextmanager
def mail_server(refusal: str = "") -> Iterator[tuple[Box, str]]:
    """Run a mail server; gives what it takes, and its address."""
    from aiosmtpd.controller import Controller

    box = Box(refusal=refusal)
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port, ready_timeout=120)
    controller.start()
    try:
        yield box, f"smtp://127.0.0.1:{port}"
    finally:
        controller.stop()


def ended(status: Status, *bad: str, message: str | None = None) -> Report:
    items = tuple(ItemReport("each", key, "quarantined", error="damaged") for key in bad)
    return Report("swift-otter", "digest", status, {}, items=items, message=message)
