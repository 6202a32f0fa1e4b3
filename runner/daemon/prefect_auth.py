"""Authentication with Prefect: server passwords, and signatures of queued runs.

Our own server listens on a loopback port, which every local user can reach, so it asks for a
password (Prefect's basic auth): random, made once, in a file that only its owner can read, and
passed to other processes by their environment or a pipe, never on a command line. Any client of
Prefect's API can create and change flow runs. A run that is taken from its queue therefore carries
an HMAC, which proves that Paddock put it there with these parameters. The key lies in this user's
state folder; for several machines, in their common PostgreSQL.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.engine.system import files

USER = "paddock"
CLIENT_VARIABLE = "PREFECT_API_AUTH_STRING"
SERVER_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
_SECRET_BYTES = 32


def password_file(state_dir: Path) -> Path:
    """Return the file with the password of this machine's own Prefect server."""
    return state_dir / "residence" / "prefect.password"


def own_auth_string(state_dir: Path) -> str:
    """Return `user:password` of our own server; make it at the first call.

    Raises:
        OSError: the file cannot be read or written.
    """
    return stored_secret(password_file(state_dir), prefix=f"{USER}:")


def basic_auth_headers(auth_string: str) -> dict[str, str]:
    """Return the header of HTTP basic authentication."""
    return {"Authorization": f"Basic {base64.b64encode(auth_string.encode()).decode()}"}


def stored_secret(file: Path, *, prefix: str = "") -> str:
    """Return the secret in this file; write a random one when there is none.

    Processes that ask at the same time get the same one.

    Raises:
        OSError: the file cannot be read or written, or belongs to another user.
    """
    if found := _read_secret_file(file):
        return found
    files.create_once(file, f"{prefix}{secrets.token_urlsafe(_SECRET_BYTES)}\n")
    if found := _read_secret_file(file):
        return found
    raise OSError(None, "the file is empty; remove it, then a new one is made", str(file))


def _read_secret_file(file: Path) -> str:
    """Return the content of a secret's file; empty when there is no file."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    with os.fdopen(handle, encoding="utf-8") as found:
        facts = os.fstat(found.fileno())
        if facts.st_uid != os.getuid():
            raise PermissionError(None, "the file belongs to another user", str(file))
        if facts.st_mode & 0o077:
            os.fchmod(found.fileno(), files.PRIVATE_FILE)
        return found.read().strip()


SIGNATURE = "signature"
"""Name of the flow's parameter with the signature."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Sign and verify with one key."""

    _key: bytes = field(repr=False)

    def signed(self, parameters: Mapping[str, Any], run_key: str) -> dict[str, Any]:
        """Return a run's parameters with their signature.

        `run_key` is the flow run's idempotency key: the signature is not valid for another run.
        """
        plain = {name: value for name, value in parameters.items() if name != SIGNATURE}
        return {**plain, SIGNATURE: self._mac("run", run_key, _canonical_parameters(plain))}

    def has_signed(self, parameters: Mapping[str, Any], run_key: str) -> bool:
        """Return whether exactly these parameters were signed for this run."""
        found = parameters.get(SIGNATURE)
        if not isinstance(found, str) or not run_key:
            return False
        expected = self.signed(parameters, run_key)[SIGNATURE]
        return hmac.compare_digest(found.encode(), expected.encode())

    def signed_process(self, flow_run: str, mark: str) -> str:
        """Return the mark of the process that carries out a flow run, with its signature."""
        return f"{mark}:{self._mac('process', flow_run, mark)}"

    def process(self, flow_run: str, written: str) -> str:
        """Return the mark that `signed_process` wrote; empty when the signature is not our own."""
        mark, _, found = written.rpartition(":")
        expected = self._mac("process", flow_run, mark)
        return mark if hmac.compare_digest(found.encode(), expected.encode()) else ""

    def _mac(self, kind: str, about: str, text: str) -> str:
        message = json.dumps([kind, about, text]).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def signer_for(state_dir: Path, ledger_url: str) -> Signer:
    """Return the signer of this user, or of the machines that share a ledger in PostgreSQL. Blocks.

    Raises:
        LedgerError: the database cannot be used.
        OSError: the key's file cannot be read or written.
    """
    if ledger_url:
        # psycopg takes a tenth of a second to import
        from paddock.runner.ledger.coordination import signing_key

        return Signer(signing_key(ledger_url).encode())
    return Signer(stored_secret(state_dir / "residence" / "runs.key").encode())


def _canonical_parameters(parameters: Mapping[str, Any]) -> str:
    """Return a text that survives Prefect's database, which may turn 1.0 into 1."""
    return json.dumps(_plain_value(parameters), sort_keys=True, separators=(",", ":"))


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain_value(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
