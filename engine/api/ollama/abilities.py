"""What a model can do, asked before it is loaded, and refused in Ollama's words.

Knows no template: what one allows, `paddock.engine.store.cards` says.
"""

from __future__ import annotations

import asyncio

from paddock.engine.api.errors import ApiError
from paddock.engine.store.cards import capabilities

from .asking import Asked, full_name


async def abilities_of(asked: Asked) -> frozenset[str]:
    """Tell a model's abilities: some of completion, tools, insert, vision, embedding, thinking."""
    return frozenset(await asyncio.to_thread(capabilities, asked.service.finder, asked.facts))


def demand(asked: Asked, abilities: frozenset[str], ability: str, verb: str = "") -> None:
    """Refuse a request that needs what its model cannot.

    Raises:
        ApiError: 400, with the model's name as Ollama writes it: as asked for what the request
            is, in full for what it contains.
    """
    if ability in abilities:
        return
    if verb:
        raise ApiError(400, f'"{asked.model}" does not support {verb}')
    raise ApiError(400, f"{full_name(asked.spec.ref)} does not support {ability}")
