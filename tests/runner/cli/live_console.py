"""A live service with the console, as `paddock serve` has it, for tests."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from starlette.routing import BaseRoute

from paddock.engine.api.monitoring import ServiceState
from paddock.engine.api.service import Service
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
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
