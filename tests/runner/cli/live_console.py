"""A live service with the console, as `paddock serve` has it, for tests."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from starlette.routing import BaseRoute

from paddock.engine.api.monitoring import ServiceState
from paddock.engine.api.service import Service
from paddock.engine.settings import PoolSettings
from paddock.runner.cli.console_actions import ConsoleSources
from paddock.runner.cli.web_console import WebConsole
from paddock.runner.review.page_access import PageAccess
from paddock.runner.settings import read_settings
from tests.live import Live, live_service

TOKEN = "a-token-of-ann"


def console_of(root: Path) -> Callable[[Service], Sequence[BaseRoute]]:
    """Return the console's routes as `paddock serve` has them."""

    def routes(service: Service) -> Sequence[BaseRoute]:
        state, settings = ServiceState(), read_settings(root)
        own = replace(settings, address=replace(settings.address, port=service.settings.port))
        sources = ConsoleSources(lambda: [root], own, own_state=lambda: state.read(service))
        return WebConsole(PageAccess(TOKEN, "ann", "It is here."), sources).routes()

    return routes


@contextmanager
def console_service(root: Path, pool: PoolSettings | None = None) -> Iterator[Live]:
    with live_service(root, pool, routes=console_of(root)) as live:
        yield live


@dataclass(frozen=True, slots=True)
class SlowService:
    """A service that begins an answer and stands still until `go` is set."""

    address: str
    posts: list[str]
    is_asked: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


@contextmanager
def slow_service(begin: bytes = b"") -> Iterator[SlowService]:
    """Serve; `begin` is what it answers to a POST before it waits, then it ends the answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"{}")

        def do_POST(self) -> None:
            service.posts.append(self.path)
            self._answer(begin)
            service.is_asked.set()
            service.go.wait(240)

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service = SlowService(f"127.0.0.1:{server.server_port}", [])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield service
        finally:
            service.go.set()
            server.shutdown()
