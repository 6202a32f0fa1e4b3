"""The context of every HTTP handler: pool, store, settings, request log.

One `Service` stands for one process. Handlers get it by `service_of(request)`; there is no
module-level state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from paddock.engine.api.request_log import RequestLog
from paddock.engine.backends.local import LocalPool
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import is_path, parse_name
from paddock.engine.models.model_store import ModelStore
from paddock.engine.request import EmbedReply, Priority
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.records import Struct, field


class Service(Struct):
    pool: LocalPool
    store: ModelStore
    finder: ModelFinder
    settings: ServiceSettings
    version: str
    request_log: RequestLog = field(default_factory=RequestLog)
    extra_routes: Sequence[BaseRoute] = ()
    """Routes of other packages, behind the same keys and limits."""
    is_stopping: bool = False
    """A signal was received: clients should send no new requests."""
    takes_paths: bool = False
    """Whether a path may name a model: only the owner of this machine's files can connect."""

    def ref(self, model: str) -> str:
        """Return the pool's reference for the model that a client names, or raise InvalidName."""
        return model if self.takes_paths and is_path(model) else parse_name(model).short


def unknown_letters_warning(reply: EmbedReply) -> dict[str, str]:
    index = next((index for index, n in enumerate(reply.unknown_shares) if n), None)
    return {} if index is None else {"Warning": f'299 paddock "{reply.unknown_letters(index)}"'}


def service_of(request: HTTPConnection) -> Service:
    return cast(Service, request.app.state.service)


def priority_of(request: HTTPConnection, *, streams: bool = True) -> Priority:
    """Return a request's priority, which its header may lower.

    By default a streamed answer is `interactive`, since its client reads along.
    """
    requested = request.headers.get("x-paddock-priority", "").strip().lower()
    if requested in ("batch", "normal"):
        return cast(Priority, requested)
    return "interactive" if streams else "normal"
