"""Check of the `Host` header, as middleware: a page may not pose as the service (DNS rebinding).

A page may point its own name to 127.0.0.1, and the browser then treats the service as a part of
that page; only the `Host` header shows it. It is checked on loopback addresses only, as in Ollama's
`allowedHostsMiddleware` (server/routes.go).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable

import psutil
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_log import RefusingMiddleware, RequestLog
from paddock.engine.system.hosts import Address, parse_address

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
    found = _HOST_HEADER.fullmatch(host)
    if found is not None:
        name = (found["bracketed"] or found["name"] or "").lower()
    else:
        name = host.lower() if parse_address(host) is not None else "?"  # IPv6 without brackets
    address = parse_address(name)
    if address is not None:
        # Whether an address is no target of DNS rebinding, by the rules of Go's `net/netip`
        if address.is_loopback or address.is_unspecified:
            is_local_or_private = True
        elif isinstance(address, ipaddress.IPv6Address):
            is_local_or_private = address in _PRIVATE_NETWORK_V6
        else:
            is_local_or_private = any(address in net for net in _PRIVATE_NETWORKS)
        return is_local_or_private or is_of_an_interface(address)
    return name in ("", "localhost", own_name) or name.endswith(_LOCAL_SUFFIXES)


def has_own_host_name(headers: Headers) -> bool:
    """Return whether a request names this machine as its host (else: DNS rebinding)."""
    host, own = headers.get("host", ""), socket.gethostname().lower()
    return is_own_host(host, own, lambda _: True)  # a web page cannot rebind an IP address


def _is_interface_address(address: Address) -> bool:
    try:
        interfaces = psutil.net_if_addrs()
    except OSError:  # forbidden by a sandbox
        return False
    own = (entry.address.partition("%")[0] for many in interfaces.values() for entry in many)
    return str(address) in own
