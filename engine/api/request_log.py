"""Request log: current and recent requests with their tokens, HTTP metrics, access log.

`ExchangeRecorder` is the outermost middleware, so it also sees what the other middleware refuses.
Never holds a prompt or an answer. An access-log line has the time, the client, the key's name, the
request, status, seconds, model and tokens; `-` stands for a missing value. Query strings are left
out because people put secrets there.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import IO, Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddock.engine.memory.pool_stats import PoolEvents, RefusalReason, UnloadReason
from paddock.engine.request import DoneReason, Usage

_DURATION_BUCKETS_S = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 600)

# Labels come from outside, so each has few values: a series for every word somebody sends would
# be a leak.
_KNOWN_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


class HttpMetrics:
    """Numbers of one service; used in its event loop."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "paddock_http_requests",
            "Requests answered, by the pattern of their path.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "paddock_http_request_seconds",
            "A request's headers to its answer's last byte.",
            ("route",),
            registry=self._registry,
            buckets=_DURATION_BUCKETS_S,
        )
        self._running = Gauge(
            "paddock_http_requests_running", "Requests under way.", registry=self._registry
        )
        self._gone = Counter(
            "paddock_http_clients_gone",
            "Clients that left before their answer's end.",
            registry=self._registry,
        )
        self._refused = Counter(
            "paddock_http_refused",
            "Requests refused before they reached a model.",
            ("reason",),
            registry=self._registry,
        )

    def began(self) -> None:
        """A request came."""
        self._running.inc()

    def ended(self, method: str, route: str, status: int, seconds: float, *, is_gone: bool) -> None:
        """A request's answer ended, or its client left."""
        self._running.dec()
        named = method if method in _KNOWN_METHODS else "other"
        self._requests.labels(named, route or "other", str(status)).inc()
        self._seconds.labels(route or "other").observe(seconds)
        if is_gone:
            self._gone.inc()

    def refused(self, reason: str) -> None:
        """A request was not let in: by `host`, `origin`, `key`, `rate`, `size` or `slow`."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text form."""
        return generate_latest(self._registry)


log = logging.getLogger(__name__)

Fate = Literal["answered", "gone", "failed"]
"""How it ended: with an answer, good or bad; the client left; the service broke."""

# What the status page shows, and more than anybody scrolls through.
_N_RECENT = 100

# Of what clients name: it is kept for a while, and must not be as large as they like.
_MAX_NAME_CHARS = 200

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
        self.method, self.path = self.method[:_MAX_NAME_CHARS], self.path[:_MAX_NAME_CHARS]

    def sent(self, n_bytes: int) -> None:
        """Note that a part of the answer's body went out."""
        if n_bytes and not self.sent_bytes:
            self.first_s = self.seconds
        self.sent_bytes += n_bytes

    def end(self, fate: Fate) -> None:
        """Note how it ended, and when."""
        self._seconds, self.fate = self.seconds, fate


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange | None:
    """Return the exchange that a request is written down in; None: nobody writes it down."""
    found = scope.get(_IN_SCOPE)
    return found if isinstance(found, Exchange) else None


def note_model(name: str) -> None:
    """Note which model the request of this task names, before it is known whether there is one."""
    exchange = _CURRENT.get()
    if exchange is not None:
        exchange.model = name[:_MAX_NAME_CHARS]


class RequestLogEvents(PoolEvents):
    """Hears from a pool what each request cost; give it as `LocalPool(events=…)`.

    Logs loads, evictions and deaths at level DEBUG, for `paddock serve --debug`.
    """

    def loaded(self, model: str, seconds: float) -> None:
        """Log a load."""
        log.debug("loaded %s in %.1f s", model, seconds)

    def unloaded(self, model: str, why: UnloadReason) -> None:
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

    def refused(self, model: str, why: RefusalReason) -> None:
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


class RequestLog:
    """The requests under way, the last ones, and counts of all; used in the event loop."""

    def __init__(self) -> None:
        self.began_at = time.time()
        self.metrics = HttpMetrics()
        self._n_begun = 0
        self.running: dict[Exchange, None] = {}
        """In the order in which they came."""
        self.last: deque[Exchange] = deque(maxlen=_N_RECENT)
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
        if not is_monitoring_path(exchange.path):
            self.last.append(exchange)


def is_monitoring_path(path: str) -> bool:
    """Return whether a path only looks at the service, as machines do every few seconds.

    >>> is_monitoring_path("/ui/state.json"), is_monitoring_path("/api/chat")
    (True, False)
    """
    return path in ("/metrics", "/healthz", "/readyz") or path.split("/")[1:2] == ["ui"]


class ExchangeRecorder:
    """Passes everything on, and tells `written` of each exchange that has ended."""

    def __init__(
        self, app: ASGIApp, *, journal: RequestLog, written: Callable[[Exchange], None] | None
    ) -> None:
        self._app = app
        self._journal = journal
        self._written = written

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch one exchange from its headers to its end."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = Exchange(scope["method"], scope["path"], client_address(scope))
        watch = _ExchangeWatch(exchange, receive, send)
        self._journal.begin(exchange, scope)
        fate: Fate = "failed"
        try:
            await self._app(scope, watch.receive, watch.send)
            fate = watch.fate
        finally:
            exchange.status = exchange.status or (499 if watch.is_gone else 500)
            self._journal.end(exchange, fate, route_pattern(scope))
            if self._written is not None:
                self._written(exchange)


class _ExchangeWatch:
    """Both directions of one exchange."""

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
        # Servers tell of a disconnect after the answer's end, too.
        if message["type"] == "http.disconnect" and not self._is_whole:
            self.is_gone = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._exchange.status = message["status"]
        elif message["type"] == "http.response.body":
            self._exchange.sent(len(message.get("body", b"")))
            self._is_whole = not message.get("more_body", False)
        await self._send(message)


def client_address(scope: Scope) -> str:
    """Return the address of who asks; empty: not known.

    A proxy on this machine says whose request it passes on, and is believed: whoever could lie
    about it here is on this machine already.
    """
    peer = str(scope["client"][0]) if scope.get("client") else ""
    if not _is_loopback(peer):
        return peer
    passed_on = Headers(scope=scope).get("x-forwarded-for", "")
    nearest = passed_on.rpartition(",")[2].strip()
    return nearest if _is_address(nearest) else peer


def _is_loopback(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_loopback


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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


_LOGGER = "paddock.access"
_MAX_WORD_CHARS = 200


def access_log_writer(*, is_json: bool) -> Callable[[Exchange], None]:
    """Return what writes down an exchange that has ended, through the logger `paddock.access`.

    Monitors that were answered well leave no line: they come every few seconds, and are counted in
    `/metrics`.
    """
    logger = logging.getLogger(_LOGGER)
    form = access_log_json if is_json else access_log_line

    def write(exchange: Exchange) -> None:
        if not (is_monitoring_path(exchange.path) and exchange.status < 400):
            logger.info(form(exchange))

    return write


def access_log_line(exchange: Exchange) -> str:
    """Write a line for people.

    >>> access_log_line(Exchange("GET", "/api/tags", "127.0.0.1", at=0.0, status=200, fate="answered"))
    '1970-01-01T00:00:00Z 127.0.0.1 - GET /api/tags 200 0.000s - -'
    """
    at = datetime.fromtimestamp(exchange.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tokens = f"{exchange.n_prompt_tokens}+{exchange.n_completion_tokens}"
    words = [
        at, exchange.client, exchange.key, exchange.method, exchange.path, str(exchange.status),
        f"{exchange.seconds:.3f}s", exchange.model, tokens if exchange.n_answers else "-",
    ]  # fmt: skip
    if exchange.fate != "answered":
        words.append(str(exchange.fate))
    return " ".join(_safe_word(word) for word in words)


def access_log_json(exchange: Exchange) -> str:
    """Write a line for machines; what there is not is left out."""
    told: dict[str, Any] = {
        "time": datetime.fromtimestamp(exchange.at, UTC).isoformat(timespec="milliseconds"),
        "client": exchange.client,
        "key": exchange.key,
        "method": exchange.method[:_MAX_WORD_CHARS],
        "path": exchange.path[:_MAX_WORD_CHARS],
        "status": exchange.status,
        "seconds": round(exchange.seconds, 4),
        "first_byte_seconds": round(exchange.first_s, 4),
        "bytes": exchange.sent_bytes,
        "model": exchange.model[:_MAX_WORD_CHARS],
        "prompt_tokens": exchange.n_prompt_tokens if exchange.n_answers else None,
        "completion_tokens": exchange.n_completion_tokens if exchange.n_answers else None,
        "fate": exchange.fate,
    }
    return json.dumps({name: value for name, value in told.items() if value not in ("", None)})


def _safe_word(text: str) -> str:
    r"""Make one word of what came from outside: nothing in it may look like another line or field.

    >>> _safe_word("a b\nc"), _safe_word("")
    ('a%20b%0Ac', '-')
    """
    short = text if len(text) <= _MAX_WORD_CHARS else text[: _MAX_WORD_CHARS - 1] + "…"
    shown = "".join(
        letter if letter.isprintable() and letter != " " else _percent_encoded(letter)
        for letter in short
    )
    return shown or "-"


def _percent_encoded(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


@contextmanager
def access_log_to_stream(stream: IO[str] | None = None) -> Iterator[None]:
    """Write the access log's lines to a stream until the block ends; by default standard error.

    A thread writes, so that a pipe which nobody empties never holds up the service.
    """
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    out = logging.StreamHandler(stream or sys.stderr)
    out.setFormatter(logging.Formatter("%(message)s"))
    logger, handler = logging.getLogger(_LOGGER), QueueHandler(queue)
    listener = QueueListener(queue, out)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    listener.start()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        listener.stop()
