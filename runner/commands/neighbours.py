"""Look at the servers around: who holds our port, whether Prefect answers. Asks, starts nothing."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from .findings import Finding

ANSWER_S = 3.0
PORT = 11434  # Ollama's, and that of `paddock serve`


def port(number: int = PORT) -> Iterator[Finding]:
    """Say who holds the port that Paddock's and Ollama's servers use, if anybody does."""
    address = f"127.0.0.1:{number}"
    try:
        with socket.create_connection(("127.0.0.1", number), timeout=0.3):
            pass
    except OSError:
        yield Finding("port", "ok", f"{address} is free")
        return
    status, answer = _get(f"http://{address}/")
    who = answer.strip().splitlines()[0][:60] if status == 200 and answer.strip() else "a program"
    yield Finding("port", "ok", f"{address} is taken: {who}{_holder(number)}")


def _holder(number: int) -> str:
    """Name the process that listens, as far as this user may know."""
    import psutil

    try:
        sockets = psutil.net_connections(kind="tcp")
        pid = next(s.pid for s in sockets if s.status == "LISTEN" and s.laddr[1:] == (number,))
        return f" ({psutil.Process(pid).name()}, process {pid})" if pid else ""
    except (psutil.Error, StopIteration):
        return ""


def prefect(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Ask the Prefect server that runs would be tracked by, where one is named."""
    url = environ.get("PREFECT_API_URL", "").strip()
    if not url:
        yield Finding("prefect", "ok", "PREFECT_API_URL is not set; runs are local")
        return
    status, answer = _get(url.rstrip("/") + "/health")
    if status == 200:
        yield Finding("prefect", "ok", f"{_without_secret(url)} answers")
        return
    why = f"status {status}" if status else answer
    remedy = "Start it (`prefect server start`), correct PREFECT_API_URL, or run with --local."
    yield Finding("prefect", "warning", f"{_without_secret(url)} does not answer: {why}", remedy)


def _without_secret(url: str) -> str:
    """Leave out a password that stands in the address."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _get(url: str) -> tuple[int, str]:
    """Ask once; status 0 and the reason when nobody answers in time."""
    parts = urlsplit(url)
    is_https = parts.scheme == "https"
    kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
    try:
        link = kind(parts.hostname or "", parts.port, timeout=ANSWER_S)
        link.request("GET", parts.path or "/")
        answer = link.getresponse()
        return answer.status, answer.read(10_000).decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
