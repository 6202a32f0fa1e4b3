"""Parts of a text: a text, a chunk of `split` or any result as input; and where one is from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paddock.engine.system.records import Struct
from paddock.engine.system.text import text_or_json
from paddock.steps.base import Output
from paddock.steps.readers.reader import PAGE_BREAK


class TextPart(Struct, frozen=True):
    """A part of a text. `data` is the `chunk` of templates; it has `text`."""

    text: str
    data: Mapping[str, Any]

    def number(self, name: str) -> int | None:
        """Return a number of the chunk, such as `start` or `page`; None if it has none."""
        value = self.data.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def pages(self) -> tuple[int | None, int | None]:
        first, last = self.number("page"), self.number("page_end")
        return first, first if last is None else last

    @property
    def headings(self) -> list[str]:
        found = self.data.get("headings")
        return list(map(str, found)) if isinstance(found, list) else []


def to_part(chunk: Any) -> TextPart:
    """Convert a chunk to a part.

    A text stays, of a mapping `text` is taken; without one it becomes lines of `name: value`.

    >>> to_part({"file": "a.md", "summary": "Short."}).text.splitlines()
    ['file: a.md', 'summary: Short.']
    """
    if isinstance(chunk, str):
        return TextPart(chunk, {"text": chunk})
    if not isinstance(chunk, Mapping):
        text = json.dumps(chunk, ensure_ascii=False)
        return TextPart(text, {"text": text})
    own_text = chunk.get("text")
    lines = (f"{name}: {text_or_json(value)}" for name, value in chunk.items())
    text = own_text if isinstance(own_text, str) else "\n".join(lines)
    return TextPart(text, {**chunk, "text": text})


def join_parts(parts: Sequence[TextPart]) -> str:
    """Join parts to one text without overlaps and repeated table headers.

    An overlap must match by text and by offset: chunks of several documents may have equal offsets.
    """
    texts: list[str] = []
    before = ""
    began = 0
    reached = 0
    for part in parts:
        start, end = part.number("start"), part.number("end")
        text = whole = part.text[repeated_chars(part) :]
        if start is not None and end is not None and end - start == len(text):
            shared = text[: max(0, reached - start)] if start > began else ""
            text = text[len(shared) :] if before.endswith(shared) else text
            before, began, reached = whole, start, end
        texts.append(text)
    return PAGE_BREAK.join(text for text in texts if text)


def repeated_chars(part: TextPart) -> int:
    n = part.number("repeated") or 0
    return n if 0 < n < len(part.text) else 0


class CitedSource(Output):
    """The source of one note. `start` and `end` are offsets into the whole text, if known."""

    index: int
    start: int | None
    end: int | None
    page: int | None
    page_end: int | None
    headings: list[str]


def source_of(index: int, part: TextPart, page_of: Callable[[int], int] | None) -> CitedSource:
    start, end = part.number("start"), part.number("end")
    page, page_end = part.pages
    if page_of is not None and start is not None and end is not None:
        page, page_end = page_of(start), page_of(max(start, end - 1))
    return CitedSource(
        index=index, start=start, end=end, page=page, page_end=page_end, headings=part.headings
    )


def merged_source(sources: Sequence[CitedSource], n_characters: int) -> CitedSource:
    pages = [source.page for source in sources if source.page is not None]
    ends = [source.page_end for source in sources if source.page_end is not None]
    return CitedSource(
        index=0,
        start=0,
        end=n_characters,
        page=min(pages, default=None),
        page_end=max(ends, default=None),
        headings=sources[0].headings if len(sources) == 1 else [],
    )
