"""Show how a call that nobody recorded differs from the recorded one that is nearest to it. Pure.

Knows no pool and no file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .cassette import Call

MOST_LINES = 60
MOST_CHARS = 160
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")  # the latter end Chinese ones


def nearest(asked: Mapping[str, Any], calls: Iterable[Call]) -> Call | None:
    """Give the recorded call that has most of its lines and words in common."""
    wanted = Counter(_words(asked))
    best: tuple[int, Call] | None = None
    for call in calls:
        found = Counter(_words(call.asked))
        common = 2 * (wanted & found).total() - found.total()
        if best is None or common > best[0]:
            best = (common, call)
    return best[1] if best else None


def difference(asked: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> str:
    """Give the unified difference of two calls, as lines for a person; bounded."""
    new = written(asked)
    if recorded is None:
        return _bounded([f"+{line}" for line in new])
    lines = difflib.unified_diff(written(recorded), new, "recorded", "asked", n=1, lineterm="")
    return _bounded([_short(line) for line in lines])


def written(asked: Mapping[str, Any]) -> list[str]:
    """Write what a call asks as lines: the conversation as it reads, the rest as JSON."""
    lines: list[str] = []
    for name, value in asked.items():
        if name == "messages":
            for role, text, *more in value:
                lines += [f"[{role}]", *_lines(text)]
                lines += [json.dumps(one, ensure_ascii=False, sort_keys=True) for one in more]
        elif name == "texts":
            for number, text in enumerate(value):
                lines += [f"[text {number}]", *_lines(text)]
        elif isinstance(value, str):
            lines += [f"{name}: {line}" for line in _lines(value)]
        else:
            lines.append(f"{name}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}")
    return lines


def _lines(text: str) -> list[str]:
    """Cut a text at its lines and sentences: a long paragraph differs in one of them."""
    return [part for line in text.split("\n") for part in _SENTENCE.split(line)]


def _words(asked: Mapping[str, Any]) -> list[str]:
    return [word for line in written(asked) for word in line.split()]


def _short(line: str) -> str:
    return line if len(line) <= MOST_CHARS else f"{line[: MOST_CHARS - 1]}…"


def _bounded(lines: list[str]) -> str:
    lines = [_short(line) for line in lines]
    if len(lines) > MOST_LINES:
        left = len(lines) - MOST_LINES
        lines = [*lines[:MOST_LINES], f"… and {left:,} more lines"]
    return "\n".join(lines)
