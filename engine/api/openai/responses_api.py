"""POST /v1/responses: body → call, reply → `response` object or stream events. Pure.

Nothing is stored: each request holds the whole conversation, and a request that needs an earlier
response is refused. A streamed answer has at most one reasoning item, then one text item, then its
tool calls; an item begins with its first piece and ends when another kind follows or the answer
ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from paddock.engine.api.body_models import Items, TextOr, Tree, missing_parameter
from paddock.engine.api.errors import as_openai_error, openai_error_body
from paddock.engine.api.streaming import nanoseconds, sse_event
from paddock.engine.request import Chunk, Message, Reply, ToolCall, Usage, with_tool_names
from paddock.engine.system.records import Struct, field, replace

from .chat_completions import (
    Body,
    CallStreamWriter,
    GenerationCall,
    Stamp,
    arguments_text,
    finish_reason,
    logprob_values,
    new_id,
    requests_for_choices,
    stop_fields,
    truncation_fields,
)
from .input_messages import InputItem, input_messages
from .requests import ApiCaller, OpenAIBody, ResponseFormat, ToolsBody

_REPEATED_FIELDS: Mapping[str, Any] = {
    "instructions": None, "max_output_tokens": None, "metadata": {}, "reasoning": None,
    "temperature": 1.0, "text": None, "tool_choice": "auto", "tools": [], "top_logprobs": 0,
    "top_p": 1.0, "user": None,
}  # fmt: skip
"""Of the request, with what stands in the answer where it has none."""


def response_value(
    call: ResponseCall, stamp: Stamp, items: Sequence[Body], reply: Reply | None
) -> Body:
    """Return a `response` with the given items; no reply: it is in progress."""
    given = call.given
    usage = None
    details = status = None
    if reply is not None:
        status = "completed"
        usage = responses_usage(reply.usage, reply.n_reasoning_tokens)
        if is_incomplete(reply):
            status = "incomplete"
            details = {"reason": "max_output_tokens", **stop_fields(reply)}
    return {
        **{
            name: value if given[name] is None else given[name]
            for name, value in _REPEATED_FIELDS.items()
        },
        "id": stamp.id,
        "object": "response",
        "created_at": stamp.created,
        "status": status or "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": details,
        "max_tool_calls": None,
        "model": call.model,
        "output": list(items),
        "parallel_tool_calls": call.calls_in_parallel,
        "previous_response_id": None,
        "reasoning": {"effort": (given["reasoning"] or {}).get("effort"), "summary": None},
        "service_tier": "default",
        "store": False,
        "text": {"format": (given["text"] or {}).get("format") or {"type": "text"}},
        "truncation": "auto" if call.truncates else "disabled",
        "usage": usage,
        **(truncation_fields([reply]) if reply is not None else {}),
    }


def is_incomplete(reply: Reply) -> bool:
    return finish_reason(reply) == "length"


def responses_usage(usage: Usage, n_reasoning_tokens: int = 0) -> Body:
    read = {"cached_tokens": usage.prompt_reused_tokens, "cache_write_tokens": 0}
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": read,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": n_reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "queue_duration": nanoseconds(usage.queue_s),
    }


def reasoning_item(item_id: str, text: str) -> Body:
    summary = [summary_part(text)] if text else []
    return {"id": item_id, "type": "reasoning", "summary": summary}


def summary_part(text: str) -> Body:
    return {"type": "summary_text", "text": text}


def message_item(item_id: str, parts: Sequence[Body], status: str) -> Body:
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": list(parts),
    }


def text_part(text: str, logprobs: Sequence[Body]) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


ItemKind = Literal["reasoning", "message"]


class _OpenItem(Struct):
    kind: ItemKind
    id: str
    text: str = ""
    logprobs: list[Body] = field(default_factory=list)


class _ResponseStreamWriter(CallStreamWriter):
    def __init__(self, call: ResponseCall, stamp: Stamp) -> None:
        self._call = call
        self._stamp = stamp
        self._n_events = 0
        self._n_calls = 0
        self._items: list[Body] = []
        self._open: _OpenItem | None = None

    def begin(self) -> Iterator[bytes]:
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._response(None))

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        if chunk.reasoning:
            yield from self._add("reasoning", chunk.reasoning, [])
        logprobs = logprob_values(chunk.logprobs) if self._call.wants_logprobs else []
        if chunk.text or (logprobs and not chunk.reasoning):
            yield from self._add("message", chunk.text, logprobs)
        for call in chunk.tool_calls:
            self._n_calls += 1
            if self._n_calls == 1 or self._call.calls_in_parallel:
                yield from self._close("completed")
                item_id, arguments = new_id("fc_"), arguments_text(call)
                item = self._call.call_item(item_id, call, arguments)
                yield self._added({**item, "arguments": "", "status": "in_progress"})
                of = {"item_id": item_id, "output_index": len(self._items)}
                yield self._event("response.function_call_arguments.delta", **of, delta=arguments)
                yield self._event(
                    "response.function_call_arguments.done",
                    **of,
                    name=item["name"],
                    arguments=arguments,
                )
                yield self._done(item)

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        if not self._n_calls and (self._open is None or self._open.kind != "message"):
            yield from self._add("message", "", [])  # an empty answer is an empty message
        incomplete = is_incomplete(reply)
        yield from self._close("incomplete" if incomplete else "completed")
        name = "response.incomplete" if incomplete else "response.completed"
        yield self._event(name, response=self._response(reply))

    def fail(self, error: Exception) -> bytes:
        # The event of Responses, then that of the other endpoints.
        openai_error = as_openai_error(error)
        failed = {
            **self._response(None),
            "status": "failed",
            "error": {"code": openai_error.code or "server_error", "message": openai_error.message},
        }
        last = {
            "code": openai_error.code,
            "message": openai_error.message,
            "param": openai_error.param,
        }
        return self._event("response.failed", response=failed) + self._event(
            "error", **last, **openai_error_body(openai_error)
        )

    def _add(self, kind: ItemKind, text: str, logprobs: list[Body]) -> Iterator[bytes]:
        if self._open is None or self._open.kind != kind:
            yield from self._close("completed")
            yield from self._begin(kind)
        item = self._open
        assert item is not None
        item.text += text
        item.logprobs += logprobs
        if kind == "reasoning":
            yield self._of_item("response.reasoning_summary_text.delta", item, delta=text)
        elif text or logprobs:
            yield self._of_item("response.output_text.delta", item, delta=text, logprobs=logprobs)

    def _begin(self, kind: ItemKind) -> Iterator[bytes]:
        item = _OpenItem(kind, new_id("rs_" if kind == "reasoning" else "msg_"))
        self._open = item
        if kind == "reasoning":
            yield self._added(reasoning_item(item.id, ""))
            yield self._of_item(
                "response.reasoning_summary_part.added", item, part=summary_part("")
            )
        else:
            yield self._added(message_item(item.id, [], "in_progress"))
            yield self._of_item("response.content_part.added", item, part=text_part("", []))

    def _close(self, status: str) -> Iterator[bytes]:
        item = self._open
        if item is None:
            return
        if item.kind == "reasoning":
            yield self._of_item("response.reasoning_summary_text.done", item, text=item.text)
            yield self._of_item(
                "response.reasoning_summary_part.done", item, part=summary_part(item.text)
            )
            yield self._done(reasoning_item(item.id, item.text))
        else:
            part = text_part(item.text, item.logprobs)
            yield self._of_item(
                "response.output_text.done", item, text=item.text, logprobs=item.logprobs
            )
            yield self._of_item("response.content_part.done", item, part=part)
            yield self._done(message_item(item.id, [part], status))
        self._open = None

    def _added(self, item: Body) -> bytes:
        return self._event("response.output_item.added", output_index=len(self._items), item=item)

    def _done(self, item: Body) -> bytes:
        written = self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        return written

    def _of_item(self, name: str, item: _OpenItem, /, **fields: Any) -> bytes:
        part = "summary_index" if item.kind == "reasoning" else "content_index"
        return self._event(
            name, item_id=item.id, output_index=len(self._items), **{part: 0}, **fields
        )

    def _response(self, reply: Reply | None) -> Body:
        return response_value(self._call, self._stamp, self._items, reply)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        value = {"type": name, "sequence_number": self._n_events, **fields}
        self._n_events += 1
        return sse_event(value, name)


class ResponseCall(GenerationCall, frozen=True):
    given: Mapping[str, Any]
    calls_in_parallel: bool
    wants_logprobs: bool
    truncates: bool
    namespaces: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    prefix = "resp_"

    def call_item(self, item_id: str, call: ToolCall, arguments: str) -> Body:
        namespace, name = self.namespaces.get(call.name, ("", call.name))
        return {
            "id": item_id,
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            **({"namespace": namespace} if namespace else {}),
            "name": name,
            "arguments": arguments,
        }

    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        (reply,) = replies
        items: list[Body] = []
        if reply.reasoning:
            items.append(reasoning_item(new_id("rs_"), reply.reasoning))
        calls = reply.tool_calls if self.calls_in_parallel else reply.tool_calls[:1]
        if reply.text or not calls:
            status = "incomplete" if is_incomplete(reply) else "completed"
            logprobs = logprob_values(reply.logprobs) if self.wants_logprobs else []
            items.append(message_item(new_id("msg_"), [text_part(reply.text, logprobs)], status))
        for call in calls:
            items.append(self.call_item(new_id("fc_"), call, arguments_text(call)))
        return response_value(self, stamp, items, reply)

    def stream_writer(self, stamp: Stamp) -> CallStreamWriter:
        return _ResponseStreamWriter(self, stamp)


class _TextOptions(OpenAIBody):
    format: ResponseFormat | None = None


class _ResponseBody(ToolsBody):
    input: TextOr[InputItem]
    instructions: str = ""
    metadata: Tree = Field(default_factory=dict)
    text: _TextOptions = _TextOptions()
    truncation: Literal["auto", "disabled"] = "disabled"
    include: Items[str] = ()

    def messages(self) -> tuple[Message, ...]:
        system = (Message("system", self.instructions),) if self.instructions else ()
        if isinstance(self.input, str):
            return (*system, Message("user", self.input))
        messages = tuple(input_messages(self.input))
        if not messages:
            raise missing_parameter("input")
        return with_tool_names((*system, *messages))

    @property
    def n_logprobs(self) -> int | None:
        """How many top log probabilities to send; None: no log probabilities."""
        if "message.output_text.logprobs" in self.include:
            return self.top_logprobs or 0
        return self.top_logprobs or None


def read_response(fields: Mapping[str, Any], caller: ApiCaller) -> ResponseCall:
    body = _ResponseBody.read(fields)
    constraint, constraint_field = body.constraint(body.text.format, "text.format")
    request = replace(
        body.request(caller, body.messages()),
        constraint=constraint,
        n_logprobs=body.n_logprobs,
        truncates=body.truncation == "auto" or body.truncates,
    )
    return ResponseCall(
        body.model,
        requests_for_choices(request, 1),
        1,
        streams=body.stream,
        constraint_field=constraint_field,
        given={name: fields.get(name) for name in _REPEATED_FIELDS},
        calls_in_parallel=body.parallel_tool_calls,
        wants_logprobs=body.n_logprobs is not None,
        truncates=request.truncates,
        namespaces=body.offered_tools().namespaces,
    )
