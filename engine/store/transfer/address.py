"""Look at what is behind a URL before it is brought: how large it is, and what to know it by."""

from __future__ import annotations

import re

import httpx

from paddock.engine.gguf import part_names

from .answers import check_answer
from .connection import Connection
from .download import Wanted
from .errors import Unusable

_MAGIC = b"GGUF"
_RANGE = re.compile(r"bytes 0-3/(\d+)")


async def look_at(connection: Connection, url: str) -> Wanted:
    """Ask for the first bytes of a file, and learn from the answer how to bring the rest.

    Raises:
        NotPublished, Refused, Unreachable, Interrupted: there is nothing to bring.
        HostNotTrusted, NotEncrypted: it was not asked.
        Unusable: it is no GGUF file, or nobody says how large it is.
    """
    begins = b""

    async def once() -> httpx.Response:
        nonlocal begins
        headers = {"Range": f"bytes=0-{len(_MAGIC) - 1}"}
        async with connection.open("GET", url, headers=headers, is_verified=False) as response:
            if not response.is_success:
                await response.aread()
                return response
            begins = b""
            async for piece in response.aiter_raw():
                begins += piece
                if len(begins) >= len(_MAGIC):
                    break  # a server without ranges would send the whole file
            return response

    response = await connection.retried(url, once)
    check_answer(response, url)
    if begins[: len(_MAGIC)] != _MAGIC:
        raise Unusable(url, f"this is not a GGUF file (it begins with {begins[:4]!r})")
    told = _RANGE.match(response.headers.get("content-range", ""))
    length = told[1] if told else response.headers.get("content-length", "")
    if not length.isdecimal():
        raise Unusable(url, "the server does not say how large the file is")
    return Wanted(url, int(length), validator=_validator(response))


def part_addresses(url: str) -> list[str]:
    """Return the addresses of all files of a split model, of which one is named.

    >>> part_addresses("https://h/a-00001-of-00002.gguf?download=true")[1]
    'https://h/a-00002-of-00002.gguf?download=true'
    """
    path, mark, query = url.partition("?")
    folder, slash, name = path.rpartition("/")
    return [f"{folder}{slash}{part}{mark}{query}" for part in part_names(name)]


def _validator(response: httpx.Response) -> str:
    """Give what changes when the file does; a weak tag may not be asked by (RFC 9110, 13.1.5)."""
    etag: str = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return str(response.headers.get("last-modified", ""))
