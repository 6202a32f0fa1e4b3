"""The signature that a caller of a webhook makes."""

import hashlib
import hmac


def sign_body(secret: str, body: bytes, now_s: int) -> str:
    """Return the X-Paddock-Signature of a body at this time."""
    signed = f"{now_s}.".encode() + body
    return f"t={now_s},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
