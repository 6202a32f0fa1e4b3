"""Tables of a page: words between crossing lines, and rows whose pieces stand below each other."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import TypeAlias

from paddock.engine.system.records import replace

from .page_rows import (
    CAPITAL,
    LARGER,
    NEAR,
    PITCH,
    SOFT_BREAK,
    THIN,
    TIGHT,
    PageLine,
    Piece,
    Row,
    Rule,
    Word,
    gap_between,
    rows_of,
    segment_pieces,
    span_of,
)

_MOST_CELL_LINES = 14  # more is text in a frame
_MOST_TABLE_ROWS = 200  # without lines; a longer table is several
_MOST_LOOKS = 2_000_000  # at a line for a word, on a page

CellRows: TypeAlias = list[list[list[Row]]]
"""The lines in each cell of each row."""
_Line: TypeAlias = tuple[float, float, float]
"""Where a straight line is, where it begins and where it ends."""


def table_row(cells: CellRows, labels: Collection[str]) -> Row:
    words = [word for row in cells for cell in row for line in cell for word in line.words]
    left, right = min(word.left for word in words), max(word.right for word in words)
    first = max(words, key=lambda word: word.base)
    edge = replace(first, text="", left=left, right=right, is_hidden=False, is_struck=False)
    return Row([[edge]], [edge], first.base, first.size, table=table_line(cells, labels))


def table_line(cells: CellRows, labels: Collection[str]) -> PageLine:
    rows = [row for row in cells if any(row)]
    kept = [column for column in range(len(rows[0])) if any(row[column] for row in rows)]
    out = list[Piece]()
    for index, row in enumerate(rows):
        out.append(Piece("\n|" if index else "|"))
        for number, column in enumerate(kept, 1):
            cell = list[Piece]()
            for line in row[column]:
                for at, segment in enumerate(line.segments):
                    cell += [Piece(" " if at else SOFT_BREAK)] if cell else []
                    cell += segment_pieces(segment, labels)
            out.append(Piece(" "))
            for piece in cell:
                text = piece.text.replace("|", "\\|")
                out.append(Piece(text, piece.word, index + 1, number))
            out.append(Piece(" |" if cell else "|"))
        if not index:
            out.append(Piece("\n|" + " --- |" * len(kept)))
    lines = [line for row in rows for cell in row for line in cell]
    (size, is_bold), _ = Counter((line.size, line.is_bold) for line in lines).most_common(1)[0]
    return PageLine(out, size, is_bold, min(line.base for line in lines), is_table=True)


def aligned_tables(rows: Sequence[Row]) -> Iterator[tuple[int, int, CellRows]]:
    """Yield where tables without lines begin and end, with their cells.

    1. A table goes on as long as each piece of a row stands in one column, known or new.
    2. Where one does not, look for the columns again in all of its rows.
    3. It ends with its last row of several pieces, and what goes on in the cells of that.
    """
    at = 0
    while at < len(rows):
        end = last = at
        columns = list[list[float]]()
        while end < min(len(rows), at + _MOST_TABLE_ROWS) and _continues(rows, at, end, columns):
            wider = _with_row(columns, rows[end]) or _columns(rows[at : end + 1])  # 1, 2
            if wider is None:
                break
            columns, end = wider, end + 1
            if len(rows[end - 1].segments) > 1 or _is_rest(rows[at:end], columns):  # 3
                last = end
        n_full = sum(len(row.segments) > 1 for row in rows[at:last])
        is_table = len(columns) > 1 and n_full > 1
        if is_table and not _is_margin(rows, at, last, columns):
            yield at, last, _aligned_cells(rows[at:last], columns)
            at = last
        else:
            at += 1


def _is_rest(rows: Sequence[Row], columns: Sequence[Sequence[float]]) -> bool:
    """Return whether the last row goes on in a cell, closer below it than rows are apart."""
    pitches = [last.base - row.base for last, row in pairwise(rows)]
    is_close = len(pitches) > 1 and LARGER * pitches[-1] < min(TIGHT * rows[-1].size, pitches[-2])
    return is_close and rows[-1].segments[0][0].left > columns[0][1]


def _is_margin(
    rows: Sequence[Row], first: int, last: int, columns: Sequence[Sequence[float]]
) -> bool:
    """Return whether what looks like a table is a note beside a text, which is longer than it."""
    end = last
    while (
        end < len(rows)
        and len(rows[end].segments) == 1
        and 0 < rows[end - 1].base - rows[end].base < TIGHT * rows[end].size
        and any(abs(rows[end].segments[0][0].left - left) < NEAR for left, _ in columns)
    ):
        end += 1
    return len(columns) == 2 and end - last > last - first


def _columns(rows: Sequence[Row]) -> list[list[float]] | None:
    """Return the columns by the rows with most pieces; None: a row does not fit into them.

    The header is last of its like: its titles may span several columns.
    """
    columns: list[list[float]] | None = []
    for row in sorted((*rows[1:], rows[0]), key=lambda row: -len(row.segments)):
        columns = None if columns is None else _with_row(columns, row)
    return columns


def _continues(
    rows: Sequence[Row], first: int, at: int, columns: Sequence[Sequence[float]]
) -> bool:
    """Return whether a row may be the next one of the table that begins with the first."""
    row, last = rows[at], rows[at - 1]
    is_several = len(row.segments) > 1
    if at == first or row.table:
        return is_several and not row.table
    pitch = last.base - row.base
    if not 0 < pitch <= PITCH * max(row.size, last.size):
        return False
    if is_several:
        return row.is_contents == last.is_contents
    # One piece: a cell that goes on, or a row whose other cells are empty; no line of text
    left, right = span_of(row.segments[0])
    is_within = any(start - NEAR <= left and right <= end + NEAR for start, end in columns)
    is_like_last = row.size < LARGER * last.size and not (row.is_bold and not last.is_bold)
    return is_within and is_like_last


def _with_row(known: list[list[float]], row: Row) -> list[list[float]] | None:
    """Return columns so wide that each piece of a row stands in one; None: it does not fit."""
    columns, new, taken = [column[:] for column in known], list[list[float]](), set[int]()
    for segment in row.segments:
        left, right = span_of(segment)
        over = [at for at, (start, end) in enumerate(columns) if left < end and right > start]
        if len(row.segments) == 1 and columns and len(over) != 1:
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


def _aligned_cells(rows: Sequence[Row], columns: Sequence[Sequence[float]]) -> CellRows:
    """Return the cells of rows; what is close below a row that it goes on is part of it."""
    pitches = [last.base - row.base for last, row in pairwise(rows) if len(row.segments) > 1]
    cells: CellRows = []
    for index, row in enumerate(rows):
        line: list[list[Row]] = [[] for _ in columns]
        for segment in row.segments:
            left, right = span_of(segment)
            over = (at for at, (start, end) in enumerate(columns) if left < end and right > start)
            line[next(over, 0)].append(Row([segment], segment, row.base, row.size, row.is_bold))
        pitch = rows[index - 1].base - row.base
        goes_on = (
            index > 0
            and pitch < TIGHT * row.size
            and all(above or not own for above, own in zip(cells[-1], line, strict=True))
            and (
                LARGER * pitch < median(pitches)
                or (len(row.segments) == 1 and not line[0] and len(cells) > 1)
            )
        )
        if goes_on:
            line = [above + own for above, own in zip(cells.pop(), line, strict=True)]
        cells.append(line)
    return cells


def ruled_tables(
    words: Sequence[Word], rules: Sequence[Rule]
) -> tuple[Sequence[Word], list[CellRows]]:
    """Return the words outside of tables whose cells have lines around them, and these tables."""
    across = [((b + t) / 2, left, r) for left, b, r, t in rules if t - b < THIN < r - left]
    down = sorted((b, t, (left + r) / 2) for left, b, r, t in rules if r - left < THIN < t - b)
    tables: list[CellRows] = []
    if len(words) * (len(across) + len(down)) > _MOST_LOOKS:
        return words, tables
    while down:  # upright lines that touch each other in height, and the level ones there
        n_of_table, top = 0, down[0][1]
        while n_of_table < len(down) and down[n_of_table][0] <= top + NEAR:
            top = max(top, down[n_of_table][1])
            n_of_table += 1
        bottom = down[0][0]
        upright = [(x, low, high) for low, high, x in down[:n_of_table]]
        level = [line for line in across if bottom - NEAR <= line[0] <= top + NEAR]
        down = down[n_of_table:]
        found = _grid_cells(words, level, upright)
        if found is not None:
            words, cells = found
            tables.append(cells)
    return words, tables


def _grid_cells(
    words: Sequence[Word], across: Sequence[_Line], down: Sequence[_Line]
) -> tuple[list[Word], CellRows] | None:
    """Return the words beside a grid, and its cells; None: these lines are not those of a table."""
    xs = _places([x for x, _, _ in down] + [x for _, left, right in across for x in (left, right)])
    ys = _places([y for y, _, _ in across])
    outside = list[Word]()
    cells: dict[tuple[int, int], list[Word]] = {}
    firsts: dict[tuple[int, int], tuple[int, int]] = {}  # the first cell of each one's span
    for word in _parted(words, xs, ys):
        column = bisect_right(xs, (word.left + word.right) / 2) - 1
        row = bisect_right(ys, word.base + CAPITAL / 2 * word.size) - 1
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
        else:
            outside.append(word)
    if len({row for row, _ in cells}) < 2 or len({column for _, column in cells}) < 2:
        return None
    lines = {place: rows_of(inside) for place, inside in cells.items()}
    for inside in lines.values():  # pieces side by side: there are more columns than lines
        pieces = [(row, pair) for row in inside for pair in pairwise(row.segments)]
        is_split = any(
            gap_between(left[-1], right[0]) > TIGHT * row.size for row, (left, right) in pieces
        )
        if is_split or len(inside) > _MOST_CELL_LINES:
            return None
    columns = range(len(xs) - 1)
    rows = [[lines.get((row, at), []) for at in columns] for row in range(len(ys) - 2, -1, -1)]
    return outside, [part for row in rows for part in _split_row(row)]


def _parted(words: Sequence[Word], xs: Sequence[float], ys: Sequence[float]) -> Iterator[Word]:
    """Yield words so that each stands in one column of a grid."""
    for word in words:
        at = 0
        is_within = ys and ys[0] <= word.base <= ys[-1]
        sides = zip(word.lefts, word.rights, strict=True) if is_within else ()
        for _, group in groupby(bisect_right(xs, (left + right) / 2) for left, right in sides):
            start, at = at, at + len(list(group))
            yield word.part(start, at) if at - start < len(word.lefts) else word
        if not is_within:
            yield word


def _split_row(row: list[list[Row]]) -> CellRows:
    full = [cell for cell in row if cell]
    heights = max(full, key=len, default=[])
    alike = [
        cell
        for cell in full
        if len(cell) == len(heights)
        and all(
            abs(a.base - b.base) < CAPITAL / 2 * a.size for a, b in zip(cell, heights, strict=True)
        )
        and all(any(map(str.isdigit, "".join(w.text for w in line.words))) for line in cell)
    ]
    if len(heights) < 2 or len(alike) < max(2, len(full) - 1):
        return [row]
    return [
        [
            [line for line in cell if abs(line.base - at.base) < CAPITAL / 2 * at.size]
            for cell in row
        ]
        for at in heights
    ]


def _places(values: Iterable[float]) -> list[float]:
    out: list[float] = []
    for value in sorted(values):
        if not out or value - out[-1] > 2 * NEAR:
            out.append(value)
    return out


def _has_line(lines: Sequence[_Line], at: float, middle: float) -> bool:
    return any(
        abs(place - at) <= 2 * NEAR and start - NEAR <= middle <= end + NEAR
        for place, start, end in lines
    )
