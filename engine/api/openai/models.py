"""/v1/models: which models there are. Anthropic's clients ask here, too."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.anthropic.listed import is_anthropics, list_value, model_value
from paddock.engine.api.service import service_of
from paddock.engine.api.streaming import json_response
from paddock.engine.store.cards import Card, cards, describe
from paddock.engine.store.names import parse_name

from .refusals import in_openais_words
from .wishes import ref_of


async def listing(request: Request) -> Response:
    """List the models, the newest first."""
    listed = await asyncio.to_thread(cards, service_of(request).finder)
    if is_anthropics(request):
        return json_response(list_value(listed))
    return json_response({"object": "list", "data": [_value(one.name, one) for one in listed]})


async def one(request: Request) -> Response:
    """Look at a model, by the name that it was asked for."""
    name: str = request.path_params["name"]
    with in_openais_words():
        card = await asyncio.to_thread(describe, service_of(request).finder, ref_of(name))
    if is_anthropics(request):
        return json_response(model_value(name, card))
    return json_response(_value(name, card))


def _value(name: str, card: Card) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(card.modified_at.timestamp()),
        "owned_by": parse_name(name).namespace,
    }
