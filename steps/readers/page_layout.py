r"""What a page's words mean by where they stand: lines, columns, tables, headings, lists, marks.

Ink and white space decide, not the order of drawing nor a font's name:

1. Words on one base line are a row across the page. What stands raised or lowered beside a word
   belongs to the row of that word.
2. Words between crossing lines are a table (`ruled_tables`).
3. A place where many lines begin and that none of them crosses, with text on both sides that reads
   as prose, is the gutter of two columns: the left one is read first (`_in_columns`).
4. Rows whose pieces stand below each other are a table, with its empty cells (`aligned_tables`),
   and so are contents, with titles and numbers of pages. All others are lines.
5. Lines that are larger or bolder than the page's text are headings, with a level by their size.

What only the whole document tells (which size its text has, which words it uses) comes from its
first pages, so that any page can be laid out again by itself (`DocumentFacts`). A text's pieces
know the words that they are made of, and so their places.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise

from paddock.engine.system.records import field, record
from paddock.pipelines.text_marks import note_label

from .page_rows import (
    LARGER,
    NEAR,
    SOFT_BREAK,
    PageLine,
    Piece,
    Row,
    Rule,
    Word,
    gap_between,
    row_of,
    rows_of,
    segment_pieces,
    span_of,
)
from .page_tables import aligned_tables, ruled_tables, table_line, table_row

FACT_PAGES = 40  # are read for the facts about a document: a second at most
HYPHEN = "\x02"  # as PDFium writes it at the end of a line
_GUTTER = 0.5  # the least between columns
_MOST_HEADING_CHARS = 160
_MOST_PLACES = 12  # where a column may begin
_LEAST_LINES = 4  # of a column
_PROSE_CHARS = 12  # of its lines, on average: the narrowest columns of newspapers have 20
_FILLED = 0.65  # of a column's width, which its lines fill on average
_BULLETS = frozenset("•●▪■◦‣∙·○▸►❖➢✓\ufffd\uf0b7\uf0a7\uf0d8\uf0a8\u2043")
_ENTRY = re.compile(r"\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)]")  # of a list
_NUMBER = re.compile(r"\(?[\dA-Z]{0,3}(?:\.?\d{1,3})*[.)]?")  # of a heading
_WORD = re.compile(r"(?<![\w-])[^\W\d_]{2,}(?:-\w+)?(?![\w-])")
_LINE_END = re.compile(r"\w+(?:\x02|[\u2010\u00ad-]\s*\n)\s*\w+")
_CUT = re.compile(r"(\w+)([\x02\u2010\u00ad-])")
_FIRST_WORD = re.compile(r"\w+")
_VOWEL = re.compile("[aeiouyà-æè-ïò-öø-ýœ]|[^\x00-\u024f]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")


@record(slots=True)
class DocumentFacts:
    """What a document's first pages tell about all of them."""

    size: float = 0.0
    """Of most of its text."""
    is_bold: bool = False
    heading_sizes: Sequence[float] = ()
    running: Collection[str] = ()
    """Lines that are at the top or bottom of several pages, without digits."""
    words: set[str] = field(default_factory=set)


def page_lines(words: Sequence[Word], rules: Sequence[Rule]) -> list[PageLine]:
    """Lay out a page: its lines and tables in the order in which they are read.

    `words` are in the order of the page's text.
    """
    text = "".join(word.text for word in words)
    if not text.isascii() and len(_RIGHT_TO_LEFT.findall(text)) > 0.5 * sum(map(str.isalpha, text)):
        for word in words:  # laid out as in a mirror
            word.left, word.right = -word.right, -word.left
        rules = [(-right, bottom, -left, top) for left, bottom, right, top in rules]
    _strike(words, rules)
    rest, tables = ruled_tables(words, rules)
    rows = rows_of(rest)
    # Labels of notes: raised at the beginning of a line.
    firsts = [row.words[0] for row in rows if len(row.words) > 1]
    labels = {note_label(word.text) for word in firsts if word.level > 0}
    labels = {label for label in labels if len(label) == 1 or label.isdigit()}
    labels |= _foot_labels(rows)
    rows += [table_row(cells, labels) for cells in tables]
    rows.sort(key=lambda row: -row.base)
    return [line for block in _in_columns(rows) for line in _block_lines(block, labels)]


def _foot_labels(rows: Sequence[Row]) -> set[str]:
    """Return the labels of notes at the foot of a page, each raised in the text above."""
    labels = {word.text for row in rows for word in row.words if word.level > 0}
    found = list[Word]()
    n_others = 0
    for index in range(len(rows) - 1, -1, -1):
        row, first = rows[index], rows[index].words[0]
        is_label = first.text.rstrip(".") in labels and len(row.words) > 1
        n_others = 0 if is_label else n_others + 1
        if n_others > 2 or not row.is_upright:  # a note's further lines
            return set()
        found += [first] if is_label else []
        if is_label and (not index or rows[index - 1].base - row.base > 1.5 * row.size):
            break
    numbers = [word.text.rstrip(".") for word in reversed(found)]
    if not all(map(str.isdecimal, numbers)) or any(
        int(b) - int(a) != 1 for a, b in pairwise(numbers)
    ):
        return set()
    for word in found:
        word.text = word.text.rstrip(".")
        word.level = 1
    return set(numbers)


def _strike(words: Sequence[Word], rules: Sequence[Rule]) -> None:
    """Find words whose letters a thin line crosses."""
    thin = (rule for rule in rules if rule[3] - rule[1] < 3 < rule[2] - rule[0])
    strokes = sorted(((bottom + top) / 2, left, right) for left, bottom, right, top in thin)
    heights = [height for height, _, _ in strokes]
    for word in words if strokes else ():
        start = bisect_left(heights, word.base + 0.14 * word.size)
        end = bisect_right(heights, word.base + 0.5 * word.size)
        for _, left, right in strokes[start : min(end, start + 50)]:
            shared = min(right, word.right) - max(left, word.left)
            word.is_struck |= word.is_upright and shared >= 0.8 * (word.right - word.left)


def _block_lines(rows: list[Row], labels: Collection[str]) -> Iterator[PageLine]:
    for row in rows:
        head = row.segments[0]
        is_label = len(head) == 1 and head[0].level > 0
        if len(row.segments) == 2 and (is_label or _is_sign(head)):
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
    first = row.words[0]
    is_entry = len(out) > 1 and out[0].word is first and out[1].text == " " and _is_sign([first])
    if is_entry and not _ENTRY.fullmatch(first.text):
        out[0] = Piece("-", first)
    is_numbered = len(row.segments) == 2 and _NUMBER.fullmatch(first.text)
    may_be_heading = (
        (len(row.segments) == 1 or is_numbered)
        and row.is_upright
        and not (is_entry or row.is_contents)
        and not any(word.is_hidden or word.is_struck for word in row.words)
    )
    return PageLine(out, row.size, row.is_bold, row.base, may_be_heading=bool(may_be_heading))


def _is_sign(words: Sequence[Word]) -> bool:
    text = words[0].text
    is_bullet = text in _BULLETS or (words[0].is_symbol and len(text) == 1)
    return len(words) == 1 and (is_bullet or bool(_ENTRY.fullmatch(text)))


def _in_columns(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield rows that are read one below the other, column by column."""
    found = _gutter(rows)
    if found is None:
        if rows:
            yield rows
        return
    first, last, at = found
    yield from _in_columns(rows[:first])
    for is_left in (True, False):
        yield from _in_columns([*_side(rows[first:last], at, is_left=is_left)])
    yield from _in_columns(rows[last:])


def _side(rows: Sequence[Row], at: float, *, is_left: bool) -> Iterator[Row]:
    for row in rows:
        words = [word for word in row.words if (word.left < at) is is_left]
        if words:
            yield row if len(words) == len(row.words) else row_of(words)


def _gutter(rows: Sequence[Row]) -> tuple[int, int, float] | None:
    """Return which rows two columns of prose have, and where the right one begins.

    It is where most lines begin, that no line crosses; the most lines of a page decide.
    """
    starts: Counter[int] = Counter()
    lines = [row.words for row in rows]
    for row, words in zip(rows, lines, strict=True):
        starts.update(
            {
                round(word.left)
                for last, word in pairwise((words[0], *words))
                if word is last or gap_between(last, word) > _GUTTER * row.size
            }
        )
    found: tuple[int, int, float] | None = None
    for x, n in starts.most_common(_MOST_PLACES):
        if n + starts[x + 1] + starts[x - 1] < 2:
            break
        first = 0
        for end in range(len(rows) + 1):
            if end < len(rows) and not _crosses(rows[end], lines[end], x - NEAR):
                continue
            if end - first >= _LEAST_LINES and (not found or end - first > found[1] - found[0]):
                region = _prose_region(rows, first, end, x - NEAR)
                if region and (not found or region[1] - region[0] > found[1] - found[0]):
                    found = (*region, x - NEAR)
            first = end + 1
    return found


def _crosses(row: Row, words: Sequence[Word], at: float) -> bool:
    """Return whether a row has no gutter at a place."""
    if not row.is_upright:
        return True
    last: Word | None = None
    for word in words:
        if word.left >= at:
            return last is not None and gap_between(last, word) < _GUTTER * row.size
        if word.right > at:
            return True
        last = word
    return False


def _prose_region(rows: Sequence[Row], first: int, end: int, at: float) -> tuple[int, int] | None:
    """Return the rows between two that are of two columns of prose; None: they are of none."""

    def is_apart(above: int, index: int) -> bool:
        """Return whether a line stands apart, alone on its side, as a page's number does."""
        sides = {word.left < at for word in rows[index].words}
        return rows[above].base - rows[above + 1].base > 1.8 * rows[above].size and len(sides) == 1

    while first + 1 < end and is_apart(first, first):
        first += 1
    while first < end - 1 and is_apart(end - 2, end - 1):
        end -= 1
    lines = [row.words for row in rows[first:end]]
    left, right = (
        [side for words in lines if (side := [w for w in words if (w.left < at) is is_left])]
        for is_left in (True, False)
    )
    if len(left) < _LEAST_LINES or len(right) < 2 or not _is_filled(left):
        return None
    if _is_of_tables([*_side(rows[first:end], at, is_left=True)]):
        return None
    right_rows = [*_side(rows[first:end], at, is_left=False)]
    is_prose = _is_filled(right) and not _is_of_tables(right_rows)
    return (first, end) if is_prose or _gutter(right_rows) else None


def _is_filled(lines: Sequence[Sequence[Word]]) -> bool:
    """Return whether lines fill a column with words."""
    spans = [span_of(words) for words in lines]
    rights = sorted(right for _, right in spans)
    # The longest lines may be those of further columns.
    width = rights[len(rights) * 4 // 5] - min(left for left, _ in spans)
    filled = sum(right - left for left, right in spans)
    if filled < _FILLED * width * len(lines):
        return False
    n_letters = sum(map(str.isalpha, "".join(word.text for words in lines for word in words)))
    return n_letters >= _PROSE_CHARS * len(lines)


def _is_of_tables(rows: Sequence[Row]) -> bool:
    return sum(last - first for first, last, _ in aligned_tables(rows)) > 0.5 * len(rows)


def document_facts(pages: Iterable[tuple[str, Sequence[PageLine]]]) -> DocumentFacts:
    """Return the facts of a document by the raw texts and lines of its first pages."""
    edges: Counter[str] = Counter()
    lines = list[PageLine]()
    facts = DocumentFacts()
    for raw_text, page in pages:
        edges.update({_running(line) for line in (*page[:3], *page[-3:]) if not line.is_table})
        lines += page
        facts.words |= _used_words(raw_text)
    # How many rows its tables have tells nothing about a document's text.
    outside = [line for line in lines if not line.is_table]
    facts.size, facts.is_bold = _most_used(outside or lines)
    facts.running = {text for text, n in edges.items() if n >= 3}
    large = (
        line.size for line in lines if _is_heading(line, facts) and line.size >= LARGER * facts.size
    )
    most_used = Counter(round(size * 2) / 2 for size in large).most_common(5)
    facts.heading_sizes = [size for size, _ in most_used]
    return facts


def _most_used(lines: Iterable[PageLine]) -> tuple[float, bool]:
    """Return the size of most text, and whether it is bold."""
    sizes: Counter[tuple[float, bool]] = Counter()
    for line in lines:
        sizes[round(line.size * 2) / 2, line.is_bold] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else (0.0, False)


def page_pieces(raw_text: str, lines: Sequence[PageLine], facts: DocumentFacts) -> list[Piece]:
    """Return a page's text, with headings marked and words at the ends of lines joined."""
    groups: list[list[PageLine]] = []  # a heading may have several lines
    for line in lines:
        last = groups[-1][-1] if groups else line
        if (
            0 < last.base - line.base < 1.5 * line.size
            and abs(last.size - line.size) < 0.5
            and last.is_bold == line.is_bold
            and _is_heading(line, facts)
            and _is_heading(last, facts)
        ):
            groups[-1].append(line)
        else:
            groups.append([line])
    out = list[Piece]()
    was_apart = False
    for group in groups:
        size, n_chars = group[0].size, sum(len(line.text) for line in group)
        is_short = n_chars <= _MOST_HEADING_CHARS and len(group) <= (
            5 if size > 1.3 * facts.size else 3
        )
        is_heading = is_short and _is_heading(group[0], facts)
        is_apart = is_heading or group[0].is_table
        if out:
            out.append(Piece("\n\n" if is_apart or was_apart else "\n"))
        was_apart = is_apart
        if is_heading:
            n_larger = sum(other > size + 0.3 for other in facts.heading_sizes)
            out.append(Piece("#" * (1 + n_larger) + " "))
        for index, line in enumerate(group):
            out += [Piece(SOFT_BREAK if is_heading else "\n")] if index else []
            out += line.pieces
    return list(_joined(out, raw_text, facts))


def _is_heading(line: PageLine, facts: DocumentFacts) -> bool:
    text = line.text
    if not line.may_be_heading or len(text) > _MOST_HEADING_CHARS or text[-1] in ",;":
        return False
    if sum(map(str.isalpha, text)) < 2 or _running(line) in facts.running:
        return False
    is_bolder = line.is_bold and not facts.is_bold and line.size >= 0.9 * facts.size
    return line.size >= LARGER * facts.size or (is_bolder and text[-1] != ".")


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
        text, follows = piece.text, pieces[index + 1 : index + 3]
        if piece.word and len(follows) == 2 and follows[0].text in ("\n", SOFT_BREAK):
            cut, rest = (
                _CUT.search(text, max(0, len(text) - 60)),
                _FIRST_WORD.match(follows[1].text),
            )
            while cut and cut.end() < len(text):
                cut = _CUT.search(text, cut.end())
            if cut and rest and follows[1].word:
                own = own or _used_words(raw_text)
                is_chain = text[: cut.start()].endswith(("-", HYPHEN))
                known = (own, facts.words)
                if cut[2] == "\u00ad" or (not is_chain and _is_one_word(cut[1], rest[0], known)):
                    text = text[:-1]
                skipped = True
        text = text.replace(HYPHEN, "-").replace(SOFT_BREAK, " ")
        yield piece._replace(text=text) if text != piece.text else piece


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
