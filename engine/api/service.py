"""What every handler of the HTTP service works with. Knows no route.

One `Service` stands for one process: a pool, a store, the settings, and what was asked of it
lately. Handlers get it by `service_of(request)`; there is no module-level state.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.requests import HTTPConnection

from paddock.engine.models import ModelFinder
from paddock.engine.pool import LocalPool
from paddock.engine.request import Priority, Usage
from paddock.engine.settings import ServiceSettings
from paddock.engine.store.layout import Store

N_REMEMBERED = 100
"""Requests that the status page can show; older ones are forgotten."""

_NOTE = "paddock.note"


@dataclass(slots=True)
class Note:
    """What a handler tells of its request, for the access log and the status page.

    Never what was said: no prompt, no answer.
    """

    model: str = ""
    usage: Usage | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """One request that has ended."""

    at: float
    """Seconds since the epoch, when it came."""
    method: str
    path: str
    status: int
    seconds: float
    client: str
    note: Note


@dataclass(slots=True)
class Service:
    """The parts that handlers need."""

    pool: LocalPool
    store: Store
    finder: ModelFinder
    settings: ServiceSettings
    version: str
    log: deque[Served] = field(default_factory=lambda: deque(maxlen=N_REMEMBERED))
    """Requests that have ended, the newest last."""
    started_at: float = field(default_factory=time.time)


def service_of(request: HTTPConnection) -> Service:
    """Give the service that a request came to."""
    return cast(Service, request.app.state.service)


def note_of(scope: MutableMapping[str, Any]) -> Note:
    """Give the note of a request, to be filled by its handler and read by who logs it."""
    return cast(Note, scope.setdefault(_NOTE, Note()))


def priority_of(request: HTTPConnection, usual: Priority = "interactive") -> Priority:
    """Tell how urgent a request is: its header may lower it, never raise it."""
    wanted = request.headers.get("x-paddock-priority", "").strip().lower()
    if wanted == "batch" or (wanted == "normal" and usual == "interactive"):
        return cast(Priority, wanted)
    return usual
