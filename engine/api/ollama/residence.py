"""Requests that ask nothing: they bring a model into memory, or let it go.

Knows no answer. A model that is not loaded, or no longer on disk, can be let go as well.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from paddock.engine.api.streaming import while_connected

from .asking import Asked
from .telling import head


async def come_or_go(request: Request, asked: Asked) -> dict[str, Any]:
    """Load the model or unload it; gives the object that says so, without what is said in it.

    Raises:
        EngineError: it cannot be loaded.
    """
    if asked.is_unload:
        await asked.service.pool.unload(asked.spec.ref)
        reason = "unload"
    else:
        await while_connected(request, asked.service.pool.load(asked.spec))
        reason = "load"
    return {**head(asked.model), "done": True, "done_reason": reason}
