"""The address of a server that models are asked at: its base URL, and whether it is here."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from paddock.engine.system.records import SelectiveFields, Struct

from .hosts import BadHost, read_authority


class BadAddress(ValueError):
    """What is wrong with an address, as the end of a sentence, and what to write."""

    def __init__(self, why: str, remedy: str) -> None:
        self.why = why
        self.remedy = remedy
        super().__init__(f"{why}. {remedy}")


class ServerAddress(SelectiveFields, Struct, frozen=True):
    hidden = ("key",)

    url: str
    """Without a slash at its end, and without `/v1`."""
    key: str = ""

    @property
    def is_here(self) -> bool:
        return is_here(self.url)


class PoolAddress(ServerAddress, frozen=True):
    """Where a pool is asked: over a socket in the file system, or over the network with a key."""

    url: str = "http://paddock"
    socket: Path | None = None


def base_url(text: str) -> str:
    """Write an address in one way: what stands before `/v1/chat/completions`.

    >>> base_url(" HTTP://GPU-1:8000/v1/ "), base_url("https://example.org/api")
    ('http://gpu-1:8000', 'https://example.org/api')

    Raises:
        BadAddress: it is none.
    """
    try:
        found = read_authority(text)
    except BadHost:
        raise BadAddress("is no address of a server", _ADDRESS_REMEDY) from None
    if found.has_user:
        raise BadAddress("has a password in it", "Give the key as `pool.key`, from a secret.")
    parts = urlsplit(text.strip())
    if parts.query or parts.fragment:
        raise BadAddress("has more than a server's address in it", _ADDRESS_REMEDY)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    netloc = found.host.written if parts.port is None else f"{found.host.written}:{parts.port}"
    return SplitResult(found.scheme, netloc, path, "", "").geturl()


_ADDRESS_REMEDY = "Write it like `http://gpu-1:8000`."


def is_here(url: str) -> bool:
    """Return whether an address can only be this machine's own.

    A name that might lead anywhere counts as another machine, whatever it resolves to now.

    >>> is_here("http://127.0.0.1:8080"), is_here("http://[::1]:80"), is_here("http://gpu-1:8000")
    (True, True, False)
    """
    try:
        return read_authority(url).host.is_loopback
    except BadHost:
        return False
