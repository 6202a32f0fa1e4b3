"""HTTP to a server on this machine, by the standard library alone: a request, a connection.

So that `gpu.py` runs where no client library is installed.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any


class HttpError(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        self.body = body
        super().__init__(f"HTTP {status}: {' '.join(body.split())[:160]}")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    reader: asyncio.StreamReader

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self.reader.readline()).split(b";")[0] or b"0", 16):
                yield await self.reader.readexactly(size)
                await self.reader.readline()
        elif "content-length" in self.headers:
            yield await self.reader.readexactly(int(self.headers["content-length"]))
        else:
            while piece := await self.reader.read(1 << 16):
                yield piece

    async def text(self) -> str:
        return b"".join([piece async for piece in self.pieces()]).decode("utf-8", "replace")


@contextlib.asynccontextmanager
async def request(
    port: int, method: str, path: str, body: object = None
) -> AsyncIterator[Response]:
    """Send a request; the connection is closed at the end of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        payload = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        writer.write(head.encode() + payload)
        await writer.drain()
        yield await _head(reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _head(reader: asyncio.StreamReader) -> Response:
    first = (await reader.readline()).split()
    if len(first) < 2:
        raise ConnectionResetError("the server closed the connection without an answer")
    headers = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return Response(int(first[1]), headers, reader)


async def get(port: int, path: str) -> str:
    """Fetch a text.

    Raises:
        HttpError: another status than 200.
    """
    async with request(port, "GET", path) as response:
        text = await response.text()
    if response.status != 200:
        raise HttpError(response.status, text)
    return text


async def post(port: int, path: str, body: Mapping[str, Any]) -> Any:
    """Send JSON and read JSON.

    Raises:
        HttpError: another status than 200.
    """
    async with request(port, "POST", path, body) as response:
        text = await response.text()
    if response.status != 200:
        raise HttpError(response.status, text)
    return json.loads(text)


async def events(
    port: int, path: str, body: Mapping[str, Any]
) -> AsyncGenerator[dict[str, Any], None]:
    """Send JSON and yield the server-sent events of the answer.

    Raises:
        HttpError: another status than 200, or an event that tells of an error.
    """
    async with request(port, "POST", path, body) as response:
        if response.status != 200:
            raise HttpError(response.status, await response.text())
        rest = b""
        async for piece in response.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if not line.startswith(b"data:") or b"[DONE]" in line:
                    continue
                event = json.loads(line[5:])
                if "error" in event:
                    raise HttpError(200, json.dumps(event["error"]))
                yield event
