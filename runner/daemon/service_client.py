"""Client of the service (Ollama's API); `service_lookup` finds the one to ask.

`create_in_service` sends the files that the service lacks, never a path.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system import http, light_http, socket_owners
from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import completed_lines
from paddock.runner.settings import Settings

from .daemon_client import LEASE, PREFIX

if TYPE_CHECKING:
    import httpx

    from paddock.engine.models.model_recipe import ModelRecipe

ANSWER_TIMEOUT_S = 60.0
UP_TIMEOUT_S = 3.0
MOST_STATUS_BYTES = 1 << 24
READ_TIMEOUT_S = 900.0
"""Between two lines of a stream: a large model may load, or a long queue be ahead."""
_CHUNK_BYTES = 1 << 20


def ask_up(settings: Settings) -> tuple[Mapping[str, Any] | None, str]:
    """Return the `/status` of `paddock up` at the configured address; None: why there is none."""
    address = settings.unattended.address
    if socket_owners.is_own_listener(address.host, address.port) is False:
        return None, f"{address.url}: the program of another user listens there."
    code, body = light_http.get(
        f"{address.url}/status", timeout_s=UP_TIMEOUT_S, most_bytes=MOST_STATUS_BYTES
    )
    facts = (http.json_object(body.encode()) if code else None) or {}
    if code == 200 and {"pid", "pipelines", "queue"} <= facts.keys():
        return facts, ""
    if code in (401, 403) and facts.get("error"):
        return None, f"{address.url}: {facts['error']}"
    return None, f"{address.url}: no `paddock up` answers."


def trigger_text(trigger: Mapping[str, Any]) -> str:
    return f"{trigger['text']}{', paused' if trigger['is_paused'] else ''}"


class ServiceError(Exception):
    """The service did not answer, or refused; `status` is HTTP's, 0 without an answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class ServiceClient:
    """Client of one service, used in a `with` block; every method raises `ServiceError`."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        socket: Path | None = None,
        trusts_proxies: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`check` raises `ServiceError` before a request that must not be sent."""
        self.url, self.api_key, self.trusts_proxies = url, api_key, trusts_proxies
        self.check = check
        self._http = http.blocking_client(
            url,
            headers=http.bearer_headers(api_key),
            timeout_s=ANSWER_TIMEOUT_S,
            socket=socket,
            trust_env=trusts_proxies,
            event_hooks={"request": [lambda request: check()]},
        )

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, within_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        return self._ask("GET", path, timeout=_timeouts(within_s))

    def post(
        self, path: str, body: Mapping[str, Any], within_s: float = ANSWER_TIMEOUT_S
    ) -> dict[str, Any]:
        return self._ask("POST", path, json=dict(body), timeout=_timeouts(within_s))

    def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("DELETE", path, json=dict(body))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the background daemon from ending inside the block."""
        with self._errors(), self._http.stream("POST", PREFIX + LEASE) as answer:
            beats = answer.iter_raw()  # httpx closes the connection of one that is let go
            if not next(beats, b""):
                raise ServiceError("The local service is ending.")
            yield

    def has_blob(self, digest: str) -> bool:
        with self._errors():
            return self._http.head(f"/api/blobs/{digest}").status_code == 200

    def upload(self, digest: str, file: Path) -> None:
        with file.open("rb") as content:
            pieces = iter(lambda: content.read(_CHUNK_BYTES), b"")
            timeout = _timeouts(READ_TIMEOUT_S)
            self._ask("POST", f"/api/blobs/{digest}", content=pieces, timeout=timeout)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Send an object, yield one after the other; closing the iterator ends the request."""
        timeout = _timeouts(READ_TIMEOUT_S)
        with (
            self._errors(),
            self._http.stream("POST", path, json=dict(body), timeout=timeout) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
            _raise_refusal(answer)
            for line in _json_lines(answer.iter_bytes()):
                message = _json_object(line)
                if message.get("error"):
                    raise ServiceError(str(message["error"]), 200)
                yield message

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        with self._errors():
            answer = self._http.request(method, path, **content)
        _raise_refusal(answer)
        return _json_object(answer.content) if answer.content.strip() else {}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with http.http_failures(f"the service at {self.url}"):
                yield
        except http.HttpFailure as error:
            message = str(error)
            raise ServiceError(f"{message[0].upper()}{message[1:]}.") from None


def _timeouts(within_s: float) -> tuple[float, float, float, float]:
    """Return the limits to connect, read, write and get a connection, as httpx takes them."""
    return http.CONNECT_S, within_s, within_s, within_s


def _json_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Split at line feeds alone: text may hold other characters at which httpx would split."""
    rest = b""
    for piece in pieces:
        whole, rest = completed_lines(rest, piece)
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _json_object(line: bytes) -> dict[str, Any]:
    data = http.json_object(line)
    if data is None:
        raise ServiceError("The service answered with something other than a JSON object.")
    return data


def _raise_refusal(answer: httpx.Response) -> None:
    if answer.status_code < 400:
        return
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = answer.text.strip()[:500]
    if isinstance(error, dict):
        error = error.get("message")
    message = str(error or f"the service answered with status {answer.status_code}")
    if answer.status_code in (401, 403) and "key" in message.lower():
        message += "\n  Set PADDOCK_API_KEY to one of the service's keys."
    raise ServiceError(message, answer.status_code)


Tell = Callable[[str, int | None, int | None], None]
"""Takes a status, the total and the completed bytes."""


def create_in_service(client: ServiceClient, recipe: ModelRecipe, tell: Tell) -> None:
    body = {
        "model": recipe.name,
        "from": recipe.base,
        "template": recipe.template,
        "system": recipe.system,
        "license": list(recipe.licenses),
        "parameters": dict(recipe.parameters),
        "messages": [
            {"role": message.role, "content": message.content} for message in recipe.messages
        ],
        "quantize": recipe.quantize,
        "renderer": recipe.renderer,
        "parser": recipe.parser,
        "requires": recipe.requires,
        "files": {name: _upload(client, source, tell) for name, source in recipe.files.items()},
        "adapters": {
            name: _upload(client, source, tell) for name, source in recipe.adapters.items()
        },
    }
    filled = {name: value for name, value in body.items() if value}
    with closing(client.stream("/api/create", filled)) as lines:
        for line in lines:
            tell(str(line.get("status", "")), line.get("total"), line.get("completed"))


def _upload(client: ServiceClient, source: str | Path, tell: Tell) -> str:
    if isinstance(source, str):
        return source
    tell(f"reading {source.name}", None, None)
    digest = f"sha256:{sha256_of(source)}"
    if not client.has_blob(digest):
        tell(f"sending {source.name}", None, None)
        client.upload(digest, source)
    return digest


def client_at_path(path: Path) -> ServiceClient:
    return ServiceClient("http://localhost", socket=path)
