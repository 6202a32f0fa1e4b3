"""Sign a request for a token with the key that Ollama made, as its own registry wants it.

Knows no network. Ollama keeps the key in `~/.ollama/id_ed25519`, and an account at ollama.com knows
its public half. The form is that of github.com/ollama/ollama, auth/auth.go, `Sign`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from pathlib import Path

import httpx


def key_file() -> Path:
    """Tell where Ollama keeps it."""
    return Path.home() / ".ollama" / "id_ed25519"


def signed(url: httpx.URL, file: Path) -> tuple[httpx.URL, str] | None:
    """Give the address to ask, marked with time and a number for this once, and the signature.

    None: there is no such key, so we are nobody.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_ssh_private_key,
    )

    try:
        key = load_ssh_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, Ed25519PrivateKey):
        return None
    nonce = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
    marked = url.copy_merge_params({"ts": str(int(time.time())), "nonce": nonce})
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    return marked, f"{public.decode()}:{base64.b64encode(key.sign(message(marked))).decode()}"


def message(url: httpx.URL) -> bytes:
    """Give what is signed: the method, the address, and the digest of an empty body."""
    empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
    return f"GET,{url},{empty}".encode()
