"""Hear reasoning, text and tool calls apart while an answer grows. Pure.

What is told depends only on the answer's characters, never on how they were cut into pieces: each
decision waits until no further character can change it. Text is held back only where it may begin
a tag or a call; a call that turns out to be none comes back as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from paddock.engine.request import Tool, ToolCall

from .calls import CallForm
from .forms import Tags
from .listener import Heard
from .reading import first_whole
from .text import Characters, StoppableText, n_doubtful
from .values import Broken, Partial

_State = Literal["start", "reasoning", "text", "after"]
_ENDS_OF_CALLS = frozenset("}])>|")
_CHEAP_CHARACTERS = 1000
"""A call longer than this is read again only where it may have ended."""


@dataclass(slots=True)
class _Told:
    """What one feed gathers."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)

    def heard(self) -> Heard:
        return Heard("".join(self.text), "".join(self.reasoning), tuple(self.tool_calls))


@dataclass(frozen=True, slots=True)
class Ways:
    """What to listen for in an answer."""

    tags: Tags
    forms: tuple[CallForm, ...] = ()
    """Empty: no tools were offered, so nothing is a call."""
    tools: Mapping[str, Tool] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    begins_in_reasoning: bool = False


class AnswerListener:
    """Reads one answer of a model that marks reasoning by tags and calls by forms.

    Args:
        ways: what to listen for.
        stop: strings before which the text ends; they are not looked for in reasoning or calls.
        new_id: makes an id for a call whose form has none.
    """

    def __init__(self, ways: Ways, stop: tuple[str, ...], new_id: Callable[[], str]) -> None:
        self._ways = ways
        self._text = StoppableText(stop)
        self._keeps_space = bool(stop)
        self._new_id = new_id
        self._characters = Characters()
        self._buffer = ""
        self._state: _State = "reasoning" if ways.begins_in_reasoning else "start"
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

    def feed(self, piece: bytes) -> Heard:
        """Take a token's bytes; gives what is certain now."""
        new = self._characters.feed(piece)
        self._buffer += new
        if self._is_waiting and not _ENDS_OF_CALLS.intersection(new):
            return Heard()  # a call that was not whole is not whole now
        return self._advance(is_end=False)

    def close(self) -> Heard:
        """Give what was held back, at the end of the answer."""
        self._buffer += self._characters.close()
        return self._advance(is_end=True)

    def _advance(self, *, is_end: bool) -> Heard:
        told = _Told()
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

    def _start(self, told: _Told, is_end: bool) -> bool:
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

    def _reason(self, told: _Told, is_end: bool) -> bool:
        """Inside reasoning, until its tag closes or a call begins."""
        tags = self._ways.tags
        if self._is_first:
            self._buffer = self._buffer.lstrip()
            while self._buffer.startswith(tags.opens):  # said again, though the prompt opened it
                self._buffer = self._buffer[len(tags.opens) :].lstrip()
            if not is_end and tags.opens.startswith(self._buffer):
                return False
        marks = (tags.closes, *self._inner)
        at, mark = _earliest(self._buffer, marks, is_end=is_end)
        if mark == tags.closes:
            self._think(self._buffer[:at].rstrip(), told)
            self._buffer, self._state = self._buffer[at + len(mark) :], "start"
            return True
        if mark:
            return self._call_within(at, mark, told, is_end)
        held = 0 if is_end else n_doubtful(self._buffer, marks)
        kept = self._buffer[: len(self._buffer) - held].rstrip()
        self._think(kept, told)
        self._buffer = "" if is_end else self._buffer[len(kept) :]
        return False

    def _call_within(self, at: int, mark: str, told: _Told, is_end: bool) -> bool:
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
        """Give what follows the closing words of a call."""
        text = text.lstrip()
        while word := next((one for one in self._closing if text.startswith(one)), ""):
            text = text[len(word) :].lstrip()
        return text

    def _think(self, text: str, told: _Told) -> None:
        if text:
            told.reasoning.append(text)
            self._is_first = False

    def _say(self, told: _Told, is_end: bool) -> bool:
        """Inside text, until a call is announced."""
        marks = (*self._triggers, *self._hard, *self._ways.wrappers)
        at, mark = _earliest(self._buffer, marks, is_end=is_end)
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

    def _say_what_is_sure(self, marks: tuple[str, ...], told: _Told, is_end: bool) -> None:
        text = self._buffer
        sure = text if is_end else text[: len(text) - n_doubtful(text, marks)]
        # White space before a call belongs to neither; without calls nothing needs to wait.
        if marks and not is_end and not self._keeps_space:
            sure = sure.rstrip()
        self._tell(sure, told)
        self._buffer = text[len(sure) :]

    def _follow(self, told: _Told, is_end: bool) -> bool:
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
        self, text: str, at: int, forms: Sequence[CallForm], is_end: bool
    ) -> tuple[list[ToolCall], int] | tuple[()] | None:
        """Try to read a call; None: more text is needed; empty: it is none."""
        try:
            calls, end, _ = first_whole(forms, text, at, self._ways.tools)
        except Broken:
            return ()
        except Partial:
            if is_end:
                return self._ended_call(text, at, forms)
            self._is_waiting = len(text) - at > _CHEAP_CHARACTERS
            return None
        return calls, end

    def _ended_call(
        self, text: str, at: int, forms: Sequence[CallForm]
    ) -> tuple[list[ToolCall], int] | tuple[()]:
        """Read a call of which nothing but its closing words is missing."""
        for form in forms:
            whole = text + "".join(form.leftovers[:1])
            try:
                calls, end, _ = first_whole([form], whole, at, self._ways.tools)
            except (Broken, Partial):
                continue
            return calls, min(end, len(text))
        return ()

    def _take_calls(self, calls: list[ToolCall], end: int, told: _Told, text: str) -> None:
        self._tell("", told, is_end=True)  # no stop string reaches over a call
        for call in calls:
            told.tool_calls.append(call if call.id else replace(call, id=self._new_id()))
        self._buffer, self._state = text[end:], "after"

    def _tell(self, text: str, told: _Told, *, is_end: bool = False) -> None:
        sure = self._text.add(text, is_end=is_end)
        if sure:
            told.text.append(sure)


def _earliest(text: str, marks: Sequence[str], *, is_end: bool) -> tuple[int, str]:
    """Find the mark that stands first, the longest of those at one place; empty: none does."""
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    if not found:
        return -1, ""
    at, _, mark = min(found)
    # One that began before it may become whole yet.
    doubtful = len(text) - n_doubtful(text, tuple(marks))
    return (-1, "") if doubtful < at and not is_end else (at, mark)
