"""Request log: current and recent requests with their tokens, and HTTP metrics.

`ExchangeRecorder` is the outermost middleware, so it also records what other middleware refuses.
Prompts and answers are never kept.
"""

from __future__ import annotations

import logging
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from contextvars import ContextVar
from typing import Any, Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddock.engine.api.errors import ApiError, error_response
from paddock.engine.backends.metrics import MetricRegistry
from paddock.engine.memory.pool_stats import PoolEvents, RefusalReason, UnloadReason
from paddock.engine.request import DoneReason, Usage
from paddock.engine.system.hosts import parse_address
from paddock.engine.system.records import Struct, field

_DURATION_BUCKETS_S = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 600)

# A client chooses the method, and each value of a label costs memory for ever.
_KNOWN_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


class HttpMetrics:
    """HTTP metrics of one service; used in its event loop."""

    def __init__(self) -> None:
        self._registry = made = MetricRegistry()
        what = "Requests answered, by the pattern of their path"
        self._requests = made.counter("http_requests", what, "method", "route", "status")
        what = "Time from a request's headers to its answer's last byte"
        self._seconds = made.histogram("http_request_seconds", what, _DURATION_BUCKETS_S, "route")
        self._running = made.gauge("http_requests_running", "Requests under way")
        what = "Clients that disconnected before their answer's end"
        self._gone = made.counter("http_clients_gone", what)
        what = "Requests refused before they reached a model"
        self._refused = made.counter("http_refused", what, "reason")

    def began(self) -> None:
        self._running.inc()

    def ended(self, method: str, route: str, status: int, seconds: float, *, is_gone: bool) -> None:
        self._running.dec()
        named = method if method in _KNOWN_METHODS else "other"
        self._requests.labels(named, route or "other", str(status)).inc()
        self._seconds.labels(route or "other").observe(seconds)
        if is_gone:
            self._gone.inc()

    def refused(self, reason: str) -> None:
        """Count a refused request; reason: `host`, `origin`, `key`, `rate`, `size` or `slow`."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        return self._registry.text()


log = logging.getLogger(__name__)

Fate = Literal["answered", "gone", "failed"]
"""How it ended: with an answer, good or bad; the client disconnected; the service failed."""

_N_RECENT = 100

# Names come from clients and are kept, so their length is limited.
_MAX_NAME_CHARS = 200

_MOST_WITHOUT_EFFECT = 20

_IN_SCOPE = "paddock.exchange"

# Set in the task that serves a request and in those that it starts. A pool's answer is such a task,
# so pool events find the request that they belong to.
_CURRENT: ContextVar[Exchange | None] = ContextVar("paddock_exchange", default=None)


class Exchange(Struct, eq=False):
    """One request and its answer, updated while they last."""

    method: str
    path: str
    client: str
    """Its address; empty: not known."""
    at: float = field(default_factory=time.time)
    """When it came, in seconds since the epoch."""
    number: int = 0
    """Counted from the service's start."""
    key: str = ""
    traceparent: str = ""
    """The caller's span, as the header of that name has it."""
    model: str = ""
    status: int = 0
    """0: no answer has begun."""
    fate: Fate | None = None
    """None: not ended."""
    first_s: float = 0.0
    """Time to the first byte of the answer's body; 0: none yet."""
    sent_bytes: int = 0
    n_answers: int = 0
    """Chats and embeddings by a model."""
    n_prompt_tokens: int = 0
    n_reused_tokens: int = 0
    n_completion_tokens: int = 0
    without_effect: dict[str, set[str]] = field(default_factory=dict)
    """Names of `fields` and `options` of the request that change nothing."""
    _began: float = field(default_factory=time.monotonic)
    _seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return self._seconds if self.fate else time.monotonic() - self._began

    def __post_init__(self) -> None:
        self.method, self.path = self.method[:_MAX_NAME_CHARS], self.path[:_MAX_NAME_CHARS]

    def sent(self, n_bytes: int) -> None:
        if n_bytes and not self.sent_bytes:
            self.first_s = self.seconds
        self.sent_bytes += n_bytes

    def end(self, fate: Fate) -> None:
        self._seconds, self.fate = self.seconds, fate


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange | None:
    """Return a request's exchange; None where `ExchangeRecorder` is not in use."""
    found = scope.get(_IN_SCOPE)
    return found if isinstance(found, Exchange) else None


def note_without_effect(what: str, names: Iterable[str]) -> None:
    """Note fields or options that this task's request has in vain, for the header `Warning`.

    Clients choose the names: only plain words are kept.
    """
    exchange = _CURRENT.get()
    if exchange is None:
        return
    kept = exchange.without_effect.setdefault(what, set())
    for name in names:
        if len(kept) < _MOST_WITHOUT_EFFECT and re.fullmatch(r"\w{1,40}", name, re.A):
            kept.add(name)


def note_model(name: str) -> None:
    exchange = _CURRENT.get()
    if exchange is not None:
        exchange.model = name[:_MAX_NAME_CHARS]


class RequestLogEvents(PoolEvents):
    """Adds the tokens of a pool's answers to their requests; pass it as `LocalPool(events=…)`.

    Logs loads, evictions and deaths at level DEBUG, for `paddock serve --debug`.
    """

    def loaded(self, model: str, seconds: float) -> None:
        log.debug("loaded %s in %.1f s", model, seconds)

    def unloaded(self, model: str, why: UnloadReason) -> None:
        log.debug("unloaded %s: %s", model, why)

    def died(self, model: str, reason: str) -> None:
        log.debug("the worker of %s ended: %s", model, reason)

    def widened(self, model: str, n_ctx_tokens: int) -> None:
        log.debug("context of %s is now %d tokens", model, n_ctx_tokens)

    def requeued(self, model: str) -> None:
        log.debug("a request to %s is sent again: its worker ended", model)

    def refused(self, model: str, why: RefusalReason) -> None:
        log.debug("a request to %s was refused: %s", model, why)

    def answered(self, model: str, reason: DoneReason, usage: Usage, first_s: float) -> None:
        exchange = _CURRENT.get()
        if exchange is not None and not exchange.fate:
            exchange.model = model
            exchange.n_answers += 1
            exchange.n_prompt_tokens += usage.prompt_tokens
            exchange.n_reused_tokens += usage.prompt_reused_tokens
            exchange.n_completion_tokens += usage.completion_tokens

    def embedded(self, model: str, n_texts: int, n_tokens: int, seconds: float) -> None:
        exchange = _CURRENT.get()
        if exchange is not None and not exchange.fate:
            exchange.model = model
            exchange.n_answers += 1
            exchange.n_prompt_tokens += n_tokens


class RequestLog:
    """Running and recent requests, and metrics of all; used in the event loop."""

    def __init__(self) -> None:
        self.metrics = HttpMetrics()
        self._n_begun = 0
        self.running: dict[Exchange, None] = {}
        """In the order in which they came."""
        self.last: deque[Exchange] = deque(maxlen=_N_RECENT)
        """Ended requests, the newest last; without monitoring."""
        self.on_end: Callable[[Exchange], None] = lambda exchange: None

    def begin(self, exchange: Exchange, scope: MutableMapping[str, Any]) -> None:
        self._n_begun += 1
        exchange.number = self._n_begun
        exchange.traceparent = Headers(scope=scope).get("traceparent", "")[:_MAX_NAME_CHARS]
        scope[_IN_SCOPE] = exchange
        _CURRENT.set(exchange)
        self.running[exchange] = None
        self.metrics.began()

    def end(self, exchange: Exchange, fate: Fate, route: str) -> None:
        exchange.end(fate)
        self.running.pop(exchange, None)
        self.metrics.ended(
            exchange.method, route, exchange.status, exchange.seconds, is_gone=fate == "gone"
        )
        if not is_monitoring_path(exchange.path):
            self.last.append(exchange)
            self.on_end(exchange)


def is_monitoring_path(path: str) -> bool:
    """Return whether a path is for monitoring, which machines call every few seconds.

    >>> is_monitoring_path("/ui/state.json"), is_monitoring_path("/api/chat")
    (True, False)
    """
    return path in ("/metrics", "/healthz", "/readyz") or path.split("/")[1:2] == ["ui"]


class RefusingMiddleware(ABC):
    """Middleware that passes an HTTP request on, or refuses it with an error of its API."""

    def __init__(self, app: ASGIApp, *, request_log: RequestLog) -> None:
        self._app = app
        self._request_log = request_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = self._handle if scope["type"] == "http" else self._app
        await handle(scope, receive, send)

    @abstractmethod
    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request of HTTP."""

    async def _refuse(
        self, reason: str, error: ApiError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._request_log.metrics.refused(reason)
        await error_response(scope["path"], error)(scope, receive, send)


class ExchangeRecorder:
    """Records every exchange and calls `on_end` with it when it has ended."""

    def __init__(
        self, app: ASGIApp, *, request_log: RequestLog, on_end: Callable[[Exchange], None] | None
    ) -> None:
        self._app = app
        self._request_log = request_log
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if scope["path"].startswith(("http://", "https://")):
            scope = _with_relative_target(scope)
        exchange = Exchange(scope["method"], scope["path"], client_address(scope))
        watch = _ExchangeWatch(exchange, receive, send)
        self._request_log.begin(exchange, scope)
        fate: Fate = "failed"
        try:
            await self._app(scope, watch.receive, watch.send)
            fate = watch.fate
        finally:
            exchange.status = exchange.status or (499 if watch.is_gone else 500)
            self._request_log.end(exchange, fate, route_pattern(scope))
            if self._on_end is not None:
                self._on_end(exchange)


def _with_relative_target(scope: Scope) -> Scope:
    """Return the scope of a request whose target is a whole address, as proxies send it."""
    try:
        target = urlsplit(scope["path"])
    except ValueError:
        return scope
    host = (b"host", target.netloc.rpartition("@")[2].encode())  # it counts, not the header
    headers = [host, *(pair for pair in scope["headers"] if pair[0] != b"host")]
    path = target.path or "/"
    return {**scope, "path": path, "raw_path": path.encode(), "headers": headers}


class _ExchangeWatch:
    def __init__(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        self._exchange = exchange
        self._receive = receive
        self._send = send
        self._is_whole = False
        self.is_gone = False

    @property
    def fate(self) -> Fate:
        return "gone" if self.is_gone else "answered" if self._is_whole else "failed"

    async def receive(self) -> Message:
        message = await self._receive()
        # A disconnect after the answer's end is normal.
        if message["type"] == "http.disconnect" and not self._is_whole:
            self.is_gone = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._exchange.status = message["status"]
            for what, names in self._exchange.without_effect.items():
                warning = f'299 paddock "{what} without effect: {", ".join(sorted(names))}"'
                if names:
                    message["headers"] = [*message["headers"], (b"warning", warning.encode())]
        elif message["type"] == "http.response.body":
            self._exchange.sent(len(message.get("body", b"")))
            self._is_whole = not message.get("more_body", False)
        await self._send(message)


def client_address(scope: Scope) -> str:
    """Return the client's address; empty: not known.

    `X-Forwarded-For` is believed only from this machine, where the proxy runs.
    """
    peer = str(scope["client"][0]) if scope.get("client") else ""
    address = parse_address(peer)
    if address is None or not address.is_loopback:
        return peer
    forwarded_for = Headers(scope=scope).get("x-forwarded-for", "")
    nearest = forwarded_for.rpartition(",")[2].strip()
    return peer if parse_address(nearest) is None else nearest


def route_pattern(scope: Scope) -> str:
    """Return the pattern of the path that matched, such as `/api/blobs/{digest}`; empty: none."""
    endpoint = scope.get("endpoint")
    if endpoint is None or "app" not in scope:
        return ""
    for route in scope["app"].routes:
        is_it = isinstance(route, Route) and route.endpoint is endpoint
        if is_it and route.path_regex.match(scope["path"]):
            return str(route.path_format)
    return ""
