"""Harmony, the form in which gpt-oss answers: messages with channels. Pure.

github.com/openai/harmony, docs/format.md: `analysis` is reasoning, `final` is the answer, a message
to `functions.name` is a tool call, and `commentary` without a recipient is text before calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from paddock.engine.request import ToolCall
from paddock.engine.system.text import parse_shallow_json

from .stop_strings import partial_mark_length
from .stream_parser import AnswerDelta, StreamParser

_HARMONY_BODY = "<|message|>"
_HARMONY_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>")
HARMONY_TOKENS = (_HARMONY_BODY, "<|constrain|>", *_HARMONY_ENDS)

_HARMONY_RECIPIENT = re.compile(r"\bto=([\w.\-]+)")
_HARMONY_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyParser(StreamParser):
    def __init__(self, stop: tuple[str, ...], new_id: Callable[[], str]) -> None:
        super().__init__(stop)
        self._new_id = new_id
        self._header: str | None = None
        """None: the header is still being read."""
        self._recipient = ""
        """The tool that the header names; empty: the message is for the reader."""

    def _advance(self, *, is_end: bool) -> AnswerDelta:
        text, reasoning = "", ""
        calls: tuple[ToolCall, ...] = ()
        while not self.is_stopped:
            delta = self._body(is_end) if self._header is not None else self._head(is_end)
            if delta is None:
                break
            text, reasoning = text + delta.text, reasoning + delta.reasoning
            calls += delta.tool_calls
        if is_end:
            text += self._text.add("", is_end=True)
        return AnswerDelta(text, reasoning, calls)

    def _head(self, is_end: bool) -> AnswerDelta | None:
        header, found, rest = self._buffer.partition(_HARMONY_BODY)
        if found:
            self._header, self._buffer = header, rest
            named = _HARMONY_RECIPIENT.search(header)
            self._recipient = named[1] if named and named[1] != "assistant" else ""
            return AnswerDelta()
        if is_end and self._buffer and "<|" not in self._buffer:
            text = self._buffer
            self._buffer = ""
            return AnswerDelta(self._text.add(text))  # a model that forgot its channels
        return None

    def _body(self, is_end: bool) -> AnswerDelta | None:
        ends = [(at, mark) for mark in _HARMONY_ENDS if (at := self._buffer.find(mark)) >= 0]
        if ends:
            at, mark = min(ends)
            delta = self._body_delta(self._buffer[:at])
            # The next header may begin with its channel, without `<|start|>`.
            keeps_mark = mark == "<|channel|>"
            self._buffer = self._buffer[at + (0 if keeps_mark else len(mark)) :]
            self._header = None
            return delta
        if self._recipient and not is_end:
            return None
        n_held_back = 0 if is_end else partial_mark_length(self._buffer, _HARMONY_ENDS)
        sure = self._buffer[: len(self._buffer) - n_held_back]
        self._buffer = self._buffer[len(sure) :]
        return self._body_delta(sure) if sure else None

    def _body_delta(self, body: str) -> AnswerDelta:
        if self._recipient:
            try:
                arguments = parse_shallow_json(body, strict=False) if body.strip() else {}
            except ValueError:
                return AnswerDelta() if self._is_cut else AnswerDelta(self._text.add(body))
            if not isinstance(arguments, dict):
                return AnswerDelta(self._text.add(body))
            before = self._text.add("", is_end=True)
            name = self._recipient.removeprefix("functions.")
            return AnswerDelta(before, "", (ToolCall(name, arguments, self._new_id()),))
        if _HARMONY_CHANNEL.findall(self._header or "")[-1:] == ["analysis"]:
            return AnswerDelta(reasoning=body)
        return AnswerDelta(self._text.add(body))
