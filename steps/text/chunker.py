"""Cut a text along headings, paragraphs and sentences into pieces of limited token count.

The splitter asks for the size of hundreds of overlapping pieces; asking the model each time would
be hundreds of requests. So each different word is counted once, all in one request, a piece is
estimated as the sum of its words, and the result is counted exactly: three requests in all. Rows of
tables stay whole (`table_chunks`).
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from paddock.engine.system.records import Struct

from .table_chunks import TableMask, TokenRuler

T = TypeVar("T")

TokenCounter = Callable[[Sequence[str]], Awaitable[list[int]]]

CUT_BORDERS = ("heading", "paragraph", "sentence")

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_WORD = rf"[{_CJK}]|\s?[^\s{_CJK}]{{1,24}}|\s+"
_ALONE = rf"[{_CJK}]|\s|\Z"
_SENTENCE = r"(?<=[.!?])[\"')\]]*\s+|(?<=[\u3002\uff01\uff1f])\s*|\n\s*"
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese and Khmer
_WORD_START = rf"\s+|(?=[{_CJK}])|(?=[{_UNSPACED}])(?=\w)"
_SLICE_CHARACTERS = 4_000
_THREAD_FROM_CHARACTERS = 20_000  # cutting takes about 1 ms for each 2,000 characters
_MAX_SECOND_CUTS = 6


class CutPiece(Struct, frozen=True):
    """A part of a text without white space around it: `text[repeated:] == whole[start:end]`."""

    text: str
    start: int
    end: int
    n_tokens: int
    repeated: int = 0
    """The length of a repeated table header at the beginning."""


async def cut_text(
    text: str,
    *,
    n_tokens: int,
    count: TokenCounter,
    overlap: int = 0,
    by: Collection[str] = CUT_BORDERS,
) -> list[CutPiece]:
    """Cut `text` into pieces of at most `n_tokens`, in order; only white space is lost.

    A single character with more tokens makes a larger piece.
    """
    slices = [text[i : i + _SLICE_CHARACTERS] for i in range(0, len(text), _SLICE_CHARACTERS)]
    sizes = await count(slices)
    if sum(sizes) <= n_tokens:
        bare = text.strip()
        start = len(text) - len(text.lstrip())
        return [CutPiece(bare, start, start + len(bare), sum(sizes))] if bare else []
    ruler = await _word_ruler(text, count)
    # Tokens may merge across words: the slices show by how much an estimate is wrong at most
    errors = [
        size / estimate
        for part, size in zip(slices, sizes, strict=True)
        if (estimate := ruler(part)) and len(part) > _SLICE_CHARACTERS // 4
    ]
    scale = min(4.0, max(0.25, max(errors, default=1.0)))
    cutter = _TextCutter(text, ruler, by, await _in_thread(text, TableMask.of, text, ruler))
    spans = await cutter.cut((0, len(text)), max(1, int((n_tokens - overlap) / scale)))
    if overlap:
        spans = _with_overlap(cutter, spans, int(overlap / scale))
    return await _within_limit(cutter, spans, n_tokens, count)


async def _word_ruler(text: str, count: TokenCounter) -> TokenRuler:
    """Count every word of `text`, and a line end, in one request; estimate texts by their words."""
    words = list({word.strip(): None for word in re.findall(_WORD, text)} | {"\n": None})
    # Most words follow a space, and tokenizers count that differently.
    counts = await count([word if re.match(_ALONE, word) else f" {word}" for word in words])
    sizes = dict(zip(words, counts, strict=True)) | {"": 0}

    def ruler(text: str) -> int:
        total = 0
        for word in re.findall(_WORD, text):
            bare = word.strip() or ("\n" if "\n" in word else "")
            size = sizes.get(bare)
            # A part of a word is not among the words of the whole text.
            total += max(1, len(bare.encode()) // 3) if size is None else size
        return total

    return ruler


class _TextCutter(Struct, frozen=True):
    text: str
    ruler: TokenRuler
    by: Collection[str]
    mask: TableMask

    async def cut(self, span: tuple[int, int], capacity: int) -> list[tuple[int, int]]:
        """Return the spans of a span's pieces; `capacity` in estimated tokens."""
        return await _in_thread(self.text[slice(*span)], self._spans, span, capacity)

    def shown(self, span: tuple[int, int]) -> str:
        """Return a piece's text, with a repeated header if it continues a table."""
        return self.mask.header(span) + self.text[span[0] : span[1]]

    def piece(self, span: tuple[int, int], n_tokens: int) -> CutPiece:
        return CutPiece(self.shown(span), *span, n_tokens, len(self.mask.header(span)))

    def _spans(self, span: tuple[int, int], capacity: int) -> list[tuple[int, int]]:
        import semantic_text_splitter as library

        kind = library.MarkdownSplitter if "heading" in self.by else library.TextSplitter
        spans: list[tuple[int, int]] = []
        for zone in self.mask.zones(span, capacity):
            masked = self.mask.masked(zone, capacity)
            splitter = kind.from_callback(masked.n_tokens, capacity)
            text = masked.text
            if not {"heading", "paragraph"} & {*self.by}:  # mask line ends; offsets stay
                text = re.sub(r"[\n\r\v\f\x85\u2028\u2029]", " ", text)
            for offset, part in splitter.chunk_indices(text):
                start = zone[0] + offset
                spans.append((start, start + len(part)))
        return [(start, end) for start, end in spans if self.text[start:end].strip()]


async def _in_thread(text: str, work: Callable[..., T], *given: Any) -> T:
    if len(text) < _THREAD_FROM_CHARACTERS:
        return work(*given)
    return await asyncio.to_thread(work, *given)


def _with_overlap(
    cutter: _TextCutter, spans: list[tuple[int, int]], overlap: int
) -> list[tuple[int, int]]:
    """Extend each piece to the left, to the start of a sentence or else a word.

    The library's own overlap takes whole paragraphs or nothing.
    """
    extended = spans[:1]
    for (before, _), (begin, end) in pairwise(spans):
        start = cutter.mask.row_from(_overlap_start(cutter, before, begin, overlap))
        extended.append((min(begin, start), end))
    return extended


def _overlap_start(cutter: _TextCutter, before: int, begin: int, overlap: int) -> int:
    text = cutter.text
    for border in (_SENTENCE, _WORD_START):
        starts = [match.end() for match in re.compile(border).finditer(text, before, begin)]
        index = bisect_left(starts, True, key=lambda n: cutter.ruler(text[n:begin]) <= overlap)
        if index < len(starts) and text[starts[index] : begin].strip():
            return starts[index]
    return begin


async def _within_limit(
    cutter: _TextCutter, spans: list[tuple[int, int]], n_tokens: int, count: TokenCounter
) -> list[CutPiece]:
    """Count the pieces, and cut again where an estimate was too small.

    1. Keep a piece that fits, or has one character.
    2. Drop the repeated header of a single row.
    3. Cut it by a smaller estimate, else (after some rounds) in the middle.
    """
    done: list[CutPiece] = []
    capacity = {span: n_tokens for span in spans}
    for _ in range(_MAX_SECOND_CUTS):
        sizes = await count([cutter.shown(span) for span in spans])
        too_long: list[tuple[int, int]] = []
        for span, size in zip(spans, sizes, strict=True):
            if size <= n_tokens or span[1] - span[0] <= 1:  # 1
                done.append(cutter.piece(span, size))
            elif cutter.mask.drop_header(span):  # 2
                too_long.append(span)
            else:  # 3
                smaller = max(1, min(capacity[span] - 1, n_tokens * n_tokens // size))
                for inner in await cutter.cut(span, smaller):
                    capacity[inner] = smaller
                    too_long.append(inner)
        spans = too_long
        if not spans:
            break
    done += await _halved(cutter, spans, n_tokens, count)
    return sorted(done, key=lambda piece: (piece.start, piece.end))


async def _halved(
    cutter: _TextCutter, spans: list[tuple[int, int]], n_tokens: int, count: TokenCounter
) -> list[CutPiece]:
    """Cut a piece without borders in the middle, until it fits."""
    done: list[CutPiece] = []
    while spans:
        sizes = await count([cutter.shown(span) for span in spans])
        too_long: list[tuple[int, int]] = []
        for span, size in zip(spans, sizes, strict=True):
            start, end = span
            if size <= n_tokens or end - start <= 1:
                done.append(cutter.piece(span, size))
            else:
                middle = (start + end) // 2
                too_long += [(start, middle), (middle, end)]
        spans = too_long
    return [piece for piece in done if piece.text[piece.repeated :].strip()]
