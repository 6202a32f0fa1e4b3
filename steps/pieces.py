"""Cut a text along its headings, paragraphs and sentences into pieces of at most so many tokens.

The splitter asks for the size of hundreds of overlapping pieces; asking the model each time would
be hundreds of journeys to it. So each different word is counted once, all in one request, a piece
is estimated as the sum of its words, and what comes out is counted exactly: three requests in all.

Rows of tables stay whole as long as one alone is not too long; a piece that goes on with a table
begins with its header again.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .board import Board

T = TypeVar("T")

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
    """A part of a text, white space around it left out: `text[repeated:] == whole[start:end]`."""

    text: str
    start: int
    end: int
    n_tokens: int
    repeated: int = 0
    """So many characters at the beginning are the header of a table, said again."""


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
    cutter = _Cutter(text, ruler, by, await _in_thread(text, Board.of, text, ruler))
    spans = await cutter.cut((0, len(text)), max(1, int((n_tokens - overlap) / scale)))
    if overlap:
        spans = _overlapping(cutter, spans, int(overlap / scale))
    return await _checked(cutter, spans, n_tokens, count)


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
    text: str
    ruler: _Ruler
    by: Collection[str]
    board: Board

    async def cut(self, span: tuple[int, int], capacity: int) -> list[tuple[int, int]]:
        """Give the spans of a span's pieces; `capacity` in estimated tokens."""
        part = self.text[span[0] : span[1]]
        return await _in_thread(part, self._spans, span, capacity)

    def shown(self, span: tuple[int, int]) -> str:
        """Give a piece's text, with its table's header if it goes on with one."""
        return self.board.header(span) + self.text[span[0] : span[1]]

    def piece(self, span: tuple[int, int], n_tokens: int) -> Piece:
        """Make a piece."""
        return Piece(self.shown(span), *span, n_tokens, len(self.board.header(span)))

    def _spans(self, span: tuple[int, int], capacity: int) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for zone in self.board.zones(span, capacity):
            size, hidden = self.board.hidden(zone, capacity)
            splitter = self._kind().from_callback(size, capacity)
            found = splitter.chunk_indices(self._masked(hidden))
            spans += [(zone[0] + at, zone[0] + at + len(part)) for at, part in found]
        return [(start, end) for start, end in spans if self.text[start:end].strip()]

    def _kind(self) -> Any:
        import semantic_text_splitter as library

        return library.MarkdownSplitter if "heading" in self.by else library.TextSplitter

    def _masked(self, text: str) -> str:
        """Hide line ends where paragraphs are no borders; every offset stays as it is."""
        if "heading" in self.by or "paragraph" in self.by:
            return text
        return re.sub(r"[\n\r\v\f\x85\u2028\u2029]", " ", text)


async def _in_thread(text: str, work: Callable[..., T], *given: Any) -> T:
    """Work on a text, in a thread if it is long."""
    if len(text) < _THREAD_FROM_CHARACTERS:
        return work(*given)
    import asyncio

    return await asyncio.to_thread(work, *given)


def _overlapping(
    cutter: _Cutter, spans: list[tuple[int, int]], overlap: int
) -> list[tuple[int, int]]:
    """Let each piece begin earlier, at a sentence if one begins there, else at a word.

    The library's own overlap takes whole paragraphs or nothing.
    """
    first, *others = spans or [(0, 0)]
    befores = [begin for begin, _ in spans]
    return [first][: len(spans)] + [
        (min(begin, cutter.board.row_from(_earlier(cutter, before, begin, overlap))), end)
        for before, (begin, end) in zip(befores, others, strict=False)
    ]


def _earlier(cutter: _Cutter, before: int, begin: int, overlap: int) -> int:
    """Find where to begin so that at most `overlap` tokens come before `begin`."""
    text = cutter.text
    for border in (_SENTENCE, _WORD_START):
        starts = [match.end() for match in re.compile(border).finditer(text, before, begin)]
        index = bisect_left(starts, True, key=lambda at: cutter.ruler(text[at:begin]) <= overlap)
        if index < len(starts) and text[starts[index] : begin].strip():
            return starts[index]
    return begin


async def _checked(
    cutter: _Cutter, spans: list[tuple[int, int]], n_tokens: int, count: Count
) -> list[Piece]:
    """Count what was cut, and cut again where an estimate was too small."""
    done: list[Piece] = []
    capacity = {span: n_tokens for span in spans}
    for _ in range(_MAX_SECOND_CUTS):
        sizes = await count([cutter.shown(span) for span in spans])
        left: list[tuple[int, int]] = []
        for span, size in zip(spans, sizes, strict=True):
            if size <= n_tokens or span[1] - span[0] <= 1:
                done.append(cutter.piece(span, size))
            elif cutter.board.drop_header(span):
                left.append(span)
            else:
                smaller = max(1, min(capacity[span] - 1, n_tokens * n_tokens // size))
                for inner in await cutter.cut(span, smaller):
                    capacity[inner] = smaller
                    left.append(inner)
        spans = left
        if not spans:
            break
    done += await _by_halves(cutter, spans, n_tokens, count)
    return sorted(done, key=lambda piece: (piece.start, piece.end))


async def _by_halves(
    cutter: _Cutter, spans: list[tuple[int, int]], n_tokens: int, count: Count
) -> list[Piece]:
    """Cut what no border helps with in the middle, until it fits."""
    done: list[Piece] = []
    while spans:
        sizes = await count([cutter.shown(span) for span in spans])
        left: list[tuple[int, int]] = []
        for span, size in zip(spans, sizes, strict=True):
            start, end = span
            if size <= n_tokens or end - start <= 1:
                done.append(cutter.piece(span, size))
            else:
                middle = (start + end) // 2
                left += [(start, middle), (middle, end)]
        spans = left
    return [piece for piece in done if piece.text[piece.repeated :].strip()]
