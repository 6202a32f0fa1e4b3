"""HTTP: clients by httpx, failures, bounded bodies, errors that servers send; servers at rest.

httpx takes 170 ms to import, so it is imported when a client is made. What every run asks over a
Unix socket goes through `light_http`.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .text import completed_lines, one_line, parse_shallow_json

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
IDLE_S = 3.0  # llama.cpp's server and uvicorn close a connection that was idle for 5 s


class QuietServer:
    """Mixin for `uvicorn.Server`: look twice a second whether it has to end, not ten times.

    Those looks were a third of the processor time of `paddock up` at rest.
    """

    async def main_loop(self: Any) -> None:
        tenths = 0  # of a second, as uvicorn counts
        while not await self.on_tick(tenths):
            await asyncio.sleep(0.5)
            tenths += 5


class HttpFailure(Exception):
    """A request has no whole answer; its text is a sentence without the full stop."""

    def __init__(self, text: str, *, was_sent: bool) -> None:
        self.was_sent = was_sent
        """Whether the server may have begun to answer it."""
        super().__init__(text)


class AnswerTooLarge(HttpFailure):
    """The answer has more bytes than are read."""


def client(
    url: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    connect_s: float = CONNECT_S,
    timeout_s: float | None = 30.0,
    n_idle: int | None = None,
    idle_s: float = IDLE_S,
    **options: Any,
) -> httpx.AsyncClient:
    """Return a client that opens as many connections as needed and follows no redirects.

    `timeout_s` is that of each read and write; `n_idle` connections stay open for `idle_s` after
    their last request. `options` are httpx's; `auth_flow` is the method of its `Auth`, which may
    send a request once more.
    """
    import httpx

    if auth_flow := options.pop("auth_flow", None):
        options["auth"] = auth = httpx.Auth()
        auth.async_auth_flow = auth_flow  # type: ignore[method-assign]
    if url.startswith("http://") and options.get("verify", True) is True:
        # To load the authorities takes 20 ms. A context without any refuses all that is encrypted.
        options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(
        base_url=url,
        headers=dict(headers or {}),
        timeout=httpx.Timeout(timeout_s, connect=connect_s, pool=None),
        limits=httpx.Limits(
            max_connections=None, max_keepalive_connections=n_idle, keepalive_expiry=idle_s
        ),
        **options,
    )


def blocking_client(
    url: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float | None = 30.0,
    socket: Path | None = None,
    **options: Any,
) -> httpx.Client:
    """Return a client for a thread, as `client` does; of a Unix socket where one is given."""
    import httpx

    if socket is not None:
        # No TLS there: to load the certificates takes 20 ms of each command.
        options["transport"] = httpx.HTTPTransport(uds=str(socket), verify=False)
    return httpx.Client(
        base_url=url,
        headers=dict(headers or {}),
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
        **options,
    )


def bearer_headers(key: str) -> dict[str, str]:
    """Return the headers that send a key as the bearer token; none without a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def is_header_value(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()


@contextmanager
def http_failures(where: str) -> Iterator[None]:
    """Turn httpx's errors into `HttpFailure`, which names `where`."""
    import httpx

    try:
        yield
    except httpx.ConnectTimeout:
        raise HttpFailure(
            f"{where} cannot be reached (it does not answer)", was_sent=False
        ) from None
    except httpx.ConnectError as error:
        raise HttpFailure(f"{where} cannot be reached ({_reason(error)})", was_sent=False) from None
    except httpx.InvalidURL as error:
        raise HttpFailure(f"{where} is not a valid address ({error})", was_sent=False) from None
    except httpx.TimeoutException:
        raise HttpFailure(f"{where} does not answer in time", was_sent=True) from None
    except httpx.HTTPError as error:
        raise HttpFailure(
            f"the connection to {where} broke ({_reason(error)})", was_sent=True
        ) from None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


async def read_body(answer: httpx.Response, n_most: int) -> bytes:
    """Return a body.

    Raises:
        AnswerTooLarge: it has more than `n_most` bytes.
    """
    body = bytearray()
    async for piece in answer.aiter_bytes():
        body += piece
        if len(body) > n_most:
            text = f"{answer.url} answers with more than {n_most:,} bytes"
            raise AnswerTooLarge(text, was_sent=True)
    return bytes(body)


async def read_start(answer: httpx.Response, n_most: int, *, is_raw: bool = False) -> bytes:
    """Return the first `n_most` bytes of a body; what follows is not waited for.

    A raw one is as it was sent, which `decoded` reads.
    """
    body = bytearray()
    async for piece in answer.aiter_raw() if is_raw else answer.aiter_bytes():
        body += piece
        if len(body) >= n_most:
            break
    return bytes(body[:n_most])


def decoded(body: bytes, coding: str, n_most: int) -> bytes | None:
    """Return a whole body without its content coding, `n_most` bytes and one at most.

    One that is longer as it was sent stays as it is. None: it is damaged, or of an unknown coding.
    httpx and aiohttp take the start of one that is cut for all of it, and httpx one of an unknown
    coding for the text.
    """
    for name in reversed([each.strip().lower() for each in coding.split(",")]):
        if name in ("", "identity") or len(body) > n_most:
            continue
        if name not in ("gzip", "x-gzip", "deflate") or not body:
            return None
        plain = bytearray()
        while body and len(plain) <= n_most:
            bits = 31 if "gzip" in name else 15 if body[0] & 15 == 8 else -15  # with a head or not
            stream = zlib.decompressobj(bits)
            try:
                plain += stream.decompress(body, n_most + 1 - len(plain))
            except zlib.error:
                return None
            if not stream.eof and len(plain) <= n_most:
                return None
            body = stream.unused_data
        body = bytes(plain)
    return body


async def event_data(answer: httpx.Response, n_most: int) -> AsyncGenerator[bytes, None]:
    """Yield the data of server-sent events; other lines are comments.

    Of an event that is named `error` the data is yielded as the error of an object.

    Raises:
        AnswerTooLarge: an event has more than `n_most` bytes.
    """
    rest = b""
    is_error = False
    async for piece in answer.aiter_bytes():
        lines, rest = completed_lines(rest, piece)
        for line in lines:
            if line.startswith(b"event:"):
                is_error = line[6:].strip() == b"error"
            elif line.startswith(b"data:"):
                data = line[5:].strip()
                yield b'{"error":' + data + b"}" if is_error else data
                is_error = False
            elif line.startswith(b"error:"):  # llama-server's old form
                yield b'{"error":' + line[6:].strip() + b"}"
        if len(rest) > n_most:
            raise AnswerTooLarge(f"{answer.url} sends an event without an end", was_sent=True)


def json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = parse_shallow_json(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def error_text(body: dict[str, Any] | None) -> str:
    r"""Return the sentence in an error as servers send it, in one line; empty: there is none.

    >>> error_text({"error": {"message": "no such\nmodel"}}), error_text({"detail": "busy"})
    ('no such model', 'busy')
    """
    error: Any = body.get("error", body) if body else ""
    while isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("error")
    return one_line(str(error or ""), 300)


def retry_after_s(text: str | None, longest_s: float) -> float | None:
    """Return the seconds of a `Retry-After` header, at most `longest_s`; None: it has none.

    >>> retry_after_s("90", 60), retry_after_s("-1", 60), retry_after_s("tomorrow", 60)
    (60.0, 0.0, None)
    """
    try:
        return float(max(0.0, min(float(text or ""), longest_s)))
    except ValueError:
        return None
