"""Is a webhook's call from somebody who knows the secret? Pure: no clock, no network.

Two forms: GitHub's, `X-Hub-Signature-256: sha256=HEX` over the body; and `X-Paddock-Signature:
t=SECONDS,v1=HEX` over `SECONDS.body`, which cannot be sent again later. A call that was recorded
can be repeated in the first form; its delivery's id then gives the run that is there already.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

GITHUB, OWN = "x-hub-signature-256", "x-paddock-signature"
MOST_APART_S = 300.0
"""How far the caller's clock may be from ours."""


class Refused(Exception):
    """The call is not to be believed; says why, for whoever set it up."""


def check(secret: str, headers: Mapping[str, str], body: bytes, now_s: float) -> str | None:
    """Check a call's signature; `headers` have small letters.

    Gives what no other call has, however it is written; None: the form has no such thing.

    Raises:
        Refused: there is none, it is wrong, or it is too old.
    """
    own, github = headers.get(OWN), headers.get(GITHUB)
    if own is not None:
        return _check_own(secret, own, body, now_s)
    if github is None:
        raise Refused(
            "the call is not signed: X-Hub-Signature-256 or X-Paddock-Signature is missing."
        )
    if not _is_same(github, f"sha256={_mac(secret, body)}"):
        raise Refused("the signature in X-Hub-Signature-256 is wrong.")
    return None


def sign(secret: str, body: bytes, now_s: int) -> str:
    """Give what X-Paddock-Signature says of a body at this time.

    >>> sign("secret", b"{}", 1).startswith("t=1,v1=")
    True
    """
    return f"t={now_s},v1={_mac(secret, f'{now_s}.'.encode() + body)}"


def _check_own(secret: str, given: str, body: bytes, now_s: float) -> str:
    parts = dict(part.strip().partition("=")[::2] for part in given.split(","))
    at = parts.get("t", "")
    if not (at.isascii() and at.isdigit() and len(at) < 15) or "v1" not in parts:
        raise Refused("X-Paddock-Signature must read `t=SECONDS,v1=HEX`.")
    if not _is_same(parts["v1"], _mac(secret, f"{at}.".encode() + body)):
        raise Refused("the signature in X-Paddock-Signature is wrong.")
    apart_s = now_s - int(at)
    if abs(apart_s) > MOST_APART_S:
        when = "in the future" if apart_s < 0 else "ago"
        raise Refused(f"the call was signed {abs(apart_s):.0f} s {when}; compare the clocks.")
    return parts["v1"]


def _mac(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _is_same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())
