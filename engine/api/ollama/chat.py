"""POST /api/chat: a conversation's next turn; or a model loaded, or let go.

Knows no HTTP but its request. Source of the checks and their order: github.com/ollama/ollama,
server/routes.go, `ChatHandler`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.bodies import flag_of, objects_of, text_of
from paddock.engine.api.errors import ApiError
from paddock.engine.api.streaming import json_response
from paddock.engine.request import Chunk, Reply

from .abilities import abilities_of, demand
from .asking import ask, base_request, fields_of, read_think, top_logprobs
from .rendering import rendered
from .residence import come_or_go
from .telling import logprobs, tell
from .turns import CallNumbers, read_message, read_tools, written_message


async def chat(request: Request) -> Response:
    """Answer a conversation."""
    body = await fields_of(request)
    top_logprobs(body)
    if not text_of(body, "model"):
        raise ApiError(400, "model is required")
    messages = tuple(read_message(one) for one in objects_of(body, "messages"))
    tools = read_tools(objects_of(body, "tools"))
    asked = await ask(request, body)
    if not messages and asked.is_unload:
        return json_response(_empty(await come_or_go(request, asked)))
    abilities = await abilities_of(asked)
    demand(asked, abilities, "completion", "chat")
    think = read_think(body.get("think"), asked.model, abilities)
    if tools:
        demand(asked, abilities, "tools")
    if not messages:
        return json_response(_empty(await come_or_go(request, asked)))
    wanted = replace(base_request(asked, messages, think), tools=tools)
    if flag_of(body, "_debug_render_only"):
        return json_response(_empty(await rendered(request, asked, wanted)))
    numbers = CallNumbers()

    def piece(chunk: Chunk) -> dict[str, Any]:
        return {"message": written_message(chunk, numbers), **logprobs(chunk)}

    def end(reply: Reply) -> dict[str, Any]:
        return {}

    return await tell(request, asked, wanted, piece, end)


def _empty(told: dict[str, Any]) -> dict[str, Any]:
    return {**told, "message": {"role": "assistant", "content": ""}}
