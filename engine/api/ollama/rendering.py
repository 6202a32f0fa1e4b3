"""`_debug_render_only`: the very prompt that a model would be given, and no answer.

Knows no template: the prompt's tokens are read back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request

from paddock.engine.api.streaming import while_connected
from paddock.engine.request import ChatRequest

from .asking import Asked
from .telling import head


async def rendered(request: Request, asked: Asked, wanted: ChatRequest) -> dict[str, Any]:
    """Give the object that holds the prompt, as Ollama writes it.

    Raises:
        EngineError: the prompt cannot be made.
    """
    once = {**wanted.params, "max_tokens": 1}
    probe = replace(wanted, params=once, constraint=None, n_logprobs=None, wants_tokens=True)

    async def ask() -> str:
        reply = await asked.service.pool.chat(probe, waits=False).reply()
        prompt = [one for one in reply.tokens[: reply.usage.prompt_tokens] if one >= 0]
        return await asked.service.pool.detokenise(asked.spec, prompt)

    told: dict[str, Any] = {"rendered_template": await while_connected(request, ask())}
    n_images = len(wanted.images) + sum(len(one.images) for one in wanted.messages)
    if n_images:
        told["image_count"] = n_images
    return {**head(asked.model), "done": False, "_debug_info": told}
