"""HTTP connection to one server of OpenAI's API.

Requests and answers are JSON or server-sent events, all bounded. Failures that may pass become
`ServerAway` or `ServerBusy`; those that need a person become an `EngineError`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import BadRequest, EngineError, ModelBroken, PromptTooLong
from paddock.engine.system import http
from paddock.engine.system.server_address import ServerAddress

if TYPE_CHECKING:
    import httpx


class ServerAway(Exception):
    """No whole answer came; `was_sent`: the server may have begun with the request.

    `is_failing`: it answered by an error of its own.
    """

    def __init__(self, reason: str, *, was_sent: bool = False, is_failing: bool = False) -> None:
        self.reason = reason
        self.was_sent = was_sent
        self.is_failing = is_failing
        super().__init__(reason)


class ServerBusy(Exception):
    """The server is full or loads its model; it may have said after how many seconds to retry."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        self.reason = reason
        self.after_s = after_s
        super().__init__(reason)


ANSWER_S = 30.0
"""For what a server knows without asking its model."""
MOST_ANSWER_BYTES = 256 * 1024 * 1024  # 64 vectors of 8,192 numbers are 12 MB
MOST_ERROR_BYTES = 1024 * 1024
MOST_EVENT_BYTES = 16 * 1024 * 1024
LONGEST_RETRY_AFTER_S = 60.0
RESEND_S = 1.0
"""A connection that breaks so soon after a request, before any answer, may have been closed."""
LAST_S = 0.1
"""An answer that ends so soon after its last event leaves its connection to the next request."""

Json = dict[str, Any]


class ServerConnection:
    """A connection to one server.

    Every method raises `ServerAway`, `ServerBusy` or an `EngineError`.
    """

    def __init__(
        self, address: ServerAddress, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = address.url
        self._key = address.key
        if not http.is_header_value(address.key):
            raise ModelBroken(
                address.url,
                "the key that it is to be shown has a character that no header carries: only "
                "letters, digits and signs of ASCII do",
                "Correct the model's `pool.key`, or PADDOCK_POOL_KEY",
            )
        self._http = http.client(
            address.url,
            headers=http.bearer_headers(address.key),
            timeout_s=None,  # each request has a deadline of its own
            n_idle=64,
            trust_env=not address.is_here,
            transport=transport,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, within_s: float = ANSWER_S) -> Json:
        return await self._request("GET", path, None, within_s)

    async def post(self, path: str, body: Mapping[str, Any], within_s: float = ANSWER_S) -> Json:
        return await self._request("POST", path, body, within_s)

    async def find(self, path: str) -> Json | None:
        """Return a JSON object; None where the server refuses, as without such an endpoint."""
        try:
            return await self.get(path)
        except EngineError:
            return None

    async def answers(self, path: str, within_s: float) -> bool:
        try:
            await self.status("GET", path, within_s)
        except ServerAway:
            return False
        return True

    async def status(self, method: str, path: str, within_s: float = ANSWER_S) -> int:
        with self._server_away(within_s):
            async with asyncio.timeout(within_s), self._http.stream(method, path) as answer:
                return answer.status_code

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, within_s: float
    ) -> Json:
        with self._server_away(within_s):
            async with asyncio.timeout(within_s), self._sent(method, path, body) as answer:
                return self._object(await http.read_body(answer, MOST_ANSWER_BYTES))

    @asynccontextmanager
    async def events(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncIterator[AsyncIterator[Json]]:
        """Send an object; yield the server-sent events of the answer, until `[DONE]`."""
        with self._server_away():
            async with self._sent("POST", path, body) as answer:
                yield self._events(path, answer)

    async def _events(self, path: str, answer: httpx.Response) -> AsyncGenerator[Json, None]:
        found = http.event_data(answer, MOST_EVENT_BYTES)
        async for data in found:
            if data == b"[DONE]":
                with suppress(TimeoutError, http.HttpFailure), http.http_failures(self.url):
                    async with asyncio.timeout(LAST_S):
                        async for _ in found:
                            pass
                return
            event = self._object(data)
            error = event if event.get("object") == "error" else event.get("error")
            if error is not None:
                reason = self._clean(http.error_text(event))
                code = error.get("code") if isinstance(error, dict) else None
                status = code if isinstance(code, int) and not isinstance(code, bool) else 500
                raise self._refusal(path, status, reason, error)
            yield event
        raise ServerAway(f"the answer of {self.url} broke off", was_sent=True)

    @contextmanager
    def _server_away(self, within_s: float | None = None) -> Iterator[None]:
        try:
            with http.http_failures(self.url):
                yield
        except http.HttpFailure as error:
            raise ServerAway(str(error), was_sent=error.was_sent) from None
        except TimeoutError:
            if within_s is None:  # a deadline of the caller's
                raise
            reason = f"{self.url} did not answer within {within_s:g} s"
            raise ServerAway(reason, was_sent=True) from None

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[httpx.Response]:
        answer = await self._answer_of(method, path, body)
        try:
            if answer.status_code != 200:
                raise await self._refused(path.partition("?")[0], answer)
            yield answer
        finally:
            await answer.aclose()

    async def _answer_of(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> httpx.Response:
        """Send a request; return its answer, unread.

        A server may close a kept connection at the moment at which a request is sent on it. It is
        sent once more, on a new one.
        """
        request, began = self._http.build_request(method, path, json=body), time.monotonic()
        try:
            with http.http_failures(self.url):
                return await self._http.send(request, stream=True)
        except http.HttpFailure as failure:
            if not failure.was_sent or time.monotonic() - began > RESEND_S:
                raise
            with suppress(http.HttpFailure), http.http_failures(self.url):
                return await self._http.send(request, stream=True)
            raise

    async def _refused(self, path: str, answer: httpx.Response) -> Exception:
        body = http.json_object(await http.read_body(answer, MOST_ERROR_BYTES))
        reason = self._clean(http.error_text(body)) or answer.reason_phrase
        after_s = http.retry_after_s(answer.headers.get("retry-after"), LONGEST_RETRY_AFTER_S)
        error = body.get("error", body) if body else None
        return self._refusal(path, answer.status_code, reason, error, after_s)

    def _object(self, data: bytes) -> Json:
        value = http.json_object(data)
        if value is None:
            raise BadRequest(f"{self.url} answers with something that is no JSON object")
        return value

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _refusal(
        self, path: str, status: int, reason: str, error: Any, after_s: float | None = None
    ) -> Exception:
        if status in (429, 503) and not _is_account_fault(error):
            return ServerBusy(f"{self.url} is busy: {reason}", after_s)
        if status in (401, 403):
            return ModelBroken(self.url, *self.key_advice(f"{status}: {reason}"))
        if (status >= 500 and status != 501) or status == 408:
            why = f"{self.url}{path} failed ({status}: {reason})"
            return ServerAway(why, was_sent=True, is_failing=True)
        too_long = _too_long(error)
        if too_long is not None:
            return too_long
        return BadRequest(f"the server at {self.url} refuses the request ({status}: {reason})")

    def key_advice(self, reason: str) -> tuple[str, str]:
        where = "the model's `pool.key`, or PADDOCK_POOL_KEY"
        if self._key:
            what = f"the server refuses the key that it is shown ({reason})"
            return what, f"Correct {where}"
        return f"the server asks for a key ({reason})", f"Give it as {where}"


def _too_long(error: Any) -> PromptTooLong | None:
    if not isinstance(error, dict):
        return None
    kind = str(error.get("type")), str(error.get("code"))
    if not {"exceed_context_size_error", "context_length_exceeded"} & {*kind}:
        return None
    numbers = [error.get(name) for name in ("n_prompt_tokens", "n_ctx")]
    n_prompt, n_ctx = (number if isinstance(number, int) else 0 for number in numbers)
    return PromptTooLong(n_prompt, 0, n_ctx) if n_prompt and n_ctx else None


def _is_account_fault(error: Any) -> bool:
    """Return whether a server refuses for want of money: waiting does not help.

    >>> _is_account_fault({"code": "insufficient_quota"}), _is_account_fault("slow down")
    (True, False)
    """
    known = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
    names = (error.get("type"), error.get("code")) if isinstance(error, dict) else ()
    return any(isinstance(name, str) and name in known for name in names)
