"""Signatures of queued runs: proof that Paddock put a run into the queue with these parameters.

Any client of Prefect's API can create and change flow runs. A run that is taken from its queue
therefore carries an HMAC. The key lies in this user's state folder.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.engine.system.light_dataclasses import dataclass, field

from .prefect_auth import stored_secret

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
        # Prefect's database may turn 1.0 into 1
        text = json.dumps(_plain_value(plain), sort_keys=True, separators=(",", ":"))
        return {**plain, SIGNATURE: self._mac("run", run_key, text)}

    def has_signed(self, parameters: Mapping[str, Any], run_key: str) -> bool:
        """Return whether exactly these parameters were signed for this run."""
        found = parameters.get(SIGNATURE)
        if not isinstance(found, str) or not run_key:
            return False
        expected = self.signed(parameters, run_key)[SIGNATURE]
        return hmac.compare_digest(found.encode(), expected.encode())

    def secret_digest(self, text: str) -> str:
        """Return the digest of a secret's text, which only the key can check, and its id.

        Those of different keys tell nothing of each other.
        """
        return f"{self._mac('key', '', '')[:8]}:{self._mac('secret', '', text)[:16]}"

    def _mac(self, kind: str, about: str, text: str) -> str:
        message = json.dumps([kind, about, text]).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def signer_for(state_dir: Path) -> Signer:
    """Return the signer of this user. Blocks.

    Raises:
        OSError: the key's file cannot be read or written.
    """
    return Signer(stored_secret(state_dir / "residence" / "runs.key").encode())


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
