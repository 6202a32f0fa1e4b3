"""Ask a service, over HTTP, within deadlines. Knows Ollama's API, and no settings."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
ANSWER_S = 60.0
SILENCE_S = 900.0
"""Between two lines of a stream: a large model may be loaded, or a long queue waited for."""
_CHUNK_BYTES = 1 << 20


class ServiceError(Exception):
    """The service could not be asked, or refused; `status` is HTTP's, 0 without an answer."""

    def __init__(self, words: str, status: int = 0) -> None:
        self.status = status
        super().__init__(words)


class Client:
    """One service. Use it in a `with`; every method raises `ServiceError`."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        transport: httpx.BaseTransport | None = None,
        trusts_proxies: bool = False,
    ) -> None:
        import httpx

        self.url = url
        self.trusts_proxies = trusts_proxies
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(
            base_url=url,
            headers=self.headers,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            transport=transport,
            trust_env=trusts_proxies,
        )

    def __enter__(self) -> Client:
        """Keep the connection open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str) -> dict[str, Any]:
        """Ask for an object."""
        return self._ask("GET", path)

    def post(
        self, path: str, body: Mapping[str, Any], within_s: float = ANSWER_S
    ) -> dict[str, Any]:
        """Send an object, get one."""
        import httpx

        timeout = httpx.Timeout(within_s, connect=CONNECT_S)
        return self._ask("POST", path, json=dict(body), timeout=timeout)

    def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send an object to say what is to go."""
        return self._ask("DELETE", path, json=dict(body))

    def has_blob(self, digest: str) -> bool:
        """Tell whether a blob is there already."""
        with self._told():
            return self._http.head(f"/api/blobs/{digest}").status_code == 200

    def upload(self, digest: str, file: Path) -> None:
        """Send a file as a blob."""
        import httpx

        with self._told(), file.open("rb") as content:
            pieces = iter(lambda: content.read(_CHUNK_BYTES), b"")
            timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
            answer = self._http.post(f"/api/blobs/{digest}", content=pieces, timeout=timeout)
            _refused(answer)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Send an object, get one after the other; closing the iterator ends the request."""
        import httpx

        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        with (
            self._told(),
            self._http.stream("POST", path, json=dict(body), timeout=timeout) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
            _refused(answer)
            for line in _lines(answer.iter_bytes()):
                one = _object(line)
                if one.get("error"):
                    raise ServiceError(str(one["error"]), 200)
                yield one

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        with self._told():
            answer = self._http.request(method, path, **content)
        _refused(answer)
        return _object(answer.content) if answer.content.strip() else {}

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in words what can go wrong on the way."""
        import httpx

        try:
            yield
        except httpx.ConnectError as error:
            raise ServiceError(f"No service answers at {self.url}: {error}.") from None
        except httpx.TimeoutException:
            raise ServiceError(f"The service at {self.url} does not answer in time.") from None
        except httpx.HTTPError as error:
            words = str(error) or type(error).__name__
            raise ServiceError(f"The connection to {self.url} broke off: {words}.") from None


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Cut at line feeds alone: text may hold other characters that httpx would cut at."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _object(line: bytes) -> dict[str, Any]:
    try:
        one = json.loads(line)
    except ValueError:
        one = None
    if not isinstance(one, dict):
        raise ServiceError("The service answered with something that is no JSON object.")
    return one


def _refused(answer: httpx.Response) -> None:
    """Raise what the service says where it refused."""
    if answer.status_code < 400:
        return
    words = _said(answer)
    if answer.status_code in (401, 403) and "key" in words.lower():
        words += "\n  Set PADDOCK_API_KEY to one of the service's keys."
    raise ServiceError(words, answer.status_code)


def _said(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = answer.text.strip()[:500]
    if isinstance(error, dict):
        error = error.get("message")
    return str(error or f"the service answered with status {answer.status_code}")
