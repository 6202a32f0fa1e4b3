"""Chunks as `summarise` and `embed` take them: texts, chunks of `split`, any results. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.steps.readers.pages import PAGE_BREAK


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what is to be read. `data` is what a template sees as `chunk`; it has `text`."""

    text: str
    data: Mapping[str, Any]


def part(chunk: Any) -> Part:
    """Make a part of a chunk.

    A text is itself, a mapping its `text`; one without a text becomes lines of `name: value`.

    >>> part({"file": "a.md", "summary": "Short."}).text.splitlines()
    ['file: a.md', 'summary: Short.']
    """
    if isinstance(chunk, str):
        return Part(chunk, {"text": chunk})
    if not isinstance(chunk, Mapping):
        text = json.dumps(chunk, ensure_ascii=False)
        return Part(text, {"text": text})
    given = chunk.get("text")
    lines = (f"{name}: {_shown(value)}" for name, value in chunk.items())
    text = given if isinstance(given, str) else "\n".join(lines)
    return Part(text, {**chunk, "text": text})


def parts(chunks: Sequence[Any]) -> list[Part]:
    """Make parts of chunks, those that are null or blank left out: there is nothing in them."""
    made = [part(chunk) for chunk in chunks if chunk is not None]
    return [one for one in made if one.text.strip()]


def joined(several: Sequence[Part]) -> str:
    """Join parts to one text; what neighbours share, or say again of a table, comes once.

    They share what the one ends with and the other begins with, by its words and by its place:
    chunks of several documents may have the same places.
    """
    texts: list[str] = []
    before, began, reached = "", 0, 0
    for one in several:
        start, end = one.data.get("start"), one.data.get("end")
        text = whole = one.text[repeated(one) :]
        if isinstance(start, int) and isinstance(end, int) and end - start == len(text):
            shared = text[: max(0, reached - start)] if start > began else ""
            text = text[len(shared) :] if before.endswith(shared) else text
            before, began, reached = whole, start, end
        texts.append(text)
    return PAGE_BREAK.join(text for text in texts if text)


def repeated(one: Part) -> int:
    """Tell how many characters at its beginning stand elsewhere: the header of a table."""
    n = one.data.get("repeated")
    return n if isinstance(n, int) and 0 < n < len(one.text) else 0


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
