"""Citations of a summary: pages and headings of its sources, and citation marks in its text.

The marks come from counting common words, never from a model: small ones invent page numbers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paddock.steps.base import Output

from .split import Headings, TextPart, repeated_chars

_SENTENCE = re.compile(r"[^\n]+?(?:[.!?][\"')\]]*(?=\s|\Z)|[\u3002\uff01\uff1f]|(?=\n)|\Z)")
_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W_]+")
_LEAST_WEIGHT_SHARE = 0.5  # of a sentence's words, weighted by rarity, must be in the cited passage
_LEAST_WORDS = 3


class CitedSource(Output):
    """The source of one note. `start` and `end` are offsets into the whole text, if known."""

    index: int
    start: int | None
    end: int | None
    page: int | None
    page_end: int | None
    headings: list[str]


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of the text, and its citation mark: `p. 3`, `§ Results`."""

    text: str
    mark: str


def source_of(index: int, part: TextPart, page_of: Callable[[int], int] | None) -> CitedSource:
    """Return the source of a part; `page_of` returns the page of an offset, if known."""
    start, end = part.data.get("start"), part.data.get("end")
    start, end = (value if isinstance(value, int) else None for value in (start, end))
    page, page_end = part.data.get("page"), part.data.get("page_end")
    if page_of is not None and start is not None and end is not None:
        page, page_end = page_of(start), page_of(max(start, end - 1))
    headings = part.data.get("headings")
    return CitedSource(
        index=index,
        start=start,
        end=end,
        page=page if isinstance(page, int) else None,
        page_end=page_end if isinstance(page_end, int) else page if isinstance(page, int) else None,
        headings=[str(one) for one in headings] if isinstance(headings, list) else [],
    )


def merged_source(sources: Sequence[CitedSource], n_characters: int) -> CitedSource:
    pages = [one.page for one in sources if one.page is not None]
    ends = [one.page_end for one in sources if one.page_end is not None]
    return CitedSource(
        index=0,
        start=0,
        end=n_characters,
        page=min(pages, default=None),
        page_end=max(ends, default=None),
        headings=sources[0].headings if len(sources) == 1 else [],
    )


def passages_by_page(pages: Sequence[str]) -> list[Passage]:
    """Return the passages of a document: its pages, or the texts under its headings."""
    if len(pages) > 1:
        return [Passage(text, f"p. {number}") for number, text in enumerate(pages, 1)]
    text = pages[0] if pages else ""
    found = Headings.of(text)
    borders = [*found.offsets, len(text)]
    return [
        Passage(text[start:end], f"§ {path[-1]}")
        for start, end, path in zip(borders, borders[1:], found.paths, strict=False)
        if path[-1]
    ]


def passages_by_chunk(parts: Sequence[TextPart]) -> list[Passage]:
    """Return the passages of chunks, by pages if there are several, else by headings."""
    sources = [source_of(index, part, None) for index, part in enumerate(parts)]
    has_pages = len({n for one in sources for n in (one.page, one.page_end) if n is not None}) > 1
    passages: list[Passage] = []
    for part, one in zip(parts, sources, strict=True):
        mark = _page_mark(one) if has_pages else f"§ {one.headings[-1]}" if one.headings else ""
        if mark:
            passages.append(Passage(part.text[repeated_chars(part) :], mark))
    return passages


def with_citations(text: str, passages: Sequence[Passage]) -> str:
    """Append to each sentence the mark of the passage with most of its words.

    A sentence that is similar to none gets no mark.

    >>> print(with_citations("Slates cost 5 euros.", [Passage("Wool is dear.", "p. 1"),
    ...     Passage("All slates cost 5 euros each.", "p. 2")]))
    Slates cost 5 euros. [p. 2]
    """
    words = [set(_content_words(passage.text)) for passage in passages]
    count = Counter(word for known in words for word in known)
    weights = {word: math.log(1 + len(passages) / n) for word, n in count.items()}
    unknown = math.log(1 + 2 * len(passages))

    def marked(sentence: re.Match[str]) -> str:
        said = set(_content_words(sentence[0]))
        if len(said) < _LEAST_WORDS:
            return sentence[0]
        total = sum(weights.get(word, unknown) for word in said)
        shares = [sum(weights[word] for word in said & known) / total for known in words]
        best = max(range(len(shares)), key=lambda index: shares[index], default=None)
        if best is None or shares[best] < _LEAST_WEIGHT_SHARE:
            return sentence[0]
        return f"{sentence[0].rstrip()} [{passages[best].mark}]"

    return _SENTENCE.sub(marked, text)


def _page_mark(one: CitedSource) -> str:
    return f"p. {one.page}" if one.page == one.page_end else f"pp. {one.page}\u2013{one.page_end}"


def _content_words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
