"""Stream parser: split an answer into text, reasoning and tool calls while it is generated.

Pure. The result depends only on the answer's characters, never on how they were cut into tokens:
each decision waits until no further character can change it. Text is held back only where it may
begin a tag, a stop string or a call; a call that turns out to be none comes back as text.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

from paddock.engine.request import Tool, ToolCall
from paddock.engine.system.records import Struct, field, replace

from .reasoning_tags import ReasoningTags
from .stop_strings import StopStringFilter, partial_mark_length
from .tool_call_syntax import (
    IncompleteValue,
    MalformedValue,
    ToolCallFormat,
    parse_calls,
    parse_first_complete_call,
)


class AnswerDelta(Struct, frozen=True):
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.tool_calls)


class StreamParser(ABC):
    """Parses one answer, token by token.

    `stop`: strings before which the text ends; reasoning and calls are not searched for them.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._text = StopStringFilter(stop)
        self.may_stop = any(stop)
        """Whether the text decides where the answer ends."""
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._buffer = ""
        self._is_cut = False

    @property
    def is_stopped(self) -> bool:
        return self._text.is_stopped

    @property
    def stopped_by(self) -> str:
        return self._text.stopped_by

    def feed(self, piece: bytes) -> AnswerDelta:
        self._buffer += self._characters.decode(piece)
        return self._advance(is_end=False)

    def close(self, *, is_cut: bool = False) -> AnswerDelta:
        """Return the rest; `is_cut`: a limit ended the answer, so a call at its end is dropped."""
        self._is_cut = is_cut
        return self._advance(is_end=True)

    @abstractmethod
    def _advance(self, *, is_end: bool) -> AnswerDelta:
        """Take from the buffer what is certain; at the end, everything."""


class PlainTextParser(StreamParser):
    """Parses an answer that is nothing but text.

    >>> parser = PlainTextParser(stop=("END",))
    >>> pieces = ["né E".encode()[:2], "né E".encode()[2:], b"Nx", b"yEND"]
    >>> [parser.feed(piece).text for piece in pieces]
    ['n', 'é ', 'ENx', 'y']
    >>> parser.is_stopped
    True
    """

    def _advance(self, *, is_end: bool) -> AnswerDelta:
        new = self._buffer
        self._buffer = ""
        return AnswerDelta(self._text.add(new, is_end=is_end))


_ParserState = Literal["start", "reasoning", "text", "after"]
_CALL_END_CHARS = frozenset("}])>|")
_CHEAP_CALL_CHARS = 1000
"""An incomplete call longer than this is parsed again only where it may have ended."""


class _DeltaBuilder(Struct):
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)

    def build(self) -> AnswerDelta:
        return AnswerDelta("".join(self.text), "".join(self.reasoning), tuple(self.tool_calls))


class AnswerMarkup(Struct, frozen=True):
    tags: ReasoningTags
    formats: tuple[ToolCallFormat, ...] = ()
    """Empty: no tools were offered, so nothing is a call."""
    tools: Mapping[str, Tool] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    begins_in_reasoning: bool = False
    must_call: bool = False
    """Whether the answer is nothing but calls."""


class MarkupParser(StreamParser):
    """Parses an answer with reasoning between tags and calls in known formats.

    `new_id` makes an id for a call whose format has none.
    """

    def __init__(
        self, markup: AnswerMarkup, stop: tuple[str, ...], new_id: Callable[[], str]
    ) -> None:
        super().__init__(stop)
        self._markup = markup
        self._keeps_space = bool(stop)
        self._new_id = new_id
        self._state: _ParserState = "reasoning" if markup.begins_in_reasoning else "start"
        self._is_first = True
        """Nothing but white space has come since this state began."""
        self._was_reasoning = markup.begins_in_reasoning
        self._is_waiting = False
        """The buffer begins with an incomplete call."""
        self._bare = [call_format for call_format in markup.formats if call_format.is_bare]
        self._triggers = tuple(
            {trigger for call_format in markup.formats for trigger in call_format.triggers}
        )
        # A model may call a tool without closing its reasoning first.
        self._inner = tuple(trigger for trigger in self._triggers if trigger.startswith("<"))
        # Tags that are control tokens count wherever they stand.
        is_hard = "|" in markup.tags.opens and "|" in markup.tags.closes
        self._hard = (markup.tags.opens, markup.tags.closes) if is_hard else ()
        leftovers = {word for call_format in markup.formats for word in call_format.leftovers}
        self._closing = tuple(sorted(leftovers, key=len, reverse=True))
        self._leftovers = (*self._closing, ",", ";", markup.tags.closes)
        self._waits_for = (*self._closing, *self._inner)

    def feed(self, piece: bytes) -> AnswerDelta:
        new = self._characters.decode(piece)
        self._buffer += new
        if self._is_waiting and not _CALL_END_CHARS.intersection(new):
            return AnswerDelta()  # the call is still incomplete
        return self._advance(is_end=False)

    def _advance(self, *, is_end: bool) -> AnswerDelta:
        delta = _DeltaBuilder()
        steps = {
            "start": self._parse_start,
            "reasoning": self._parse_reasoning,
            "text": self._parse_text,
            "after": self._parse_after_call,
        }
        self._is_waiting = False
        while not self.is_stopped and steps[self._state](delta, is_end):
            pass
        if is_end:
            self._add_text("", delta, is_end=True)
        return delta.build()

    # Each step takes from the front of the buffer and returns whether to go on.

    def _parse_start(self, delta: _DeltaBuilder, is_end: bool) -> bool:
        rest = self._buffer.lstrip()
        opens = self._markup.tags.opens
        if rest.startswith(opens):
            self._enter_reasoning(rest[len(opens) :])
            return True
        if not is_end and opens.startswith(rest):
            return False
        if rest and self._bare:
            found = self._try_call(rest, 0, self._bare, is_end)
            if found is None:
                return False
            if found:
                self._take_calls(*found, delta, rest)
                return True
        if self._was_reasoning:
            self._buffer = rest  # white space between reasoning and text belongs to neither
        self._state = "text"
        return bool(self._buffer)

    def _enter_reasoning(self, rest: str) -> None:
        self._buffer = rest
        self._state = "reasoning"
        self._is_first = self._was_reasoning = True

    def _parse_reasoning(self, delta: _DeltaBuilder, is_end: bool) -> bool:
        """Parse reasoning, until its tag closes or a call begins."""
        tags = self._markup.tags
        if self._is_first:
            self._buffer = self._buffer.lstrip()
            while self._buffer.startswith(tags.opens):  # repeated, though the prompt opened it
                self._buffer = self._buffer[len(tags.opens) :].lstrip()
            if not is_end and tags.opens.startswith(self._buffer):
                return False
        marks = (tags.closes, *self._inner)
        at, mark = _earliest_mark(self._buffer, marks, is_end=is_end)
        if mark == tags.closes:
            self._add_reasoning(self._buffer[:at].rstrip(), delta)
            self._buffer = self._buffer[at + len(mark) :]
            self._state = "start"
            return True
        if mark:
            return self._parse_call_in_reasoning(at, mark, delta, is_end)
        n_held_back = 0 if is_end else partial_mark_length(self._buffer, marks)
        kept = self._buffer[: len(self._buffer) - n_held_back].rstrip()
        self._add_reasoning(kept, delta)
        self._buffer = "" if is_end else self._buffer[len(kept) :]
        return False

    def _parse_call_in_reasoning(
        self, at: int, mark: str, delta: _DeltaBuilder, is_end: bool
    ) -> bool:
        """Parse a call within reasoning: it ends the reasoning if nothing follows it.

        Some models call a tool without closing their reasoning. Where the reasoning goes on, they
        only thought of the call.
        """
        text = self._buffer
        n_thought = len(text[:at].rstrip())
        found = self._try_call(text, at, self._markup.formats, is_end)
        if found is None:
            self._take_reasoning(n_thought, delta)
            return False
        if not found:
            self._take_reasoning(at + len(mark), delta)
            return True
        calls, end = found
        rest = text[end:].lstrip()
        while word := _first_word(rest, self._closing):
            rest = rest[len(word) :].lstrip()
        is_known = all(call.name in self._markup.tools for call in calls)
        if is_known and (rest.startswith(self._inner) or (not rest and is_end)):
            self._take_reasoning(n_thought, delta)
            self._take_calls(calls, end, delta, text)
            return True
        waits = not is_end and (not rest or any(mark.startswith(rest) for mark in self._waits_for))
        self._take_reasoning(n_thought if waits else end, delta)
        return not waits

    def _take_reasoning(self, end: int, delta: _DeltaBuilder) -> None:
        self._add_reasoning(self._buffer[:end], delta)
        self._buffer = self._buffer[end:]

    def _add_reasoning(self, text: str, delta: _DeltaBuilder) -> None:
        if text:
            delta.reasoning.append(text)
            self._is_first = False

    def _parse_text(self, delta: _DeltaBuilder, is_end: bool) -> bool:
        marks = (*self._triggers, *self._hard, *self._markup.wrappers)
        at, mark = _earliest_mark(self._buffer, marks, is_end=is_end)
        if not mark:
            text = self._buffer
            sure = text if is_end else text[: len(text) - partial_mark_length(text, marks)]
            # White space before a call belongs to neither; without calls nothing needs to wait.
            if marks and not is_end and not self._keeps_space:
                sure = sure.rstrip()
            self._add_text(sure, delta)
            self._buffer = text[len(sure) :]
            return False
        if mark not in self._triggers:
            self._add_text(self._buffer[:at], delta)
            self._buffer = self._buffer[at + len(mark) :]
            if mark == self._markup.tags.opens:
                self._enter_reasoning(self._buffer)
            return True
        found = self._try_call(self._buffer, at, self._markup.formats, is_end)
        before = self._buffer[:at]
        kept = before if self._keeps_space else before.rstrip()
        if found is None:
            self._add_text(kept, delta)
            self._buffer = self._buffer[len(kept) :]
            return False
        if found:
            self._add_text(kept, delta)
            if not self.is_stopped:
                self._take_calls(*found, delta, self._buffer)
            return True
        self._add_text(self._buffer[: at + len(mark)], delta)
        self._buffer = self._buffer[at + len(mark) :]
        return True

    def _parse_after_call(self, delta: _DeltaBuilder, is_end: bool) -> bool:
        self._buffer = rest = self._buffer.lstrip()
        if not rest:
            return False
        if is_end and any(word.startswith(rest) for word in self._closing):
            self._buffer = ""  # closing words, cut off
            return False
        longer = (*self._leftovers, self._markup.tags.opens, *self._triggers)
        if not is_end and any(mark.startswith(rest) and mark != rest for mark in longer):
            return False
        if rest.startswith(self._markup.tags.opens):
            self._enter_reasoning(rest[len(self._markup.tags.opens) :])
            return True
        formats: Sequence[ToolCallFormat] = self._markup.formats
        if not rest.startswith(self._triggers):
            is_bare = rest[0] in "{["
            formats = [known for known in formats if is_bare and known.continues_bare]
        found = self._try_call(rest, 0, formats, is_end) if formats else ()
        if found is None:
            return False
        if found:
            self._take_calls(*found, delta, rest)
        elif word := _first_word(rest, self._leftovers):
            self._buffer = rest[len(word) :]
        else:
            self._state = "text"
        return True

    def _try_call(
        self, text: str, at: int, formats: Sequence[ToolCallFormat], is_end: bool
    ) -> tuple[list[ToolCall], int] | tuple[()] | None:
        """Try to parse a call; None: more text is needed; empty: it is none."""
        try:
            return parse_first_complete_call(formats, text, at, self._markup.tools)
        except MalformedValue:
            return ()
        except IncompleteValue:
            if is_end:
                # Parse a call that lacks nothing but its closing words
                for call_format in formats:
                    if self._is_cut and call_format.param:
                        continue  # more parameters may have followed
                    whole = text + "".join(call_format.leftovers[:1])
                    with suppress(MalformedValue, IncompleteValue):
                        calls, end = parse_calls(call_format, whole, at, self._markup.tools)
                        return calls, min(end, len(text))
                is_part = self._is_cut and text.startswith(self._triggers, at)
                return ([], len(text)) if is_part else ()
            self._is_waiting = len(text) - at > _CHEAP_CALL_CHARS
            return None

    def _take_calls(self, calls: list[ToolCall], end: int, delta: _DeltaBuilder, text: str) -> None:
        self._add_text("", delta, is_end=True)  # no stop string reaches across a call
        for call in calls:
            delta.tool_calls.append(call if call.id else replace(call, id=self._new_id()))
        self._buffer = text[end:]
        self._state = "after"

    def _add_text(self, text: str, delta: _DeltaBuilder, *, is_end: bool = False) -> None:
        sure = self._text.add(text, is_end=is_end)
        if sure and not (self._is_cut and self._markup.must_call):
            delta.text.append(sure)


def _first_word(text: str, words: Sequence[str]) -> str:
    return next((word for word in words if text.startswith(word)), "")


def _earliest_mark(text: str, marks: Sequence[str], *, is_end: bool) -> tuple[int, str]:
    """Return place and text of the first mark, the longest of those at one place; -1, "": none."""
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    if not found:
        return -1, ""
    at, _, mark = min(found)
    # A mark that began before it may still become complete.
    doubtful = len(text) - partial_mark_length(text, tuple(marks))
    return (-1, "") if doubtful < at and not is_end else (at, mark)
