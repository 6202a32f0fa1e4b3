"""Tell by a webhook: a POST with the message as JSON. Follows no redirect."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

from .message import Message
from .ways import ATTEMPT_S, Untold, with_patience

_SAID_CHARS = 200


async def call(url: str, message: Message) -> None:
    """POST a message; busy and broken servers are asked again.

    Raises:
        Untold: no answer of 2xx.
    """
    import httpx  # 0.3 s, which only who tells something pays

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Untold("this is no address that begins with http:// or https://")
    # The same for each attempt, so that a receiver can tell a repetition from more news.
    key = hashlib.sha256(repr((message.event, message.data)).encode()).hexdigest()[:32]
    headers = {"User-Agent": "paddock", "Idempotency-Key": key}
    async with httpx.AsyncClient(timeout=ATTEMPT_S, headers=headers) as client:

        async def send() -> None:
            try:
                answer = await client.post(url, json=dict(message.data))
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
                raise Untold(f"{parts.hostname}: {why}", is_passing=True) from error
            except (httpx.InvalidURL, ValueError) as error:
                raise Untold(f"this address cannot be called ({error})") from error
            _check(parts.hostname, answer)

        await with_patience(send)


def _check(host: str | None, answer: Any) -> None:
    if answer.is_success:
        return
    is_passing = answer.status_code in (408, 425, 429) or answer.status_code >= 500
    said = " ".join(answer.text.split())[:_SAID_CHARS]
    words = f"{host} answered {answer.status_code}" + (f": {said}" if said else "")
    raise Untold(words, is_passing=is_passing)
