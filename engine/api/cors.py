"""CORS, as middleware: which web pages may call the service.

Allowed are pages of this machine, desktop programs and the origins of `PADDOCK_ORIGINS`; every
origin only if `*` is configured (rules: Ollama's envconfig/config.go, `AllowedOrigins`, and
gin-contrib/cors).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_log import RefusingMiddleware, RequestLog

_ALWAYS_ALLOWED = (
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
_ALLOWED_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_MAX_AGE_S = 12 * 3600


class AllowedOrigins:
    """The allowed origins; `*` in a pattern matches anything within a host and port."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        patterns = [pattern.strip() for pattern in named if pattern.strip()]
        self.is_any = "*" in patterns
        self._patterns = tuple(
            # `*` ends at a slash: a pattern means a host.
            re.compile("[^/\\s]*".join(map(re.escape, pattern.split("*"))), re.IGNORECASE)
            for pattern in (*_ALWAYS_ALLOWED, *patterns)
        )

    def allows(self, origin: str) -> bool:
        """Return whether pages of this origin are allowed.

        >>> origins = AllowedOrigins(["https://*.example.com"])
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
        return is_origin and any(pattern.fullmatch(origin) for pattern in self._patterns)


class OriginCheck(RefusingMiddleware):
    """Refuses other origins with 403; Starlette answers preflights and adds the CORS headers."""

    def __init__(self, app: ASGIApp, *, origins: AllowedOrigins, request_log: RequestLog) -> None:
        super().__init__(app, request_log=request_log)
        self._origins = origins
        self._cors = CORSMiddleware(
            app,
            allow_origins=["*"] if origins.is_any else (),
            allow_origin_regex=".*",  # what comes here is allowed
            allow_methods=_ALLOWED_METHODS,
            allow_headers=["*"],  # the origin decides: clients have new headers each month
            allow_private_network=True,  # a page of an allowed origin, from the network to here
            expose_headers=["Retry-After", "Warning"],
            max_age=_MAX_AGE_S,
        )

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        # The service's own page, with or without a TLS proxy before it, or no page.
        host = headers.get("host", "")
        if not origin or origin in (f"http://{host}", f"https://{host}"):
            return await self._app(scope, receive, send)
        if not self._origins.allows(origin):
            message = (
                f"origin {origin[:200]!r} may not ask this service; "
                f"its owner can allow it by PADDOCK_ORIGINS"
            )
            error = ApiError(403, message, {"Vary": "Origin"})
            return await self._refuse("origin", error, scope, receive, send)
        await self._cors(scope, receive, send)
