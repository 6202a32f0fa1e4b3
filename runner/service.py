"""Find the service that runs and ask it, over HTTP, within deadlines. Knows Ollama's API only.

On this machine a service is not needed: where none listens, `find` gives None, and commands do the
work themselves.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .address import Address
from .display import console
from .settings import FILE_NAME, Settings

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
ANSWER_S = 60.0
SILENCE_S = 900.0
"""Between two lines of a stream: a large model may be loaded, or a long queue waited for."""
_NEAR_S, _FAR_S = 0.5, CONNECT_S
_CHUNK_BYTES = 1 << 20


class ServiceError(Exception):
    """The service could not be asked, or refused; `status` is HTTP's, 0 without an answer."""

    def __init__(self, words: str, status: int = 0) -> None:
        self.status = status
        super().__init__(words)


def find(settings: Settings) -> Client | None:
    """Give the service at the configured address; None: it would be on this machine, and is not.

    Raises:
        ServiceError: another machine is meant, and no service of Paddock's answers there.
    """
    address = settings.address
    who = identify(address)
    if who == "paddock":
        if not is_near(address) and _is_from_here(settings, "host"):
            where = (settings.origins or {})["host"]
            console.tell(f"Asking {address.url}, as {where} says.")
        return Client(address.url, _key(settings), trusts_proxies=not is_near(address))
    if is_near(address):
        return None
    where = (settings.origins or {}).get("host", "")
    told = f"{address.url} ({where})" if where else address.url
    if who is None:
        raise ServiceError(f"No service answers at {told}.\n  Start one there: paddock serve")
    raise ServiceError(f"At {told} {who} answers, not Paddock.")


def demand(settings: Settings) -> Client:
    """Give the service, for what nobody else can do.

    Raises:
        ServiceError: none answers.
    """
    client = find(settings)
    if client is None:
        who = identify(settings.address)
        other = f" ({who} does)" if who else ""
        raise ServiceError(
            f"No service of Paddock's answers at {settings.address.url}{other}.\n"
            "  Start one: paddock serve"
        )
    return client


def is_near(address: Address) -> bool:
    """Tell whether an address is this machine's own."""
    host = address.host.lower()
    if host in ("localhost", "0.0.0.0", "::", "::1") or host.startswith("127."):
        return True
    return host == socket.gethostname().lower()


def identify(address: Address) -> str | None:
    """Tell who answers: `paddock`, `Ollama`, `another program`; None: nobody."""
    within_s = _NEAR_S if is_near(address) else _FAR_S
    host = address.url.partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
    try:
        socket.create_connection((host, address.port), timeout=within_s).close()
    except (OSError, UnicodeError, OverflowError):
        return None
    status, body = _asked(address, host, "/readyz")
    # Ollama and others know no such route; ours tells in JSON how it is.
    if status in (200, 503) and body.lstrip().startswith("{"):
        return "paddock"
    return "Ollama" if "Ollama is running" in _asked(address, host, "/")[1] else "another program"


def _asked(address: Address, host: str, path: str) -> tuple[int, str]:
    """Ask once; status 0 when it is no answer of HTTP's."""
    import http.client

    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    link = kind(host, address.port, timeout=CONNECT_S)
    try:
        link.request("GET", address.path + path)
        answer = link.getresponse()
        return answer.status, answer.read(10_000).decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException):
        return 0, ""
    finally:
        link.close()


def _key(settings: Settings) -> str:
    """Give the key to show; none to a host that a file in the working folder names alone.

    Such a file may come from a stranger along with a pipeline, and must not send keys anywhere.
    """
    is_strange = not is_near(settings.address) and _is_from_here(settings, "host")
    if is_strange and not _is_from_here(settings, "api_key"):
        return ""
    if not settings.api_key and is_near(settings.address) and settings.service.api_keys_file:
        return _first_of(settings.service.api_keys_file)
    return settings.api_key


def _first_of(keys: Path) -> str:
    """Give a key of the service on this machine, to whoever may read its file; none of hashes."""
    try:
        lines = [line.partition("#")[0].split() for line in keys.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return ""
    plain = (words[0] for words in lines if words and not words[0].startswith("sha256:"))
    return next(plain, "")


def _is_from_here(settings: Settings, name: str) -> bool:
    """Tell whether a setting comes from a file in the working folder."""
    return (settings.origins or {}).get(name, "").startswith(str(Path.cwd() / FILE_NAME))


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
