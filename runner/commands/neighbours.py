"""Look at the servers around: who holds our port, whether Prefect answers. Asks, starts nothing."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from paddock.runner.address import PORT, Address
from paddock.runner.service import identify, is_near
from paddock.runner.settings import Settings

from .findings import Finding

ANSWER_S = 3.0


def ports(address: Address) -> Iterator[Finding]:
    """Say who holds the service's port, and Ollama's where that is another one."""
    yield _port(address)
    if is_near(address) and address.port != PORT:
        yield _port(Address(port=PORT))


def _port(address: Address) -> Finding:
    where = address.url.partition("://")[2]
    who = identify(address)
    if who is None and not is_near(address):
        text = f"nobody answers at {where}"
        return Finding("port", "warning", text, "Start it there: paddock serve")
    if who is None:
        return Finding("port", "ok", f"{where} is free")
    pid, name = holder(address.port) if is_near(address) else (0, "")
    told = {"paddock": "Paddock serves"}.get(who, f"taken by {who}")
    text = f"{where}: {told}" + (f" ({name}, process {pid})" if pid else "")
    if who == "paddock":
        return Finding("port", "ok", text)
    remedy = f"paddock serve --port {address.port + 1}, or end the other first."
    return Finding("port", "ok", text, remedy)


def holder(number: int) -> tuple[int, str]:
    """Name the process that listens, as far as this user may know; 0 and nothing else."""
    import psutil

    try:
        sockets = psutil.net_connections(kind="tcp")
        pid = next(s.pid for s in sockets if s.status == "LISTEN" and s.laddr[1:2] == (number,))
        return (pid, psutil.Process(pid).name()) if pid else (0, "")
    except (psutil.Error, StopIteration):
        return 0, ""


def is_unit(pid: int, unit: str) -> bool:
    """Tell whether systemd runs a process as this unit."""
    try:
        return f"/{unit}" in Path(f"/proc/{pid}/cgroup").read_text("utf-8")
    except OSError:
        return False


def prefect(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Ask the Prefect server that runs would be tracked by, where one is named."""
    url = environ.get("PREFECT_API_URL", "").strip()
    if not url:
        yield Finding("prefect", "ok", _without_a_server_named(environ))
        return
    status, answer = _get(url.rstrip("/") + "/health")
    if status == 200:
        yield Finding("prefect", "ok", f"{_without_secret(url)} answers")
        return
    why = f"status {status}" if status else answer
    remedy = "Start it (`prefect server start`), correct PREFECT_API_URL, or run with --local."
    yield Finding("prefect", "warning", f"{_without_secret(url)} does not answer: {why}", remedy)


def _without_a_server_named(environ: Mapping[str, str]) -> str:
    if environ.get("CI", "").strip().lower() not in ("", "0", "false", "no", "off"):
        return "PREFECT_API_URL is not set and CI is: runs are not tracked"
    return "runs are shown by the local service's own server (`paddock service status`)"


def pools(settings: Settings) -> Iterator[Finding]:
    """Ask the servers that the settings name in place of this machine's pool."""
    headers = {"Authorization": f"Bearer {settings.pool_key}"} if settings.pool_key else {}
    for url in settings.pool_urls:
        status, answer = _get(f"{url}/v1/models", headers)
        if status == 200:
            yield Finding("pool", "ok", f"{url} answers")
        elif status in (401, 403):
            remedy = "Set PADDOCK_POOL_KEY to a key of that server."
            yield Finding("pool", "warning", f"{url} refuses the key ({status})", remedy)
        else:
            why = f"status {status}" if status else answer
            remedy = "Start it there, or correct PADDOCK_POOL."
            yield Finding("pool", "warning", f"{url} does not answer: {why}", remedy)


def _without_secret(url: str) -> str:
    """Leave out a password that stands in the address."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Ask once; status 0 and the reason when nobody answers in time."""
    parts = urlsplit(url)
    is_https = parts.scheme == "https"
    kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
    try:
        link = kind(parts.hostname or "", parts.port, timeout=ANSWER_S)
        link.request("GET", parts.path or "/", headers=dict(headers or {}))
        answer = link.getresponse()
        return answer.status, answer.read(10_000).decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
