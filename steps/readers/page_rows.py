"""Rows of a page's words, and their text: raised and lowered, struck and hidden, with blanks.

What stands raised or lowered beside a word belongs to the row of that word. The ink of both
decides, not their fonts' sizes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import NamedTuple, TypeAlias

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.text_marks import escaped, hidden, lowered, note_label, raised, struck

# Of a size, which is that of the larger of two neighbours: 10 points of text of 10 points.
CAPITAL = 0.7  # the height of one; bases of a row, as of cells of several sizes, differ by half
KERNING = 0.05  # the most between letters that are not spaced; white at the sides of one
BLANK = 0.15  # a gap between two words: kerning has less, the narrowest justified blank 0.2
BLANKS = 0.5  # the most between words of one piece; what parts columns is more
_APART = 0.65  # a gap between two pieces of a row, but for lines whose own blanks are stretched
_PAGE_NUMBER = re.compile(r"\d{1,4}|[ivxlc]{1,8}")
_LEADER = ".…· "
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
ASIAN = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")  # scripts without spaces

SOFT_BREAK = "\x03"  # the end of a line within a cell or heading
TIGHT = 1.45  # between the lines of a paragraph
PITCH = 3.3  # between rows of a table; from the sign of a list to its text
LARGER = 1.08  # a heading
_SMALLER = 1.2  # of what is lowered, as a rule: by a third and more
NEAR = 2.5  # points by which lines miss each other
THIN = 2 * NEAR  # that a line may be thick: a bar behind a text has more
Rule: TypeAlias = tuple[float, float, float, float]
"""A thin line or bar: left, bottom, right, top."""


class Word(Struct, eq=False):
    """Words of one style with a blank between each two; in points of the page as it is read."""

    text: str
    has_blank: bool
    """Whether white space stands before it that is part of the text."""
    left: float
    bottom: float
    right: float
    top: float
    ink_bottom: float
    ink_top: float
    base: float
    size: float
    is_bold: bool
    is_upright: bool
    is_hidden: bool
    is_symbol: bool
    """Of a font of signs, such as Wingdings."""
    spacing: float = 0.0
    """Between its letters, as titles have it."""
    lefts: Sequence[float] = ()
    rights: Sequence[float] = ()
    """Where each word begins and ends."""
    is_struck: bool = False
    level: int = 0
    """1 is raised, -1 is lowered."""
    is_mirrored: bool = False

    def __post_init__(self) -> None:
        self.lefts, self.rights = self.lefts or [self.left], self.rights or [self.right]

    @property
    def box(self) -> Rule:
        return self.left, self.bottom, self.right, self.top

    def part(self, first: int, end: int | None = None) -> Word:
        """Return some of its words."""
        text = " ".join(self.text.split(" ")[first:end])
        lefts, rights = self.lefts[first:end], self.rights[first:end]
        own = replace(self, text=text, has_blank=self.has_blank or first > 0)
        return replace(own, left=min(lefts), right=max(rights), lefts=lefts, rights=rights)

    def mirror(self) -> None:
        self.left, self.right = -self.right, -self.left
        mirrored = [-side for side in self.rights], [-side for side in self.lefts]
        self.lefts, self.rights = mirrored
        self.is_mirrored = not self.is_mirrored


class Piece(NamedTuple):
    """A piece of a page's text."""

    text: str
    word: Word | None = None
    """The word that it shows; None: blanks and marks."""
    row: int = 0
    column: int = 0
    """From 1, of a cell of a table."""


_Segment: TypeAlias = list[Word]
"""Words of a row with no wide gap between them."""


class Row(Struct, eq=False):
    segments: list[_Segment]
    words: list[Word]
    base: float
    size: float
    is_bold: bool = False
    is_upright: bool = True
    is_contents: bool = False
    """It ends with leader dots, which are left out, and a page's number."""
    table: PageLine | None = None
    """The whole table that stands in its place."""


class PageLine(Struct):
    pieces: list[Piece]
    size: float = 0.0
    is_bold: bool = False
    base: float = 0.0
    is_table: bool = False
    may_be_heading: bool = False
    text: str = ""

    def __post_init__(self) -> None:
        self.text = "".join(piece.text for piece in self.pieces)


def rows_of(words: Sequence[Word]) -> list[Row]:
    """Return the lines of words, from top to bottom; what is turned is in the order of its text."""
    lines = list[list[Word]]()
    for word in sorted((w for w in words if w.is_upright), key=lambda word: -word.base):
        head = lines[-1][0] if lines else word
        if lines and head.base - word.base <= CAPITAL / 2 * max(head.size, word.size):
            lines[-1].append(word)
        else:
            lines.append([word])
    pairs = [(line, below) for n, line in enumerate(lines) for below in lines[n + 1 : n + 3]]
    for upper, lower in pairs:
        _move_marks(upper, lower)
    for upper, lower in pairs:  # what is raised in a line is not lowered in the one above
        _move_marks(lower, upper)
    rows = list[list[Word]]()
    for line in filter(None, lines):
        if rows and _is_same_row(rows[-1], line):
            rows[-1] += line
        else:
            rows.append(line)
    turned = (list(group) for up, group in groupby(words, lambda word: word.is_upright) if not up)
    made = [row_of(sorted(row, key=lambda word: word.left)) for row in rows]
    made += [row_of(list(line)) for group in turned for line in _turned_lines(group)]
    return sorted(made, key=lambda row: -row.base)


def _turned_lines(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Yield turned words that follow each other, each with a blank between."""
    line = list[Word]()
    for word in words:
        if line and max(_distance(line[-1].box, word.box)) > TIGHT * word.size:
            yield line
            line = []
        line.append(word)
    yield line


def turned_words(words: Sequence[Word], place: Callable[[complex], complex]) -> Iterator[Word]:
    """Yield words of another direction, line by line, where they stand on the page."""
    for row in rows_of(words):
        last: Word | None = None
        for word in _as_read(row.words):
            blank = last is None or _has_blank(last, word)
            low, high = word.bottom, word.top
            boxes = [
                [place(complex(x, y)) for x in (left, right) for y in (low, high)]
                for left, right in zip(word.lefts, word.rights, strict=True)
            ]
            lefts = [min([corner.real for corner in box]) for box in boxes]
            rights = [max([corner.real for corner in box]) for box in boxes]
            ups = [corner.imag for box in boxes for corner in box]
            base = place(complex(word.left, word.base)).imag
            sides = min(lefts), min(ups), max(rights), max(ups)
            own = replace(word, has_blank=blank, is_upright=False, base=base, lefts=lefts)
            own.left, own.bottom, own.right, own.top = sides
            own.rights, last = rights, word
            yield own


def _distance(a: Rule, b: Rule) -> tuple[float, float]:
    return max(a[0] - b[2], b[0] - a[2]), max(a[1] - b[3], b[1] - a[3])


def _move_marks(line: list[Word], other: list[Word]) -> None:
    """Move words to the line of words beside which they are raised or lowered."""
    if not line or not other:
        return
    own, others = (max(words, key=lambda word: word.size) for words in (line, other))
    if abs(own.base - others.base) > CAPITAL * max(own.size, others.size):
        return
    for word in sorted(line, key=lambda word: -word.size):
        for host in other:
            is_smaller = LARGER * word.size < host.size or (
                word.size < LARGER * host.size and _n_chars(line) < _n_chars(other)
            )
            gap = gap_between(host, word)
            if is_smaller and -_APART * host.size < gap < _APART * host.size:
                line.remove(word)
                other.append(word)
                break


def _n_chars(words: Sequence[Word]) -> int:
    return sum([len(word.text) for word in words])


def _is_same_row(row: Sequence[Word], line: Sequence[Word]) -> bool:
    if abs(row[0].base - line[0].base) > CAPITAL * max(row[0].size, line[0].size):
        return False
    upper, lower = (max(words, key=lambda word: word.size) for words in (row, line))
    size = max(upper.size, lower.size)
    if abs(upper.base - lower.base) > CAPITAL / 2 * size:
        return False
    return all(gap_between(a, b) > -CAPITAL / 2 * size for a in row for b in line)


def row_of(words: list[Word]) -> Row:
    first = words[0]
    base, size, near = first.base, first.size, KERNING * first.size
    if any([w.base != base or w.size != size or abs(w.ink_bottom - base) > near for w in words]):
        _set_levels(words)
        sizes: Counter[float] = Counter()
        for word in words:
            sizes[word.size] += 0 if word.is_symbol or word.level else len(word.text)
        size = max(sizes, key=lambda size: (sizes[size], size))
    n_titled = len(words) - 1
    while n_titled and not words[n_titled - 1].text.strip(_LEADER):
        n_titled -= 1
    n_dots = sum([len(word.text) for word in words[n_titled:-1]])
    is_contents = n_dots > 3 and n_titled > 0 and bool(_PAGE_NUMBER.fullmatch(words[-1].text))
    if is_contents:
        words = [*words[:n_titled], words[-1]]
    segments, least = [[first]], _least_apart(words) if words[1:] else 0.0
    for last, word in pairwise(words):
        spacing = min(last.spacing, word.spacing)
        is_apart = word.is_upright and gap_between(last, word) - spacing > least
        if is_apart or (is_contents and word is words[-1]):
            segments.append([])
        segments[-1].append(word)
    return Row(
        segments,
        words,
        median([word.base for word in words if word.size == size]),
        size,
        all([word.is_bold or not any(map(str.isalnum, word.text)) for word in words]),
        first.is_upright,
        is_contents,
    )


def _least_apart(words: Sequence[Word]) -> float:
    """Return the least gap between pieces of a row: more where its own blanks are wide, or even."""
    gaps = [left - right for w in words for right, left in zip(w.rights, w.lefts[1:], strict=False)]
    gaps += [gap_between(last, word) for last, word in pairwise(words)]
    size = max([word.size for word in words])
    blanks = [gap for gap in gaps if gap > BLANK * size] or [0.0]
    usual = min(blanks)
    is_even = max(blanks) - usual < BLANK * size
    is_justified = 2 * usual > _APART * size and (usual <= _APART * size or is_even)
    return (2 * BLANKS if is_justified else _APART) * size


def span_of(words: Sequence[Word]) -> tuple[float, float]:
    return min([word.left for word in words]), max([word.right for word in words])


def gap_between(last: Word, word: Word) -> float:
    gap = word.left - last.right
    return gap if gap >= 0 else max(gap, last.left - word.right)


def _set_levels(words: Sequence[Word]) -> None:
    """Find words whose ink stands higher or lower than that of the words beside them."""
    for index, word in enumerate(words):
        last = words[index - 1] if index else None
        after = words[index + 1] if index + 1 < len(words) else None
        if word.is_symbol or not word.is_upright or len(word.text) > 12:
            continue
        around = [
            w for w in (last, after) if w and gap_between(w, word) < _APART * max(w.size, word.size)
        ]
        if any("\u2044" in w.text for w in (word, *around)):  # a fraction
            continue
        if last is not None and last in around and _is_like(last, word):
            word.level = last.level
            continue
        for host in around:
            if host.level or LARGER * host.size < word.size or host.is_symbol:
                continue
            height = CAPITAL * host.size
            rise = word.ink_bottom - host.base
            # Old-style figures go below the line, too, and are as high as others.
            is_lower = host.base - word.base > KERNING * host.size
            is_low = is_lower or word.ink_top - word.ink_bottom < CAPITAL * height
            # What is as large may be placed by the boxes of OCR, which go below some letters.
            is_placed = is_lower and _SMALLER * word.size > host.size
            least = BLANK if is_placed else KERNING
            if rise > BLANK * host.size:
                word.level = 1
            elif rise < -least * host.size and is_low and index:
                word.level = -1
            break


def _is_like(last: Word, word: Word) -> bool:
    """Return whether a word goes on as the last one, which is raised or lowered."""
    near = KERNING * word.size
    return (
        last.level != 0
        and abs(last.base - word.base) < near
        and abs(last.size - word.size) < near
        and abs(last.ink_bottom - word.ink_bottom) < near
    )


def is_right_to_left(words: Sequence[Word], *, default: bool = False) -> bool:
    """Return whether most letters of words are read from right to left."""
    text = "".join([word.text for word in words])
    n_found = 0 if text.isascii() else len(RIGHT_TO_LEFT.findall(text))
    if not n_found:
        return default and not any(map(str.isalpha, text))
    return n_found > 0.5 * sum(map(str.isalpha, text))


def _as_read(words: Sequence[Word]) -> Iterator[Word]:
    """Yield words in the direction of most letters, or of the page if the first word has it."""
    is_of_page = words[0].is_mirrored
    if not is_of_page and all([word.text.isascii() for word in words]):
        yield from words
        return
    is_own = is_right_to_left(words, default=is_of_page)
    if is_right_to_left(words[:1], default=is_own) is is_of_page:
        is_own = is_of_page
    found = groupby(words, lambda word: is_right_to_left([word], default=is_own))
    runs = [(direction, list(run)) for direction, run in found]
    for direction, run in runs if is_own is is_of_page else reversed(runs):
        yield from run if direction is is_of_page else reversed(run)


def segment_pieces(
    words: Sequence[Word], labels: Collection[str], *, is_first: bool = False
) -> list[Piece]:
    """Return the words of a piece of a row: runs of one look, each with its marks.

    1. A label at the beginning of a note; else raised or lowered characters.
    2. Around these: struck or hidden text.
    """
    if len(words) > 1 and words[0].is_upright:
        words = list(_as_read(words))
    out = list[Piece]()
    start = 0
    blanks = [False, *map(_has_blank, words, words[1:])]
    for (level, is_struck, is_hidden), group in groupby(
        words, lambda word: (word.level, word.is_struck, word.is_hidden)
    ):
        end = start + len(list(group))
        if blanks[start]:
            out.append(Piece(" "))
        run = list[Piece]()
        for index in range(start, end):
            run += [Piece(" ")] if index > start and blanks[index] else []
            word = words[index]
            text = word.text if word.text.isalnum() else escaped(word.text)
            run.append(Piece(text, word))
        if level:
            text = "".join(piece.text for piece in run)
            before = "".join(piece.text for piece in out)
            after = (" " if blanks[end] else "") + words[end].text if end < len(words) else ""  # 1
            label = note_label(text)
            if level > 0 and is_first and not start and after and label in labels:
                run = _marked(run, f"[^{label}]:{'' if after[0].isspace() else ' '}")
            else:
                run = _marked(
                    run,
                    raised(text, before, after, labels)
                    if level > 0
                    else lowered(text, before, after),
                )
        if is_struck or is_hidden:  # 2
            shown = struck("0") if is_struck else "0"
            head, tail = (hidden(shown) if is_hidden else shown).split("0")
            run = [Piece(head), *run, Piece(tail)]
        out += run
        start = end
    return out


def _marked(run: Sequence[Piece], text: str) -> list[Piece]:
    """Return a run as a text that holds it between marks, or its label as a note."""
    inner = "".join(piece.text for piece in run)
    if inner in text:
        head, _, tail = text.partition(inner)
        return [*([Piece(head)] if head else []), *run, *([Piece(tail)] if tail else [])]
    label = note_label(inner)
    head, _, tail = text.partition(label)
    return [Piece(head), Piece(label, run[0].word), Piece(tail)]


def _has_blank(last: Word, word: Word) -> bool:
    size = max(last.size, word.size)
    gap = gap_between(last, word) if word.is_upright else max(_distance(last.box, word.box))
    if gap < BLANKS * size and ASIAN.match(last.text[-1]) and ASIAN.match(word.text):
        return False
    least = BLANK if last.level == word.level else BLANK + KERNING
    is_next = last.text != "\ufffd"  # else the blank may be that before a drawn letter
    return (word.has_blank and is_next) or gap > least * size
