"""The context of every HTTP handler: pool, store, settings, request log.

One `Service` stands for one process. Handlers get it by `service_of(request)`; there is no
module-level state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from paddock.engine.api.request_log import RequestLog
from paddock.engine.backends.local import LocalPool
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import is_path, parse_name
from paddock.engine.models.model_store import ModelStore
from paddock.engine.request import Priority
from paddock.engine.settings import ServiceSettings


@dataclass(slots=True)
class Service:
    """The parts that handlers need."""

    pool: LocalPool
    store: ModelStore
    finder: ModelFinder
    settings: ServiceSettings
    version: str
    journal: RequestLog = field(default_factory=RequestLog)
    """What is asked of it now, and lately."""
    doors: Sequence[BaseRoute] = ()
    """Routes of others that stand behind the same keys and limits."""
    is_stopping: bool = False
    """A signal has said to end: nothing new should be sent here."""
    takes_paths: bool = False
    """Only the owner of this machine's files can ask it, so a path may name a model."""

    def ref(self, model: str) -> str:
        """Return how the pool finds the model that a client names.

        Raises:
            InvalidName: it is no name, and a path is not taken here.
        """
        return model if self.takes_paths and is_path(model) else parse_name(model).short


class BackgroundService(Protocol):
    """Work beside the requests, which begins and ends with the server."""

    async def start(self) -> None:
        """Begin, when requests can come."""
        ...

    async def stop(self) -> None:
        """Leave off; what is unfinished is for the next start."""
        ...


def service_of(request: HTTPConnection) -> Service:
    """Return the service that a request came to."""
    return cast(Service, request.app.state.service)


def priority_of(request: HTTPConnection, usual: Priority = "interactive") -> Priority:
    """Return how urgent a request is: its header may lower it, never raise it."""
    wanted = request.headers.get("x-paddock-priority", "").strip().lower()
    if wanted == "batch" or (wanted == "normal" and usual == "interactive"):
        return cast(Priority, wanted)
    return usual
