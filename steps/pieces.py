"""Cut a text along its headings, paragraphs and sentences into pieces of at most so many tokens.

The splitter asks for the size of hundreds of overlapping pieces; asking the model each time would
be hundreds of journeys to it. So each different word is counted once, all in one request, a piece
is estimated as the sum of its words, and what comes out is counted exactly: three requests in all.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

Count = Callable[[Sequence[str]], Awaitable[list[int]]]
"""Counts each text's tokens."""

BORDERS = ("heading", "paragraph", "sentence")

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_WORD = rf"[{_CJK}]|\s?[^\s{_CJK}]{{1,24}}|\s+"
_ALONE = rf"[{_CJK}]|\s|\Z"
_SENTENCE = r"(?<=[.!?])[\"')\]]*\s+|(?<=[\u3002\uff01\uff1f])\s*|\n\s*"
_WORD_START = rf"\s+|(?=[{_CJK}])"
_SLICE_CHARACTERS = 4_000
_THREAD_FROM_CHARACTERS = 20_000  # cutting takes about 1 ms for each 2,000 characters
_MAX_SECOND_CUTS = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, white space around it left out: `text == whole[start:end]`."""

    text: str
    start: int
    end: int
    n_tokens: int


async def cut(
    text: str,
    *,
    n_tokens: int,
    count: Count,
    overlap: int = 0,
    by: Collection[str] = BORDERS,
) -> list[Piece]:
    """Cut `text` into pieces of at most `n_tokens`, in order; nothing but white space is lost.

    Only a single character that alone has more tokens than that makes a larger piece.
    """
    slices = [text[i : i + _SLICE_CHARACTERS] for i in range(0, len(text), _SLICE_CHARACTERS)]
    sizes = await count(slices)
    if sum(sizes) <= n_tokens:
        return _whole(text, sum(sizes))
    ruler = await _Ruler.of(text, count)
    scale = _scale(ruler, slices, sizes)
    cutter = _Cutter(ruler, by)
    spans = await cutter.cut(text, max(1, int((n_tokens - overlap) / scale)))
    if overlap:
        spans = _overlapping(text, spans, int(overlap / scale), ruler)
    return await _checked(text, spans, n_tokens, count, cutter)


def _whole(text: str, n_tokens: int) -> list[Piece]:
    bare = text.strip()
    start = len(text) - len(text.lstrip())
    return [Piece(bare, start, start + len(bare), n_tokens)] if bare else []


@dataclass(frozen=True, slots=True)
class _Ruler:
    """Estimates a text's tokens by its words."""

    sizes: dict[str, int]

    @classmethod
    async def of(cls, text: str, count: Count) -> _Ruler:
        """Size every word of `text`, and a line end, in one request."""
        words = list({word.strip(): None for word in re.findall(_WORD, text)} | {"\n": None})
        # Most words stand after a space, and tokenizers tell that from a word alone.
        sizes = await count([word if re.match(_ALONE, word) else f" {word}" for word in words])
        return cls(dict(zip(words, sizes, strict=True)) | {"": 0})

    def __call__(self, text: str) -> int:
        sizes = self.sizes
        total = 0
        for word in re.findall(_WORD, text):
            bare = word.strip() or ("\n" if "\n" in word else "")
            size = sizes.get(bare)
            # Cut in its middle it is none of the words of the whole text.
            total += max(1, len(bare.encode()) // 3) if size is None else size
        return total


def _scale(ruler: _Ruler, slices: Sequence[str], sizes: Sequence[int]) -> float:
    """Tell how far the worst slice is from its estimate: tokens merge across words, or do not."""
    ratios = [
        size / estimate
        for part, size in zip(slices, sizes, strict=True)
        if (estimate := ruler(part)) and len(part) > _SLICE_CHARACTERS // 4
    ]
    return min(4.0, max(0.25, max(ratios, default=1.0)))


@dataclass(frozen=True, slots=True)
class _Cutter:
    ruler: _Ruler
    by: Collection[str]

    async def cut(self, text: str, capacity: int) -> list[tuple[int, int]]:
        """Give the spans of the pieces; `capacity` in estimated tokens."""
        if len(text) < _THREAD_FROM_CHARACTERS:
            return self._spans(text, capacity)
        import asyncio

        return await asyncio.to_thread(self._spans, text, capacity)

    def _spans(self, text: str, capacity: int) -> list[tuple[int, int]]:
        splitter = self._kind().from_callback(self.ruler, capacity)
        found = splitter.chunk_indices(self._masked(text))
        return [(start, start + len(part)) for start, part in found if part.strip()]

    def _kind(self) -> Any:
        import semantic_text_splitter as library

        return library.MarkdownSplitter if "heading" in self.by else library.TextSplitter

    def _masked(self, text: str) -> str:
        """Hide line ends where paragraphs are no borders; every offset stays as it is."""
        if "heading" in self.by or "paragraph" in self.by:
            return text
        return re.sub(r"[\n\r\v\f\x85\u2028\u2029]", " ", text)


def _overlapping(
    text: str, spans: list[tuple[int, int]], overlap: int, ruler: _Ruler
) -> list[tuple[int, int]]:
    """Let each piece begin earlier, at a sentence if one begins there, else at a word.

    The library's own overlap takes whole paragraphs or nothing.
    """
    first, *others = spans or [(0, 0)]
    befores = [begin for begin, _ in spans]
    return [first][: len(spans)] + [
        (_earlier(text, before, begin, overlap, ruler), end)
        for before, (begin, end) in zip(befores, others, strict=False)
    ]


def _earlier(text: str, before: int, begin: int, overlap: int, ruler: _Ruler) -> int:
    """Find where to begin so that at most `overlap` tokens come before `begin`."""
    for border in (_SENTENCE, _WORD_START):
        starts = [match.end() for match in re.compile(border).finditer(text, before, begin)]
        index = bisect_left(starts, True, key=lambda at: ruler(text[at:begin]) <= overlap)
        if index < len(starts) and text[starts[index] : begin].strip():
            return starts[index]
    return begin


async def _checked(
    text: str, spans: list[tuple[int, int]], n_tokens: int, count: Count, cutter: _Cutter
) -> list[Piece]:
    """Count what was cut, and cut again where an estimate was too small."""
    done: list[Piece] = []
    capacity = {span: n_tokens for span in spans}
    for _ in range(_MAX_SECOND_CUTS):
        sizes = await count([text[start:end] for start, end in spans])
        left: list[tuple[int, int]] = []
        for (start, end), size in zip(spans, sizes, strict=True):
            if size <= n_tokens or end - start <= 1:
                done.append(Piece(text[start:end], start, end, size))
                continue
            smaller = max(1, min(capacity[start, end] - 1, n_tokens * n_tokens // size))
            for below, above in await cutter.cut(text[start:end], smaller):
                span = (start + below, start + above)
                capacity[span] = smaller
                left.append(span)
        spans = left
        if not spans:
            break
    done += await _by_halves(text, spans, n_tokens, count)
    return sorted(done, key=lambda piece: (piece.start, piece.end))


async def _by_halves(
    text: str, spans: list[tuple[int, int]], n_tokens: int, count: Count
) -> list[Piece]:
    """Cut what no border helps with in the middle, until it fits."""
    done: list[Piece] = []
    while spans:
        sizes = await count([text[start:end] for start, end in spans])
        left: list[tuple[int, int]] = []
        for (start, end), size in zip(spans, sizes, strict=True):
            if size <= n_tokens or end - start <= 1:
                done.append(Piece(text[start:end], start, end, size))
            else:
                middle = (start + end) // 2
                left += [(start, middle), (middle, end)]
        spans = left
    return [piece for piece in done if piece.text.strip()]
