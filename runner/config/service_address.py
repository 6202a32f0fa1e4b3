"""The address of a service, as a setting writes it.

Ollama's rules for `OLLAMA_HOST` count (envconfig/config.go, `Host`), but an invalid port is an
error; no name is resolved.
"""

from __future__ import annotations

import ipaddress

from paddock.engine.system.records import Struct, replace

from .setting_values import BadValue

DEFAULT_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_ADDRESS_REMEDY = (
    "Give 'host', 'host:port' or 'http://host:port', such as '127.0.0.1:11434'; "
    "'0.0.0.0' is every interface, and IPv6 with a port has brackets: '[::1]:8080'."
)


class ServiceAddress(Struct, frozen=True):
    host: str = "127.0.0.1"
    """Without brackets."""
    port: int = DEFAULT_PORT
    scheme: str = "http"
    path: str = ""
    """Before every route, such as `/models` of a proxy; without a slash at its end."""

    @property
    def url(self) -> str:
        """Where a client on this machine asks; every interface is reached by the loopback one.

        >>> ServiceAddress("0.0.0.0").url, ServiceAddress("::1", 80).url
        ('http://127.0.0.1:11434', 'http://[::1]:80')
        """
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return replace(self, host=host).written

    @property
    def written(self) -> str:
        netloc = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{netloc}:{self.port}{self.path}"


def service_address(value: object, port: int = DEFAULT_PORT) -> ServiceAddress:
    """Read a host, a port, both, or an URL; `port` is meant where there is none.

    >>> service_address("0.0.0.0").url, service_address("http://gpu.lan/models/").url
    ('http://127.0.0.1:11434', 'http://gpu.lan:80/models')
    >>> service_address(":8080").host, service_address("[::1]:8080").host
    ('0.0.0.0', '::1')
    >>> service_address("::1").port
    11434
    >>> service_address("0.0.0.0", 11436).port, service_address("http://gpu.lan", 11436).port
    (11436, 80)

    Raises:
        BadValue: a scheme, a port or a host that cannot be.
    """
    written = value.strip() if isinstance(value, str) else ""
    scheme, has_scheme, rest = written.partition("://")
    if not has_scheme:
        scheme, rest = "http", written
    if not rest or scheme.lower() not in _SCHEME_PORTS:
        raise BadValue("is not the address of a service", _ADDRESS_REMEDY)
    netloc, _, path = rest.partition("/")
    host, given = _split_host_port(netloc)
    if any(letter in "@?#\\" or letter <= " " for letter in host + path):
        raise BadValue("is not the address of a service", _ADDRESS_REMEDY)
    default = _SCHEME_PORTS[scheme.lower()] if has_scheme else port
    tail = f"/{path.strip('/')}" if path.strip("/") else ""
    # A port alone is every interface, as Ollama has it (and Go's `net.Listen`).
    return ServiceAddress(
        host or "0.0.0.0", default if given is None else given, scheme.lower(), tail
    )


def _split_host_port(netloc: str) -> tuple[str, int | None]:
    """Part host and port; an address with several colons and no brackets is all host."""
    if netloc.startswith("["):
        host, bracket, tail = netloc[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")) or not _is_ipv6(host):
            raise BadValue("is not the address of a service", _ADDRESS_REMEDY)
        return host, _port_number(tail[1:]) if tail else None
    if netloc.count(":") > 1:
        if not _is_ipv6(netloc):
            raise BadValue("is not the address of a service", _ADDRESS_REMEDY)
        return netloc, None
    host, colon, port = netloc.partition(":")
    return host, _port_number(port) if colon else None


def _port_number(written: str) -> int:
    # 0 is "any that is free", as sockets have it.
    if not written.isascii() or not written.isdigit() or int(written) > 65535:
        raise BadValue("has a port that is none", _ADDRESS_REMEDY)
    return int(written)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
