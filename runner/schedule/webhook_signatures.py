"""Signatures of webhooks.

Two signatures: GitHub's `X-Hub-Signature-256: sha256=HEX` over the body; and `X-Paddock-Signature:
t=SECONDS,v1=HEX` over `SECONDS.body`, which cannot be replayed later. A recorded call can be
replayed in the first form; its delivery id then gives the run that exists already.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

GITHUB_HEADER, OWN_HEADER = "x-hub-signature-256", "x-paddock-signature"
MOST_APART_S = 300.0
"""The largest difference between the caller's clock and ours."""


class BadSignature(Exception):
    """The signature is not valid; the reason is for the person who set it up."""


def check_signature(
    secret: str, headers: Mapping[str, str], body: bytes, now_s: float
) -> str | None:
    """Verify a call's signature; the names in `headers` are lower-case.

    Returns an id that no other call has, however it is written; None for a form without one.

    Raises:
        BadSignature: it is missing, wrong, or too old.
    """
    own, github = headers.get(OWN_HEADER), headers.get(GITHUB_HEADER)
    if own is None and github is None:
        raise BadSignature(
            "the call is not signed: X-Hub-Signature-256 or X-Paddock-Signature is missing."
        )
    if own is None:
        if not _is_same(github or "", f"sha256={_mac(secret, body)}"):
            raise BadSignature("the signature in X-Hub-Signature-256 is wrong.")
        return None
    parts = dict(part.strip().partition("=")[::2] for part in own.split(","))
    at = parts.get("t", "")
    if not (at.isascii() and at.isdigit() and len(at) < 15) or "v1" not in parts:
        raise BadSignature("X-Paddock-Signature must read `t=SECONDS,v1=HEX`.")
    if not _is_same(parts["v1"], _mac(secret, f"{at}.".encode() + body)):
        raise BadSignature("the signature in X-Paddock-Signature is wrong.")
    apart_s = now_s - int(at)
    if abs(apart_s) > MOST_APART_S:
        when = "in the future" if apart_s < 0 else "ago"
        raise BadSignature(f"the call was signed {abs(apart_s):.0f} s {when}; compare the clocks.")
    return parts["v1"]


def _mac(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _is_same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())
