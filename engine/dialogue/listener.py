"""Hear what an answer says while it grows: plain text, reasoning, tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from paddock.engine.request import ToolCall

from .text import AnswerText


@dataclass(frozen=True, slots=True)
class Heard:
    """What became certain with the last tokens."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.text or self.reasoning or self.tool_calls)


class Listener(Protocol):
    """Reads one answer, token by token."""

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met: the answer ends here."""
        ...

    @property
    def stopped_by(self) -> str:
        """The stop string that was met; empty: none was."""
        ...

    def feed(self, piece: bytes) -> Heard:
        """Take a token's bytes; gives what is certain now."""
        ...

    def close(self) -> Heard:
        """Give what was held back, at the end of the answer."""
        ...


class PlainListener:
    """For answers that are nothing but text."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._text = AnswerText(stop)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._text.is_stopped

    @property
    def stopped_by(self) -> str:
        """The stop string that was met."""
        return self._text.stopped_by

    def feed(self, piece: bytes) -> Heard:
        """Take a token's bytes; gives the text that is certain now."""
        return Heard(self._text.feed(piece))

    def close(self) -> Heard:
        """Give what was held back."""
        return Heard(self._text.close())
