r"""What the places and sizes of a page's words mean: lines, tables, headings, lists, marks.

1. Words between crossing lines are a table (`_ruled_tables`).
2. Rows whose pieces stand below each other in columns are one too, with empty cells kept
   (`_aligned_tables`), and so are contents, with titles and numbers of pages.
3. What is larger or bolder than most text is a heading, with a level by its size.
4. Small words above or below the line are raised or lowered; text that a thin line crosses is
   struck.
5. Lines are sorted from top to bottom where nothing stands beside something else. Otherwise they
   are in the order in which they are drawn, which is the best guess at the order of columns.

What only the whole document tells (which size its text has, which words it uses) comes from its
first pages, so that any page can be laid out again by itself (`DocumentFacts`). Each character
keeps its offset in the page's raw text, so that a quote leads back to its place.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import TypeAlias

from paddock.engine.system.records import field, record, replace
from paddock.pipelines.text_marks import escaped, hidden, lowered, note_label, raised, struck

FACT_PAGES = 40  # are read for the facts about a document: a second at most
HYPHEN = "\x02"  # as PDFium writes it at the end of a line
_NOWHERE = -1  # the offset of a character that the page does not have
_SOFT_BREAK = "\x03"  # the end of a line within a cell or heading
# Of a size (points for 10 pt text by ten): a space has 0.2 to 0.6, also in justified lines.
_CELL_GAP = 0.9
_TAB_GAP = 3.0
_ROW_PITCH = 3.3
_TIGHT_PITCH = 1.45
_SHIFT_UP = 0.15
_SHIFT_DOWN = 0.07
_SMALL = 0.86
_LARGER = 1.08
_NEAR = 2.5  # points by which lines miss each other
_THIN = 4.0  # points that a line may be thick
_MOST_HEADING_CHARS = 160
_MOST_CELL_LINES = 14  # more is text in a frame
_MOST_TABLE_ROWS = 200  # without lines; a longer table is several
_MOST_LOOKS = 2_000_000  # at a line for a word, on a page
_PROSE_CHARS = 24  # in a piece: two columns with more are running text
_BULLETS = frozenset("•●▪■◦‣∙·○▸►❖➢✓\ufffd\uf0b7\uf0a7\uf0d8\uf0a8\u2043")
_ENTRY = re.compile(r"\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)]")  # of a list
_NUMBER = re.compile(r"\(?[\dA-Z]{0,3}(?:\.?\d{1,3})*[.)]?")  # of a heading
_PAGE_NUMBER = re.compile(r"\d{1,4}|[ivxlc]{1,8}")
_LEADER = ".…·"
_CUT = re.compile(r"(\w+)([\x02\u2010\u00ad-])[\n\x03](\w+)")
_WORD = re.compile(r"(?<![\w-])[^\W\d_]{2,}(?:-\w+)?(?![\w-])")
_LINE_END = re.compile(r"\w+(?:\x02|[\u2010\u00ad-]\s*\n)\s*\w+")
_VOWEL = re.compile("[aeiouyà-æè-ïò-öø-ýœ]|[^\x00-\u024f]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_ASIAN = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")  # scripts without spaces

Rule: TypeAlias = tuple[float, float, float, float]
"""A thin line or bar: left, bottom, right, top."""
_Line: TypeAlias = tuple[float, float, float]
"""Where a straight line is, where it begins and where it ends."""


@record(slots=True)
class Word:
    """Printed characters without white space, all of one style; in points, y upwards."""

    text: str
    at: int
    """Its offset in the page's raw text."""
    line: int
    """Number of the line that PDFium has it in."""
    space: str
    """White space before it in the line."""
    left: float
    right: float
    base: float
    size: float
    is_bold: bool
    is_upright: bool
    is_hidden: bool
    is_symbol: bool
    """Of a font of signs, such as Wingdings."""
    is_struck: bool = False


@record(slots=True)
class Traced:
    """A text and the offset of each of its characters in the page's raw text."""

    text: str = ""
    origins: list[int] = field(default_factory=list)

    def add(self, text: str, origin: int | None = None) -> None:
        self.text += text
        end = len(text)
        self.origins += [_NOWHERE] * end if origin is None else range(origin, origin + end)

    def append(self, other: Traced, start: int = 0, end: int | None = None) -> None:
        self.text += other.text[start:end]
        self.origins += other.origins[start:end]

    def escaped(self, text: str) -> Traced:
        origins = list[int]()
        at = 0
        for char in text if text != self.text else ():
            is_own = char == self.text[at]
            origins.append(self.origins[at] if is_own else _NOWHERE)
            at += is_own
        return Traced(text, origins) if origins else self

    def marked(self, text: str) -> Traced:
        inner = self.text if self.text in text else note_label(self.text)
        head, _, tail = text.partition(inner)
        out = Traced()
        start = self.text.index(inner)
        out.add(head)
        out.append(self, start, start + len(inner))
        out.add(tail)
        return out


_Segment: TypeAlias = Sequence[Word]
"""Words of a row with no wide gap between them."""


@record(slots=True)
class _Row:
    segments: Sequence[_Segment]
    base: float
    size: float
    is_bold: bool
    is_upright: bool
    is_contents: bool = False
    """It ends with leader dots, which are left out, and a page's number."""

    @property
    def words(self) -> list[Word]:
        return [word for segment in self.segments for word in segment]


_Cells: TypeAlias = list[list[list[_Row]]]
"""The lines in each cell of each row."""


@record(slots=True)
class PageLine:
    traced: Traced
    size: float = 0.0
    is_bold: bool = False
    base: float = 0.0
    """Of a table: of its last row."""
    top: float = 0.0
    """The base of a table's first row."""
    is_table: bool = False
    may_be_heading: bool = False


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
    """Lay out a page: its lines and tables in the order in which they are read."""
    text = "".join(word.text for word in words)
    if not text.isascii() and len(_RIGHT_TO_LEFT.findall(text)) > 0.5 * sum(map(str.isalpha, text)):
        for word in words:  # laid out as in a mirror
            word.left, word.right = -word.right, -word.left
        rules = [(-right, bottom, -left, top) for left, bottom, right, top in rules]
    # Words whose letters a thin line crosses are struck
    thin = (rule for rule in rules if rule[3] - rule[1] < 3 < rule[2] - rule[0])
    strokes = sorted(((bottom + top) / 2, left, right) for left, bottom, right, top in thin)
    heights = [height for height, _, _ in strokes]
    for word in words if strokes else ():
        start = bisect_left(heights, word.base + 0.14 * word.size)
        end = bisect_right(heights, word.base + 0.5 * word.size)
        for _, left, right in strokes[start : min(end, start + 50)]:
            shared = min(right, word.right) - max(left, word.left)
            word.is_struck |= word.is_upright and shared >= 0.8 * (word.right - word.left)
    rest, tables = _ruled_tables(words, rules)
    rows, is_sorted = _sorted_rows(_rows(rest))
    # Labels of notes: raised at the beginning of a line.
    firsts = [(row.words[0], row) for row in rows if len(row.words) > 1]
    labels = {note_label(word.text) for word, row in firsts if _level(word, None, row) > 0}
    labels = {label for label in labels if len(label) == 1 or label.isdigit()}
    for first, last, cells in _aligned_tables(rows):
        tables.append(cells)
        for row in rows[first:last]:
            row.segments = []
    lines = [_table(cells, labels) for cells in tables]
    lines += [_page_line(row, labels) for row in rows if row.segments]
    if is_sorted:
        return sorted(lines, key=lambda line: -max(line.base, line.top))
    return sorted(lines, key=lambda line: next(at for at in line.traced.origins if at >= 0))


def document_facts(pages: Iterable[tuple[str, Sequence[PageLine]]]) -> DocumentFacts:
    """Return the facts of a document by the raw texts and lines of its first pages."""
    sizes: Counter[tuple[float, bool]] = Counter()
    edges: Counter[str] = Counter()
    lines = list[PageLine]()
    facts = DocumentFacts()
    for raw_text, page in pages:
        for line in page:
            sizes[round(line.size * 2) / 2, line.is_bold] += len(line.traced.text)
        edges.update({_running(line) for line in (*page[:3], *page[-3:]) if not line.is_table})
        lines += page
        facts.words |= _used_words(raw_text)
    if sizes:
        facts.size, facts.is_bold = sizes.most_common(1)[0][0]
    facts.running = {text for text, n in edges.items() if n >= 3}
    large = (
        line.size
        for line in lines
        if _is_heading(line, facts) and line.size >= _LARGER * facts.size
    )
    most_used = Counter(round(size * 2) / 2 for size in large).most_common(5)
    facts.heading_sizes = [size for size, _ in most_used]
    return facts


def page_text(raw_text: str, lines: Sequence[PageLine], facts: DocumentFacts) -> Traced:
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
    out = Traced()
    was_apart = False
    for group in groups:
        size, n_chars = group[0].size, sum(len(line.traced.text) for line in group)
        is_short = n_chars <= _MOST_HEADING_CHARS and len(group) <= (
            5 if size > 1.3 * facts.size else 3
        )
        is_heading = is_short and _is_heading(group[0], facts)
        is_apart = is_heading or group[0].is_table
        out.add("\n\n" if out.text and (is_apart or was_apart) else "\n" if out.text else "")
        was_apart = is_apart
        if is_heading:
            n_larger = sum(other > size + 0.3 for other in facts.heading_sizes)
            out.add("#" * (1 + n_larger) + " ")
        for index, line in enumerate(group):
            out.add((_SOFT_BREAK if is_heading else "\n") if index else "")
            out.append(line.traced)
    return _joined(out, raw_text, facts)


def _is_heading(line: PageLine, facts: DocumentFacts) -> bool:
    text = line.traced.text
    if not line.may_be_heading or len(text) > _MOST_HEADING_CHARS or text[-1] in ",;":
        return False
    if sum(map(str.isalpha, text)) < 2 or _running(line) in facts.running:
        return False
    is_bolder = line.is_bold and not facts.is_bold and line.size >= 0.9 * facts.size
    return line.size >= _LARGER * facts.size or (is_bolder and text[-1] != ".")


def _running(line: PageLine) -> str:
    return "".join(filter(str.isalpha, line.traced.text)).casefold()


def _used_words(raw_text: str) -> set[str]:
    """Return a text's words, with hyphens or without, but none that the end of a line cuts."""
    return set(_WORD.findall(_LINE_END.sub(" ", raw_text).casefold()))


def _joined(text: Traced, raw_text: str, facts: DocumentFacts) -> Traced:
    out = Traced()
    at = 0
    own = set[str]()
    for cut in _CUT.finditer(text.text):
        own = own or _used_words(raw_text)
        is_one_word = cut[2] == "\u00ad" or _is_one_word(cut, own, facts.words)
        out.append(text, at, cut.start(2) if is_one_word else cut.end(2))
        at = cut.start(3)
    out.append(text, at)
    out.text = out.text.replace(HYPHEN, "-").replace(_SOFT_BREAK, " ")
    return out


def _is_one_word(cut: re.Match[str], own: Collection[str], known: Collection[str]) -> bool:
    """Return whether what stands around the hyphen at a line's end is one word without it.

    1. After a capital or digit, or before one, it is a name or a code: `HC-0457`, `May-June`.
    2. The document has the word elsewhere, with the hyphen or without.
    3. The document has both parts as words: `well-known`.
    4. Words are cut between syllables, each of which has a vowel: not `T-shirt`.
    """
    before, after = cut[1], cut[3]
    is_chain = cut.string[: cut.start()].endswith(("-", HYPHEN))
    if is_chain or not (before[-1:].islower() and after[0].islower()):
        return False
    first, second = before.casefold(), after.casefold()
    has = [
        any(word in words for words in (own, known))
        for word in (f"{first}-{second}", first + second, first, second)
    ]
    if has[0] or has[1]:
        return not has[0]
    parts = (first, second)
    return not (has[2] and has[3]) and all(len(part) > 1 and _VOWEL.search(part) for part in parts)


# --- rows


def _rows(words: Sequence[Word]) -> list[_Row]:
    rows: list[_Row] = []
    for _, line in groupby(words, key=lambda word: word.line):
        row = _row(list(line))
        if rows and _is_beside(rows[-1], row):
            rows[-1] = _row(sorted([*rows[-1].words, *row.words], key=lambda word: word.left))
        else:
            rows.append(row)
    return rows


def _sorted_rows(rows: list[_Row]) -> tuple[list[_Row], bool]:
    """Sort rows by height, unless more than a few stand beside others: then there are columns."""
    below = list[_Row]()
    n_beside = 0
    for row in sorted(rows, key=lambda row: -row.base):
        last = below[-1] if below else row
        if row is not last and _is_beside(last, row):
            below[-1] = _row(sorted([*last.words, *row.words], key=lambda word: word.left))
        else:
            below.append(row)
        n_beside += row is not last and last.base - row.base < 0.75 * min(last.size, row.size)
    is_sorted = n_beside <= max(2, len(rows) / 10) and all(row.is_upright for row in rows)
    return (below, True) if is_sorted else (rows, False)


def _is_beside(last: _Row, row: _Row) -> bool:
    small, large = sorted((last.size, row.size))
    most = (0.3 if small > _SMALL * large else 0.6) * large
    if not (last.is_upright and row.is_upright) or abs(last.base - row.base) > most:
        return False
    left, right = _span(row.words)
    near = 0.3 * large
    return all(right <= word.left + near or left >= word.right - near for word in last.words)


def _row(words: list[Word]) -> _Row:
    sizes = dict.fromkeys((word.size for word in words), 0)
    for word in words if len(sizes) > 1 else ():
        sizes[word.size] += 1 if word.is_symbol else len(word.text)
    size = max(sizes, key=lambda size: (sizes[size], size))
    n_titled = len(words) - 1
    while n_titled and not words[n_titled - 1].text.strip(_LEADER):
        n_titled -= 1
    n_dots = sum(len(word.text) for word in words[n_titled:-1])
    is_contents = n_dots > 3 and n_titled > 0 and bool(_PAGE_NUMBER.fullmatch(words[-1].text))
    segments = list[list[Word]]()
    for index, word in enumerate(words):
        if is_contents and n_titled <= index < len(words) - 1:
            continue
        last = words[index - 1] if index else word
        if (
            not index
            or _gap(last, word) > _CELL_GAP * max(last.size, word.size)
            or (is_contents and index >= n_titled)
        ):
            segments.append([])
        segments[-1].append(word)
    if len(segments) == 2 and _is_sign(segments[0]):
        segments = [segments[0] + segments[1]]
    return _Row(
        segments,
        median(word.base for word in words if word.size == size),
        size,
        all(word.is_bold or not any(map(str.isalnum, word.text)) for word in words),
        all(word.is_upright for word in words),
        is_contents,
    )


def _span(words: Sequence[Word]) -> tuple[float, float]:
    if len(words) == 1:
        return words[0].left, words[0].right
    return min([word.left for word in words]), max([word.right for word in words])


def _gap(last: Word, word: Word) -> float:
    return max(word.left - last.right, last.left - word.right)


def _is_sign(words: Sequence[Word]) -> bool:
    text = words[0].text
    is_bullet = text in _BULLETS or (words[0].is_symbol and len(text) == 1)
    return len(words) == 1 and (is_bullet or bool(_ENTRY.fullmatch(text)))


def _page_line(row: _Row, labels: Collection[str]) -> PageLine:
    out = Traced()
    for index, segment in enumerate(row.segments):
        if index:
            is_wide = _gap(row.segments[index - 1][-1], segment[0]) > _TAB_GAP * row.size
            out.add("\t" if is_wide or row.is_contents else segment[0].space or " ")
        out.append(_line_text(segment, row, labels, is_first=not index))
    first = row.words[0]
    is_entry = len(row.words) > 1 and out.text[0] == first.text and _is_sign([first])
    if is_entry:
        rest = out.text[1:].lstrip()
        end = len(out.text)
        out = Traced("- " + rest, [first.at, _NOWHERE, *out.origins[end - len(rest) :]])
    is_numbered = len(row.segments) == 2 and _NUMBER.fullmatch(first.text)
    may_be_heading = (
        (len(row.segments) == 1 or is_numbered)
        and row.is_upright
        and not (is_entry or row.is_contents)
        and not any(word.is_hidden or word.is_struck for word in row.words)
    )
    return PageLine(out, row.size, row.is_bold, row.base, may_be_heading=bool(may_be_heading))


# --- marks


def _level(word: Word, last: Word | None, row: _Row) -> int:
    if word.size > _SMALL * row.size or word.is_symbol or not word.is_upright:
        return 0
    is_fraction = "\u2044" in word.text or (last is not None and "\u2044" in last.text)
    is_apart = last is not None and word.left - last.right > 0.5 * row.size
    if is_fraction or is_apart or len(word.text) > 12:
        return 0
    shift = (word.base - row.base) / row.size
    return 1 if shift > _SHIFT_UP else -1 if shift < -_SHIFT_DOWN and last else 0


def _line_text(
    words: Sequence[Word], row: _Row, labels: Collection[str], *, is_first: bool = False
) -> Traced:
    """Return the words of a piece of a row: runs of one look, each with its marks.

    1. A label at the beginning of a note; else raised or lowered characters.
    2. Around these: struck or hidden text.
    """
    small = _SMALL * row.size
    is_plain = not any(word.size <= small or word.is_struck or word.is_hidden for word in words)
    looks = [(0, False, False)] * len(words)
    if not is_plain:
        looks = [
            (_level(word, last, row), word.is_struck, word.is_hidden)
            for last, word in zip((None, *words), words, strict=False)
        ]
    out = Traced()
    start = 0
    for (level, is_struck, is_hidden), group in groupby(looks):
        end = start + len(list(group))
        run = Traced()
        for index in range(start, end):
            # A space between Asian characters, or before raised ones, may be only a gap
            last, word = words[index - 1], words[index]
            is_asian = _ASIAN.match(last.text[-1]) and _ASIAN.match(word.text)
            most_gap = 0.5 * word.size if is_asian else 0.2 * row.size if level else 0
            is_glued = not index or (most_gap > 0 and _gap(last, word) < most_gap)
            (run if index > start else out).add("" if is_glued else word.space)
            run.add(word.text, word.at)
        run = run.escaped(escaped(run.text))
        after = words[end].space + words[end].text if end < len(words) else ""  # 1
        label = note_label(run.text)
        if level > 0 and is_first and not start and after and label in labels:
            run = run.marked(f"[^{label}]:{'' if after[0].isspace() else ' '}")
        elif level > 0:
            run = run.marked(raised(run.text, out.text, after, labels))
        elif level:
            run = run.marked(lowered(run.text, out.text, after))
        shown = struck("0") if is_struck else "0"  # 2
        head, tail = (hidden(shown) if is_hidden else shown).split("0")
        out.add(head)
        out.append(run)
        out.add(tail)
        start = end
    return out


# --- tables


def _table(cells: _Cells, labels: Collection[str]) -> PageLine:
    rows = [row for row in cells if any(row)]
    kept = [column for column in range(len(rows[0])) if any(row[column] for row in rows)]
    out = Traced()
    for index, row in enumerate(rows):
        out.add("\n|" if index else "|")
        for column in kept:
            cell = Traced()
            for line in row[column]:
                for number, segment in enumerate(line.segments):
                    cell.add(" " if number else _SOFT_BREAK if cell.text else "")
                    cell.append(_line_text(segment, line, labels))
            out.add(" ")
            out.append(cell.escaped(cell.text.replace("|", "\\|")))
            out.add(" |" if cell.text else "|")
        out.add("" if index else "\n|" + " --- |" * len(kept))
    lines = [line for row in rows for cell in row for line in cell]
    (size, is_bold), _ = Counter((line.size, line.is_bold) for line in lines).most_common(1)[0]
    bases = [line.base for line in lines]
    return PageLine(out, size, is_bold, min(bases), max(bases), is_table=True)


def _aligned_tables(rows: Sequence[_Row]) -> Iterator[tuple[int, int, _Cells]]:
    """Yield where tables without lines begin and end, with their cells.

    1. A table goes on as long as each piece of a row stands in one column, known or new.
    2. Where one does not, look for the columns again in all of its rows.
    3. It ends with its last row of several pieces.
    """
    at = 0
    while at < len(rows):
        end = last = at
        columns = list[list[float]]()
        while end < min(len(rows), at + _MOST_TABLE_ROWS) and _continues(rows, at, end):
            wider = _with_row(columns, rows[end]) or _columns(rows[at : end + 1])  # 1, 2
            if wider is None:
                break
            columns, end = wider, end + 1
            last = end if len(rows[end - 1].segments) > 1 else last  # 3
        if _is_table(rows[at:last], columns) and not _goes_on(rows[last - 1 : last + 4], columns):
            yield at, last, _aligned_cells(rows[at:last], columns)
            at = last
        else:
            at += 1


def _columns(rows: Sequence[_Row]) -> list[list[float]] | None:
    """Return the columns by the rows with most pieces; None: a row does not fit into them.

    The header is last of its like: its titles may span several columns.
    """
    columns: list[list[float]] | None = []
    for row in sorted((*rows[1:], rows[0]), key=lambda row: -len(row.segments)):
        columns = None if columns is None else _with_row(columns, row)
    return columns


def _goes_on(rows: Sequence[_Row], columns: Sequence[Sequence[float]]) -> bool:
    """Return whether text goes on for lines below two columns: one is a note in the margin."""
    starts = [min(word.left for word in row.words) for row in rows]
    return (
        len(columns) == 2
        and len(rows) == 5
        and all(len(row.segments) == 1 for row in rows[1:])
        and all(0 < a.base - b.base < _TIGHT_PITCH * b.size for a, b in pairwise(rows))
        and any(all(abs(start - left) < _NEAR for start in starts[1:]) for left, _ in columns)
    )


def _continues(rows: Sequence[_Row], first: int, at: int) -> bool:
    """Return whether a row may be the next one of the table that begins with the first."""
    row, last = rows[at], rows[at - 1]
    is_several = len(row.segments) > 1
    if at == first or not row.is_upright:
        return is_several and row.is_upright
    if not 0 < last.base - row.base <= _ROW_PITCH * max(row.size, last.size):
        return False
    if is_several:
        return row.is_contents == last.is_contents
    # A line that is larger, or alone in bold, begins something else.
    return row.size < _LARGER * last.size and not (row.is_bold and not last.is_bold)


def _with_row(known: list[list[float]], row: _Row) -> list[list[float]] | None:
    """Return columns so wide that each piece of a row stands in one; None: it does not fit."""
    columns, new, taken = [column[:] for column in known], list[list[float]](), set[int]()
    for segment in row.segments:
        left, right = _span(segment)
        over = [at for at, (start, end) in enumerate(columns) if left < end and right > start]
        if len(row.segments) == 1 and columns:
            # A line of text begins in the first column, or in none.
            begins = bool(over) and over[0] > 0 and abs(left - columns[over[0]][0]) < _NEAR
            if len(over) != 1 and not begins:
                return None
        if taken.intersection(over) or (over and over[-1] - over[0] > 1 and len(row.segments) > 1):
            return None
        if len(over) == 1:
            start, end = columns[over[0]]
            columns[over[0]] = [min(start, left), max(end, right)]
        elif not over:
            new.append([left, right])
        taken.update(over)
    return sorted(columns + new)


def _is_table(rows: Sequence[_Row], columns: Sequence[Sequence[float]]) -> bool:
    n_full = sum(len(row.segments) > 1 for row in rows)
    if len(columns) < 2 or n_full < (2 if len(columns) > 2 or rows[0].is_contents else 3):
        return False
    n_prose = 0
    spans = [(*_span(segment), segment) for row in rows for segment in row.segments]
    for left, right in columns:
        pieces = [piece for piece in spans if piece[0] < right and piece[1] > left]
        n_chars = sum(len(word.text) for _, _, segment in pieces for word in segment)
        is_filled = sum(end - start for start, end, _ in pieces) > 0.7 * (right - left) * len(
            pieces
        )
        n_prose += len(pieces) > 2 and is_filled and n_chars > _PROSE_CHARS * len(pieces)
    return n_prose < 2


def _aligned_cells(rows: Sequence[_Row], columns: Sequence[Sequence[float]]) -> _Cells:
    """Return the cells of rows; what is close below a row that it goes on is part of it."""
    pitches = [last.base - row.base for last, row in pairwise(rows) if len(row.segments) > 1]
    cells: _Cells = []
    for index, row in enumerate(rows):
        line: list[list[_Row]] = [[] for _ in columns]
        for segment in row.segments:
            left, right = _span(segment)
            over = (at for at, (start, end) in enumerate(columns) if left < end and right > start)
            line[next(over, 0)].append(replace(row, segments=[segment]))
        pitch = rows[index - 1].base - row.base
        goes_on = (
            index > 0
            and pitch < _TIGHT_PITCH * row.size
            and all(above or not own for above, own in zip(cells[-1], line, strict=True))
            and (
                pitch < 0.88 * median(pitches)
                or (len(row.segments) == 1 and not line[0] and len(cells) > 1)
            )
        )
        if goes_on:
            line = [above + own for above, own in zip(cells.pop(), line, strict=True)]
        cells.append(line)
    return cells


def _ruled_tables(
    words: Sequence[Word], rules: Sequence[Rule]
) -> tuple[Sequence[Word], list[_Cells]]:
    """Return the words outside of tables whose cells have lines around them, and these tables."""
    across = [((b + t) / 2, left, r) for left, b, r, t in rules if t - b < _THIN < r - left]
    down = sorted((b, t, (left + r) / 2) for left, b, r, t in rules if r - left < _THIN < t - b)
    tables: list[_Cells] = []
    if len(words) * (len(across) + len(down)) > _MOST_LOOKS:
        return words, tables
    while down:  # upright lines that touch each other in height, and the level ones there
        n_of_table, top = 0, down[0][1]
        while n_of_table < len(down) and down[n_of_table][0] <= top + _NEAR:
            top = max(top, down[n_of_table][1])
            n_of_table += 1
        bottom = down[0][0]
        upright = [(x, low, high) for low, high, x in down[:n_of_table]]
        level = [line for line in across if bottom - _NEAR <= line[0] <= top + _NEAR]
        down = down[n_of_table:]
        cells = _grid_cells(words, level, upright)
        if cells is not None:
            tables.append(cells)
            inside = {
                id(word) for row in cells for cell in row for line in cell for word in line.words
            }
            words = [word for word in words if id(word) not in inside]
    return words, tables


def _grid_cells(
    words: Sequence[Word], across: Sequence[_Line], down: Sequence[_Line]
) -> _Cells | None:
    """Return the words in the cells of a grid; None: these lines are not those of a table."""
    xs = _places([x for x, _, _ in down] + [x for _, left, right in across for x in (left, right)])
    ys = _places([y for y, _, _ in across])
    cells: dict[tuple[int, int], list[Word]] = {}
    firsts: dict[tuple[int, int], tuple[int, int]] = {}  # the first cell of each one's span
    for word in words:
        column = bisect_right(xs, (word.left + word.right) / 2) - 1
        row = bisect_right(ys, word.base + 0.3 * word.size) - 1
        if 0 <= column < len(xs) - 1 and 0 <= row < len(ys) - 1:
            if (row, column) not in firsts:
                top, first = row, column
                x, y = (xs[first] + xs[first + 1]) / 2, (ys[top] + ys[top + 1]) / 2
                while first and not _has_line(down, xs[first], y):
                    first -= 1
                while top + 2 < len(ys) and not _has_line(across, ys[top + 1], x):
                    top += 1
                firsts[row, column] = top, first
            cells.setdefault(firsts[row, column], []).append(word)
    if len({row for row, _ in cells}) < 2 or len({column for _, column in cells}) < 2:
        return None
    lines = {place: _rows(inside) for place, inside in cells.items()}
    for inside in lines.values():  # pieces side by side: there are more columns than lines
        pieces = [(row, pair) for row in inside for pair in pairwise(row.segments)]
        is_split = any(_gap(left[-1], right[0]) > 1.6 * row.size for row, (left, right) in pieces)
        if is_split or len(inside) > _MOST_CELL_LINES:
            return None
    columns = range(len(xs) - 1)
    rows = [[lines.get((row, at), []) for at in columns] for row in range(len(ys) - 2, -1, -1)]
    return [part for row in rows for part in _split_row(row)]


def _split_row(row: list[list[_Row]]) -> _Cells:
    full = [cell for cell in row if cell]
    heights = max(full, key=len, default=[])
    alike = [
        cell
        for cell in full
        if len(cell) == len(heights)
        and all(abs(a.base - b.base) < 0.3 * a.size for a, b in zip(cell, heights, strict=True))
        and all(any(map(str.isdigit, "".join(w.text for w in line.words))) for line in cell)
    ]
    if len(heights) < 2 or len(alike) < max(2, len(full) - 1):
        return [row]
    return [
        [[line for line in cell if abs(line.base - at.base) < 0.3 * at.size] for cell in row]
        for at in heights
    ]


def _places(values: Iterable[float]) -> list[float]:
    out: list[float] = []
    for value in sorted(values):
        if not out or value - out[-1] > 2 * _NEAR:
            out.append(value)
    return out


def _has_line(lines: Sequence[_Line], at: float, middle: float) -> bool:
    return any(
        abs(place - at) <= 2 * _NEAR and start - _NEAR <= middle <= end + _NEAR
        for place, start, end in lines
    )
