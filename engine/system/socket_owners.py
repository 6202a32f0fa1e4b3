"""Which user of this machine is at the other end of a connection."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .hosts import parse_address

# A port of this machine is open to all its users. Who is at the other end, Linux tells.
_SOCKET_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS, _IS_CONNECTED = "0A", "01"


def listener_owner(host: str, port: int) -> int | None:
    """Return the user that listens at an address; None: unknown, no one does, or several do.

    Who listens at this address comes before who listens at all of them.

    >>> listener_owner("127.0.0.1", 0) is None
    True
    """
    rows = [row for row in _socket_rows() if row[2] == _LISTENS]
    for listened in (host, "0.0.0.0", "::"):
        places = set(_table_addresses(listened, port))
        owners = {int(row[3]) for row in rows if row[0] in places}
        if owners:
            return owners.pop() if len(owners) == 1 else None
    return None


def is_own_listener(host: str, port: int) -> bool | None:
    """Return whether this user listens at an address; None where the system does not tell."""
    owner = listener_owner(host, port)
    return None if owner is None else owner == os.getuid()


def client_owner(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Return the user at the other end of a connection from this machine; None: unknown.

    A client that has closed its socket has no owner any more.
    """
    ends, others = set(_table_addresses(*client)), set(_table_addresses(*server))
    for local, remote, state, user in _socket_rows():
        if local in ends and remote in others and state == _IS_CONNECTED:
            return int(user)
    return None


def is_own_process(client: tuple[str, int] | None, server: tuple[str, int | None] | None) -> bool:
    """Return whether a connection comes from a process of this user.

    True also where the system does not tell.
    """
    if client is None or server is None or server[1] is None:
        return False
    if not knows_socket_owners():
        return True
    return client_owner(client, (server[0], server[1])) == os.getuid()


def _socket_rows() -> Iterator[tuple[str, str, str, str]]:
    for table in _SOCKET_TABLES:
        try:
            lines = table.read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for row in map(str.split, lines):
            yield row[1], row[2], row[3], row[7]


def _table_addresses(host: str, port: int) -> Iterator[str]:
    """Yield an address as the tables write it: IPv4 may stand in both."""
    address = parse_address(host.partition("%")[0])
    if address is None:
        return
    if isinstance(address, ipaddress.IPv4Address):
        yield f"{_hex_words(address.packed)}:{port:04X}"
        address = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    yield f"{_hex_words(address.packed)}:{port:04X}"


def _hex_words(packed: bytes) -> str:
    """Return 32-bit words in this machine's byte order, as the kernel prints them."""
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def knows_socket_owners() -> bool:
    return _SOCKET_TABLES[0].exists()
