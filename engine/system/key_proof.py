"""Proof that a listener knows a key, before a client sends that key.

Any user may listen at a free port, so a client does not know who answers there. It first sends a
nonce with an HMAC of it by the key's hash; only a server that has the key can check that, and
answers with a nonce of its own and an HMAC of both. The address that the client has reached is part
of both: who passes the question on to the real server has another one. Neither side learns more
than an HMAC, and a server gives none to who has not proved to know the key first.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from . import files, light_http

PROOF_PATH = "/api/key-proof"
HOME_SECRET = "proof.key"
"""In the service's state folder: what only this user's processes know."""
_NONCE_BYTES, _MOST_QUERY_CHARS = 24, 400
_CLIENT, _SERVER = "client", "server"


def knows_key(url: str, key: str, *, timeout_s: float) -> bool:
    """Return whether the server at an address knows a key; the key itself is not sent."""
    digest, nonce = hashlib.sha256(key.encode()).digest(), secrets.token_hex(_NONCE_BYTES)
    reached: list[str] = []

    def query(host: str, port: int) -> str:
        reached.append(_place(host, port))
        return urlencode({"nonce": nonce, "proof": _mac(digest, _CLIENT, nonce, reached[-1])})

    status, body = light_http.get(f"{url}{PROOF_PATH}", timeout_s=timeout_s, query=query)
    try:
        answer = json.loads(body) if status == 200 else {}
        right = _mac(digest, _SERVER, nonce, str(answer["nonce"]), *reached)
        return hmac.compare_digest(str(answer["proof"]).encode(), right.encode())
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def home_secret(state_dir: Path) -> str:
    """Return the secret of this user's processes; make it, if it is missing.

    Raises:
        OSError: it cannot be made or read.
    """
    file = state_dir / HOME_SECRET
    files.create_once(file, secrets.token_hex(32))
    return files.read_text(file).strip()


def key_proof(digests: Iterable[bytes], server: tuple[str, int], query: str) -> dict[str, str]:
    """Return a server's answer to the query of `knows_key`; empty: it proves none of the keys.

    `digests` are the keys' SHA-256, `server` the address that the client has reached.
    """
    given = parse_qs(query[:_MOST_QUERY_CHARS])
    nonce, proof = (given.get(name, [""])[0] for name in ("nonce", "proof"))
    place = _place(*server)
    for digest in digests if nonce else ():
        if hmac.compare_digest(proof.encode(), _mac(digest, _CLIENT, nonce, place).encode()):
            own = secrets.token_hex(_NONCE_BYTES)
            return {"nonce": own, "proof": _mac(digest, _SERVER, nonce, own, place)}
    return {}


def _place(host: str, port: int) -> str:
    address = ipaddress.ip_address(host.partition("%")[0])
    return f"{getattr(address, 'ipv4_mapped', None) or address} {port}"


def _mac(digest: bytes, *parts: str) -> str:
    return hmac.new(digest, "\0".join(parts).encode(), "sha256").hexdigest()
