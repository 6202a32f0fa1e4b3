"""CORS and the check of the `Host` header: which web pages may call the service.

Both are middleware. CORS: pages of this machine, desktop programs and the origins of
`PADDOCK_ORIGINS` are allowed; every origin only if `*` is configured (rules: Ollama's
envconfig/config.go, `AllowedOrigins`, and gin-contrib/cors). Host: a page may point its own name
to 127.0.0.1 (DNS rebinding), and the browser then treats the service as a part of that page; only
the `Host` header shows it. It is checked on loopback addresses only, as in Ollama's
`allowedHostsMiddleware` (server/routes.go).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable

import psutil
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_log import RefusingMiddleware, RequestLog
from paddock.engine.system.hosts import Address, unmapped

# Names that no public name server resolves.
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
_HOST_HEADER = re.compile(
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]@/\\]*))(?::[0-9]{1,5})?"
)
_PRIVATE_NETWORK_V6 = ipaddress.ip_network("fc00::/7")


class HostCheck(RefusingMiddleware):
    """Answers 403 to requests whose `Host` does not name this machine."""

    def __init__(self, app: ASGIApp, *, request_log: RequestLog) -> None:
        super().__init__(app, request_log=request_log)
        self._own_name = socket.gethostname().lower()

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "")
        if not is_own_host(host, self._own_name, _is_interface_address):
            message = (
                f"host {host[:200]!r} is not a name of this machine; "
                f"ask by 'localhost' or by its address"
            )
            return await self._refuse("host", ApiError(403, message), scope, receive, send)
        if scope["method"] == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            return await send({"type": "http.response.body"})
        await self._app(scope, receive, send)


def is_own_host(host: str, own_name: str, is_of_an_interface: Callable[[Address], bool]) -> bool:
    """Return whether a `Host` header names this machine.

    >>> [is_own_host(h, "den", lambda a: False) for h in ("localhost:80", "[::1]:80", "10.0.0.7")]
    [True, True, True]
    >>> [is_own_host(h, "den", lambda a: False) for h in ("DEN", "evil.example", "8.8.8.8")]
    [True, False, False]
    """
    name = _without_port(host).lower()
    address = _parse_address(name)
    if address is not None:
        return _is_local_or_private(address) or is_of_an_interface(address)
    return name in ("", "localhost", own_name) or name.endswith(_LOCAL_SUFFIXES)


def has_own_host_name(headers: Headers) -> bool:
    """Return whether a request names this machine as its host (else: DNS rebinding)."""
    host, own = headers.get("host", ""), socket.gethostname().lower()
    return is_own_host(host, own, lambda _: True)  # a web page cannot rebind an IP address


def _without_port(host: str) -> str:
    found = _HOST_HEADER.fullmatch(host)
    if found is None:
        return (
            host if _parse_address(host) is not None else "?"
        )  # IPv6 without brackets, or no host
    return found["bracketed"] or found["name"] or ""


def _parse_address(name: str) -> Address | None:
    try:
        return unmapped(ipaddress.ip_address(name))
    except ValueError:
        return None


def _is_local_or_private(address: Address) -> bool:
    """Return whether an address is no target of DNS rebinding, by the rules of Go's `net/netip`."""
    if address.is_loopback or address.is_unspecified:
        return True
    if isinstance(address, ipaddress.IPv6Address):
        return address in _PRIVATE_NETWORK_V6
    return any(address in net for net in _PRIVATE_NETWORKS)


def _is_interface_address(address: Address) -> bool:
    try:
        interfaces = psutil.net_if_addrs()
    except OSError:  # forbidden by a sandbox
        return False
    own = (one.address.partition("%")[0] for many in interfaces.values() for one in many)
    return str(address) in own


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
_STAINLESS_HEADERS = (
    "Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version",
    "Poll-Helper", "Retry-Count", "Runtime", "Runtime-Version", "Timeout",
)  # fmt: skip
# Ollama's, then those of Anthropic's clients, then our own priority.
_ALLOWED_HEADERS = (
    "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "OpenAI-Beta",
    *(f"X-Stainless-{name}" for name in _STAINLESS_HEADERS),
    "X-Api-Key", "Anthropic-Version", "Anthropic-Beta",
    "Anthropic-Dangerous-Direct-Browser-Access", "X-Paddock-Priority",
)  # fmt: skip
_MAX_AGE_S = 12 * 3600


class AllowedOrigins:
    """The allowed origins; `*` in a pattern matches anything within a host and port."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        patterns = [one.strip() for one in named if one.strip()]
        self.is_any = "*" in patterns
        self._patterns = tuple(_origin_pattern(one) for one in (*_ALWAYS_ALLOWED, *patterns))

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
        return is_origin and any(one.fullmatch(origin) for one in self._patterns)


def _origin_pattern(pattern: str) -> re.Pattern[str]:
    # `*` ends at a slash: a pattern means a host.
    parts = (re.escape(part) for part in pattern.split("*"))
    return re.compile("[^/\\s]*".join(parts), re.IGNORECASE)


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
            allow_headers=_ALLOWED_HEADERS,
            allow_private_network=True,  # a page of an allowed origin, from the network to here
            expose_headers=["Retry-After", "Warning"],
            max_age=_MAX_AGE_S,
        )

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if not origin or origin in _same_origins(headers.get("host", "")):
            return await self._app(scope, receive, send)
        if not self._origins.allows(origin):
            message = (
                f"origin {origin[:200]!r} may not ask this service; "
                f"its owner can allow it by PADDOCK_ORIGINS"
            )
            error = ApiError(403, message, {"Vary": "Origin"})
            return await self._refuse("origin", error, scope, receive, send)
        await self._cors(scope, receive, send)


def _same_origins(host: str) -> tuple[str, str]:
    """Return the origins of the service's own page, with or without a TLS proxy before it."""
    return f"http://{host}", f"https://{host}"
