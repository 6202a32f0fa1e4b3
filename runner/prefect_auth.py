"""Authentication with Prefect's API: the password of our own server, and the one another asks for.

Our own server listens on a loopback port, which every local user reaches, so it asks for a
password (Prefect's basic auth). It is random and made once, in a file that its owner alone can
read, and reaches other processes through their environment or a pipe, never through a command line.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from paddock.engine.system import private

USER = "paddock"
CLIENT_VARIABLE = "PREFECT_API_AUTH_STRING"
SERVER_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
_SECRET_BYTES = 32


def password_file(state_dir: Path) -> Path:
    """Return where the password of this machine's own Prefect server is kept."""
    return state_dir / "residence" / "prefect.password"


def own_auth_string(state_dir: Path) -> str:
    """Return `user:password` of our own server; make it where there is none.

    Raises:
        OSError: the file cannot be read or written.
    """
    return kept_secret(password_file(state_dir), prefix=f"{USER}:")


def own_headers(state_dir: Path) -> dict[str, str]:
    """Return the HTTP headers that our own server asks for.

    Raises:
        OSError: the password's file cannot be read or written.
    """
    return basic(own_auth_string(state_dir))


def headers_from(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the HTTP headers for the server that PREFECT_API_URL names, as Prefect's client does.

    >>> headers_from({"PREFECT_API_KEY": "k"}), headers_from({})
    ({'Authorization': 'Bearer k'}, {})
    >>> headers_from({"PREFECT_API_AUTH_STRING": "ada:secret", "PREFECT_API_KEY": "k"})
    {'Authorization': 'Basic YWRhOnNlY3JldA=='}
    """
    if auth_string := environ.get(CLIENT_VARIABLE, "").strip():
        return basic(auth_string)
    if api_key := environ.get("PREFECT_API_KEY", "").strip():
        return {"Authorization": f"Bearer {api_key}"}
    return {}


def basic(auth_string: str) -> dict[str, str]:
    """Return the header of HTTP's basic authentication."""
    return {"Authorization": f"Basic {base64.b64encode(auth_string.encode()).decode()}"}


def kept_secret(file: Path, *, prefix: str = "") -> str:
    """Return the secret in this file; write a random one where there is none.

    Processes that ask at the same time get the same one.

    Raises:
        OSError: the file cannot be read or written, or belongs to another user.
    """
    if found := _read(file):
        return found
    private.folder(file.parent)
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private.FILE)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(f"{prefix}{secrets.token_urlsafe(_SECRET_BYTES)}\n")
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):  # another process was quicker
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    if found := _read(file):
        return found
    raise OSError(None, "the file is empty; remove it, and a new one is made", str(file))


def _read(file: Path) -> str:
    """Return what a secret's file holds; empty where there is no file."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    with os.fdopen(handle, encoding="utf-8") as found:
        facts = os.fstat(found.fileno())
        if facts.st_uid != os.getuid():
            raise PermissionError(None, "the file belongs to another user", str(file))
        if facts.st_mode & 0o077:
            os.fchmod(found.fileno(), private.FILE)
        return found.read().strip()
