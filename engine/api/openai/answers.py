"""From the engine's replies to OpenAI's values. Pure; used by every endpoint alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from paddock.engine.api.clock import nanoseconds
from paddock.engine.request import Reply, TokenLogprob, ToolCall, Usage

FINGERPRINT = "fp_ollama"
"""What Ollama says of itself; clients compare it with nothing."""

# Ended by us before the model did, whether at the limit or because it went in circles.
_FINISH = {"stop": "stop", "length": "length", "repetition": "length"}


def finish_reason(reply: Reply) -> str:
    """Tell why an answer ended: `stop`, `length` or `tool_calls`."""
    reason = _FINISH[reply.done_reason]
    return "tool_calls" if reply.tool_calls and reason == "stop" else reason


def calls_kept(calls: Sequence[ToolCall], *, in_parallel: bool) -> Sequence[ToolCall]:
    """Give the calls that a client wants to hear of: all, or but the first."""
    return calls if in_parallel else calls[:1]


def call_value(call: ToolCall, index: int) -> dict[str, Any]:
    """Write a call as chat has it."""
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"index": index, "id": call.id, "type": "function", "function": function}


def arguments_text(call: ToolCall) -> str:
    """Write a call's arguments as the JSON text that OpenAI's clients parse."""
    return json.dumps(call.arguments, ensure_ascii=False)


def usage_value(replies: Sequence[Reply], n_choices: int) -> dict[str, Any]:
    """Write what an answer cost, as chat and completions have it."""
    usage = _total(replies, n_choices)
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.prompt_reused_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": sum(one.n_reasoning_tokens for one in replies),
            "accepted_prediction_tokens": usage.accepted_tokens,
            "rejected_prediction_tokens": usage.drafted_tokens - usage.accepted_tokens,
        },
        "queue_duration": nanoseconds(usage.queue_s),
    }


def _total(replies: Sequence[Reply], n_choices: int) -> Usage:
    """Add up what replies cost; a prompt counts once, however many choices it has."""
    prompts = [reply.usage for reply in replies[::n_choices]]
    every = [reply.usage for reply in replies]
    return Usage(
        prompt_tokens=sum(one.prompt_tokens for one in prompts),
        prompt_reused_tokens=sum(one.prompt_reused_tokens for one in prompts),
        completion_tokens=sum(one.completion_tokens for one in every),
        accepted_tokens=sum(one.accepted_tokens for one in every),
        drafted_tokens=sum(one.drafted_tokens for one in every),
        queue_s=max((one.queue_s for one in every), default=0.0),
    )


def cut_value(replies: Iterable[Reply]) -> dict[str, Any]:
    """Tell that a prompt was shortened, where one was: what it had before."""
    originals = [one.prompt_tokens_original for one in replies]
    cut = [n for n in originals if n is not None]
    return {"truncated": True, "prompt_tokens_original": max(cut)} if cut else {}


def logprob_values(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Write log probabilities token by token, as chat and Responses have them."""
    return [
        {
            "token": one.token,
            "bytes": list(one.raw),
            "logprob": one.logprob,
            "top_logprobs": [
                {"token": text, "bytes": list(raw), "logprob": value}
                for text, value, raw in one.top
            ],
        }
        for one in logprobs
    ]
