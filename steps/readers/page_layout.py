r"""What a page's words mean by where they stand: lines, columns, tables, headings, lists, marks.

Ink and white space decide, not the order of drawing nor a font's name:

1. Words on one base line are a row across the page. What stands raised or lowered beside a word
   belongs to the row of that word.
2. Words between crossing lines are a table (`ruled_tables`).
3. A place where many lines begin and that none of them crosses, with text on both sides that reads
   as prose, is the gutter of two columns: the left one is read first (`in_columns`).
4. Rows whose pieces stand below each other are a table, with its empty cells (`aligned_tables`),
   and so are contents, with titles and numbers of pages. All others are lines.
5. Lines that are larger or bolder than most text of the page are headings, of levels by size.

What only the whole document tells (how many levels its headings have, which words it uses) comes
from its first pages, so that any page can be laid out again by itself (`DocumentFacts`). A text's
pieces know the words that they are made of, and so their places.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby, pairwise

from paddock.engine.system.records import Struct
from paddock.pipelines.text_marks import note_label

from .page_rows import (
    BLANK,
    BLANKS,
    LARGER,
    NEAR,
    SOFT_BREAK,
    TIGHT,
    PageLine,
    Piece,
    Row,
    Rule,
    Word,
    gap_between,
    is_right_to_left,
    row_of,
    rows_of,
    segment_pieces,
    span_of,
)
from .page_tables import aligned_tables, ruled_tables, table_line, table_row

FACT_PAGES = 40  # are read for the facts about a document: a second at most
HYPHEN = "\x02"  # as PDFium writes it at the end of a line
_MOST_PLACES = 6  # where a column may begin
_FEW_LINES = 4  # fewer are no column, and more no heading
_BLANK = Piece(" ")
_PROSE_CHARS = 12  # of its lines, on average: the narrowest columns of newspapers have 20
_FILLED = (
    0.7  # of a column's width, which its lines fill on average; of a word, by a line through it
)
_BULLETS = frozenset("•●▪■◦‣∙·○▸►❖➢✓\ufffd\uf0b7\uf0a7\uf0d8\uf0a8\u2043")
_ENTRY = re.compile(r"\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)]")  # of a list
_NUMBER = re.compile(r"\(?[\dA-Z]{0,3}(?:\.?\d{1,3})*[.)]?")  # of a heading
_WORD = re.compile(r"(?<![\w-])[^\W\d_]{2,}(?:-\w+)?(?![\w-])")
_LINE_END = re.compile(r"\b\w++(?:\x02|[\u2010\u00ad-]\s*\n)\s*\w+")
_HYPHENS = frozenset((HYPHEN, "\u2010", "\u00ad", "-"))
_CUT = re.compile(r"(\w+)([\x02\u2010\u00ad-])\Z")
_FIRST_WORD = re.compile(r"\w+")
_VOWEL = re.compile("[aeiouyà-æè-ïò-öø-ýœ]|[^\x00-\u024f]")


class DocumentFacts(Struct):
    """What a document's first pages tell about all of them."""

    heading_sizes: Collection[float] = ()
    running: Collection[str] = ()
    """Lines that are at the top or bottom of several pages, without digits."""
    words: Callable[[], set[str]] = set


def page_lines(words: Sequence[Word], rules: Sequence[Rule]) -> list[PageLine]:
    """Lay out a page: its lines and tables in the order in which they are read.

    `words` are in the order of the page's text.
    """
    if is_right_to_left(words):
        for word in words:
            word.mirror()
        mirrored = [(-right, bottom, -left, top) for left, bottom, right, top in rules]
        lines = _lines(words, mirrored)
        for word in {id(p.word): p.word for line in lines for p in line.pieces if p.word}.values():
            word.mirror()
        return lines
    return _lines(words, rules)


def _lines(words: Sequence[Word], rules: Sequence[Rule]) -> list[PageLine]:
    rest, tables = ruled_tables(list(struck(words, rules)), rules)
    found = rows_of(rest)
    rows = [row for row in found if row.is_upright]
    # Labels of notes: raised at the beginning of a line.
    firsts = [row.words[0] for row in rows if len(row.words) > 1]
    labels = {note_label(word.text) for word in firsts if word.level > 0}
    labels = {label for label in labels if len(label) == 1 or label.isdigit()}
    labels |= _foot_labels(rows)
    rows += [table_row(cells, labels) for cells in tables]
    rows.sort(key=lambda row: -row.base)
    lines = [line for block in in_columns(rows) for line in _block_lines(block, labels)]
    return [*lines, *(_page_line(row, labels) for row in found if not row.is_upright)]


def _foot_labels(rows: Sequence[Row]) -> set[str]:
    """Return the labels of notes at the foot of a page, each raised in the text above."""
    labels = {word.text for row in rows for word in row.words if word.level > 0}
    found = list[Word]()
    n_others = 0
    for index in range(len(rows) - 1, -1, -1):
        row = rows[index]
        first, rest = row.words[0], row.words[1:]
        is_label = first.text.partition(" ")[0].rstrip(".") in labels
        if is_label and " " in first.text:
            first, rest = first.part(0, 1), [first.part(1), *rest]
            row.words, row.segments[0] = [first, *rest], [first, *rest[: len(row.segments[0])]]
        is_label &= bool(rest)
        n_others = 0 if is_label else n_others + 1
        if n_others > 2:  # a note's further lines
            return set()
        found += [first] if is_label else []
        if is_label and (not index or rows[index - 1].base - row.base > TIGHT * row.size):
            break
    numbers = [word.text.rstrip(".") for word in reversed(found)]
    if not all(map(str.isdecimal, numbers)) or any(
        int(b) - int(a) != 1 for a, b in pairwise(numbers)
    ):
        return set()
    above = rows[index - 1].words[0].text.partition(" ")[0] if numbers and index else ""
    if above.rstrip(".").isdecimal() and int(numbers[0]) - int(above.rstrip(".")) == 1:
        return set()  # it goes on with a list or a table
    for word in found:
        word.text = word.text.rstrip(".")
        word.level = 1
    return set(numbers)


def struck(words: Sequence[Word], rules: Sequence[Rule]) -> Iterator[Word]:
    """Yield words, and apart those whose letters a thin line crosses."""
    thin = (rule for rule in rules if rule[3] - rule[1] < 3 < rule[2] - rule[0])
    strokes = sorted(((bottom + top) / 2, left, right) for left, bottom, right, top in thin)
    heights = [height for height, _, _ in strokes]
    if not strokes:
        yield from words
        return
    for word in words:
        if not word.is_upright:
            yield word
            continue
        start = bisect_left(heights, word.base + BLANK * word.size)
        end = bisect_right(heights, word.base + BLANKS * word.size)
        near = strokes[start : min(end, start + 50)]
        is_struck = [
            any(
                min(x_1, right) - max(x_0, left) >= _FILLED * (right - left) for _, x_0, x_1 in near
            )
            for left, right in zip(word.lefts, word.rights, strict=True)
        ]
        at = 0
        for word.is_struck, group in groupby(is_struck):
            first, at = at, at + len(list(group))
            yield word.part(first, at) if at - first < len(is_struck) else word


def _block_lines(rows: list[Row], labels: Collection[str]) -> Iterator[PageLine]:
    for row in rows:
        head = row.segments[0]
        is_mark = len(head) == 1 and (head[0].level > 0 or _is_sign(head[0], head[0].text))
        if len(row.segments) == 2 and is_mark:
            row.segments = [row.segments[0] + row.segments[1]]
    at = 0
    for first, last, cells in aligned_tables(rows):
        yield from (row.table or _page_line(row, labels) for row in rows[at:first])
        yield table_line(cells, labels)
        at = last
    yield from (row.table or _page_line(row, labels) for row in rows[at:])


def _page_line(row: Row, labels: Collection[str]) -> PageLine:
    out = list[Piece]()
    for index, segment in enumerate(row.segments):
        out += [Piece("\t")] if index else []
        out += segment_pieces(segment, labels, is_first=not index)
    first = out[0].word or row.words[0]
    sign, blank, rest = out[0].text.partition(" ")
    is_entry = out[0].word is first and bool(rest or out[1:2] == [_BLANK]) and _is_sign(first, sign)
    if is_entry and not _ENTRY.fullmatch(sign):
        out[0] = Piece(f"-{blank}{rest}", first)
    is_numbered = len(row.segments) == 2 and _NUMBER.fullmatch(first.text)
    may_be_heading = (
        (len(row.segments) == 1 or is_numbered)
        and row.is_upright
        and not (is_entry or row.is_contents)
        and not any(word.is_hidden or word.is_struck for word in row.words)
    )
    return PageLine(out, row.size, row.is_bold, row.base, may_be_heading=bool(may_be_heading))


def _is_sign(word: Word, text: str) -> bool:
    is_bullet = text in _BULLETS or (word.is_symbol and len(text) == 1)
    return is_bullet or _ENTRY.fullmatch(text) is not None


def in_columns(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield rows that are read one below the other, column by column."""
    found = _gutter(rows)
    if found is None:
        if rows:
            yield rows
        return
    first, last, at = found
    yield from in_columns(rows[:first])
    for is_left in (True, False):
        yield from in_columns([*_side(rows[first:last], at, is_left=is_left)])
    yield from in_columns(rows[last:])


def _side(rows: Sequence[Row], at: float, *, is_left: bool) -> Iterator[Row]:
    """Yield one column's part of rows, in which equal gaps are those of a justified line."""
    for whole in rows:
        words = [word for word in whole.words if (word.left < at) is is_left]
        if words:
            row = whole if len(words) == len(whole.words) else row_of(words)
            gaps = [gap_between(a, b) for a, b in pairwise(row.words)] if row.segments[1:] else []
            if len(gaps) > 1 and max(gaps) - min(gaps) < BLANK * row.size:
                row.segments = [row.words]
            yield row


def _gutter(rows: Sequence[Row]) -> tuple[int, int, float] | None:
    """Return which rows two columns of prose have, and where the right one begins.

    It is where most lines begin, that no line crosses; the most lines of a page decide.
    """
    starts: Counter[int] = Counter()
    for row in rows:
        pairs = pairwise((row.words[0], *row.words))
        apart = (b for a, b in pairs if a is b or gap_between(a, b) > BLANKS * row.size)
        starts.update({round(word.left) for word in apart})
    found = (0, 0, 0.0)
    for x, n in starts.most_common(_MOST_PLACES):
        at, first = x - NEAR, 0
        if n + starts[x + 1] + starts[x - 1] < 2:
            break
        for end in range(len(rows) + 1):
            if end < len(rows) and not _crosses(rows[end], at):
                continue
            if end - first >= max(_FEW_LINES, found[1] - found[0] + 1):
                region = _prose_region(rows, first, end, at)
                if region[1] - region[0] > found[1] - found[0]:
                    found = (*region, at)
            first = end + 1
    return found if found[1] else None


def _crosses(row: Row, at: float) -> bool:
    """Return whether a row has no gutter at a place."""
    last: Word | None = None
    for word in row.words:
        if word.left >= at:
            return last is not None and gap_between(last, word) < BLANKS * row.size
        if word.right > at:
            return True
        last = word
    return False


def _prose_region(rows: Sequence[Row], first: int, end: int, at: float) -> tuple[int, int]:
    """Return the rows between two that are of two columns of prose; an empty range: none are."""

    def is_apart(above: int, index: int) -> bool:
        """Return whether a line stands apart, alone on its side, as a page's number does."""
        sides = {word.left < at for word in rows[index].words}
        gap = rows[above].base - rows[above + 1].base
        if gap <= TIGHT * rows[above].size or len(sides) > 1:
            return False
        own = (r.base for r in rows[first:end] if any((w.left < at) in sides for w in r.words))
        gaps = [upper - lower for upper, lower in pairwise(own)] or [gap]
        gap = gaps.pop(0 if index == first else -1)
        return gap > max(gaps, default=0.0) + NEAR

    while first + 1 < end and is_apart(first, first):
        first += 1
    while first < end - 1 and is_apart(end - 2, end - 1):
        end -= 1
    left, right = (
        [
            side
            for row in rows[first:end]
            if (side := [w for w in row.words if (w.left < at) is is_left])
        ]
        for is_left in (True, False)
    )
    if len(left) < _FEW_LINES or len(right) < 2 or not _is_filled(left):
        return 0, 0
    if _is_of_tables([*_side(rows[first:end], at, is_left=True)]):
        return 0, 0
    right_rows = [*_side(rows[first:end], at, is_left=False)]
    is_rest = len(right) == 2  # of a text that fills the left column: its last line is short
    is_prose = _is_filled(right[:1] if is_rest else right) and not _is_of_tables(right_rows)
    return (first, end) if is_prose or _gutter(right_rows) else (0, 0)


def _is_filled(lines: Sequence[Sequence[Word]]) -> bool:
    """Return whether lines fill a column with words."""
    spans = [span_of(words) for words in lines]
    rights = sorted(right for _, right in spans)
    # The longest lines may be those of further columns.
    width = rights[len(rights) * 4 // 5] - min(left for left, _ in spans)
    if sum(right - left for left, right in spans) < _FILLED * width * len(lines):
        return False
    n_letters = sum(map(str.isalpha, "".join(word.text for words in lines for word in words)))
    return n_letters >= _PROSE_CHARS * len(lines)


def _is_of_tables(rows: Sequence[Row]) -> bool:
    return sum(last - first for first, last, _ in aligned_tables(rows)) > 0.5 * len(rows)


def document_facts(pages: Iterable[tuple[str, Sequence[PageLine]]]) -> DocumentFacts:
    """Return the facts of a document by the raw texts and lines of its first pages."""
    edges: Counter[str] = Counter()
    known = list(pages)
    facts = DocumentFacts()
    for _, page in known:
        edges.update({_running(line) for line in (*page[:3], *page[-3:]) if not line.is_table})
    raw_texts = [text for text, _ in known]
    facts.words = cache(lambda: set().union(*map(_used_words, raw_texts)))
    facts.running = {text for text, n in edges.items() if n >= 3}
    facts.heading_sizes = {
        round(line.size * 2) / 2
        for _, page in known
        for usual in [_usual_text(page)]
        for line in page
        if _is_heading(line, usual, facts)
    }
    return facts


def _usual_text(page: Sequence[PageLine]) -> tuple[float, bool]:
    """Return the size of most text of a page, and whether it is bold.

    A table is as much as one of its rows: how many it has tells nothing about the text.
    """
    sizes: Counter[tuple[float, bool]] = Counter()
    for line in page:
        last = max([piece.row for piece in line.pieces]) if line.is_table else 0
        for word in [piece.word for piece in line.pieces if piece.word and piece.row == last]:
            sizes[round(word.size * 2) / 2, line.is_bold] += sum(map(str.isalnum, word.text))
    return sizes.most_common(1)[0][0] if sizes else (0.0, False)


def page_pieces(raw_text: str, lines: Sequence[PageLine], facts: DocumentFacts) -> list[Piece]:
    """Return a page's text, with headings marked and words at the ends of lines joined."""
    usual = _usual_text(lines)
    groups: list[list[PageLine]] = []  # a heading may have several lines
    for line in lines:
        last = groups[-1][-1] if groups else line
        is_alike = last.is_bold == line.is_bold and abs(last.size - line.size) < 0.5
        is_alike &= not (last.is_table or line.is_table)
        if is_alike and 0 < last.base - line.base < TIGHT * line.size:
            groups[-1].append(line)
        else:
            groups.append([line])
    out = list[Piece]()
    was_apart = False
    for group in groups:
        is_heading = len(group) <= _FEW_LINES and all(
            _is_heading(line, usual, facts) for line in group
        )
        is_apart = is_heading or group[0].is_table
        if out:
            out.append(Piece("\n\n" if is_apart or was_apart else "\n"))
        was_apart = is_apart
        if is_heading:
            n_larger = sum(other > group[0].size + 0.3 for other in facts.heading_sizes)
            out.append(Piece("#" * (1 + n_larger) + " "))
        for index, line in enumerate(group):
            out += [Piece(SOFT_BREAK if is_heading else "\n")] if index else []
            out += line.pieces
    return list(_joined(out, raw_text, facts))


def _is_heading(line: PageLine, usual: tuple[float, bool], facts: DocumentFacts) -> bool:
    text = line.text
    if not line.may_be_heading or text[-1] in ",;":
        return False
    if sum(map(str.isalpha, text)) < 2 or _running(line) in facts.running:
        return False
    size, is_bold = usual
    is_bolder = line.is_bold and not is_bold and LARGER * line.size > size
    return line.size >= LARGER * size or (is_bolder and text[-1] != ".")


def _running(line: PageLine) -> str:
    return "".join(filter(str.isalpha, line.text)).casefold()


def _used_words(raw_text: str) -> set[str]:
    """Return a text's words, with hyphens or without, but none that the end of a line cuts."""
    return set(_WORD.findall(_LINE_END.sub(" ", raw_text).casefold()))


def _joined(pieces: Sequence[Piece], raw_text: str, facts: DocumentFacts) -> Iterator[Piece]:
    """Yield the pieces of a text in which words are whole that the ends of lines cut."""
    own = set[str]()
    skipped = False
    for index, piece in enumerate(pieces):
        if skipped:
            skipped = False
            continue
        text = piece.text
        follows = pieces[index + 1 : index + 3] if text[-1:] in _HYPHENS else ()
        if len(follows) == 2 and follows[0].text in ("\n", SOFT_BREAK):
            cut, rest = _CUT.search(text), _FIRST_WORD.match(follows[1].text)
            if piece.word and cut and rest and follows[1].word:
                own = own or _used_words(raw_text)
                is_chain = text[: cut.start()].endswith(("-", HYPHEN))
                known = (own, facts.words())
                if cut[2] == "\u00ad" or (not is_chain and _is_one_word(cut[1], rest[0], known)):
                    text = text[:-1]
                skipped = True
        if HYPHEN in text or SOFT_BREAK in text:
            text = text.replace(HYPHEN, "-").replace(SOFT_BREAK, " ")
        yield piece if text is piece.text else piece._replace(text=text)


def _is_one_word(before: str, after: str, known: Iterable[Collection[str]]) -> bool:
    """Return whether what stands around the hyphen at a line's end is one word without it.

    1. After a capital or digit, or before one, it is a name or a code: `HC-0457`, `May-June`.
    2. The document has the word elsewhere, with the hyphen or without.
    3. The document has both parts as words: `well-known`.
    4. Words are cut between syllables, each of which has a vowel: not `T-shirt`.
    """
    if not (before[-1:].islower() and after[0].islower()):
        return False
    first, second = before.casefold(), after.casefold()
    has = [
        any(word in words for words in known)
        for word in (f"{first}-{second}", first + second, first, second)
    ]
    if has[0] or has[1]:
        return not has[0]
    parts = (first, second)
    return not (has[2] and has[3]) and all(len(part) > 1 and _VOWEL.search(part) for part in parts)
