"""Anthropic's API: which handler answers which path. Knows nothing of their work."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from paddock.engine.api.errors import guarded

from .messages import count_tokens, messages


def routes() -> list[BaseRoute]:
    """Give every route of this dialect."""
    return [
        Route("/v1/messages", guarded(messages), methods=["POST"]),
        Route("/v1/messages/count_tokens", guarded(count_tokens), methods=["POST"]),
    ]
