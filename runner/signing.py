"""Signatures (HMAC) of what Paddock writes into Prefect, to be checked when it is read back.

Who reaches Prefect's API can make flow runs and change those that are there, so a run that is taken
from Prefect's queue proves by its signature that Paddock put it there with these parameters. The
key lies with the state of this user; for several machines, in their common PostgreSQL.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .prefect_auth import kept_secret

SIGNATURE = "signature"
"""The flow's parameter that holds it."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs and checks with one key."""

    _key: bytes = field(repr=False)

    def signed(self, parameters: Mapping[str, Any], run_key: str) -> dict[str, Any]:
        """Return a run's parameters with their signature.

        `run_key` is the flow run's idempotency key: the signature is of no use to another run.
        """
        plain = {name: value for name, value in parameters.items() if name != SIGNATURE}
        return {**plain, SIGNATURE: self._mac("run", run_key, _canonical(plain))}

    def has_signed(self, parameters: Mapping[str, Any], run_key: str) -> bool:
        """Return whether a run has exactly the parameters that were signed for it."""
        found = parameters.get(SIGNATURE)
        if not isinstance(found, str) or not run_key:
            return False
        expected = self.signed(parameters, run_key)[SIGNATURE]
        return hmac.compare_digest(found.encode(), expected.encode())

    def signed_process(self, flow_run: str, mark: str) -> str:
        """Return the mark of the process that carries out a flow run, with its signature."""
        return f"{mark}:{self._mac('process', flow_run, mark)}"

    def process(self, flow_run: str, written: str) -> str:
        """Return the mark in what `signed_process` wrote; empty where it is not our own."""
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
        from .ledger.common import signing_key  # psycopg takes a tenth of a second to import

        return Signer(signing_key(ledger_url).encode())
    return Signer(kept_secret(state_dir / "residence" / "runs.key").encode())


def _canonical(parameters: Mapping[str, Any]) -> str:
    """Return the same text before and after Prefect's database, which may turn 1.0 into 1."""
    return json.dumps(_plain(parameters), sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
