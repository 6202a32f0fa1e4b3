"""Find out how a template writes things, by rendering conversations that are made for it. Pure.

A template is a program, and what it prints for a known call, a known thought or a known text
shows what the model was trained to say. llama.cpp compares rendered probes too (docs/autoparser.md
there); here each probe is searched for the words that were put into it, and what stands around
them is the form. A form counts only when reading what was rendered gives back what was asked.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paddock.engine.gotemplate.meter import DEADLINE_S

from .calls import CallForm
from .deriving import ARGUMENTS, CALL_ID, NAME, SECOND_ARGUMENTS, TOOL, derive
from .forms import HERMES, KNOWN_FORMS, KNOWN_TAGS, THINK, Tags
from .template import Exhausted, Refused, Template, Turn
from .turns import Wants

_SYSTEM, _ASKED, _SAID, _THOUGHT, _RESULT = "qxsys", "qxask", "qxsaid", "qxthought", "qxresult"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model's template has it speak."""

    wants: Wants
    tags: Tags
    forms: tuple[CallForm, ...]
    """The template's own first, then those that its words hint at; never empty."""
    wrappers: tuple[str, ...] = ()
    """What stands around plain text and is none of it."""
    may_reason: bool = False
    """Whether the template speaks of reasoning at all."""
    is_harmony: bool = False
    """gpt-oss: an answer is several messages on named channels."""


def study(template: Template, vocabulary: Collection[str] = (), ends: Sequence[str] = ()) -> Manner:
    """Find a template's manner; some thirty renderings, 2 to 15 ms, seconds at worst.

    Args:
        template: what is studied.
        vocabulary: the model's control tokens, which hint at its form where the template does not.
        ends: what ends an answer.

    Raises:
        Exhausted: the template takes more than it may have.
    """
    probe = _Probe(template, ends)
    wants = probe.wants()
    tags = probe.tags(wants)
    wants, shown = probe.calls(wants, tags)
    hints: Container[str] = set() if shown else set(vocabulary)
    hinted = [
        form
        for hint, forms in KNOWN_FORMS
        if hint in template.source or hint in hints
        for form in forms
    ]
    forms = tuple(dict.fromkeys([*([shown] if shown else []), *hinted])) or (HERMES,)
    return Manner(
        wants=wants,
        tags=tags,
        forms=forms,
        wrappers=probe.wrappers(tags),
        may_reason=tags.opens in template.source or tags.closes in template.source,
        is_harmony="<|channel|>" in template.source and "<|message|>" in template.source,
    )


class _Probe:
    """Renders conversations with words that no template has."""

    def __init__(self, template: Template, ends: Sequence[str]) -> None:
        self._template = template
        self._ends = [end for end in ends if end]
        self._is_typed = False
        self._until = time.monotonic() + DEADLINE_S

    def _try(self, *turns: Turn, tools: bool = False, is_open: bool = False) -> str:
        """Render, or give an empty text where the template refuses."""
        if time.monotonic() > self._until:
            raise Exhausted(f"it takes longer than {DEADLINE_S:g} s")
        own = [_typed(turn) for turn in turns] if self._is_typed else list(turns)
        try:
            return self._template.render(own, [TOOL] if tools else [], is_open=is_open)
        except Exhausted:
            raise
        except Refused:
            return ""

    def wants(self) -> Wants:
        """Find what turns it takes."""
        if _ASKED not in self._try(_user()):
            self._is_typed = True
            self._is_typed = _ASKED in self._try(_user())
        source = self._template.source
        return Wants(
            takes_system=_SYSTEM in self._try({"role": "system", "content": _SYSTEM}, _user()),
            alternates=not self._try(_user(), _user()),
            shows_tools=NAME in self._try(_user(), tools=True),
            typed_content=self._is_typed,
            thinking_key=".thinking" in source and "reasoning_content" not in source,
        )

    def tags(self, wants: Wants) -> Tags:
        """Find what opens and closes reasoning."""
        turn = _assistant(_SAID)
        turn["thinking" if wants.thinking_key else "reasoning_content"] = _THOUGHT
        before, found, after = self._try(_user(), turn).partition(_THOUGHT)
        source = self._template.source
        if found:
            for tags in KNOWN_TAGS:
                if before.rstrip().endswith(tags.opens):
                    return tags
            opens = re.search(r"<[^<>\s]*(?:think|reason|thought)[^<>\s]*>\s*$", before, re.I)
            closes = re.match(r"\s*(<[^<>\s]+>)", after)
            if opens and closes:
                return Tags(opens.group().strip(), closes.group(1))
        named = (tags for tags in KNOWN_TAGS if tags.closes in source and tags.opens in source)
        return next(named, next((t for t in KNOWN_TAGS if t.closes in source), THINK))

    def wrappers(self, tags: Tags) -> tuple[str, ...]:
        """Find what stands around what is said."""
        asked = self._try(_user(), is_open=True)
        before, found, after = self._try(_user(), _assistant(_SAID)).partition(_SAID)
        own = without_tags(_answered(asked, before), tags)
        if not found or not re.fullmatch(r"<\|[A-Z_]+\|>", own):
            return ()
        closes = re.match(r"\s*(<[^<>\s]+>)", after)
        return (own, closes.group(1)) if closes else (own,)

    def calls(self, wants: Wants, tags: Tags) -> tuple[Wants, CallForm | None]:
        """Find how it shows calls, and how it wants to be told of them."""
        shown = [(one, text) for one in _ways(wants) if (text := self._calls_shown(one, 1))]
        for tried, one in shown:
            two = self._calls_shown(tried, 2)
            form = derive(one, two, lambda text: without_tags(text, tags))
            if form is not None:
                return self._told_of(tried, has_two=bool(two)), form
        if shown:
            return self._told_of(shown[0][0], has_two=True), None
        result = self._try(_user(), _assistant(_SAID), _result(), tools=True, is_open=True)
        return replace(wants, shows_calls=False, shows_results=_RESULT in result), None

    def _told_of(self, wants: Wants, *, has_two: bool) -> Wants:
        """Find how it is told of calls and their results."""
        one = _calling(wants, 1)
        result = self._try(_user(), one, _result(), tools=True, is_open=True)
        other_id = self._try(_user(), _calling(wants, 1, "call_0123456789"), tools=True)
        return replace(
            wants,
            single_calls=not has_two,
            shows_results=_RESULT in result,
            short_ids=not other_id,
        )

    def _calls_shown(self, wants: Wants, n_calls: int) -> str:
        """Give what an answer of so many calls looks like, the turn's own marks cut off."""
        whole = self._try(_user(), _calling(wants, n_calls), tools=True)
        asked = self._try(_user(), tools=True, is_open=True)
        said = self._try(_user(), _assistant(_SAID), tools=True)
        body = _answered(asked, whole)
        if NAME not in body or "qxv" not in body or (n_calls == 2 and "qxw" not in body):
            return ""
        tail = said.partition(_SAID)[2]
        body = body[: len(body) - common_end(tail, body)]
        after = body.rindex("qx")
        ends = [at for end in self._ends if (at := body.find(end, after)) >= 0]
        return body[: min(ends, default=len(body))]


def _typed(turn: Turn) -> Turn:
    content = turn["content"]
    if not isinstance(content, str):
        return turn
    return {**turn, "content": [{"type": "text", "text": content}]}


def _user() -> Turn:
    return {"role": "user", "content": _ASKED}


def _assistant(content: str | None) -> Turn:
    return {"role": "assistant", "content": content}


def _result() -> Turn:
    return {"role": "tool", "name": NAME, "tool_call_id": CALL_ID, "content": _RESULT}


def _calling(wants: Wants, n_calls: int, call_id: str = CALL_ID) -> Turn:
    given: list[dict[str, Any]] = [ARGUMENTS, SECOND_ARGUMENTS][:n_calls]
    calls = [
        {
            "id": f"{call_id[:-1]}{number}",
            "type": "function",
            "function": {
                "name": NAME,
                "arguments": json.dumps(arguments) if wants.arguments_as_text else arguments,
            },
        }
        for number, arguments in enumerate(given, start=1)
    ]
    return {**_assistant(None if wants.null_content else ""), "tool_calls": calls}


def _ways(wants: Wants) -> Iterator[Wants]:
    for as_text in (False, True):
        for null in (False, True):
            yield replace(wants, arguments_as_text=as_text, null_content=null)


def without_tags(text: str, tags: Tags) -> str:
    """Take off what opens and closes (empty) reasoning before what is said."""
    while True:
        text = text.lstrip()
        for mark in (tags.opens, tags.closes):
            if text.startswith(mark):
                text = text[len(mark) :]
                break
        else:
            return text


def _answered(asked: str, whole: str) -> str:
    """Give what `whole` has beyond the prompt `asked`."""
    n = common_start(asked, whole)
    body = whole[n:]
    if n == len(asked):
        return body
    # Some end a prompt with more instructions; the turn's opening then stands in both.
    overlap = next((k for k in range(len(body), 0, -1) if asked.endswith(body[:k])), 0)
    return body[overlap:]


def common_start(one: str, other: str) -> int:
    """Count the characters with which both begin, no tag cut in two."""
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    if n == len(one):
        return n
    return _before_cut_tag(other, n)


def common_end(one: str, other: str) -> int:
    """Count the characters with which both end, no tag cut in two."""
    n = 0
    while n < min(len(one), len(other)) and one[-1 - n] == other[-1 - n]:
        n += 1
    start = len(other) - n
    while start < len(other) and _before_cut_tag(other, start) != start:
        start += 1
    return len(other) - start


def _before_cut_tag(text: str, at: int) -> int:
    """Give `at`, or the beginning of the tag that it would cut in two."""
    for tag in re.finditer(r"<[^<>\s]*>|\[[^\[\]\s]*\]", text):
        if tag.start() < at < tag.end():
            return tag.start()
    return at
