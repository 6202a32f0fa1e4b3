"""Hear the messages of gpt-oss: an answer is a row of messages, each with a channel. Pure.

`analysis` is reasoning, `final` is what is said, a message to `functions.name` is a call, and
`commentary` to nobody is said before calls. The format is described in
github.com/openai/harmony, docs/format.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from paddock.engine.request import ToolCall

from .listener import Heard
from .text import Characters, StoppableText, n_doubtful

_BODY = "<|message|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>")
HARMONY_TOKENS = (_BODY, "<|constrain|>", *_ENDS)
"""Control tokens that must be readable."""

_RECIPIENT = re.compile(r"\bto=([\w.\-]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyListener:
    """Reads one answer of gpt-oss."""

    def __init__(self, stop: tuple[str, ...], new_id: Callable[[], str]) -> None:
        self._text = StoppableText(stop)
        self._new_id = new_id
        self._characters = Characters()
        self._buffer = ""
        self._header: str | None = None
        """None: the header is still being read."""

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._text.is_stopped

    @property
    def stopped_by(self) -> str:
        """The stop string that was met."""
        return self._text.stopped_by

    def feed(self, piece: bytes) -> Heard:
        """Take a token's bytes; gives what is certain now."""
        self._buffer += self._characters.feed(piece)
        return self._advance(is_end=False)

    def close(self) -> Heard:
        """Give what was held back, at the end of the answer."""
        self._buffer += self._characters.close()
        return self._advance(is_end=True)

    def _advance(self, *, is_end: bool) -> Heard:
        text, reasoning = "", ""
        calls: tuple[ToolCall, ...] = ()
        while not self.is_stopped:
            heard = self._body(is_end) if self._header is not None else self._head(is_end)
            if heard is None:
                break
            text, reasoning = text + heard.text, reasoning + heard.reasoning
            calls += heard.tool_calls
        if is_end:
            text += self._text.add("", is_end=True)
        return Heard(text, reasoning, calls)

    def _head(self, is_end: bool) -> Heard | None:
        """Read up to where a message's body begins."""
        header, found, rest = self._buffer.partition(_BODY)
        if found:
            self._header, self._buffer = header, rest
            return Heard()
        if is_end and self._buffer and "<|" not in self._buffer:
            said, self._buffer = self._buffer, ""
            return Heard(self._text.add(said))  # a model that forgot its channels
        return None

    def _body(self, is_end: bool) -> Heard | None:
        """Read a message's body, as far as it is certain."""
        assert self._header is not None
        recipient = _RECIPIENT.search(self._header)
        if recipient and recipient.group(1) == "assistant":
            recipient = None
        ends = [(at, mark) for mark in _ENDS if (at := self._buffer.find(mark)) >= 0]
        if ends:
            at, mark = min(ends)
            body, header = self._buffer[:at], self._header
            # A header may follow without `<|start|>`; its channel belongs to it.
            keeps_mark = mark == "<|channel|>"
            self._buffer = self._buffer[at + (0 if keeps_mark else len(mark)) :]
            self._header = None
            return self._called(recipient.group(1), body) if recipient else self._told(header, body)
        if not self._buffer:
            return None
        if recipient:
            if not is_end:
                return None
            body, self._buffer, self._header = self._buffer, "", None
            return self._called(recipient.group(1), body)
        held = 0 if is_end else n_doubtful(self._buffer, _ENDS)
        sure = self._buffer[: len(self._buffer) - held]
        self._buffer = self._buffer[len(sure) :]
        return self._told(self._header, sure) if sure else None

    def _told(self, header: str, body: str) -> Heard:
        if _CHANNEL.findall(header)[-1:] == ["analysis"]:
            return Heard(reasoning=body)
        return Heard(self._text.add(body))

    def _called(self, recipient: str, body: str) -> Heard:
        try:
            arguments = json.loads(body, strict=False) if body.strip() else {}
        except (ValueError, RecursionError):
            return Heard(self._text.add(body))
        if not isinstance(arguments, dict):
            return Heard(self._text.add(body))
        before = self._text.add("", is_end=True)
        name = recipient.removeprefix("functions.")
        return Heard(before, "", (ToolCall(name, arguments, self._new_id()),))
