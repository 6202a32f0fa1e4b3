"""Ask the local service how it is, and to end. Plain and blocking, so quick to import."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from .place import NoResidence
from .record import Residence

PREFIX = "/paddock/residence"
ANSWER_S = 10.0


class _Link(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path, within_s: float) -> None:
        super().__init__("paddock", timeout=within_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    residence: Residence,
    path: str = "",
    body: dict[str, Any] | None = None,
    *,
    within_s: float = ANSWER_S,
) -> dict[str, Any]:
    """Get what it tells, or send it a wish.

    Raises:
        NoResidence: it does not answer in time, or says no.
    """
    link = _Link(residence.socket, within_s)
    try:
        sent = json.dumps(body).encode() if body is not None else None
        link.request("GET" if sent is None else "POST", PREFIX + path, sent)
        answer = link.getresponse()
        said = json.loads(answer.read() or b"{}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise NoResidence(
            f"The local service (process {residence.pid}) does not answer: {why.rstrip('.')}.\n"
            f"  End it by `kill {residence.pid}`; the next run starts another."
        ) from None
    finally:
        link.close()
    if not isinstance(said, dict):
        raise NoResidence("The local service answered with something that is no JSON object.")
    if answer.status != 200:
        raise NoResidence(str(said.get("error") or f"The local service said {answer.status}."))
    return said
