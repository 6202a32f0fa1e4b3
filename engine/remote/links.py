"""Connections to where a pool is asked: over a socket in the file system, or over the network.

A request goes out, its answer's bytes come in; what they mean is `pool`'s matter. The socket is
spoken to directly: httpx takes a sixth of a second to import and a millisecond for each request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from paddock.engine.errors import EngineError

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
SILENCE_S = 60.0  # the other side gives a sign of life every 5 s
REST_S = 30.0  # the other side closes a connection that rests for 60 s


class Broken(Exception):
    """The connection, or what serves at its end, is gone."""


class Link(Protocol):
    """A way to one place, for any number of requests at a time."""

    def post(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Send a body and yield what is answered, as it comes; closing it ends the request.

        Raises:
            Broken: the connection broke, or nothing came for too long.
            EngineError: whoever answers is no pool, or says no.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


@dataclass(slots=True)
class _Wire:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    rests_since: float | None = None
    """None: it is new."""


class SocketLink:
    """Speaks HTTP/1.1 over a socket in the file system; a connection for each request under way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._resting: list[_Wire] = []

    async def aclose(self) -> None:
        """Close the connections that rest; the others end with their requests."""
        while self._resting:
            self._resting.pop().writer.close()

    async def post(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Implement `Link.post`."""
        head = f"POST {path} HTTP/1.1\r\nHost: paddock\r\nContent-Length: {len(body)}\r\n\r\n"
        wire: _Wire | None = None
        try:
            wire, status, headers = await self._sent(head.encode() + body)
            if status != 200:
                said = b"".join([piece async for piece in _body(wire.reader, headers)])
                raise refusal(str(self._path), status, said)
            async with aclosing(_body(wire.reader, headers)) as pieces:
                async for piece in pieces:
                    yield piece
            wire.rests_since = time.monotonic()
            self._resting.append(wire)
            wire = None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise Broken(str(error) or type(error).__name__) from None
        finally:
            if wire is not None:  # whoever reads it no more has not read it to its end
                wire.writer.close()

    async def _sent(self, request: bytes) -> tuple[_Wire, int, dict[bytes, bytes]]:
        """Send a request and read the head of its answer; once more where the wire was stale."""
        while True:
            wire = await self._wire()
            try:
                wire.writer.write(request)
                async with asyncio.timeout(SILENCE_S):
                    await wire.writer.drain()
                    status, headers = await _head(wire.reader)
            except (OSError, EOFError):
                wire.writer.close()
                if wire.rests_since is None:
                    raise
            except BaseException:
                wire.writer.close()
                raise
            else:
                return wire, status, headers

    async def _wire(self) -> _Wire:
        """Give a connection that rests, else a new one."""
        while self._resting:
            wire = self._resting.pop()
            is_old = time.monotonic() - (wire.rests_since or 0.0) > REST_S
            if not is_old and not wire.reader.at_eof():
                return wire
            wire.writer.close()
        async with asyncio.timeout(CONNECT_S):
            return _Wire(*await asyncio.open_unix_connection(str(self._path)))


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    """Read status and headers; raises `EOFError` where nothing comes any more."""
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    pairs = (line.partition(b":") for line in lines if line)
    headers = {name.strip().lower(): value.strip().lower() for name, _, value in pairs}
    return int(status_line.split(b" ", 2)[1]), headers


async def _body(
    reader: asyncio.StreamReader, headers: dict[bytes, bytes]
) -> AsyncGenerator[bytes, None]:
    """Yield a body's pieces."""
    if headers.get(b"transfer-encoding") != b"chunked":
        async with asyncio.timeout(SILENCE_S):
            yield await reader.readexactly(int(headers.get(b"content-length", b"0")))
        return
    while True:
        async with asyncio.timeout(SILENCE_S):
            n_bytes = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
            piece = await reader.readexactly(n_bytes + 2)
        if not n_bytes:
            return
        yield piece[:-2]


class WebLink:
    """Speaks to a service over the network, showing it a key."""

    def __init__(self, url: str, key: str) -> None:
        import httpx

        self._url = url
        # How many requests go at a time is for whoever asks and for the pool to decide.
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=None, keepalive_expiry=REST_S
        )
        self._client: httpx.AsyncClient = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S, pool=None),
            limits=limits,
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Implement `Link.post`."""
        import httpx

        try:
            async with self._client.stream("POST", path, content=body) as answer:
                if answer.status_code != 200:
                    raise refusal(self._url, answer.status_code, await answer.aread())
                async for piece in answer.aiter_raw():
                    yield piece
        except httpx.HTTPError as error:
            raise Broken(str(error) or type(error).__name__) from None


def refusal(where: str, status: int, body: bytes) -> Exception:
    """Say what an answer means that is none of a pool's."""
    said = body.decode("utf-8", "replace").strip()[:300]
    if status in (502, 503, 504):
        return Broken(f"status {status}: {said}")
    return EngineError(f"the pool at {where} refused the request (status {status}): {said}")
