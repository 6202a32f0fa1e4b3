"""Read who we are to a registry, as `docker login` and `podman login` write it down. No network.

A file says `{"auths": {"registry.example:5000": {"auth": base64("user:password")}}}`. Helpers that
keep passwords elsewhere (`credsStore`) are not asked: that would start a foreign program.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable
from pathlib import Path

from .options import Credentials


def places() -> list[Path]:
    """Tell where such files lie, the most particular first."""
    found = [Path(os.environ[name]) for name in ("REGISTRY_AUTH_FILE",) if os.environ.get(name)]
    folder = os.environ.get("DOCKER_CONFIG")
    found.append((Path(folder) if folder else Path.home() / ".docker") / "config.json")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime) / "containers" / "auth.json")
    return found


def read_credentials(files: Iterable[Path]) -> dict[str, Credentials]:
    """Give what these files know, by host; the first that knows a host counts."""
    known: dict[str, Credentials] = {}
    for file in files:
        for host, found in _in_file(file).items():
            known.setdefault(host, found)
    return known


def _in_file(file: Path) -> dict[str, Credentials]:
    try:
        auths = json.loads(file.read_text("utf-8"))["auths"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # nobody logged in, or a file of another kind
    read = {_host(address): _decoded(entry) for address, entry in auths}
    return {host: found for host, found in read.items() if found is not None}


def _host(address: str) -> str:
    """Give the host of an entry: some are written as `https://host/v1/`."""
    return address.partition("://")[2].split("/")[0] if "://" in address else address.split("/")[0]


def _decoded(entry: object) -> Credentials | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("auth"), str):
        return None
    try:
        text = base64.b64decode(entry["auth"], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, colon, password = text.partition(":")
    return Credentials(user, password.rstrip("\0")) if colon else None
