"""Find the service that runs: who answers where the settings say, and which key it is shown.

On this machine a service is not needed: where none listens, `find` gives None, and commands do the
work themselves.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system.hosts import is_loopback

from .address import Address
from .client import CONNECT_S, Client, ServiceError
from .settings import Settings

if TYPE_CHECKING:
    from .residence.record import Residence

_NEAR_S, _FAR_S = 0.5, CONNECT_S


def find(settings: Settings) -> Client | None:
    """Give the service at the configured address; None: it would be on this machine, and is not.

    Raises:
        ServiceError: another machine is meant, and no service of Paddock's answers there.
    """
    address = settings.address
    who = identify(address)
    if who == "paddock":
        return Client(address.url, _key(settings), trusts_proxies=not is_near(address))
    if is_near(address):
        return None
    where = (settings.origins or {}).get("host", "")
    told = f"{address.url} ({where})" if where else address.url
    if who is None:
        raise ServiceError(f"No service answers at {told}.\n  Start one there: paddock serve")
    raise ServiceError(f"At {told} {who} answers, not Paddock.")


def background(settings: Settings) -> Client | None:
    """Return the service in the background, by its socket; None: none runs for these settings."""
    from .residence.find import find as residence_of

    own: Any = settings  # type checkers take a sub-package's name of the class for another one
    residence = residence_of(own)
    return None if residence is None else at_socket(residence)


def at_socket(residence: Residence) -> Client:
    """Return a client of a service on this machine that only its owner can reach."""
    import httpx

    transport = httpx.HTTPTransport(uds=str(residence.socket))
    return Client("http://localhost", transport=transport)


def everyone(settings: Settings) -> list[tuple[str, Client]]:
    """Return every service that holds models for this person, each with its name.

    These are `paddock serve`, or the one on another machine that is asked instead (its address is
    its name), and those of this state folder: the service in the background, and what `paddock up`
    and workers hold. One process is there once.

    Raises:
        ServiceError: another machine is meant, and no service of Paddock's answers there; or there
            is none at all.
    """
    from .residence.find import everyone as residences

    asked = find(settings)
    near = [(one.kind, at_socket(one)) for one in residences(settings.state_dir)]
    if asked is not None and not is_near(settings.address):
        return [(settings.address.url, asked), *near]
    # `serve` offers its pool at a socket as well, where more is allowed.
    if asked is not None and not any(kind == "serve" for kind, _ in near):
        return [("serve", asked), *near]
    if near:
        return [*near]
    who = identify(settings.address)
    raise ServiceError(
        "No model is in memory: no service of Paddock's runs"
        + (f" (at {settings.address.url} {who} answers)" if who else "")
        + ".\n  The next `paddock run` starts one; `paddock serve` is one for other programs."
    )


def is_near(address: Address) -> bool:
    """Tell whether an address is this machine's own."""
    host = address.host.lower()
    if host in ("0.0.0.0", "::") or is_loopback(host):
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
    """Return the key to show; on this machine, one that the service's own file lists."""
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
