"""Speak HTTP with one server: JSON out, JSON or a stream of events back, all of it bounded.

Knows no models. What may pass becomes `Away` or `Later`, what a person must mend an `EngineError`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from paddock.engine.elsewhere.address import ServerAddress
from paddock.engine.elsewhere.faults import Away, Later
from paddock.engine.errors import BadRequest, EngineError, ModelBroken, PromptTooLong

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
ANSWER_S = 30.0
"""For what a server tells without asking its model."""
MOST_ANSWER_BYTES = 256 * 1024 * 1024  # 64 vectors of 8,192 numbers are 12 MB
MOST_EVENT_BYTES = 16 * 1024 * 1024
_MOST_SAID = 300

Json = dict[str, Any]


class Line:
    """A connection to one server. Every method raises `Away`, `Later` or an `EngineError`."""

    def __init__(
        self, address: ServerAddress, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        import httpx

        self.url = address.url
        self._key = address.key
        if not _is_header(address.key):
            raise ModelBroken(
                address.url,
                "the key that it is to be shown has a character that no header carries: only "
                "letters, digits and signs of ASCII do. Correct the model's `pool.key`, "
                "or PADDOCK_POOL_KEY",
            )
        self._http = httpx.AsyncClient(
            base_url=address.url,
            headers={"Authorization": f"Bearer {address.key}"} if address.key else {},
            # How long an answer may take is for its own deadlines to say.
            timeout=httpx.Timeout(None, connect=CONNECT_S, write=60.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=not address.is_here,
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def get(self, path: str, within_s: float = ANSWER_S) -> Json:
        """Ask for an object."""
        return await self._ask("GET", path, None, within_s)

    async def post(self, path: str, body: Mapping[str, Any], within_s: float = ANSWER_S) -> Json:
        """Send an object, get one."""
        return await self._ask("POST", path, body, within_s)

    async def find(self, path: str) -> Json | None:
        """Ask for what a server may or may not have; None: it does not."""
        try:
            return await self.get(path)
        except EngineError:
            return None

    async def answers(self, path: str, within_s: float) -> bool:
        """Tell whether anybody is there at all, however it answers."""
        try:
            await self.status("GET", path, within_s)
        except Away:
            return False
        return True

    async def status(self, method: str, path: str, within_s: float = ANSWER_S) -> int:
        """Ask for nothing but the number of an answer."""
        import httpx

        try:
            async with asyncio.timeout(within_s), self._http.stream(method, path) as answer:
                return answer.status_code
        except TimeoutError:
            raise Away(f"{self.url} did not answer within {within_s:g} s") from None
        except httpx.HTTPError as error:
            raise Away(f"{self.url} cannot be reached ({_reason(error)})") from None

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, within_s: float
    ) -> Json:
        try:
            async with asyncio.timeout(within_s), self._sent(method, path, body) as answer:
                return _object(self.url, await _whole(answer))
        except TimeoutError:
            raise Away(f"{self.url} did not answer within {within_s:g} s", was_sent=True) from None

    @asynccontextmanager
    async def events(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncIterator[AsyncIterator[Json]]:
        """Send an object; gives the events that come back, each an object, until `[DONE]`."""
        async with self._sent("POST", path, body) as answer:
            yield self._events(answer)

    async def _events(self, answer: httpx.Response) -> AsyncGenerator[Json, None]:
        async for data in _data(answer):
            if data == b"[DONE]":
                return
            event = _object(self.url, data)
            error = event.get("error")
            if error is not None:
                raise self._refusal(_code(error), self._clean(_said(error)), error)
            yield event
        raise Away(f"the answer of {self.url} broke off", was_sent=True)

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[httpx.Response]:
        import httpx

        try:
            async with self._http.stream(method, path, json=body) as answer:
                if answer.status_code != 200:
                    raise await self._refused(answer)
                yield answer
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Away(f"{self.url} cannot be reached ({_reason(error)})") from None
        except httpx.HTTPError as error:
            words = f"the connection to {self.url} broke ({_reason(error)})"
            raise Away(words, was_sent=True) from None

    async def _refused(self, answer: httpx.Response) -> Exception:
        try:
            told = json.loads(await _whole(answer, most=1024 * 1024))
        except (ValueError, RecursionError):
            told = None
        error = told.get("error", told) if isinstance(told, dict) else None
        said = self._clean(_said(error)) or answer.reason_phrase
        after_s = _seconds(answer.headers.get("retry-after"))
        return self._refusal(answer.status_code, said, error, after_s)

    def _clean(self, said: str) -> str:
        """Take out the key, which some servers repeat when they refuse it."""
        return said.replace(self._key, "***") if self._key else said

    def _refusal(
        self, status: int, said: str, error: Any, after_s: float | None = None
    ) -> Exception:
        """Give what a refusal means."""
        if status in (429, 503):
            return Later(f"{self.url} is busy: {said}", after_s)
        if status in (401, 403):
            return ModelBroken(self.url, self.about_key(f"{status}: {said}"))
        if (status >= 500 and status != 501) or status == 408:
            return Away(f"{self.url} failed ({status}: {said})", was_sent=True)
        too_long = _too_long(error)
        if too_long is not None:
            return too_long
        return BadRequest(f"the server at {self.url} refuses the request ({status}: {said})")

    def about_key(self, said: str) -> str:
        """Say what is to be done about a key that is refused, or lacking."""
        if self._key:
            what = f"the server refuses the key that it is shown ({said}). Correct"
        else:
            what = f"the server asks for a key ({said}). Give it as"
        return f"{what} the model's `pool.key`, or PADDOCK_POOL_KEY"


def _is_header(key: str) -> bool:
    return key.isascii() and key.isprintable() and key == key.strip()


def _too_long(error: Any) -> PromptTooLong | None:
    """Read how servers say that a prompt does not fit."""
    if not isinstance(error, dict):
        return None
    kind = str(error.get("type")), str(error.get("code"))
    if not {"exceed_context_size_error", "context_length_exceeded"} & {*kind}:
        return None
    numbers = [error.get(name) for name in ("n_prompt_tokens", "n_ctx")]
    n_prompt, n_ctx = (one if isinstance(one, int) else 0 for one in numbers)
    return PromptTooLong(n_prompt, 0, n_ctx) if n_prompt and n_ctx else None


async def _whole(answer: httpx.Response, most: int = MOST_ANSWER_BYTES) -> bytes:
    read = bytearray()
    async for piece in answer.aiter_bytes():
        read += piece
        if len(read) > most:
            raise Away(f"{answer.url} answers with more than {most:,} bytes", was_sent=True)
    return bytes(read)


async def _data(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the data of server-sent events; other lines are comments and names."""
    rest = b""
    async for piece in answer.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
            elif line.startswith(b"error:"):  # llama-server's old form
                yield b'{"error":' + line[6:].strip() + b"}"
        if len(rest) > MOST_EVENT_BYTES:
            raise Away(f"{answer.url} sends an event without an end", was_sent=True)


def _object(url: str, data: bytes) -> Json:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise BadRequest(f"{url} answers with something that is no JSON object")
    return told


def _said(error: Any) -> str:
    """Find the sentence in an error, in one bounded line."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("error") or ""
    line = " ".join(str(error or "").split())
    return line if len(line) <= _MOST_SAID else f"{line[:_MOST_SAID]}…"


def _code(error: Any) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else 500


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, min(float(text or ""), 60.0))
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
