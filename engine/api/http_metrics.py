"""Counts of HTTP requests, in Prometheus' text form. Knows no request, only what is told of it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 600)

# Labels come from outside, so each has few values: a series for every word somebody sends would
# be a leak.
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


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
            buckets=_SECONDS,
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
        named = method if method in _METHODS else "other"
        self._requests.labels(named, route or "other", str(status)).inc()
        self._seconds.labels(route or "other").observe(seconds)
        if is_gone:
            self._gone.inc()

    def refused(self, reason: str) -> None:
        """A request was not let in: by `host`, `origin`, `key`, `rate`, `size` or `slow`."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """Give everything in Prometheus' text form."""
        return generate_latest(self._registry)
