"""Refuse a request before it reaches a handler, in the words of the dialect that it speaks."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from .errors import ApiError, error_response


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    *,
    code: str | None = None,
) -> None:
    """Send a whole answer that says why."""
    response = error_response(scope["path"], ApiError(status, message, headers, code=code))
    await response(scope, receive, send)
