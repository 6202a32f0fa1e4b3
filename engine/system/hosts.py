"""Hosts, host patterns and URL authorities: one parser, one canonical form.

Whatever decides where a request goes reads hosts here and nowhere else, so that no two readers can
disagree about the same text. Resolves no name and opens no connection. An expression (`{{`, `{%`,
`{#`) is not part of a host: text with one may lead anywhere.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from paddock.engine.system.records import Struct

from .text import shorten

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EXPRESSION = re.compile(r"\{[{%#]")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # names of containers have '_'
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_NAME_CHARS = 253
_PORTS = {"http": 80, "https": 443}

# Ranges that are not of the public internet. A wider network does not name them.
_NOT_PUBLIC: tuple[Network, ...] = tuple(map(
    ipaddress.ip_network,
    (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "64:ff9b:1::/48",
    ),
))  # fmt: skip
# IPv6 addresses that gateways and the system take for the IPv4 address in their last 32 bits.
_IPV4_AT_END = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))


class BadHost(ValueError):
    """A text that is no host, as the end of a sentence about it."""


class Host(Struct, frozen=True):
    name: str
    """Lower case, without a dot at its end, IDN as `xn--`; an address as `ipaddress` writes it."""
    address: Address | None = None
    """None: a name."""

    @property
    def is_loopback(self) -> bool:
        """Whether it can only be this machine, whatever a name server says."""
        return self.name == "localhost" if self.address is None else self.address.is_loopback

    @property
    def written(self) -> str:
        """As it stands in an URL."""
        return f"[{self.name}]" if ":" in self.name else self.name


class Authority(Struct, frozen=True):
    scheme: str
    host: Host
    port: int
    """Of the scheme, where none is written."""
    has_user: bool = False
    """Whether a user's name stands before the host."""


class Pattern(Struct, frozen=True):
    """Hosts that one entry of a list stands for: a name, `*.` before a name, or a network."""

    name: str
    """Without `*.`; empty for a network."""
    is_below: bool = False
    """Whether it stands for all names below `name`, and not for that name."""
    network: Network | None = None
    port: int | None = None
    """None: every port."""

    @property
    def is_loopback(self) -> bool:
        """Whether it stands for nothing but this machine."""
        if self.network is None:
            return self.name == "localhost" and not self.is_below
        return self.network.is_loopback and self.network.prefixlen >= 8

    def names(self, host: Host, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if host.address is not None:
            return self._holds(host.address)
        if self.is_below:
            return host.name.endswith(f".{self.name}")
        return host.name == self.name

    def names_itself(self, address: Address) -> bool:
        """Return whether it stands for an address, and not just for a wide range around it.

        >>> inside = ipaddress.ip_address("10.1.2.3")
        >>> [read_pattern(one).names_itself(inside) for one in ("10.0.0.0/8", "0.0.0.0/0")]
        [True, False]
        """
        if self.network is None or not self._holds(address):
            return False
        around = [network for network in _NOT_PUBLIC if _is_in(address, network)]
        own = around or [ipaddress.ip_network(address)]
        return any(_is_within(self.network, network) for network in own)

    def _holds(self, address: Address) -> bool:
        return self.network is not None and _is_in(address, self.network)


def has_expression(text: str) -> bool:
    """Return whether a text holds an expression, so that it is not what it will be.

    >>> [has_expression(text) for text in ("a{{ b }}", "{% if a %}b", "{# a #}", "{a}")]
    [True, True, True, False]
    """
    return _EXPRESSION.search(text) is not None


def read_host(text: str) -> Host:
    """Read a host without a port; an IPv6 address may have brackets.

    Numbers mean what the system's resolver takes them for: `127.1`, `0x7f000001`, `2130706433`.

    >>> [read_host(text).name for text in ("Example.ORG.", "127.1", "[::FFFF:10.0.0.7]")]
    ['example.org', '127.0.0.1', '10.0.0.7']

    Raises:
        BadHost: it is none.
    """
    if text.startswith("[") and text.endswith("]"):
        return _of_address(_address(text[1:-1], text))
    if ":" in text:
        return _of_address(_address(text, text))
    name = _ascii(text.lower()).removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:  # decimal, octal or hex numbers, as the resolver takes them
            return _of_address(ipaddress.IPv4Address(socket.inet_aton(name)))
        except (OSError, ValueError):
            raise BadHost(f"'{shorten(text, 200)}' is no IPv4 address") from None
    if len(name) > _NAME_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise BadHost(f"'{shorten(text, 200)}' is no name of a host")
    return Host(name)


def read_pattern(text: str) -> Pattern:
    """Read one entry of a list of hosts: a name, `*.name`, an address or a network, with a port.

    Raises:
        BadHost: it is none.
    """
    text = text.strip()
    if has_expression(text):
        raise BadHost(f"'{shorten(text, 200)}' is an expression, and hosts are written as they are")
    if "/" in text:
        return Pattern("", network=_network(text))
    bare, port = _without_port(text)
    if bare.startswith("*."):
        below = read_host(bare[2:])
        if below.address is not None:
            raise BadHost(f"'{shorten(text, 200)}' has `*.` before an address")
        return Pattern(below.name, is_below=True, port=port)
    host = read_host(bare)
    if host.address is None:
        return Pattern(host.name, port=port)
    return Pattern("", network=ipaddress.ip_network(host.address), port=port)


def read_authority(url: str) -> Authority:
    """Read where an `http` or `https` address leads.

    Raises:
        BadHost: it is no such address, or two readers could take it for different ones.
    """
    text = url.strip()
    if any(sign.isspace() or not sign.isprintable() or sign == "\\" for sign in text):
        raise BadHost(f"'{shorten(url, 200)}' is no address")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadHost(f"'{shorten(url, 200)}' is no address") from None
    if parts.scheme not in _PORTS or not parts.netloc:
        raise BadHost(f"'{shorten(url, 200)}' is no address that begins with http:// or https://")
    user, _, rest = parts.netloc.rpartition("@")
    if port == 0 or "@" in user:
        raise BadHost(f"'{shorten(url, 200)}' is no address")
    # Not `hostname`, which takes what is behind the bracket of an IPv6 address for nothing.
    bare, _ = _without_port(rest)
    has_user = "@" in parts.netloc
    return Authority(parts.scheme, read_host(bare), port or _PORTS[parts.scheme], has_user)


def written_authority(url: str) -> Authority | None:
    """Read where an address leads that may hold expressions; None: an expression decides it.

    Raises:
        BadHost: it is no address.
    """
    found = _EXPRESSION.search(url)
    if found is None:
        return read_authority(url)
    before = url[: found.start()]
    scheme, _, rest = before.partition("://")
    if not rest or "/" not in rest:
        return None
    return read_authority(f"{scheme}://{rest.partition('/')[0]}/")


def is_reachable(address: Address, patterns: list[Pattern], host: Host) -> bool:
    """Return whether an address may be asked to which a host leads.

    It may if it is of the public internet, or if a pattern names it itself.
    """
    address = unmapped(address)
    if host.name == "localhost" and address.is_loopback:
        return True  # it was named so
    return is_public(address) or any(pattern.names_itself(address) for pattern in patterns)


def is_public(address: Address) -> bool:
    """Return whether an address is of the public internet, where a gateway translates it, too.

    >>> [is_public(ipaddress.ip_address(one)) for one in ("64:ff9b::808:808", "64:ff9b::a00:7")]
    [True, False]
    """
    meant = _translated(unmapped(address))
    is_special = any(_is_in(meant, network) for network in _NOT_PUBLIC)
    return meant.is_global and not meant.is_multicast and not is_special


def _translated(address: Address) -> Address:
    """Return the IPv4 address to which a gateway (NAT64, 6to4) leads, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _IPV4_AT_END):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or address


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, or the address itself."""
    return getattr(address, "ipv4_mapped", None) or address


def parse_address(text: str) -> Address | None:
    """Return an address, an IPv4 one if it stands for that; None: the text is none."""
    try:
        return unmapped(ipaddress.ip_address(text))
    except ValueError:
        return None


def is_loopback(text: str) -> bool:
    """Return whether a host, as it is written, can only be this machine.

    >>> [is_loopback(one) for one in ("127.0.0.1", "::1", "LOCALHOST", "127.evil.example")]
    [True, True, True, False]
    """
    try:
        return read_host(text).is_loopback
    except BadHost:
        return False


def _of_address(address: Address) -> Host:
    plain = unmapped(address)
    return Host(str(plain), plain)


def _address(text: str, written: str) -> ipaddress.IPv6Address:
    try:
        found = ipaddress.IPv6Address(text)
    except ValueError:
        raise BadHost(f"'{shorten(written, 200)}' is no IPv6 address") from None
    if "%" in text:  # a scope: of one interface only
        raise BadHost(f"'{shorten(written, 200)}' is no IPv6 address")
    return found


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        wide = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadHost(f"'{shorten(text, 200)}' is no network such as 10.0.0.0/8") from None
    raise BadHost(f"'{shorten(text, 200)}' begins within a network, which is written '{wide}'")


def _without_port(text: str) -> tuple[str, int | None]:
    """Part a host and the port behind it; an IPv6 address with a port has brackets."""
    if text.startswith("["):
        bare, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadHost(f"'{shorten(text, 200)}' is no IPv6 address")
        return f"{bare}]", _port(rest[1:], text) if rest else None
    if text.count(":") > 1:
        return text, None
    bare, colon, port = text.partition(":")
    return bare, _port(port, text) if colon else None


def _port(text: str, written: str) -> int | None:
    if text == "":
        return None  # `http://host:/` is the scheme's
    if len(text) > 5 or not (text.isascii() and text.isdigit()) or not 0 < int(text) < 65536:
        raise BadHost(f"'{shorten(written, 200)}' has no port from 1 to 65535")
    return int(text)


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    import idna  # 20 ms that only such names pay

    try:
        return idna.encode(name, uts46=True).decode("ascii").lower()
    except idna.IDNAError:
        raise BadHost(f"'{shorten(name, 200)}' is no name of a host") from None


def _is_in(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
