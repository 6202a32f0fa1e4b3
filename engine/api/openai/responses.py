"""POST /v1/responses: its body → a call. Pure.

Nothing is kept: each request brings the whole conversation as its input, and what would need an
earlier one to be remembered is refused rather than ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddock.engine.request import ChatRequest, Reply

from . import wishes
from .calls import Body, Call, Caller, Speaker, Stamp, choices_of
from .fields import Fields
from .items import response_messages
from .refusals import InvalidValue
from .response_events import ResponseSpeaker
from .response_values import Frame, output_items, response_value

_REMEMBERING = ("previous_response_id", "conversation", "prompt")
_ECHOED = ("instructions", "metadata", "reasoning", "text", "tools", "tool_choice", "user",
           "temperature", "top_p", "max_output_tokens", "top_logprobs")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseCall(Call):
    """One conversation to be answered."""

    frame: Frame

    @property
    def prefix(self) -> str:
        """What the answer's id begins with."""
        return "resp_"

    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        """Write a whole `response`."""
        (reply,) = replies
        items = output_items(self.frame, reply)
        return response_value(self.frame, stamp, items, reply)

    def speaker(self, stamp: Stamp) -> Speaker:
        """Give who writes the events of Responses."""
        return ResponseSpeaker(self.frame, stamp)


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
    frame = Frame(
        model,
        {name: body.any(name) for name in _ECHOED},
        calls_in_parallel=body.flag("parallel_tool_calls", default=True),
        wants_logprobs=n_logprobs is not None,
        truncates=request.truncates,
    )
    return ResponseCall(model, choices_of(request, 1), 1, streams=body.flag("stream"), frame=frame)


def _n_logprobs(body: Fields) -> int | None:
    """Read whether log probabilities are wanted: `include` says so, or how many."""
    n_top = body.whole("top_logprobs", 0, wishes.MOST_LOGPROBS)
    includes = body.list("include")
    if not all(isinstance(one, str) for one in includes):
        raise InvalidValue("Invalid type for 'include': expected strings.", "include")
    if "message.output_text.logprobs" in includes:
        return n_top or 0
    return n_top or None
