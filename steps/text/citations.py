"""Citation marks in a summary's text: the page or heading that a sentence comes from.

They come from counting common words and numbers, never from a model: small ones invent page
numbers. Both are looked up as evidence is, whose names of months and units take time to load: a run
that cites nothing does not pay for it, since `summarise` imports this module when it cites.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from paddock.engine.system.records import Struct
from paddock.pipelines.checking.sentence_ends import sentence_spans
from paddock.pipelines.checking.source_index import SourceIndex, values_in
from paddock.pipelines.checking.text_index import folded_words

from .headings import Headings
from .text_parts import TextPart, repeated_chars, source_of

_LEAST_WEIGHT_SHARE = 0.5  # of a sentence's words, weighted by rarity, must be in the cited passage
_LEAST_PARTS = 3  # words and numbers
_VALUE_WEIGHT = 2.0
_BETWEEN_PASSAGES = "\n\x00\n"


class Passage(Struct, frozen=True):
    """A piece of the text, and its citation mark: `p. 3`, `§ Results`."""

    text: str
    mark: str


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
    has_pages = len({n for s in sources for n in (s.page, s.page_end) if n is not None}) > 1
    passages: list[Passage] = []
    for part, source in zip(parts, sources, strict=True):
        if not has_pages:
            mark = f"§ {source.headings[-1]}" if source.headings else ""
        elif source.page == source.page_end:
            mark = f"p. {source.page}"
        else:
            mark = f"pp. {source.page}\u2013{source.page_end}"
        if mark:
            passages.append(Passage(part.text[repeated_chars(part) :], mark))
    return passages


def with_citations(text: str, passages: Sequence[Passage]) -> str:
    """Append to each sentence the mark of the passage with most of its words and numbers.

    A number counts as much as two words, in any notation. A sentence that is similar to none gets
    no mark.

    >>> print(with_citations("Slates cost 5 euros.", [Passage("Wool is dear.", "p. 1"),
    ...     Passage("All slates cost €5.00 each.", "p. 2")]))
    Slates cost 5 euros. [p. 2]
    """
    cited = _PassageIndex(passages)

    parts = list[str]()
    at = 0
    for line in re.finditer(r"[^\n]+", text):
        for start, end in sentence_spans(text, *line.span()):
            best = cited.best(text[start:end])
            parts += [text[at:end], "" if best is None else f" [{best.mark}]"]
            at = end
    return "".join((*parts, text[at:]))


class _PassageIndex:
    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._index = SourceIndex(_BETWEEN_PASSAGES.join(passage.text for passage in passages))
        sizes = [len(passage.text) + len(_BETWEEN_PASSAGES) for passage in passages]
        self._starts = list(accumulate(sizes[:-1], initial=0))
        self._known: dict[str, frozenset[int]] = {}

    def best(self, sentence: str) -> Passage | None:
        """Return the passage with the largest share of a sentence, if it is large enough."""
        shares = [0.0] * len(self._passages)
        total = n_parts = 0.0
        for weight, known in self._parts(sentence):
            rarity = len(self._passages) / len(known) if known else 2 * len(self._passages)
            weight *= math.log(1 + rarity)
            total += weight
            n_parts += 1
            for number in known:
                shares[number] += weight
        if n_parts < _LEAST_PARTS or not shares:
            return None
        number = max(range(len(shares)), key=lambda place: shares[place])
        return self._passages[number] if shares[number] >= _LEAST_WEIGHT_SHARE * total else None

    def _parts(self, sentence: str) -> Iterator[tuple[float, frozenset[int]]]:
        """Yield the weight of each number, date and word, and the passages that have it."""
        rest = sentence
        for value in values_in(sentence):
            for part in value.readings[0] if value.readings else (value,):
                starts = (found.start for found in self._index.find_value(part))
                yield _VALUE_WEIGHT, self._passages_at(starts)
            rest = rest.replace(value.text, " ", 1)
        for word in dict.fromkeys(folded_words(rest)):
            if word not in self._known:
                self._known[word] = self._passages_at(self._index.words.starts_of(word))
            yield 1.0, self._known[word]

    def _passages_at(self, starts: Iterable[int]) -> frozenset[int]:
        return frozenset(bisect_right(self._starts, start) - 1 for start in starts)
