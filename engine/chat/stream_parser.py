"""Stream parser: split an answer into text, reasoning and tool calls while it is generated. Pure.

The result depends only on the answer's characters, never on how they were cut into tokens: each
decision waits until no further character can change it. Text is held back only where it may begin
a tag, a stop string or a call; a call that turns out to be none comes back as text.

gpt-oss writes Harmony (github.com/openai/harmony, docs/format.md): a row of messages with
channels. `analysis` is reasoning, `final` is the answer, a message to `functions.name` is a tool
call, and `commentary` without a recipient is text before calls.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, Protocol

from paddock.engine.request import Tool, ToolCall

from .tool_call_parser import IncompleteValue, MalformedValue, parse_first_complete_call
from .tool_formats import ReasoningTags, ToolCallFormat


class Utf8Decoder:
    """Bytes in any pieces, whole characters out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: bytes) -> str:
        """Add bytes; return the characters that are whole now."""
        if not self._decoder.getstate()[0]:
            try:
                return piece.decode()
            except UnicodeDecodeError:
                pass  # it ends within a character
        return self._decoder.decode(piece)

    def close(self) -> str:
        """Return nothing: half a character, which a limit left behind, is left out."""
        self._decoder.reset()
        return ""


class StopStringFilter:
    """A growing text that ends before the first stop string.

    What might be the beginning of a stop string is held back until it is certain.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = tuple(mark for mark in stop if mark)
        self._held = ""
        self.stopped_by = ""
        """The stop string that was met."""

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return bool(self.stopped_by)

    def add(self, new: str, *, is_end: bool = False) -> str:
        """Add to the text; return what is certain now, or all of it at the end."""
        if not self._stop:
            return new
        if self.is_stopped:
            return ""
        text = self._held + new
        found = [(at, mark) for mark in self._stop if (at := text.find(mark)) >= 0]
        if found:
            at, self.stopped_by = min(found, key=lambda one: one[0])
            self._held = ""
            return text[:at]
        n_held = 0 if is_end else partial_mark_length(text, self._stop)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]


class PlainTextStream:
    """The text of one answer as it grows.

    >>> text = PlainTextStream(stop=("END",))
    >>> text.feed("né E".encode()[:2]), text.feed("né E".encode()[2:]), text.feed(b"Nx")
    ('n', 'é ', 'ENx')
    >>> text.feed(b"yEND"), text.is_stopped
    ('y', True)
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._characters = Utf8Decoder()
        self._text = StopStringFilter(stop)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._text.is_stopped

    @property
    def stopped_by(self) -> str:
        """The stop string that was met."""
        return self._text.stopped_by

    def feed(self, piece: bytes) -> str:
        """Add a token's bytes; gives the text that is certain now."""
        return self._text.add(self._characters.feed(piece))

    def close(self) -> str:
        """Return what was held back, at the end of the answer."""
        return self._text.add(self._characters.close(), is_end=True)


def partial_mark_length(text: str, marks: tuple[str, ...]) -> int:
    """Count the characters at the end of a text that may begin one of the marks.

    >>> partial_mark_length("a <too", ("<tool>", "<think>"))
    4
    """
    longest, firsts = _mark_extent(marks)
    tail = text[len(text) - min(longest, len(text)) :]
    for at, character in enumerate(tail):
        if character in firsts and any(mark.startswith(tail[at:]) for mark in marks):
            return len(tail) - at
    return 0


@lru_cache(maxsize=64)
def _mark_extent(marks: tuple[str, ...]) -> tuple[int, frozenset[str]]:
    """Return how many characters a mark may have while it is not whole, and how marks begin."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    return longest, frozenset(mark[0] for mark in marks)


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """What became certain with the last tokens."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.text or self.reasoning or self.tool_calls)


class StreamParser(Protocol):
    """Reads one answer, token by token."""

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met: the answer ends here."""
        ...

    @property
    def stopped_by(self) -> str:
        """The stop string that was met; empty: none was."""
        ...

    def feed(self, piece: bytes) -> AnswerDelta:
        """Take a token's bytes; gives what is certain now."""
        ...

    def close(self) -> AnswerDelta:
        """Return what was held back, at the end of the answer."""
        ...


class PlainTextParser:
    """For answers that are nothing but text."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._text = PlainTextStream(stop)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._text.is_stopped

    @property
    def stopped_by(self) -> str:
        """The stop string that was met."""
        return self._text.stopped_by

    def feed(self, piece: bytes) -> AnswerDelta:
        """Take a token's bytes; gives the text that is certain now."""
        return AnswerDelta(self._text.feed(piece))

    def close(self) -> AnswerDelta:
        """Return what was held back."""
        return AnswerDelta(self._text.close())


_HARMONY_BODY = "<|message|>"
_HARMONY_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>")
HARMONY_TOKENS = (_HARMONY_BODY, "<|constrain|>", *_HARMONY_ENDS)
"""Control tokens that must be readable."""

_HARMONY_RECIPIENT = re.compile(r"\bto=([\w.\-]+)")
_HARMONY_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyParser:
    """Reads one answer of gpt-oss."""

    def __init__(self, stop: tuple[str, ...], new_id: Callable[[], str]) -> None:
        self._text = StopStringFilter(stop)
        self._new_id = new_id
        self._characters = Utf8Decoder()
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

    def feed(self, piece: bytes) -> AnswerDelta:
        """Take a token's bytes; gives what is certain now."""
        self._buffer += self._characters.feed(piece)
        return self._advance(is_end=False)

    def close(self) -> AnswerDelta:
        """Return what was held back, at the end of the answer."""
        self._buffer += self._characters.close()
        return self._advance(is_end=True)

    def _advance(self, *, is_end: bool) -> AnswerDelta:
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
        return AnswerDelta(text, reasoning, calls)

    def _head(self, is_end: bool) -> AnswerDelta | None:
        """Read up to where a message's body begins."""
        header, found, rest = self._buffer.partition(_HARMONY_BODY)
        if found:
            self._header, self._buffer = header, rest
            return AnswerDelta()
        if is_end and self._buffer and "<|" not in self._buffer:
            said, self._buffer = self._buffer, ""
            return AnswerDelta(self._text.add(said))  # a model that forgot its channels
        return None

    def _body(self, is_end: bool) -> AnswerDelta | None:
        """Read a message's body, as far as it is certain."""
        assert self._header is not None
        recipient = _HARMONY_RECIPIENT.search(self._header)
        if recipient and recipient.group(1) == "assistant":
            recipient = None
        ends = [(at, mark) for mark in _HARMONY_ENDS if (at := self._buffer.find(mark)) >= 0]
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
        held = 0 if is_end else partial_mark_length(self._buffer, _HARMONY_ENDS)
        sure = self._buffer[: len(self._buffer) - held]
        self._buffer = self._buffer[len(sure) :]
        return self._told(self._header, sure) if sure else None

    def _told(self, header: str, body: str) -> AnswerDelta:
        if _HARMONY_CHANNEL.findall(header)[-1:] == ["analysis"]:
            return AnswerDelta(reasoning=body)
        return AnswerDelta(self._text.add(body))

    def _called(self, recipient: str, body: str) -> AnswerDelta:
        try:
            arguments = json.loads(body, strict=False) if body.strip() else {}
        except (ValueError, RecursionError):
            return AnswerDelta(self._text.add(body))
        if not isinstance(arguments, dict):
            return AnswerDelta(self._text.add(body))
        before = self._text.add("", is_end=True)
        name = recipient.removeprefix("functions.")
        return AnswerDelta(before, "", (ToolCall(name, arguments, self._new_id()),))


_ParserState = Literal["start", "reasoning", "text", "after"]
_CALL_END_CHARS = frozenset("}])>|")
_CHEAP_CALL_CHARS = 1000
"""A call longer than this is read again only where it may have ended."""


@dataclass(slots=True)
class _DeltaBuilder:
    """What one feed gathers."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)

    def heard(self) -> AnswerDelta:
        return AnswerDelta("".join(self.text), "".join(self.reasoning), tuple(self.tool_calls))


@dataclass(frozen=True, slots=True)
class AnswerMarkup:
    """What to listen for in an answer."""

    tags: ReasoningTags
    forms: tuple[ToolCallFormat, ...] = ()
    """Empty: no tools were offered, so nothing is a call."""
    tools: Mapping[str, Tool] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    begins_in_reasoning: bool = False


class MarkupParser:
    """Reads one answer of a model that marks reasoning by tags and calls by forms.

    Args:
        ways: what to listen for.
        stop: strings before which the text ends; they are not looked for in reasoning or calls.
        new_id: makes an id for a call whose form has none.
    """

    def __init__(
        self, ways: AnswerMarkup, stop: tuple[str, ...], new_id: Callable[[], str]
    ) -> None:
        self._ways = ways
        self._text = StopStringFilter(stop)
        self._keeps_space = bool(stop)
        self._new_id = new_id
        self._characters = Utf8Decoder()
        self._buffer = ""
        self._state: _ParserState = "reasoning" if ways.begins_in_reasoning else "start"
        self._is_first = True
        """Nothing but white space was heard in this state, or before it."""
        self._was_reasoning = ways.begins_in_reasoning
        self._is_waiting = False
        """The buffer begins with a call that is not whole."""
        self._bare = [form for form in ways.forms if form.is_bare]
        self._continuing = [form for form in ways.forms if form.continues_bare]
        self._triggers = tuple({one for form in ways.forms for one in form.triggers})
        # A model may call from within its reasoning, without closing it first.
        self._inner = tuple(one for one in self._triggers if one.startswith("<"))
        # Tags of control tokens mean what they say wherever they stand.
        is_hard = "|" in ways.tags.opens and "|" in ways.tags.closes
        self._hard = (ways.tags.opens, ways.tags.closes) if is_hard else ()
        leftovers = {word for form in ways.forms for word in form.leftovers}
        self._closing = tuple(sorted(leftovers, key=len, reverse=True))
        self._leftovers = (*self._closing, ",", ";", ways.tags.closes)
        self._waits_for = (*self._closing, *self._inner)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._text.is_stopped

    @property
    def stopped_by(self) -> str:
        """The stop string that was met."""
        return self._text.stopped_by

    def feed(self, piece: bytes) -> AnswerDelta:
        """Take a token's bytes; gives what is certain now."""
        new = self._characters.feed(piece)
        self._buffer += new
        if self._is_waiting and not _CALL_END_CHARS.intersection(new):
            return AnswerDelta()  # a call that was not whole is not whole now
        return self._advance(is_end=False)

    def close(self) -> AnswerDelta:
        """Return what was held back, at the end of the answer."""
        self._buffer += self._characters.close()
        return self._advance(is_end=True)

    def _advance(self, *, is_end: bool) -> AnswerDelta:
        told = _DeltaBuilder()
        steps = {
            "start": self._start,
            "reasoning": self._reason,
            "text": self._say,
            "after": self._follow,
        }
        self._is_waiting = False
        while not self.is_stopped and steps[self._state](told, is_end):
            pass
        if is_end:
            self._tell("", told, is_end=True)
        return told.heard()

    # Each step takes from the front of the buffer and tells whether to go on.

    def _start(self, told: _DeltaBuilder, is_end: bool) -> bool:
        """At the beginning, or after reasoning: reasoning or a bare call may come."""
        rest = self._buffer.lstrip()
        opens = self._ways.tags.opens
        if rest.startswith(opens):
            self._enter_reasoning(rest[len(opens) :])
            return True
        if not is_end and opens.startswith(rest):
            return False
        if rest and self._bare:
            heard = self._call(rest, 0, self._bare, is_end)
            if heard is None:
                return False
            if heard:
                self._take_calls(*heard, told, rest)
                return True
        if self._was_reasoning:
            self._buffer = rest  # what stands between reasoning and text belongs to neither
        self._state = "text"
        return bool(self._buffer)

    def _enter_reasoning(self, rest: str) -> None:
        self._buffer, self._state = rest, "reasoning"
        self._is_first = self._was_reasoning = True

    def _reason(self, told: _DeltaBuilder, is_end: bool) -> bool:
        """Inside reasoning, until its tag closes or a call begins."""
        tags = self._ways.tags
        if self._is_first:
            self._buffer = self._buffer.lstrip()
            while self._buffer.startswith(tags.opens):  # said again, though the prompt opened it
                self._buffer = self._buffer[len(tags.opens) :].lstrip()
            if not is_end and tags.opens.startswith(self._buffer):
                return False
        marks = (tags.closes, *self._inner)
        at, mark = _earliest_mark(self._buffer, marks, is_end=is_end)
        if mark == tags.closes:
            self._think(self._buffer[:at].rstrip(), told)
            self._buffer, self._state = self._buffer[at + len(mark) :], "start"
            return True
        if mark:
            return self._call_within(at, mark, told, is_end)
        held = 0 if is_end else partial_mark_length(self._buffer, marks)
        kept = self._buffer[: len(self._buffer) - held].rstrip()
        self._think(kept, told)
        self._buffer = "" if is_end else self._buffer[len(kept) :]
        return False

    def _call_within(self, at: int, mark: str, told: _DeltaBuilder, is_end: bool) -> bool:
        """A call of a known tool ends the reasoning in which it stands, if nothing follows it.

        Some models call without closing their reasoning; but where they go on, they only thought
        of it.
        """
        heard = self._call(self._buffer, at, self._ways.forms, is_end)
        thought = self._buffer[:at].rstrip()
        rest = self._after_words(self._buffer[heard[1] :]) if heard else ""
        if heard is None or (heard and not rest and not is_end):
            self._think(thought, told)
            self._buffer = self._buffer[len(thought) :]
            return False
        is_known = heard and all(call.name in self._ways.tools for call in heard[0])
        if heard and is_known and (not rest or rest.startswith(self._inner)):
            self._think(thought, told)
            self._take_calls(*heard, told, self._buffer)
            return True
        if heard and not is_end and any(one.startswith(rest) for one in self._waits_for):
            self._think(thought, told)
            self._buffer = self._buffer[len(thought) :]
            return False
        end = heard[1] if heard else at + len(mark)
        self._think(self._buffer[:end], told)
        self._buffer = self._buffer[end:]
        return True

    def _after_words(self, text: str) -> str:
        """Return what follows the closing words of a call."""
        text = text.lstrip()
        while word := next((one for one in self._closing if text.startswith(one)), ""):
            text = text[len(word) :].lstrip()
        return text

    def _think(self, text: str, told: _DeltaBuilder) -> None:
        if text:
            told.reasoning.append(text)
            self._is_first = False

    def _say(self, told: _DeltaBuilder, is_end: bool) -> bool:
        """Inside text, until a call is announced."""
        marks = (*self._triggers, *self._hard, *self._ways.wrappers)
        at, mark = _earliest_mark(self._buffer, marks, is_end=is_end)
        if not mark:
            self._say_what_is_sure(marks, told, is_end)
            return False
        if mark not in self._triggers:
            self._tell(self._buffer[:at], told)
            self._buffer = self._buffer[at + len(mark) :]
            if mark == self._ways.tags.opens:
                self._enter_reasoning(self._buffer)
            return True
        heard = self._call(self._buffer, at, self._ways.forms, is_end)
        said = self._buffer[:at]
        kept = said if self._keeps_space else said.rstrip()
        if heard is None:
            self._tell(kept, told)
            self._buffer = self._buffer[len(kept) :]
            return False
        if heard:
            self._tell(kept, told)
            if not self.is_stopped:
                self._take_calls(*heard, told, self._buffer)
            return True
        self._tell(self._buffer[: at + len(mark)], told)
        self._buffer = self._buffer[at + len(mark) :]
        return True

    def _say_what_is_sure(self, marks: tuple[str, ...], told: _DeltaBuilder, is_end: bool) -> None:
        text = self._buffer
        sure = text if is_end else text[: len(text) - partial_mark_length(text, marks)]
        # White space before a call belongs to neither; without calls nothing needs to wait.
        if marks and not is_end and not self._keeps_space:
            sure = sure.rstrip()
        self._tell(sure, told)
        self._buffer = text[len(sure) :]

    def _follow(self, told: _DeltaBuilder, is_end: bool) -> bool:
        """After a call: its closing words, another call, reasoning, or text."""
        self._buffer = rest = self._buffer.lstrip()
        if not rest:
            return False
        word = next((one for one in self._leftovers if rest.startswith(one)), "")
        longer = (*self._leftovers, self._ways.tags.opens, *self._triggers)
        if not is_end and any(one.startswith(rest) and one != rest for one in longer):
            return False
        if rest.startswith(self._ways.tags.opens):
            self._enter_reasoning(rest[len(self._ways.tags.opens) :])
            return True
        if rest.startswith(self._triggers) or (self._continuing and rest[0] in "{["):
            forms = self._ways.forms if rest.startswith(self._triggers) else self._continuing
            heard = self._call(rest, 0, forms, is_end)
            if heard is None:
                return False
            if heard:
                self._take_calls(*heard, told, rest)
                return True
        if word:
            self._buffer = rest[len(word) :]
            return True
        self._state = "text"
        return True

    def _call(
        self, text: str, at: int, forms: Sequence[ToolCallFormat], is_end: bool
    ) -> tuple[list[ToolCall], int] | tuple[()] | None:
        """Try to read a call; None: more text is needed; empty: it is none."""
        try:
            calls, end, _ = parse_first_complete_call(forms, text, at, self._ways.tools)
        except MalformedValue:
            return ()
        except IncompleteValue:
            if is_end:
                return self._ended_call(text, at, forms)
            self._is_waiting = len(text) - at > _CHEAP_CALL_CHARS
            return None
        return calls, end

    def _ended_call(
        self, text: str, at: int, forms: Sequence[ToolCallFormat]
    ) -> tuple[list[ToolCall], int] | tuple[()]:
        """Read a call of which nothing but its closing words is missing."""
        for form in forms:
            whole = text + "".join(form.leftovers[:1])
            try:
                calls, end, _ = parse_first_complete_call([form], whole, at, self._ways.tools)
            except (MalformedValue, IncompleteValue):
                continue
            return calls, min(end, len(text))
        return ()

    def _take_calls(self, calls: list[ToolCall], end: int, told: _DeltaBuilder, text: str) -> None:
        self._tell("", told, is_end=True)  # no stop string reaches over a call
        for call in calls:
            told.tool_calls.append(call if call.id else replace(call, id=self._new_id()))
        self._buffer, self._state = text[end:], "after"

    def _tell(self, text: str, told: _DeltaBuilder, *, is_end: bool = False) -> None:
        sure = self._text.add(text, is_end=is_end)
        if sure:
            told.text.append(sure)


def _earliest_mark(text: str, marks: Sequence[str], *, is_end: bool) -> tuple[int, str]:
    """Find the mark that stands first, the longest of those at one place; empty: none does."""
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    if not found:
        return -1, ""
    at, _, mark = min(found)
    # One that began before it may become whole yet.
    doubtful = len(text) - partial_mark_length(text, tuple(marks))
    return (-1, "") if doubtful < at and not is_end else (at, mark)
