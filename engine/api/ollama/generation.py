"""POST /api/generate and /api/chat: handlers, and their answers whole or as NDJSON.

An empty prompt loads the model, or unloads it with `keep_alive: 0`; a model that is not loaded or
no longer on disk can be unloaded, too. `_debug_render_only` returns the prompt instead of an
answer. An answer is cancelled when its client disconnects. Source of the checks and their order:
github.com/ollama/ollama, server/routes.go, `GenerateHandler` and `ChatHandler`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.body_models import Base64, Items, Needed
from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import read_json
from paddock.engine.api.streaming import (
    json_response,
    nanoseconds,
    ndjson_response,
    rfc3339,
    utc_now,
    while_connected,
)
from paddock.engine.backends.answer import Answer
from paddock.engine.chat.known_templates import jinja_template
from paddock.engine.errors import BadRequest, NoInsert, TemplateTooLarge, TemplateUnreadable
from paddock.engine.request import ChatRequest, Chunk, DoneReason, Message, Reply, Think
from paddock.engine.system.records import replace

from .requests import (
    AnswerBody,
    MessageBody,
    ModelRequest,
    ToolBody,
    capabilities_of,
    chat_request,
    chunk_as_message,
    full_name,
    read_model_request,
    read_think,
    require_capability,
)

ChunkFields = Callable[[Chunk], dict[str, Any]]
"""Returns the fields with a chunk's content."""
FinalFields = Callable[[Reply], dict[str, Any]]
"""Returns extra fields of the last object."""

# An answer that was stopped because it repeats itself is as incomplete as one at the limit.
_DONE_REASONS: Mapping[DoneReason, str] = {
    "stop": "stop",
    "length": "length",
    "repetition": "length",
}


async def respond(
    request: Request,
    model_request: ModelRequest,
    pool_request: ChatRequest,
    put: ChunkFields,
    end: FinalFields = lambda _: {},
) -> Response:
    found_s = time.monotonic() - model_request.began
    answer = model_request.service.pool.chat(pool_request, waits=False)
    if model_request.streams:
        pieces = _stream_chunks(model_request, answer, put, end, found_s)
        return await ndjson_response(
            request,
            pieces,
            lambda: warning_header(answer.prompt_tokens_original),
            lambda: {**response_head(model_request.model), **put(Chunk("", 0)), "done": False},
        )
    try:
        reply = await while_connected(request, answer.reply())
    finally:
        answer.cancel()
    whole = Chunk(reply.text, 0, reply.reasoning, reply.tool_calls, reply.logprobs)
    body = {
        **response_head(model_request.model),
        **put(whole),
        **_final_fields(model_request, reply, found_s),
        **end(reply),
    }
    return json_response(body, headers=warning_header(answer.prompt_tokens_original))


async def _stream_chunks(
    model_request: ModelRequest, answer: Answer, put: ChunkFields, end: FinalFields, found_s: float
) -> AsyncGenerator[dict[str, Any], None]:
    try:
        async for chunk in answer:
            if not (chunk.text or chunk.reasoning or chunk.tool_calls or chunk.logprobs):
                continue  # an incomplete tool call or character
            first, others = chunk.tool_calls[:1], chunk.tool_calls[1:]
            parts = (Chunk("", 0, tool_calls=(call,)) for call in others)
            for part in (replace(chunk, tool_calls=first), *parts):  # clients read one call a line
                yield {**response_head(model_request.model), **put(part), "done": False}
        reply = await answer.reply()
        last = _final_fields(model_request, reply, found_s)
        yield {**response_head(model_request.model), **put(Chunk("", 0)), **last, **end(reply)}
    finally:
        answer.cancel()


def response_head(model: str) -> dict[str, Any]:
    return {"model": model, "created_at": rfc3339(utc_now())}


def _final_fields(model_request: ModelRequest, reply: Reply, found_s: float) -> dict[str, Any]:
    value: dict[str, Any] = {"done": True, "done_reason": _DONE_REASONS[reply.done_reason]}
    if reply.done_reason == "repetition":
        value["stopped_by"] = "repetition"
    # A request's numbers. Zeros are left out, as in Go. `load_duration` is `found_s`, the time to
    # read the request and find the model, plus the time to load it. So it is never zero; clients
    # divide by it.
    usage = reply.usage
    counted = {
        "total_duration": nanoseconds(time.monotonic() - model_request.began),
        "load_duration": nanoseconds(found_s + usage.load_s),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(usage.prefill_s),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(usage.decode_s),
    }
    fields = {name: value for name, value in counted.items() if value}
    if usage.shifted_tokens:
        fields["shifted_tokens"] = usage.shifted_tokens
    # Ours, and always present: an empty queue differs from an unknown one.
    fields["queue_duration"] = nanoseconds(usage.queue_s)
    fields["cached_tokens"] = usage.prompt_reused_tokens
    if usage.prompt_reused_tokens:  # Ollama's own name since 0.33.3
        fields["prompt_eval_cached_count"] = usage.prompt_reused_tokens
    value |= fields
    if reply.fingerprint:
        value["system_fingerprint"] = reply.fingerprint
    if reply.prompt_tokens_original is not None:
        value |= {"truncated": True, "prompt_tokens_original": reply.prompt_tokens_original}
    return value


def logprobs_value(chunk: Chunk) -> dict[str, Any]:
    """Return a chunk's log probabilities; no field where there are none."""

    def value(raw: bytes, logprob: float) -> dict[str, Any]:
        return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}

    values = []
    for found in chunk.logprobs:
        top = {"top_logprobs": [value(*other) for other in found.top]} if found.top else {}
        values.append({**value(found.raw, found.logprob), **top})
    return {"logprobs": values} if values else {}


def warning_header(n_tokens: int | None) -> dict[str, str]:
    if n_tokens is None:
        return {}
    return {"Warning": f'299 paddock "the prompt of {n_tokens} tokens was cut to fit the context"'}


async def render_prompt(
    request: Request, model_request: ModelRequest, pool_request: ChatRequest
) -> dict[str, Any]:
    once = {**pool_request.params, "max_tokens": 1}
    probe = replace(pool_request, params=once, constraint=None, n_logprobs=None, wants_tokens=True)

    async def ask() -> str:
        reply = await model_request.service.pool.chat(probe, waits=False).reply()
        prompt = [token for token in reply.tokens[: reply.usage.prompt_tokens] if token >= 0]
        return await model_request.service.pool.detokenise(model_request.spec, prompt)

    info: dict[str, Any] = {"rendered_template": await while_connected(request, ask())}
    n_images = len(pool_request.images) + sum(
        len(message.images) for message in pool_request.messages
    )
    if n_images:
        info["image_count"] = n_images
    return {**response_head(model_request.model), "done": False, "_debug_info": info}


async def load_or_unload(request: Request, model_request: ModelRequest) -> dict[str, Any]:
    """Load or unload the model; return Ollama's object for it, without the empty answer."""
    if model_request.is_unload:
        await model_request.service.pool.unload(model_request.spec.ref)
        reason = "unload"
    else:
        await while_connected(request, model_request.service.pool.load(model_request.spec))
        reason = "load"
    return {**response_head(model_request.model), "done": True, "done_reason": reason}


class _GenerateBody(AnswerBody):
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: Items[int] = ()
    raw: bool = False
    images: Items[Base64] = ()

    def request(self, model_request: ModelRequest, think: Think | None) -> ChatRequest:
        pool_request = replace(
            chat_request(model_request, self, (), think),
            prompt_tokens=self.context,
            wants_tokens=not self.raw,
        )
        if self.raw:
            return replace(pool_request, prompt=self.prompt, images=self.images)
        if self.suffix:
            return replace(pool_request, prompt=self.prompt, suffix=self.suffix)
        system = (Message("system", self.system),) if self.system else ()
        turn = Message("user", self.prompt, images=self.images)
        return replace(pool_request, messages=(*system, turn))


async def generate(request: Request) -> Response:
    body = _GenerateBody.read(await read_json(request))
    model_request = await read_model_request(request, body)
    if body.raw and (body.template or body.system or body.context):
        raise ApiError(400, "raw mode does not support template, system, or context")
    if not body.prompt and model_request.is_unload:
        return json_response({**await load_or_unload(request, model_request), "response": ""})
    abilities = await capabilities_of(model_request)
    require_capability(model_request, abilities, "completion", "generate")
    think = read_think(body.think, model_request.model, abilities)
    if body.suffix:
        require_capability(model_request, abilities, "insert")
    if not body.prompt:
        return json_response({**await load_or_unload(request, model_request), "response": ""})
    pool_request = body.request(model_request, think)
    if body.template and not body.suffix:
        try:
            pool_request = replace(pool_request, template=jinja_template(body.template))
        except TemplateTooLarge:
            raise
        except BadRequest as error:
            raise ApiError(500, f"template error: {error}") from None

    def chunk_fields(chunk: Chunk) -> dict[str, Any]:
        thinking = {"thinking": chunk.reasoning} if chunk.reasoning else {}
        return {"response": chunk.text, **thinking, **logprobs_value(chunk)}

    def end(reply: Reply) -> dict[str, Any]:
        return {} if body.raw else {"context": list(reply.tokens)}

    try:
        if body.only_renders:
            rendered = await render_prompt(request, model_request, pool_request)
            return json_response({**rendered, "response": ""})
        return await respond(request, model_request, pool_request, chunk_fields, end)
    except TemplateUnreadable as error:
        raise ApiError(500, f"template error: {error}") from None
    except NoInsert:
        name = full_name(model_request.spec.ref)
        raise ApiError(400, f"{name} does not support insert") from None


class _OllamaChatBody(AnswerBody):
    model: Needed
    messages: Items[MessageBody] = ()
    tools: Items[ToolBody] = ()


async def chat(request: Request) -> Response:
    body = _OllamaChatBody.read(await read_json(request))
    messages = tuple(message.message() for message in body.messages)
    tools = tuple(tool.tool() for tool in body.tools)
    model_request = await read_model_request(request, body)
    if not messages and model_request.is_unload:
        return json_response(_with_empty_message(await load_or_unload(request, model_request)))
    abilities = await capabilities_of(model_request)
    require_capability(model_request, abilities, "completion", "chat")
    think = read_think(body.think, model_request.model, abilities)
    if tools:
        require_capability(model_request, abilities, "tools")
    if not messages:
        return json_response(_with_empty_message(await load_or_unload(request, model_request)))
    pool_request = replace(chat_request(model_request, body, messages, think), tools=tools)
    if body.only_renders:
        return json_response(
            _with_empty_message(await render_prompt(request, model_request, pool_request))
        )
    call_numbers = itertools.count()

    def chunk_fields(chunk: Chunk) -> dict[str, Any]:
        return {"message": chunk_as_message(chunk, call_numbers), **logprobs_value(chunk)}

    return await respond(request, model_request, pool_request, chunk_fields)


def _with_empty_message(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "message": {"role": "assistant", "content": ""}}
