"""What is asked of the service, now and lately: who, what, how long, how many tokens.

Knows no prompt and no answer: neither can reach a log or the status page from here.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from paddock.engine.request import DoneReason, Usage
from paddock.engine.residency.events import Deaf, Leaving, Refusal

from .http_metrics import HttpMetrics

log = logging.getLogger(__name__)

Fate = Literal["answered", "gone", "failed"]
"""How it ended: with an answer, good or bad; the client left; the service broke."""

# What the status page shows, and more than anybody scrolls through.
_N_LAST = 100

# Of what clients name: it is kept for a while, and must not be as large as they like.
_LONGEST = 200

_IN_SCOPE = "paddock.exchange"

# Of the task that serves a request and of those that it starts. A pool's answer is such a task, so
# that whoever hears the pool knows for whom an answer was.
_CURRENT: ContextVar[Exchange | None] = ContextVar("paddock_exchange", default=None)


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer; it grows while they last. Never what was said in them."""

    method: str
    path: str
    client: str
    """Its address, as the server was told; empty: not known."""
    at: float = field(default_factory=time.time)
    """Seconds since the epoch, when it came."""
    number: int = 0
    """Counted from the service's start."""
    key: str = ""
    """The name of the API key, where keys are asked for."""
    model: str = ""
    status: int = 0
    """0: no answer has begun."""
    fate: Fate | None = None
    """None: it lasts."""
    first_s: float = 0.0
    """Until the first byte of the answer's body; 0: there was none."""
    sent_bytes: int = 0
    n_answers: int = 0
    """By a model: chats, and lists of vectors."""
    n_prompt_tokens: int = 0
    n_reused_tokens: int = 0
    """Of the prompt's, those found in the cache."""
    n_completion_tokens: int = 0
    _began: float = field(default_factory=time.monotonic)
    _seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it took from the headers to the last byte, or takes by now."""
        return self._seconds if self.fate else time.monotonic() - self._began

    def __post_init__(self) -> None:
        """Keep no more of it than a log shows."""
        self.method, self.path = self.method[:_LONGEST], self.path[:_LONGEST]

    def sent(self, n_bytes: int) -> None:
        """Note that a part of the answer's body went out."""
        if n_bytes and not self.sent_bytes:
            self.first_s = self.seconds
        self.sent_bytes += n_bytes

    def end(self, fate: Fate) -> None:
        """Note how it ended, and when."""
        self._seconds, self.fate = self.seconds, fate


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange | None:
    """Give the exchange that a request is written down in; None: nobody writes it down."""
    found = scope.get(_IN_SCOPE)
    return found if isinstance(found, Exchange) else None


def note_model(name: str) -> None:
    """Note which model the request of this task names, before it is known whether there is one."""
    exchange = _CURRENT.get()
    if exchange is not None:
        exchange.model = name[:_LONGEST]


class JournalEars(Deaf):
    """Hears from a pool what each request cost; give it as `LocalPool(events=…)`.

    Logs loads, evictions and deaths at level DEBUG, for `paddock serve --debug`.
    """

    def loaded(self, model: str, seconds: float) -> None:
        """Log a load."""
        log.debug("loaded %s in %.1f s", model, seconds)

    def unloaded(self, model: str, why: Leaving) -> None:
        """Log that a model has gone."""
        log.debug("unloaded %s: %s", model, why)

    def died(self, model: str, reason: str) -> None:
        """Log a worker's end."""
        log.debug("the worker of %s ended: %s", model, reason)

    def widened(self, model: str, n_ctx_tokens: int) -> None:
        """Log a longer context."""
        log.debug("context of %s is now %d tokens", model, n_ctx_tokens)

    def requeued(self, model: str) -> None:
        """Log a request that is sent again."""
        log.debug("a request to %s is sent again: its worker ended", model)

    def refused(self, model: str, why: Refusal) -> None:
        """Log a request that was not taken."""
        log.debug("a request to %s was refused: %s", model, why)

    def answered(self, model: str, reason: DoneReason, usage: Usage, first_s: float) -> None:
        """Note a chat's tokens; one request may have several answers."""
        exchange = _CURRENT.get()
        if exchange is not None and not exchange.fate:
            exchange.model = model
            exchange.n_answers += 1
            exchange.n_prompt_tokens += usage.prompt_tokens
            exchange.n_reused_tokens += usage.prompt_reused_tokens
            exchange.n_completion_tokens += usage.completion_tokens

    def embedded(self, model: str, n_texts: int, n_tokens: int, seconds: float) -> None:
        """Note the tokens of embedded texts."""
        exchange = _CURRENT.get()
        if exchange is not None and not exchange.fate:
            exchange.model = model
            exchange.n_answers += 1
            exchange.n_prompt_tokens += n_tokens


class Journal:
    """The requests under way, the last ones, and counts of all; used in the event loop."""

    def __init__(self) -> None:
        self.began_at = time.time()
        self.metrics = HttpMetrics()
        self._n_begun = 0
        self.running: dict[Exchange, None] = {}
        """In the order in which they came."""
        self.last: deque[Exchange] = deque(maxlen=_N_LAST)
        """Those that have ended, the newest last; without those that only watch the service."""

    def begin(self, exchange: Exchange, scope: MutableMapping[str, Any]) -> None:
        """Take up a request; what its task asks of the pool is noted in it."""
        self._n_begun += 1
        exchange.number = self._n_begun
        scope[_IN_SCOPE] = exchange
        _CURRENT.set(exchange)
        self.running[exchange] = None
        self.metrics.began()

    def end(self, exchange: Exchange, fate: Fate, route: str) -> None:
        """Close a request; `route` is the pattern of its path, empty where none matched."""
        exchange.end(fate)
        self.running.pop(exchange, None)
        self.metrics.ended(
            exchange.method, route, exchange.status, exchange.seconds, is_gone=fate == "gone"
        )
        if not is_watching(exchange.path):
            self.last.append(exchange)


def is_watching(path: str) -> bool:
    """Tell whether a path only looks at the service, as machines do every few seconds.

    >>> is_watching("/ui/state.json"), is_watching("/api/chat")
    (True, False)
    """
    return path in ("/metrics", "/healthz", "/readyz") or path.split("/")[1:2] == ["ui"]
