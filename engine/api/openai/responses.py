"""POST /v1/responses: its body → a call, a reply → its `response` object. Pure.

Nothing is kept: each request brings the whole conversation as its input, and what would need an
earlier one to be remembered is refused rather than ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.api.clock import nanoseconds
from paddock.engine.request import ChatRequest, Reply

from . import answers, wishes
from .calls import Body, Call, Caller, Speaker, Stamp, choices_of, new_id
from .fields import Fields
from .items import response_messages
from .refusals import InvalidValue

_REMEMBERING = ("previous_response_id", "conversation", "prompt")
_ECHOED = ("instructions", "metadata", "reasoning", "text", "tools", "tool_choice", "user",
           "temperature", "top_p", "max_output_tokens", "top_logprobs")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseCall(Call):
    """One conversation to be answered."""

    calls_in_parallel: bool
    wants_logprobs: bool
    truncates: bool
    given: Mapping[str, Any]
    """The fields that the answer repeats."""

    @property
    def prefix(self) -> str:
        """What the answer's id begins with."""
        return "resp_"

    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        """Write a whole `response`."""
        (reply,) = replies
        items = output_items(self, reply)
        return response_value(self, stamp, items, reply)

    def speaker(self, stamp: Stamp) -> Speaker:
        """Give who writes the events of Responses."""
        from .response_events import ResponseSpeaker

        return ResponseSpeaker(self, stamp)


def read_response(body: Fields, caller: Caller) -> ResponseCall:
    """Read what is asked.

    Raises:
        InvalidValue: a field that cannot be used.
    """
    body.tree("metadata")
    for name in _REMEMBERING:
        if body.has(name):
            raise body.refused(
                name, "nothing is stored here; send the whole conversation as `input`."
            )
    if body.flag("background"):
        raise body.refused("background", "answers are not stored here; ask for a stream.")
    model, spec = wishes.model_of(body, "chat")
    tools = wishes.tools_of(body)
    choice, tools = wishes.choice_of(body, tools)
    n_logprobs = _n_logprobs(body)
    text = body.object("text")
    truncates = body.one_of("truncation", ("auto", "disabled"), "disabled") == "auto"
    request = ChatRequest(
        spec,
        response_messages(body),
        wishes.sampling_of(body, "max_output_tokens"),
        priority=caller.priority,
        tools=tools,
        tool_choice=choice,
        constraint=wishes.constraint_of(text.object("format") if text else None),
        think=wishes.think_of(body),
        n_logprobs=n_logprobs,
        reserves_answer=False,
        truncates=truncates or body.flag("truncate"),
        defaults=wishes.DEFAULTS,
    )
    return ResponseCall(
        model,
        choices_of(request, 1),
        1,
        streams=body.flag("stream"),
        calls_in_parallel=body.flag("parallel_tool_calls", default=True),
        wants_logprobs=n_logprobs is not None,
        truncates=request.truncates,
        given={name: body.any(name) for name in _ECHOED},
    )


def _n_logprobs(body: Fields) -> int | None:
    """Read whether log probabilities are wanted: `include` says so, or how many."""
    n_top = body.whole("top_logprobs", 0, wishes.MOST_LOGPROBS)
    includes = body.list("include")
    if not all(isinstance(one, str) for one in includes):
        raise InvalidValue("Invalid type for 'include': expected strings.", "include")
    if "message.output_text.logprobs" in includes:
        return n_top or 0
    return n_top or None


# What is answered


def response_value(
    call: ResponseCall, stamp: Stamp, items: Sequence[Body], reply: Reply | None
) -> Body:
    """Write a `response` with the items that there are; no reply: it is in progress."""
    given = call.given
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
        "model": call.model,
        "output": list(items),
        "parallel_tool_calls": call.calls_in_parallel,
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
        "truncation": "auto" if call.truncates else "disabled",
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


def output_items(call: ResponseCall, reply: Reply) -> list[Body]:
    """Write a whole reply as items: its reasoning, its text, its calls."""
    items: list[Body] = []
    if reply.reasoning:
        items.append(reasoning_item(new_id("rs_"), reply.reasoning))
    calls = answers.calls_kept(reply.tool_calls, in_parallel=call.calls_in_parallel)
    if reply.text or not calls:
        status = "incomplete" if is_incomplete(reply) else "completed"
        logprobs = answers.logprob_values(reply.logprobs) if call.wants_logprobs else []
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
