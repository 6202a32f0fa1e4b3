"""Whom a request may call the service by: what a page under a stranger's name cannot do.

A page may let its own name point to 127.0.0.1 (DNS rebinding); then a browser takes the service
for a part of that page. The name in the `Host` header gives it away. As Ollama's
`allowedHostsMiddleware` (server/routes.go), on a loopback address only.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .journal import Journal
from .refusals import refuse

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Names that no public name server answers for.
_OWN_ENDINGS = (".localhost", ".local", ".internal")
_PRIVATE = tuple(
    ipaddress.ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
_HOST = re.compile(r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]@/\\]*))(?::[0-9]{1,5})?")
_PRIVATE_6 = ipaddress.ip_network("fc00::/7")


class HostCheck:
    """Answers 403 to requests for a name that is not this machine's."""

    def __init__(self, app: ASGIApp, *, journal: Journal) -> None:
        self._app = app
        self._journal = journal
        self._own_name = socket.gethostname().lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, answer OPTIONS by 204, or refuse."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        host = Headers(scope=scope).get("host", "")
        if not is_own(host, self._own_name, _is_of_an_interface):
            self._journal.metrics.refused("host")
            message = (
                f"host {host[:200]!r} is not a name of this machine; "
                f"ask by 'localhost' or by its address"
            )
            return await refuse(scope, receive, send, 403, message)
        if scope["method"] == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            return await send({"type": "http.response.body"})
        await self._app(scope, receive, send)


def is_own(host: str, own_name: str, is_of_an_interface: Callable[[Address], bool]) -> bool:
    """Tell whether a `Host` header names this machine.

    >>> [is_own(h, "den", lambda a: False) for h in ("localhost:11434", "[::1]:80", "10.0.0.7")]
    [True, True, True]
    >>> [is_own(h, "den", lambda a: False) for h in ("DEN", "evil.example", "8.8.8.8")]
    [True, False, False]
    """
    name = _without_port(host).lower()
    address = _address(name)
    if address is not None:
        return _is_near(address) or is_of_an_interface(address)
    return name in ("", "localhost", own_name) or name.endswith(_OWN_ENDINGS)


def _without_port(host: str) -> str:
    found = _HOST.fullmatch(host)
    if found is None:
        return host if _address(host) is not None else "?"  # IPv6 without brackets, or no host
    return found["bracketed"] or found["name"] or ""


def _address(name: str) -> Address | None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _is_near(address: Address) -> bool:
    """Tell what no name server of a stranger's could profit from, in Go's words for it."""
    if address.is_loopback or address.is_unspecified:
        return True
    if isinstance(address, ipaddress.IPv6Address):
        return address in _PRIVATE_6
    return any(address in net for net in _PRIVATE)


def _is_of_an_interface(address: Address) -> bool:
    import psutil  # here: it costs 15 ms that most commands need not pay

    try:
        interfaces = psutil.net_if_addrs()
    except OSError:  # a sandbox that forbids to look
        return False
    own = (one.address.partition("%")[0] for many in interfaces.values() for one in many)
    return str(address) in own
