"""Passwords of Prefect's servers.

Our own server listens on a loopback port, which every local user can reach, so it asks for a
password (Prefect's basic auth): random, made once, in a file that only its owner can read, and
passed to other processes by their environment or a pipe, never on a command line.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from paddock.engine.system import files, private_files

USER = "paddock"
CLIENT_VARIABLE = "PREFECT_API_AUTH_STRING"
SERVER_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
_SECRET_BYTES = 32


def password_file(state_dir: Path) -> Path:
    return state_dir / "residence" / "prefect.password"


def own_auth_string(state_dir: Path) -> str:
    """Return `user:password` of our own server; make it at the first call.

    Raises:
        OSError: the file cannot be read or written.
    """
    return stored_secret(password_file(state_dir), prefix=f"{USER}:")


def basic_auth_headers(auth_string: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(auth_string.encode()).decode()}"}


def stored_secret(file: Path, *, prefix: str = "") -> str:
    """Return the secret in this file; write a random one when there is none.

    Processes that ask at the same time get the same one.

    Raises:
        OSError: the file cannot be read or written, or belongs to another user.
    """
    if secret := _read_secret_file(file):
        return secret
    files.create_once(file, f"{prefix}{secrets.token_urlsafe(_SECRET_BYTES)}\n")
    if secret := _read_secret_file(file):
        return secret
    raise OSError(None, "the file is empty; remove it, then a new one is made", str(file))


def _read_secret_file(file: Path) -> str:
    """Return the content of a secret's file; empty when there is no file."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    with os.fdopen(handle, encoding="utf-8") as opened:
        facts = os.fstat(opened.fileno())
        if facts.st_uid != os.getuid():
            raise PermissionError(None, "the file belongs to another user", str(file))
        if facts.st_mode & 0o077:
            os.fchmod(opened.fileno(), private_files.PRIVATE_FILE)
        return opened.read().strip()
