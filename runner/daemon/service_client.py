"""Client of the service (Ollama's API): find it, ask it, or start the one in the background.

`create_in_service` sends the files that the service lacks, never a path.

Any user of this machine may listen at the port first. So an address that no one wrote is asked only
where a process of this user listens, and a key that is not meant for the written address goes only
to a service that has proved to know it (`engine.system.key_proof`); both are looked at before each
request, since services end.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.models.model_names import is_path
from paddock.engine.system import http, light_http, socket_owners
from paddock.engine.system.files import sha256_of
from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.key_proof import home_secret, knows_key
from paddock.engine.system.text import split_lines
from paddock.runner.config.service_address import ServiceAddress
from paddock.runner.settings import Settings, is_ci

from .daemon_client import LEASE, PREFIX, ensure_daemon
from .daemon_files import DaemonError, running_daemons

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
    """Return the state of a trigger of `paddock up`, for people."""
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
        with self._errors(), self._http.stream("POST", PREFIX + LEASE):
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
        whole, rest = split_lines(rest, piece)
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
    """Upload the files that the service lacks, and make the model there."""
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
    """Return a file's digest; upload the file if the service lacks it."""
    if isinstance(source, str):
        return source
    tell(f"reading {source.name}", None, None)
    digest = f"sha256:{sha256_of(source)}"
    if not client.has_blob(digest):
        tell(f"sending {source.name}", None, None)
        client.upload(digest, source)
    return digest


_NEAR_S, _FAR_S = 0.5, http.CONNECT_S


def find_service(settings: Settings) -> ServiceClient | None:
    """Return the service at the configured address; None when none of ours runs on this machine.

    Raises:
        ServiceError: the address is another machine's, and Paddock does not answer there.
    """
    address = settings.address
    server_kind = identify_service(settings)
    if server_kind == "paddock":
        key, must_prove = _api_key(settings)
        if must_prove and not knows_key(address.url, key, timeout_s=http.CONNECT_S):
            key, must_prove = "", False

        def check() -> None:
            if not _is_ours(settings) or (
                must_prove and not knows_key(address.url, key, timeout_s=http.CONNECT_S)
            ):
                raise ServiceError(f"Another program listens at {address.url} now.")

        trusts_proxies = not is_this_machine(address)
        return ServiceClient(address.url, key, trusts_proxies=trusts_proxies, check=check)
    if is_this_machine(address):
        return None
    where = (settings.origins or {}).get("host", "")
    place = f"{address.url} ({where})" if where else address.url
    if server_kind is None:
        raise ServiceError(f"No service answers at {place}.\n  Start one there: paddock serve")
    raise ServiceError(f"At {place} {server_kind} answers, not Paddock.")


def _is_ours(settings: Settings) -> bool:
    """Return whether the configured address was written, or a process of this user listens there.

    Where the system does not tell (not Linux), it has to know the secret of this user's processes.
    """
    if "host" in (settings.origins or {}):
        return True
    is_own = socket_owners.is_own_listener(settings.address.host, settings.address.port)
    if is_own is not None:
        return is_own
    secret = home_secret(settings.service.state_dir)
    return knows_key(settings.address.url, secret, timeout_s=http.CONNECT_S)


def client_at_path(path: Path) -> ServiceClient:
    return ServiceClient("http://localhost", socket=path)


def all_services(settings: Settings) -> list[tuple[str, ServiceClient]]:
    """Return every service that holds models for this user, each with its name.

    These are `paddock serve`, or the configured service of another machine (its address is its
    name), and those of this state folder: the background daemon, and what `paddock up` and workers
    hold. Each process is listed once.

    Raises:
        ServiceError: the address is another machine's, and Paddock does not answer there; or there
        is no service at all.
    """
    configured = find_service(settings)
    near = [
        (daemon.kind, client_at_path(daemon.socket))
        for daemon in running_daemons(settings.state_dir)
    ]
    if configured is not None and not is_this_machine(settings.address):
        return [(settings.address.url, configured), *near]
    # `serve` also offers its pool at a socket, where more is allowed.
    if configured is not None and not any(kind == "serve" for kind, _ in near):
        return [("serve", configured), *near]
    if near:
        return list(near)
    server_kind = identify_service(settings)
    raise ServiceError(
        "No model is in memory: no Paddock service runs"
        + (f" (at {settings.address.url} {server_kind} answers)" if server_kind else "")
        + ".\n  The next `paddock run` starts one; `paddock serve` starts one for other programs."
    )


def is_this_machine(address: ServiceAddress) -> bool:
    host = address.host.lower()
    if host in ("0.0.0.0", "::") or is_loopback(host):
        return True
    return host == socket.gethostname().lower()


def identify_service(settings: Settings) -> str | None:
    """Return what answers at the configured address, as `identify_server` does.

    A Paddock that another user may have put there is `another user's program`.
    """
    program = identify_server(settings.address)
    is_ours = program != "paddock" or _is_ours(settings)
    return program if is_ours else "another user's program"


def identify_server(address: ServiceAddress) -> str | None:
    """Return what answers: `paddock`, `Ollama`, `another program`; None when nothing does."""
    within_s = _NEAR_S if is_this_machine(address) else _FAR_S
    host = address.url.partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
    try:
        socket.create_connection((host, address.port), timeout=within_s).close()
    except (OSError, UnicodeError, OverflowError):
        return None
    status, body = light_http.get(f"{address.url}/readyz", timeout_s=http.CONNECT_S)
    # Only Paddock has this route, with a JSON answer.
    if status in (200, 503) and body.lstrip().startswith("{"):
        return "paddock"
    _, body = light_http.get(f"{address.url}/", timeout_s=http.CONNECT_S)
    return "Ollama" if "Ollama is running" in body else "another program"


def _api_key(settings: Settings) -> tuple[str, bool]:
    """Return the key to send, and whether the service must prove first that it knows it.

    It is the configured one, which is meant for a written address; on this machine also one from
    the service's own file of keys.
    """
    if settings.api_key:
        return settings.api_key, "host" not in (settings.origins or {})
    keys = settings.service.api_keys_file
    if not keys or not is_this_machine(settings.address):
        return "", False
    try:
        lines = [line.partition("#")[0].split() for line in keys.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return "", False
    plain = (words[0] for words in lines if words and not words[0].startswith("sha256:"))
    key = next(plain, "")
    return key, bool(key)


@contextmanager
def service_for_command(settings: Settings, model: str = "") -> Iterator[ServiceClient]:
    """Yield the service for a command: one that runs, otherwise the background daemon.

    One that runs is `paddock serve`, here or on another machine. A path to a model file is never
    sent over the network: other machines lack the file, and clients that may ask for answers may
    not have files read. On CI machines, where nothing may be left running, a daemon that is started
    here ends right after the command.

    Raises:
        ServiceError: the address is another machine's, and none answers; or no daemon starts.
    """
    client = None if is_path(model) else find_service(settings)
    if client is not None:
        with client:
            yield client
        return
    if is_ci(os.environ):
        unattended = replace(settings.unattended, service_idle_s=0.0)
        settings = replace(settings, unattended=unattended)
    try:
        daemon = asyncio.run(ensure_daemon(settings))
    except DaemonError as error:
        raise ServiceError(str(error)) from None
    with client_at_path(daemon.socket) as client, client.held():
        yield client
