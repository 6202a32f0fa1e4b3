"""Models as Anthropic's clients read them. Pure.

They ask at the path at which OpenAI's do (`/v1/models`), and are known by their header.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from paddock.engine.api.clock import rfc3339
from paddock.engine.store.cards import Card


def is_anthropics(request: Request) -> bool:
    """Tell whether a client of Anthropic's API asks."""
    return "anthropic-version" in request.headers


def list_value(listed: Sequence[Card]) -> dict[str, Any]:
    """Write a list of models; all are on its one page."""
    data = [model_value(one.name, one) for one in listed]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": ends[0], "last_id": ends[1]}


def model_value(name: str, card: Card) -> dict[str, Any]:
    """Write one model."""
    return {
        "type": "model",
        "id": name,
        "display_name": card.name,
        "created_at": rfc3339(card.modified_at),
        "lifecycle": "active",
    }
