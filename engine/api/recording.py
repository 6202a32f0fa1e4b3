"""Write down each request as it comes and goes, into the journal and the access log.

The outermost door: what the others refuse is written down, too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .journal import Exchange, Fate, Journal


class Recording:
    """Passes everything on, and tells `written` of each exchange that has ended."""

    def __init__(
        self, app: ASGIApp, *, journal: Journal, written: Callable[[Exchange], None] | None
    ) -> None:
        self._app = app
        self._journal = journal
        self._written = written

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch one exchange from its headers to its end."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = Exchange(scope["method"], scope["path"], client_of(scope))
        watch = _Watch(exchange, receive, send)
        self._journal.begin(exchange, scope)
        fate: Fate = "failed"
        try:
            await self._app(scope, watch.receive, watch.send)
            fate = watch.fate
        finally:
            exchange.status = exchange.status or (499 if watch.is_gone else 500)
            self._journal.end(exchange, fate, route_of(scope))
            if self._written is not None:
                self._written(exchange)


class _Watch:
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


def client_of(scope: Scope) -> str:
    """Give the address of who asks; empty: not known.

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


def route_of(scope: Scope) -> str:
    """Give the pattern of the path that matched, such as `/api/blobs/{digest}`; empty: none."""
    endpoint = scope.get("endpoint")
    if endpoint is None or "app" not in scope:
        return ""
    for route in scope["app"].routes:
        is_it = isinstance(route, Route) and route.endpoint is endpoint
        if is_it and route.path_regex.match(scope["path"]):
            return str(route.path_format)
    return ""
