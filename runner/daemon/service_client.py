"""Client of the service (Ollama's API): find it, ask it, or run one in this process for a command.

No service is needed on this machine: where none listens, `find_service` returns None, and the
command runs one over a private socket, so that `paddock chat` is the same program in both cases.
`create_in_service` sends the files that the service lacks, never a path.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.models.model_names import is_path
from paddock.engine.system import light_http
from paddock.engine.system.distribution import own_version
from paddock.engine.system.files import sha256_of
from paddock.engine.system.hosts import is_loopback
from paddock.runner.config.setting_values import ServiceAddress
from paddock.runner.settings import Settings

from .daemon_files import DaemonInfo, find_daemon, running_daemons

if TYPE_CHECKING:
    import httpx

    from paddock.engine.api.server import HttpServer
    from paddock.engine.api.service import Service
    from paddock.engine.models.modelfile import ModelRecipe

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 900.0
"""Between two lines of a stream: a large model may load, or a long queue be ahead."""
_CHUNK_BYTES = 1 << 20


class ServiceError(Exception):
    """The service did not answer, or refused; `status` is HTTP's, 0 without an answer."""

    def __init__(self, words: str, status: int = 0) -> None:
        self.status = status
        super().__init__(words)


class ServiceClient:
    """Client of one service, used in a `with` block; every method raises `ServiceError`."""

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
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            transport=transport,
            trust_env=trusts_proxies,
        )

    def __enter__(self) -> ServiceClient:
        """Keep the connection open inside the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str) -> dict[str, Any]:
        """Return a JSON object."""
        return self._ask("GET", path)

    def post(
        self, path: str, body: Mapping[str, Any], within_s: float = ANSWER_TIMEOUT_S
    ) -> dict[str, Any]:
        """Send a JSON object, return one."""
        import httpx

        timeout = httpx.Timeout(within_s, connect=CONNECT_TIMEOUT_S)
        return self._ask("POST", path, json=dict(body), timeout=timeout)

    def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a DELETE request with a JSON object."""
        return self._ask("DELETE", path, json=dict(body))

    def has_blob(self, digest: str) -> bool:
        """Return whether the service has a blob."""
        with self._errors():
            return self._http.head(f"/api/blobs/{digest}").status_code == 200

    def upload(self, digest: str, file: Path) -> None:
        """Upload a file as a blob."""
        import httpx

        with self._errors(), file.open("rb") as content:
            pieces = iter(lambda: content.read(_CHUNK_BYTES), b"")
            timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            answer = self._http.post(f"/api/blobs/{digest}", content=pieces, timeout=timeout)
            _raise_refusal(answer)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Send an object, yield one after the other; closing the iterator ends the request."""
        import httpx

        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        with (
            self._errors(),
            self._http.stream("POST", path, json=dict(body), timeout=timeout) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
            _raise_refusal(answer)
            for line in _json_lines(answer.iter_bytes()):
                one = _json_object(line)
                if one.get("error"):
                    raise ServiceError(str(one["error"]), 200)
                yield one

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        with self._errors():
            answer = self._http.request(method, path, **content)
        _raise_refusal(answer)
        return _json_object(answer.content) if answer.content.strip() else {}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise errors of httpx as `ServiceError`."""
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


def _json_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Split at line feeds alone: text may hold other characters at which httpx would split."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        one = json.loads(line)
    except ValueError:
        one = None
    if not isinstance(one, dict):
        raise ServiceError("The service answered with something other than a JSON object.")
    return one


def _raise_refusal(answer: httpx.Response) -> None:
    """Raise the service's message when it refused."""
    if answer.status_code < 400:
        return
    words = _error_text(answer)
    if answer.status_code in (401, 403) and "key" in words.lower():
        words += "\n  Set PADDOCK_API_KEY to one of the service's keys."
    raise ServiceError(words, answer.status_code)


def _error_text(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = answer.text.strip()[:500]
    if isinstance(error, dict):
        error = error.get("message")
    return str(error or f"the service answered with status {answer.status_code}")


Tell = Callable[[str, int | None, int | None], None]
"""Takes a status, the total and the completed bytes."""


def create_in_service(client: ServiceClient, recipe: ModelRecipe, tell: Tell) -> None:
    """Upload the files that the service lacks, and make the model there."""
    body = create_body(recipe) | {
        "files": {name: _upload(client, source, tell) for name, source in recipe.files.items()},
        "adapters": {
            name: _upload(client, source, tell) for name, source in recipe.adapters.items()
        },
    }
    wanted = {name: value for name, value in body.items() if value}
    with closing(client.stream("/api/create", wanted)) as lines:
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


def create_body(recipe: ModelRecipe) -> dict[str, Any]:
    """Return the body of `/api/create` without its files."""
    return {
        "model": recipe.name,
        "from": recipe.base,
        "template": recipe.template,
        "system": recipe.system,
        "license": list(recipe.licenses),
        "parameters": dict(recipe.parameters),
        "messages": [{"role": one.role, "content": one.content} for one in recipe.messages],
        "quantize": recipe.quantize,
        "renderer": recipe.renderer,
        "parser": recipe.parser,
        "requires": recipe.requires,
    }


_NEAR_S, _FAR_S = 0.5, CONNECT_TIMEOUT_S


def find_service(settings: Settings) -> ServiceClient | None:
    """Return the service at the configured address; None when none runs on this machine.

    Raises:
        ServiceError: the address is another machine's, and Paddock does not answer there.
    """
    address = settings.address
    who = identify_server(address)
    if who == "paddock":
        return ServiceClient(
            address.url, _api_key(settings), trusts_proxies=not is_this_machine(address)
        )
    if is_this_machine(address):
        return None
    where = (settings.origins or {}).get("host", "")
    told = f"{address.url} ({where})" if where else address.url
    if who is None:
        raise ServiceError(f"No service answers at {told}.\n  Start one there: paddock serve")
    raise ServiceError(f"At {told} {who} answers, not Paddock.")


def background_service(settings: Settings) -> ServiceClient | None:
    """Return a client of the daemon's socket; None when none runs for these settings."""
    daemon = find_daemon(settings)
    return None if daemon is None else client_at_socket(daemon)


def client_at_socket(daemon: DaemonInfo) -> ServiceClient:
    """Return a client of a daemon on this machine that only its owner can reach."""
    import httpx

    transport = httpx.HTTPTransport(uds=str(daemon.socket))
    return ServiceClient("http://localhost", transport=transport)


def all_services(settings: Settings) -> list[tuple[str, ServiceClient]]:
    """Return every service that holds models for this user, each with its name.

    These are `paddock serve`, or the configured service of another machine (its address is its
    name), and those of this state folder: the background daemon, and what `paddock up` and workers
    hold. Each process is listed once.

    Raises:
        ServiceError: the address is another machine's, and Paddock does not answer there; or there
        is no service at all.
    """
    asked = find_service(settings)
    near = [(one.kind, client_at_socket(one)) for one in running_daemons(settings.state_dir)]
    if asked is not None and not is_this_machine(settings.address):
        return [(settings.address.url, asked), *near]
    # `serve` also offers its pool at a socket, where more is allowed.
    if asked is not None and not any(kind == "serve" for kind, _ in near):
        return [("serve", asked), *near]
    if near:
        return [*near]
    who = identify_server(settings.address)
    raise ServiceError(
        "No model is in memory: no Paddock service runs"
        + (f" (at {settings.address.url} {who} answers)" if who else "")
        + ".\n  The next `paddock run` starts one; `paddock serve` starts one for other programs."
    )


def is_this_machine(address: ServiceAddress) -> bool:
    """Return whether an address belongs to this machine."""
    host = address.host.lower()
    if host in ("0.0.0.0", "::") or is_loopback(host):
        return True
    return host == socket.gethostname().lower()


def identify_server(address: ServiceAddress) -> str | None:
    """Return what answers: `paddock`, `Ollama`, `another program`; None when nothing does."""
    within_s = _NEAR_S if is_this_machine(address) else _FAR_S
    host = address.url.partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
    try:
        socket.create_connection((host, address.port), timeout=within_s).close()
    except (OSError, UnicodeError, OverflowError):
        return None
    status, body = light_http.get(f"{address.url}/readyz", timeout_s=CONNECT_TIMEOUT_S)
    # Only Paddock has this route, with a JSON answer.
    if status in (200, 503) and body.lstrip().startswith("{"):
        return "paddock"
    _, body = light_http.get(f"{address.url}/", timeout_s=CONNECT_TIMEOUT_S)
    return "Ollama" if "Ollama is running" in body else "another program"


def _api_key(settings: Settings) -> str:
    """Return the configured API key; on this machine, otherwise one from the service's key file."""
    if (
        not settings.api_key
        and is_this_machine(settings.address)
        and settings.service.api_keys_file
    ):
        return _first_key(settings.service.api_keys_file)
    return settings.api_key


def _first_key(keys: Path) -> str:
    """Return the first plain key in the service's key file; empty when it is unreadable."""
    try:
        lines = [line.partition("#")[0].split() for line in keys.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return ""
    plain = (words[0] for words in lines if words and not words[0].startswith("sha256:"))
    return next(plain, "")


END_S = 15.0  # workers have 5 s to stop, then they are killed with this process
_MOST_LETTERS = 60


@asynccontextmanager
async def hosted_service(settings: Settings, *, is_owners: bool = False) -> AsyncIterator[Service]:
    """Open the pool and yield the handlers' state; `is_owners`: only this user can reach it."""
    from paddock.engine.api.pool_server import pool_routes
    from paddock.engine.api.request_log import RequestLogEvents
    from paddock.engine.api.service import Service
    from paddock.engine.backends.local import LocalPool
    from paddock.engine.models.model_finder import ModelFinder
    from paddock.engine.models.model_store import ModelStore

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    async with LocalPool(settings.pool, models=finder, events=RequestLogEvents()) as pool:
        yield Service(
            pool,
            ModelStore(settings.pool.models_dir),
            finder,
            settings.service,
            own_version(),
            extra_routes=pool_routes(pool, names_only=True),
            takes_paths=is_owners,
        )


@contextmanager
def service_for_command(settings: Settings, model: str = "") -> Iterator[ServiceClient]:
    """Yield the service for a command: one that runs, otherwise one inside this process.

    That is `paddock serve`, here or on another machine; without it, the background daemon. A path
    to a model file is never sent over the network: other machines lack the file, and clients that
    may ask for answers may not have files read.

    Raises:
        ServiceError: the address is another machine's, and none answers.
    """
    client = None if is_path(model) else find_service(settings)
    client = client or background_service(settings)
    with client or embedded_service(settings) as one:
        yield one


@contextmanager
def embedded_service(settings: Settings) -> Iterator[ServiceClient]:
    """Run the service in a thread of this process, behind a private socket."""
    import httpx

    # A socket's path has at most about a hundred letters; some temporary folders are longer.
    place = "/tmp" if len(tempfile.gettempdir()) > _MOST_LETTERS else None
    with tempfile.TemporaryDirectory(prefix="paddock-", dir=place) as folder:
        path = Path(folder) / "service"
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        door.bind(str(path))
        door.listen()
        # Only this process can reach it, so requests need no key. Batches of the real service stay
        # with that one.
        alone = replace(
            settings.service,
            host="127.0.0.1",
            api_keys_file=None,
            rate_per_minute=None,
            access_log=False,
            state_dir=Path(folder) / "state",
        )
        with _ServiceThread(replace(settings, service=alone), door):
            transport = httpx.HTTPTransport(uds=str(path))
            with ServiceClient("http://localhost", transport=transport) as client:
                yield client


class _ServiceThread:
    """A thread with its own event loop for the service."""

    def __init__(self, settings: Settings, door: socket.socket) -> None:
        self._settings = settings
        self._door = door
        self._server: HttpServer | None = None
        self._error: BaseException | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    def __enter__(self) -> _ServiceThread:
        self._thread.start()
        self._is_up.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.force_exit = self._server.should_exit = True
        self._thread.join(END_S)

    def _run(self) -> None:
        import asyncio  # `list` and the completion do without: 40 ms

        try:
            asyncio.run(self._serve())
        except BaseException as error:  # raised again in `__enter__`
            self._error = error
        finally:
            self._is_up.set()
            with contextlib.suppress(OSError):
                self._door.close()

    async def _serve(self) -> None:
        from paddock.engine.api.server import make_server

        async with hosted_service(self._settings, is_owners=True) as service:
            self._server = make_server(service)
            self._is_up.set()
            await self._server.serve(sockets=[self._door])
