"""From the engine's requests to the bodies of OpenAI's API. Pure; knows no connection."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from paddock.engine.errors import BadRequest
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    Sampling,
    Think,
    Tool,
    ToolCall,
    reserved_tokens,
)

Kind = Literal["llama-server", "vllm", "ollama", "paddock", "other"]
"""Which program a server is, as far as that matters for what it understands."""

Json = dict[str, Any]

_RAW = ("prompt", "suffix", "template")
_IMAGE_KINDS = ((b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"))


def chat_body(
    request: ChatRequest, sampling: Sampling, *, model: str, kind: Kind, n_ctx_tokens: int
) -> Json:
    """Give the body of a streamed chat.

    Raises:
        BadRequest: something is asked that cannot be asked of another server.
    """
    raw = [name for name in _RAW if getattr(request, name) is not None]
    if raw or request.prompt_tokens or request.truncates:
        raise BadRequest("a raw prompt cannot be sent to another server; use messages")
    body: Json = {
        "model": model,
        "messages": messages(request.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling_body(sampling, kind, n_ctx_tokens),
        **_think(request.think, kind),
        **_constraint(request.constraint, kind),
    }
    if request.tools:
        body["tools"] = tools(request.tools)
        body["tool_choice"] = _choice(request.tool_choice)
    if request.n_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.n_logprobs}
    if kind == "llama-server":
        body["return_progress"] = True  # a long prompt is seen to move
    return body


def messages(turns: Sequence[Message]) -> list[Json]:
    """Write a conversation."""
    return [_message(turn) for turn in turns]


def tools(given: Sequence[Tool]) -> list[Json]:
    """Write the tools that a model may ask for."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            },
        }
        for tool in given
    ]


def _message(turn: Message) -> Json:
    told: Json = {"role": turn.role, "content": turn.content}
    if turn.images:
        text = [{"type": "text", "text": turn.content}] if turn.content else []
        told["content"] = [*text, *map(_image, turn.images)]
    if turn.reasoning:
        told["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        told["tool_calls"] = [_call(call, at) for at, call in enumerate(turn.tool_calls)]
    if turn.role == "tool":
        told["tool_call_id"] = turn.tool_call_id
        told |= {"name": turn.tool_name} if turn.tool_name else {}
    return told


def _image(image: bytes) -> Json:
    kind = next((name for magic, name in _IMAGE_KINDS if image.startswith(magic)), "jpeg")
    data = base64.b64encode(image).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def _call(call: ToolCall, at: int) -> Json:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id or f"call_{at}", "type": "function", "function": function}


def _choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def sampling_body(sampling: Sampling, kind: Kind, n_ctx_tokens: int) -> Json:
    """Write how tokens are chosen; every value, so that no server's own defaults count."""
    body: Json = {"temperature": sampling.temperature, "seed": sampling.seed}
    if not sampling.is_greedy:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.max_tokens is None or sampling.max_tokens > 0:
        body["max_tokens"] = reserved_tokens(sampling.max_tokens, n_ctx_tokens)
    if sampling.presence_penalty or sampling.frequency_penalty:
        body["presence_penalty"] = sampling.presence_penalty
        body["frequency_penalty"] = sampling.frequency_penalty
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return body | dict(_extras(sampling, kind))


def _extras(sampling: Sampling, kind: Kind) -> Iterator[tuple[str, Any]]:
    """Give what only some servers know."""
    if kind not in ("llama-server", "vllm"):
        return
    if not sampling.is_greedy:
        yield "top_k", sampling.top_k
        yield "min_p", sampling.min_p
    if kind == "vllm":
        if sampling.repeat_penalty != 1:
            yield "repetition_penalty", sampling.repeat_penalty
        return
    if not sampling.is_greedy:
        yield "typical_p", sampling.typical_p
    yield "repeat_penalty", sampling.repeat_penalty
    yield "repeat_last_n", sampling.repeat_last_n


def left_out(sampling: Sampling, kind: Kind) -> tuple[str, ...]:
    """Name the values that were asked for and that a server of this kind does not take."""
    if kind in ("llama-server", "vllm"):
        return ()
    plain = Sampling()
    asked = ["repeat_penalty"] if sampling.repeat_penalty != plain.repeat_penalty else []
    if not sampling.is_greedy:
        names = ("top_k", "min_p", "typical_p")
        asked += [name for name in names if getattr(sampling, name) != getattr(plain, name)]
    return tuple(asked)


def _think(think: Think | None, kind: Kind) -> Json:
    if think is None:
        return {}
    if kind in ("llama-server", "vllm"):
        wanted: Json = {"enable_thinking": think is not False}
        if isinstance(think, str):
            wanted["reasoning_effort"] = think
        return {"chat_template_kwargs": wanted}
    return {"reasoning_effort": think if isinstance(think, str) else "medium" if think else "none"}


def _constraint(constraint: Constraint | None, kind: Kind) -> Json:
    if constraint is None:
        return {}
    if constraint.kind == "json":
        return {"response_format": {"type": "json_object"}}
    if constraint.kind == "json_schema":
        schema = {"name": "reply", "strict": True, "schema": json.loads(constraint.source)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if kind == "vllm":
        name = "regex" if constraint.kind == "regex" else "grammar"
        return {"structured_outputs": {name: constraint.source}}
    raise BadRequest(f"an answer within a {constraint.kind} grammar can only be asked of vLLM")
