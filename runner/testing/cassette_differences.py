"""How an unrecorded call differs from the nearest recorded one, and which answers changed."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from paddock.engine.system.text import one_line, shorten

from .cassette import Cassette, RecordedCall

MAX_CHANGED_ANSWERS = 20
MAX_ANSWER_CHARS = 60
MAX_ANSWER_CHANGES = 400
N_WORDS_AROUND = 4
MAX_DIFFERENCE_LINES = 60
MAX_LINE_CHARS = 160
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")  # the latter end Chinese ones


def nearest_call(request: Mapping[str, Any], calls: Iterable[RecordedCall]) -> RecordedCall | None:
    words = Counter(_call_words(request))

    def likeness(call: RecordedCall) -> int:
        recorded = Counter(_call_words(call.asked))
        return 2 * (words & recorded).total() - recorded.total()

    return max(calls, key=likeness, default=None)


def changed_answers(cassette: Cassette) -> Iterator[str]:
    """Yield a line for each answer that differs from that to the most similar earlier request."""
    stale = [call for call in cassette.unused if call.kind == "chat"]
    changed = []
    for call in (call for call in cassette.recorded if call.kind == "chat"):
        before = nearest_call(call.asked, stale)
        if before is None:
            break
        stale.remove(before)
        if before.given.get("text") != call.given.get("text"):
            changed.append((before, call))
    for before, call in changed[:MAX_CHANGED_ANSWERS]:
        texts = (str(call.given.get("text", "")) for call in (before, call))
        prompt = one_line(
            call_lines({"messages": call.asked["messages"][-1:]})[-1], MAX_ANSWER_CHARS
        )
        yield f"answer changed: {answer_difference(*texts)} (to '{prompt}')"
    if len(changed) > MAX_CHANGED_ANSWERS:
        yield f"{len(changed) - MAX_CHANGED_ANSWERS:,} more answers changed"


def answer_difference(before: str, after: str) -> str:
    """Return what changed in an answer, with a few words around it.

    >>> answer_difference("The ferry leaves at nine.", "The bus leaves at nine or ten.")
    'The [ferry → bus] leaves at [nine. → nine or ten.]'
    """
    old, new = before.split(), after.split()
    if old == new:
        return "only its white space"
    parts = []
    for kind, i, i_end, j, j_end in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if kind == "equal":
            parts.append(_cut_words(old[i:i_end], is_first=i == 0, is_last=i_end == len(old)))
            continue
        gone, come = (
            one_line(" ".join(lines), MAX_ANSWER_CHARS) for lines in (old[i:i_end], new[j:j_end])
        )
        changes = {"replace": f"{gone} → {come}", "delete": f"- {gone}", "insert": f"+ {come}"}
        parts.append(f"[{changes[kind]}]")
    return shorten(" ".join(parts), MAX_ANSWER_CHANGES)


def _cut_words(words: Sequence[str], *, is_first: bool, is_last: bool) -> str:
    if len(words) <= 2 * N_WORDS_AROUND:
        return " ".join(words)
    before = () if is_last else words[-N_WORDS_AROUND:]
    after = () if is_first else words[:N_WORDS_AROUND]
    return " ".join((*after, "…", *before))


def call_difference(request: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> str:
    new = call_lines(request)
    if recorded is None:
        return _bounded_lines([f"+{line}" for line in new])
    lines = difflib.unified_diff(call_lines(recorded), new, "recorded", "asked", n=1, lineterm="")
    return _bounded_lines([*lines])


def call_lines(request: Mapping[str, Any]) -> list[str]:
    """Return a request as lines: conversations as text, the rest as JSON."""
    lines: list[str] = []
    for name, value in request.items():
        if name == "messages":
            for role, text, *extra in value:
                lines += [f"[{role}]", *_sentences(text)]
                lines += [json.dumps(part, ensure_ascii=False, sort_keys=True) for part in extra]
        elif name == "texts":
            for number, text in enumerate(value):
                lines += [f"[text {number}]", *_sentences(text)]
        elif isinstance(value, str):
            lines += [f"{name}: {line}" for line in _sentences(value)]
        else:
            lines.append(f"{name}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}")
    return lines


def _sentences(text: str) -> list[str]:
    """Split a text into sentences, so that a diff shows the changed ones only."""
    return [part for line in text.split("\n") for part in _SENTENCE.split(line)]


def _call_words(request: Mapping[str, Any]) -> list[str]:
    return [word for line in call_lines(request) for word in line.split()]


def _bounded_lines(lines: list[str]) -> str:
    lines = [shorten(line, MAX_LINE_CHARS) for line in lines]
    if len(lines) > MAX_DIFFERENCE_LINES:
        left = len(lines) - MAX_DIFFERENCE_LINES
        lines = [*lines[:MAX_DIFFERENCE_LINES], f"… and {left:,} more lines"]
    return "\n".join(lines)
