"""The events of a streamed response, in the order that OpenAI's clients expect. Pure.

An answer has at most one item of reasoning, then one of text, then its calls. An item is opened
when its first piece comes, and closed when another kind follows or the answer ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from paddock.engine.api.streaming import event
from paddock.engine.request import Chunk, Reply, ToolCall

from . import answers
from .calls import Body, Stamp, new_id
from .refusals import error_value, told
from .response_values import (
    Frame,
    call_item,
    is_incomplete,
    message_item,
    reasoning_item,
    response_value,
    summary_part,
    text_part,
)

Kind = Literal["reasoning", "message"]


@dataclass(slots=True)
class _Open:
    """An item that is being told."""

    kind: Kind
    id: str
    text: str = ""
    logprobs: list[Body] = field(default_factory=list)


class ResponseSpeaker:
    """Writes one stream; every event has its number."""

    def __init__(self, frame: Frame, stamp: Stamp) -> None:
        self._frame = frame
        self._stamp = stamp
        self._n_events = 0
        self._n_calls = 0
        self._items: list[Body] = []
        """Those that are whole."""
        self._open: _Open | None = None

    def begin(self) -> Iterator[bytes]:
        """Say that there will be an answer."""
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._response(None))

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        """Tell a piece of the answer."""
        if chunk.reasoning:
            yield from self._add("reasoning", chunk.reasoning, [])
        logprobs = answers.logprob_values(chunk.logprobs) if self._frame.wants_logprobs else []
        if chunk.text or (logprobs and not chunk.reasoning):
            yield from self._add("message", chunk.text, logprobs)
        for call in chunk.tool_calls:
            self._n_calls += 1
            if self._n_calls == 1 or self._frame.calls_in_parallel:
                yield from self._tell_call(call)

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        """Tell that the answer is whole."""
        if not self._n_calls and (self._open is None or self._open.kind != "message"):
            yield from self._add("message", "", [])  # an empty answer is told as one
        incomplete = is_incomplete(reply)
        yield from self._close("incomplete" if incomplete else "completed")
        name = "response.incomplete" if incomplete else "response.completed"
        yield self._event(name, response=self._response(reply))

    def end(self) -> Iterator[bytes]:
        """Say nothing more: the last event said it."""
        yield from ()

    def fail(self, error: Exception) -> bytes:
        """Say why there will be no more, as Responses do, and as all other endpoints do."""
        said = told(error)
        failed = {
            **self._response(None),
            "status": "failed",
            "error": {"code": said.code or "server_error", "message": said.message},
        }
        last = {"code": said.code, "message": said.message, "param": said.param}
        return self._event("response.failed", response=failed) + self._event(
            "error", **last, **error_value(said)
        )

    # Reasoning and text

    def _add(self, kind: Kind, text: str, logprobs: list[Body]) -> Iterator[bytes]:
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

    def _begin(self, kind: Kind) -> Iterator[bytes]:
        item = _Open(kind, new_id("rs_" if kind == "reasoning" else "msg_"))
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

    # Calls

    def _tell_call(self, call: ToolCall) -> Iterator[bytes]:
        yield from self._close("completed")
        item_id, arguments = new_id("fc_"), answers.arguments_text(call)
        yield self._added(call_item(item_id, call.id, call.name, "", "in_progress"))
        of = {"item_id": item_id, "output_index": len(self._items)}
        yield self._event("response.function_call_arguments.delta", **of, delta=arguments)
        yield self._event(
            "response.function_call_arguments.done", **of, name=call.name, arguments=arguments
        )
        yield self._done(call_item(item_id, call.id, call.name, arguments))

    # Writing

    def _added(self, item: Body) -> bytes:
        return self._event("response.output_item.added", output_index=len(self._items), item=item)

    def _done(self, item: Body) -> bytes:
        written = self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        return written

    def _of_item(self, name: str, item: _Open, /, **more: Any) -> bytes:
        part = "summary_index" if item.kind == "reasoning" else "content_index"
        return self._event(
            name, item_id=item.id, output_index=len(self._items), **{part: 0}, **more
        )

    def _response(self, reply: Reply | None) -> Body:
        return response_value(self._frame, self._stamp, self._items, reply)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        value = {"type": name, "sequence_number": self._n_events, **fields}
        self._n_events += 1
        return event(value, name)
