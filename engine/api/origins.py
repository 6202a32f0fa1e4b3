"""Which pages of a browser may ask (CORS): those on this machine, desktop programs, and named ones.

The rules are Ollama's: envconfig/config.go, `AllowedOrigins`, and gin-contrib/cors. Never
everybody unless somebody writes `*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .journal import Journal
from .refusals import refuse

_ALWAYS = (
    *(f"{scheme}://{host}" for scheme in ("http", "https") for host in
      ("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "0.0.0.0", "0.0.0.0:*")),
    "app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*",
    "chrome-extension://*", "moz-extension://*", "ms-browser-extension://*",
    "safari-extension://*", "safari-web-extension://*",
)  # fmt: skip

# What browsers send: a scheme, a host, a port. Without this, `*` for a port would match
# `localhost:80@evil.example`, which is no origin.
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://([^\s/@:?#\\\[\]]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE
)
_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_STAINLESS = (
    "Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version",
    "Poll-Helper", "Retry-Count", "Runtime", "Runtime-Version", "Timeout",
)  # fmt: skip
# Ollama's, then what other clients of ours send: Anthropic's, and our own priority.
_HEADERS = ",".join(
    (
        "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "OpenAI-Beta",
        *(f"X-Stainless-{name}" for name in _STAINLESS),
        "X-Api-Key", "Anthropic-Version", "Anthropic-Beta",
        "Anthropic-Dangerous-Direct-Browser-Access", "X-Paddock-Priority",
    )
)  # fmt: skip
_MAX_AGE_S = 12 * 3600


class Origins:
    """The origins that may ask; `*` in a pattern stands for anything within a host and port."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        patterns = [one.strip() for one in named if one.strip()]
        self.is_any = "*" in patterns
        self._patterns = tuple(_compiled(one) for one in (*_ALWAYS, *patterns))

    def allows(self, origin: str) -> bool:
        """Tell whether a page of this origin may ask.

        >>> origins = Origins(["https://*.example.com"])
        >>> origins.allows("http://localhost:3000"), origins.allows("https://a.example.com")
        (True, True)
        >>> origins.allows("https://example.com.evil.example"), origins.allows("null")
        (False, False)
        >>> origins.allows("http://localhost:80@evil.example")
        False
        """
        if self.is_any:
            return True
        is_origin = _ORIGIN.fullmatch(origin) is not None
        return is_origin and any(one.fullmatch(origin) for one in self._patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    """`*` ends at a slash: an origin has none behind its host, and a pattern means a host."""
    parts = (re.escape(part) for part in pattern.split("*"))
    return re.compile("[^/\\s]*".join(parts), re.IGNORECASE)


class OriginCheck:
    """Answers preflights, tells browsers who may read, and refuses other pages by 403."""

    def __init__(self, app: ASGIApp, *, origins: Origins, journal: Journal) -> None:
        self._app = app
        self._origins = origins
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through what no page of another origin asks; see the class for the others."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if not origin or origin in _same_origins(headers.get("host", "")):
            return await self._app(scope, receive, send)
        if not self._origins.allows(origin):
            self._journal.metrics.refused("origin")
            message = (
                f"origin {origin[:200]!r} may not ask this service; "
                f"its owner can allow it by PADDOCK_ORIGINS"
            )
            return await refuse(scope, receive, send, 403, message, {"Vary": "Origin"})
        shown = "*" if self._origins.is_any else origin
        if scope["method"] == "OPTIONS":
            return await _answer_preflight(send, shown)
        await self._app(scope, receive, _telling(send, shown))


def _same_origins(host: str) -> tuple[str, str]:
    """The service's own page, behind a proxy that speaks TLS too."""
    return f"http://{host}", f"https://{host}"


async def _answer_preflight(send: Send, shown: str) -> None:
    headers = MutableHeaders()
    headers["access-control-allow-origin"] = shown
    headers["access-control-allow-methods"] = _METHODS
    headers["access-control-allow-headers"] = _HEADERS
    headers["access-control-max-age"] = str(_MAX_AGE_S)
    headers["vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    await send({"type": "http.response.start", "status": 204, "headers": headers.raw})
    await send({"type": "http.response.body"})


def _telling(send: Send, shown: str) -> Send:
    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = shown
            headers["access-control-expose-headers"] = "Retry-After, Warning"
            headers.add_vary_header("Origin")
        await send(message)

    return tell
