"""Receivers of messages: a web server and a mail server, real ones, on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.report import ItemReport, Report, Status
from tests.benchmarks.processes import free_port
from tests.fakes.http_server import Answer, Request, serving
from tests.waiting import PATIENCE_S


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

    def answer(request: Request) -> Answer:
        kept.got.append(request.json())
        kept.paths.append(request.path)
        kept.headers.append(dict(request.headers.items()))
        return Answer(status=kept.answers.pop(0) if kept.answers else 204)

    with serving(answer) as server:
        kept.url = f"{server.url}/hook?token=t0ken"
        yield kept


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
    controller = Controller(box, hostname="127.0.0.1", port=port, ready_timeout=PATIENCE_S)
    controller.start()
    try:
        yield box, f"smtp://127.0.0.1:{port}"
    finally:
        controller.stop()


def ended(status: Status, *bad: str, message: str | None = None) -> Report:
    items = tuple(ItemReport("each", key, ItemState.QUARANTINED, error="damaged") for key in bad)
    return Report("swift-otter", "digest", status, {}, items=items, message=message)
