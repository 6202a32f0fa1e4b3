"""Digests of secrets, by which a run sees that one has changed since another run.

They lie in ledgers, where anyone may read them; only this user's key can check one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

from .prefect_auth import stored_secret


def digest_key(state_dir: Path) -> bytes:
    """Return this user's key; make it at the first call. Blocks.

    Raises:
        OSError: the key's file cannot be read or written.
    """
    return stored_secret(state_dir / "residence" / "runs.key").encode()


def secret_digest(key: bytes, text: str) -> str:
    """Return the key's id and the digest of a secret's text.

    Those of different keys tell nothing of each other.

    >>> secret_digest(b"key", "x")
    'baf7232d:28dec1fa32cfbb42'
    """
    return f"{_mac(key, 'key', '')[:8]}:{_mac(key, 'secret', text)[:16]}"


def _mac(key: bytes, kind: str, text: str) -> str:
    return hmac.new(key, json.dumps([kind, "", text]).encode(), hashlib.sha256).hexdigest()
