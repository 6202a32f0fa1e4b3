"""HTTP/1.1 without httpx, whose import would cost each command 170 ms.

`UnixClient` asks over a Unix socket; `ask_unix` and `get` send one request and block the thread.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from paddock.engine.system.records import Struct

CONNECT_S = 5.0
IDLE_CONNECTION_S = 30.0  # the server closes a connection that is idle for 60 s


class ConnectionBroken(Exception):
    """The connection broke, or the server at its end is gone."""


class UnexpectedStatus(Exception):
    """The server refused; `body` is what it said."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        super().__init__(f"status {status}")


class _OpenSocket(Struct):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float | None = None
    """None: it is new."""


class UnixClient:
    def __init__(self, path: Path, *, silence_s: float) -> None:
        """`silence_s`: the longest time between two pieces of an answer."""
        self._path = path
        self._silence_s = silence_s
        self._idle: list[_OpenSocket] = []

    async def aclose(self) -> None:
        """Close the idle connections; the others end with their requests."""
        while self._idle:
            self._idle.pop().writer.close()

    async def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        return b"".join([piece async for piece in self.stream(method, target, body)])

    async def stream(
        self, method: str, target: str, body: bytes = b""
    ) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of an answer as they come; closing it ends the request.

        Raises:
            ConnectionBroken: the connection broke, or nothing came for too long.
            UnexpectedStatus: the status is not 200.
        """
        head = f"{method} {target} HTTP/1.1\r\nHost: paddock\r\nContent-Length: {len(body)}\r\n\r\n"
        connection: _OpenSocket | None = None
        try:
            connection, status, headers = await self._send(head.encode() + body)
            async with aclosing(self._read_body(connection.reader, headers)) as pieces:
                if status != 200:
                    raise UnexpectedStatus(status, b"".join([piece async for piece in pieces]))
                async for piece in pieces:
                    yield piece
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
            connection = None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise ConnectionBroken(str(error) or type(error).__name__) from None
        finally:
            if connection is not None:  # its answer was not read to the end
                connection.writer.close()

    async def _send(self, request: bytes) -> tuple[_OpenSocket, int, dict[bytes, bytes]]:
        """Send a request and read the head of its answer; again where the connection was stale."""
        while True:
            connection = await self._connection()
            try:
                connection.writer.write(request)
                async with asyncio.timeout(self._silence_s):
                    await connection.writer.drain()
                    head = await connection.reader.readuntil(b"\r\n\r\n")
                status_line, *lines = head.split(b"\r\n")
                pairs = (line.partition(b":") for line in lines if line)
                headers = {name.strip().lower(): value.strip().lower() for name, _, value in pairs}
                status = int(status_line.split(b" ", 2)[1])
            except (OSError, EOFError):
                connection.writer.close()
                if connection.idle_since is None:
                    raise
            except BaseException:
                connection.writer.close()
                raise
            else:
                return connection, status, headers

    async def _connection(self) -> _OpenSocket:
        while self._idle:
            connection = self._idle.pop()
            is_old = time.monotonic() - (connection.idle_since or 0.0) > IDLE_CONNECTION_S
            if not is_old and not connection.reader.at_eof():
                return connection
            connection.writer.close()
        async with asyncio.timeout(CONNECT_S):
            return _OpenSocket(*await asyncio.open_unix_connection(str(self._path)))

    async def _read_body(
        self, reader: asyncio.StreamReader, headers: dict[bytes, bytes]
    ) -> AsyncGenerator[bytes, None]:
        if headers.get(b"transfer-encoding") != b"chunked":
            async with asyncio.timeout(self._silence_s):
                yield await reader.readexactly(int(headers.get(b"content-length", b"0")))
            return
        while True:
            async with asyncio.timeout(self._silence_s):
                n_bytes = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
                piece = await reader.readexactly(n_bytes + 2)
            if not n_bytes:
                return
            yield piece[:-2]


class _BlockingConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("paddock", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask_unix(
    path: Path, method: str, target: str, body: bytes | None, *, timeout_s: float
) -> tuple[int, bytes]:
    """Return status and body of an answer over a Unix socket.

    Raises:
        ConnectionBroken: it did not answer in time.
    """
    with _one_request(_BlockingConnection(path, timeout_s)) as connection:
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def get(
    url: str,
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    query: Callable[[str, int], str] | None = None,
    most_bytes: int = 10_000,
) -> tuple[int, str]:
    """Return status and first bytes of an answer; status 0 and the reason if none comes.

    `query` makes the query of the IP address and port that were reached.
    """
    parts = urlsplit(url)
    is_https = parts.scheme == "https"
    kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
    try:
        with _one_request(kind(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
            connection.connect()
            end = f"?{query(*connection.sock.getpeername()[:2])}" if query is not None else ""
            connection.request("GET", (parts.path or "/") + end, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(most_bytes).decode("utf-8", "replace")
    except (ConnectionBroken, ValueError) as error:
        return 0, str(error)


@contextmanager
def _one_request(connection: http.client.HTTPConnection) -> Iterator[http.client.HTTPConnection]:
    """Close a connection in the end; its errors are `ConnectionBroken`."""
    try:
        yield connection
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ConnectionBroken(str(error) or type(error).__name__) from None
    finally:
        connection.close()
