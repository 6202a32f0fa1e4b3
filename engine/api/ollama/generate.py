"""POST /api/generate: one prompt, one answer; or a model loaded, or let go.

Knows no HTTP but its request. Source of the checks and their order: github.com/ollama/ollama,
server/routes.go, `GenerateHandler`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.bodies import flag_of, integers_of, text_of
from paddock.engine.api.errors import ApiError
from paddock.engine.api.streaming import json_response
from paddock.engine.errors import BadRequest, NoInsert
from paddock.engine.request import ChatRequest, Chunk, Message, Reply

from .abilities import abilities_of, demand
from .asking import (
    Asked,
    ask,
    base_request,
    fields_of,
    full_name,
    read_images,
    read_think,
    top_logprobs,
)
from .rendering import rendered
from .residence import come_or_go
from .telling import logprobs, tell


async def generate(request: Request) -> Response:
    """Answer a prompt."""
    body = await fields_of(request)
    top_logprobs(body)
    asked = await ask(request, body)
    is_raw = flag_of(body, "raw")
    template, system = text_of(body, "template"), text_of(body, "system")
    context = integers_of(body, "context")
    if is_raw and (template or system or context):
        raise ApiError(400, "raw mode does not support template, system, or context")
    prompt, suffix = text_of(body, "prompt"), text_of(body, "suffix")
    images = read_images(body)
    if not prompt and asked.is_unload:
        return json_response({**await come_or_go(request, asked), "response": ""})
    abilities = await abilities_of(asked)
    demand(asked, abilities, "completion", "generate")
    think = read_think(body.get("think"), asked.model, abilities)
    if suffix:
        demand(asked, abilities, "insert")
    if not prompt:
        return json_response({**await come_or_go(request, asked), "response": ""})
    if template:
        await asyncio.to_thread(_check_template, template)
    wanted = base_request(asked, (), think)
    if is_raw:
        wanted = replace(wanted, prompt=prompt, images=images)
    elif suffix:
        wanted = replace(wanted, prompt=prompt, suffix=suffix, template=template or None)
    else:
        said = (Message("system", system),) if system else ()
        turns = (*said, Message("user", prompt, images=images))
        wanted = replace(wanted, messages=turns, template=template or None)
    wanted = replace(wanted, prompt_tokens=tuple(context), wants_tokens=not is_raw)
    if flag_of(body, "_debug_render_only"):
        return json_response({**await rendered(request, asked, wanted), "response": ""})
    return await _told(request, asked, wanted, is_raw=is_raw)


def _check_template(source: str) -> None:
    """Refuse a template that cannot be read.

    Raises:
        ApiError: 500, as Ollama has it.
    """
    from paddock.engine.dialogue.templates import read_template  # brings Jinja2: 40 ms

    try:
        read_template(source)
    except BadRequest as error:
        raise ApiError(500, f"template error: {error}") from None


async def _told(request: Request, asked: Asked, wanted: ChatRequest, *, is_raw: bool) -> Response:
    def end(reply: Reply) -> dict[str, Any]:
        return {} if is_raw else {"context": list(reply.tokens)}

    try:
        return await tell(request, asked, wanted, _piece, end)
    except NoInsert:
        raise ApiError(400, f"{full_name(asked.spec.ref)} does not support insert") from None


def _piece(chunk: Chunk) -> dict[str, Any]:
    told: dict[str, Any] = {"response": chunk.text}
    if chunk.reasoning:
        told["thinking"] = chunk.reasoning
    return {**told, **logprobs(chunk)}
