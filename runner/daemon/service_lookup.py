"""Find the service to ask: the configured one, all of this user's, or the one in the background.

Any user of this machine may listen at the port first. So an address that no one wrote is asked only
where a process of this user listens, and a key that is not meant for the written address goes only
to a service that has proved to know it (`engine.system.key_proof`); both are looked at before each
request, since services end.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum

from paddock.engine.models.model_names import is_path
from paddock.engine.system import http, light_http, socket_owners
from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.key_proof import home_secret, knows_key
from paddock.engine.system.records import replace
from paddock.runner.config.service_address import ServiceAddress
from paddock.runner.settings import Settings, is_ci

from .daemon_client import AGAIN_S, START_S, ensure_daemon
from .daemon_files import DaemonError, running_daemons
from .service_client import ServiceClient, ServiceError, client_at_path

_NEAR_S, _FAR_S = 0.5, http.CONNECT_S


class ServerKind(StrEnum):
    """What answers at an address, as messages name it."""

    PADDOCK = "paddock"
    OLLAMA = "Ollama"
    OTHER = "another program"
    OTHER_USERS = "another user's program"


def find_service(settings: Settings) -> ServiceClient | None:
    """Return the service at the configured address; None when none of ours runs on this machine.

    Raises:
        ServiceError: the address is another machine's, and Paddock does not answer there.
    """
    address = settings.address
    server_kind = identify_service(settings)
    if server_kind is ServerKind.PADDOCK:
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


def identify_service(settings: Settings) -> ServerKind | None:
    """Return what answers at the configured address; a Paddock may be another user's program."""
    kind = identify_server(settings.address)
    if kind is ServerKind.PADDOCK and not _is_ours(settings):
        return ServerKind.OTHER_USERS
    return kind


def identify_server(address: ServiceAddress) -> ServerKind | None:
    """Return what answers, of this user or another; None when nothing does."""
    within_s = _NEAR_S if is_this_machine(address) else _FAR_S
    host = address.url.partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
    try:
        socket.create_connection((host, address.port), timeout=within_s).close()
    except (OSError, UnicodeError, OverflowError):
        return None
    status, body = light_http.get(f"{address.url}/readyz", timeout_s=http.CONNECT_S)
    # Only Paddock has this route, with a JSON answer.
    if status in (200, 503) and body.lstrip().startswith("{"):
        return ServerKind.PADDOCK
    _, body = light_http.get(f"{address.url}/", timeout_s=http.CONNECT_S)
    return ServerKind.OLLAMA if "Ollama is running" in body else ServerKind.OTHER


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
    deadline = time.monotonic() + START_S
    with ExitStack() as stack:
        while True:
            try:
                daemon = asyncio.run(ensure_daemon(settings))
            except DaemonError as error:
                raise ServiceError(str(error)) from None
            client = stack.enter_context(client_at_path(daemon.socket))
            try:
                stack.enter_context(client.held())
                break
            except ServiceError as error:  # it was ending when it was found: another one starts
                if error.status or time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_S)
        yield client
