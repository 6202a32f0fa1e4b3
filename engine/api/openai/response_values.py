"""The `response` object of OpenAI's Responses and its items, as they are written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.api.clock import nanoseconds
from paddock.engine.request import Reply

from . import answers
from .calls import Body, Stamp, new_id


@dataclass(frozen=True, slots=True)
class Frame:
    """What a response repeats of its request, and how its items are told."""

    model: str
    """As the client named it."""
    given: Mapping[str, Any]
    """Fields of the request."""
    calls_in_parallel: bool
    wants_logprobs: bool
    truncates: bool


def response_value(frame: Frame, stamp: Stamp, items: Sequence[Body], reply: Reply | None) -> Body:
    """Write a `response` with the items that there are; no reply: it is in progress."""
    given = frame.given
    return {
        "id": stamp.id,
        "object": "response",
        "created_at": stamp.created,
        "status": _status(reply),
        "background": False,
        "error": None,
        "incomplete_details": _incomplete(reply),
        "instructions": given["instructions"],
        "max_output_tokens": given["max_output_tokens"],
        "max_tool_calls": None,
        "metadata": given["metadata"] or {},
        "model": frame.model,
        "output": list(items),
        "parallel_tool_calls": frame.calls_in_parallel,
        "previous_response_id": None,
        "reasoning": {"effort": (given["reasoning"] or {}).get("effort"), "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": _or(given["temperature"], 1.0),
        "text": {"format": (given["text"] or {}).get("format") or {"type": "text"}},
        "tool_choice": _or(given["tool_choice"], "auto"),
        "tools": given["tools"] or [],
        "top_logprobs": given["top_logprobs"] or 0,
        "top_p": _or(given["top_p"], 1.0),
        "truncation": "auto" if frame.truncates else "disabled",
        "usage": _usage_value(reply) if reply is not None else None,
        "user": given["user"],
        **(answers.cut_value([reply]) if reply is not None else {}),
    }


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _status(reply: Reply | None) -> str:
    if reply is None:
        return "in_progress"
    return "incomplete" if is_incomplete(reply) else "completed"


def is_incomplete(reply: Reply) -> bool:
    """Tell whether an answer was ended before the model had done."""
    return answers.finish_reason(reply) == "length"


def _incomplete(reply: Reply | None) -> Body | None:
    if reply is None or not is_incomplete(reply):
        return None
    return {"reason": "max_output_tokens"}


def _usage_value(reply: Reply) -> Body:
    usage = reply.usage
    read = {"cached_tokens": usage.prompt_reused_tokens, "cache_write_tokens": 0}
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": read,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reply.n_reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "queue_duration": nanoseconds(usage.queue_s),
    }


# Output items: each is written when it begins, and again when it is whole


def output_items(frame: Frame, reply: Reply) -> list[Body]:
    """Write a whole reply as items: its reasoning, its text, its calls."""
    items: list[Body] = []
    if reply.reasoning:
        items.append(reasoning_item(new_id("rs_"), reply.reasoning))
    calls = answers.calls_kept(reply.tool_calls, in_parallel=frame.calls_in_parallel)
    if reply.text or not calls:
        status = "incomplete" if is_incomplete(reply) else "completed"
        logprobs = answers.logprob_values(reply.logprobs) if frame.wants_logprobs else []
        items.append(message_item(new_id("msg_"), [text_part(reply.text, logprobs)], status))
    for one in calls:
        items.append(call_item(new_id("fc_"), one.id, one.name, answers.arguments_text(one)))
    return items


def reasoning_item(item_id: str, text: str) -> Body:
    """Write what an answer thought; empty: it begins to."""
    summary = [summary_part(text)] if text else []
    return {"id": item_id, "type": "reasoning", "summary": summary}


def summary_part(text: str) -> Body:
    """Write the part of a reasoning item that holds its text."""
    return {"type": "summary_text", "text": text}


def message_item(item_id: str, parts: Sequence[Body], status: str) -> Body:
    """Write an answer's text."""
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": list(parts),
    }


def text_part(text: str, logprobs: Sequence[Body]) -> Body:
    """Write the part of a message that holds its text."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": [],
        "logprobs": list(logprobs),
    }


def call_item(
    item_id: str, call_id: str, name: str, arguments: str, status: str = "completed"
) -> Body:
    """Write a call of a function."""
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }
