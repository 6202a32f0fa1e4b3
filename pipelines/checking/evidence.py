"""Evidence: where each value of an answer is in its sources.

Found after decoding, without a model. A value that occurs several times is taken to be the one
nearest to its own label, which is the field's name or title, and to the other values of its object.
The time is linear in the text: it is indexed once, and each value is a look-up.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any, TypeAlias

from paddock.engine.system.records import Struct, field
from paddock.pipelines.text_cells import PlacedCell, SourceText, TextCell, quote_box
from paddock.pipelines.text_marks import searchable

from .folding import Span
from .schema_parts import Path, SchemaParts, empty_fields, is_empty
from .source_index import SourceIndex
from .text_index import Quote

_BETWEEN_SOURCES = "\n\x00\n"
"""No value has it, so none is found across two sources."""
# Limits of time: a value may occur as often as a text has words.
_MOST_COMPARED_QUOTES = 32  # of one value; of more, those next to labels and to other values
_MOST_LABEL_PLACES = 64
_MOST_NEIGHBOURS = 8
_MOST_HEADINGS = 8
# Distances in characters.
_OTHER_SOURCE_CHARS = 1_000_000  # more than any within a source
_LABEL_REACH_CHARS = 2_000  # about a page: what is farther from its label does not belong to it
_LINE_CHARS = 40  # added for another line: rows are near, columns far; with 0, 3 judged cases fail
# Costs, in doublings of a distance: 3 is eight times as far. Set by hand. "Fails" is of the judged
# cases and of `test_evidence`; where it is not said, much less and more find the same places.
_TAKEN_BY_ITEM = 6.0  # equal rows are different places; half of it fails
_TAKEN = 3.0  # fields of one item may share a place: less than that of another item
_OUT_OF_ORDER = 1.0  # items are mostly in the text's order: it decides between equals
_OTHER_NOTATION = 2.5  # 84 is rather a quantity, 84.00 a price; 1 and 5 fail
_IN_COLUMN = 1.0  # of a heading: as near as one character, though rows may be between
_AFTER_VALUE = 4  # times as far: a label is usually before its value
_DECIMALS = re.compile(r"\d[.,]\d{1,2}(?!\d)")
_MARKS = re.compile(r"[^\w\x00\n]*\n?[^\w\x00\n]*")
_MOST_MARKS = 40  # between a label and its value, as in rows of dots


def locate(
    answer: Any,
    schema: Any,
    sources: Sequence[SourceText],
    only: Collection[str] = (),
    language: str = "",
) -> Any:
    """Return where each value of an answer is in the sources, in the shape of the answer.

    A value is null where no evidence is asked for: null, true and false, empty texts, values of
    `enum` and `const`, parts with `x-evidence: false`, and what is not in `only` (names of fields,
    or paths such as `items.price`). An empty field that the schema requires is nowhere. Else it is
    a mapping with `quote`, `source`, `page`, `start` and `end` in the source's text, `line` and
    `column` if there are no pages, `box` if the page's words have boxes (of a quote over a page
    break: of its first part), `match`, `reason` of a partial one, `ratio` of a fuzzy one, and the
    number of `others` that may be meant as well. Of a `fuzzy` match the place is a hint for people:
    the value itself is not in the source. `language` is the sources'.

    >>> found = locate({"total": 84.0}, {}, [SourceText("bill", "Total: EUR 84,00")])
    >>> found["total"]["quote"], found["total"]["match"], found["total"]["column"]
    ('84,00', 'normalised', 12)
    """
    parts, empty = SchemaParts.of(schema), empty_fields(answer, schema)
    leaves = [
        _Leaf(path, value, labels, is_empty=path in empty)
        for path, value, labels in _leaves(answer, parts, tuple(only), frozenset(empty))
    ]
    sought = [leaf for leaf in leaves if not leaf.is_empty]
    searched = _Sources(tuple(sources), language)
    for leaf in sought:
        leaf.found = searched.find(leaf.value)
    _Choice(searched, sought).choose()
    return _mirror(answer, (), {leaf.path: searched.evidence(leaf) for leaf in leaves})


def _mirror(answer: Any, path: Path, found: Mapping[Path, Any]) -> Any:
    if isinstance(answer, Mapping):
        return {name: _mirror(held, (*path, name), found) for name, held in answer.items()}
    if isinstance(answer, list | tuple) and path not in found:
        return [_mirror(held, (*path, at), found) for at, held in enumerate(answer)]
    return found.get(path)


Labels: TypeAlias = tuple[tuple[str, ...], ...]
"""What a text may call a value: the names of its field, then those of the fields around it."""


def _leaves(
    value: Any,
    schema: SchemaParts,
    only: tuple[str, ...],
    empty: frozenset[Path],
    path: Path = (),
    labels: Labels = (),
) -> Iterator[tuple[Path, Any, Labels]]:
    """Yield path, value and labels of each value that needs evidence."""
    if schema.marked() is False:
        return
    if isinstance(value, Mapping):
        for name, held in value.items():
            inner = schema.field(str(name))
            names = (_label_of(str(name)), *inner.titles)
            yield from _leaves(held, inner, only, empty, (*path, str(name)), (names, *labels))
    elif isinstance(value, list | tuple) and path not in empty:
        for at, held in enumerate(value):
            yield from _leaves(held, schema.item(at), only, empty, (*path, at), labels)
    else:
        is_stated = not (isinstance(value, bool) or is_empty(value))
        is_sought = is_stated and (schema.marked() is True or not schema.lists(value))
        parts = [name for name in path if isinstance(name, str)]
        within = {*parts, *(".".join(parts[: at + 1]) for at in range(len(parts)))}
        fields = (".".join(p for p in name.split(".") if not p.isdecimal()) for name in only)
        if (path in empty or is_sought) and (not only or not within.isdisjoint(fields)):
            yield path, value, labels


_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _label_of(name: str) -> str:
    """Return a field's name as a text has it.

    >>> _label_of("pay_by"), _label_of("dueDate")
    ('pay by', 'due Date')
    """
    return _CAMEL.sub(" ", name).replace("_", " ").replace("-", " ").strip()


class _Leaf(Struct):
    """A value of the answer, where it may be, and which of these was chosen."""

    path: Path
    value: Any
    labels: Labels
    found: Sequence[Quote] = ()
    """The places that may be meant, in order."""
    chosen: Quote | None = None
    is_empty: bool = False


class _SourcePart(Struct, dict=True):
    """A page, sheet, chapter or mail of a source."""

    source: SourceText
    number: int

    @cached_property
    def cells(self) -> list[TextCell]:
        return self.source.cells(self.number)

    @cached_property
    def rows(self) -> list[tuple[int, list[PlacedCell], int]]:
        """Where each cell begins, its row, and its number in that, in order."""
        rows = self.source.rows(self.cells)
        cells = ((cell.start, row, n) for row in rows for n, cell in enumerate(row))
        return sorted(cells, key=lambda cell: cell[0])


class _Sources(Struct, dict=True):
    sources: tuple[SourceText, ...]
    language: str
    _known: dict[tuple[type, Any], list[Quote]] = field(default_factory=dict)
    """Values that occur often in an answer often occur often in the text."""
    _parts: dict[tuple[int, int], _SourcePart] = field(default_factory=dict)

    @cached_property
    def index(self) -> SourceIndex:
        texts = (searchable(source.text) for source in self.sources)
        return SourceIndex(_BETWEEN_SOURCES.join(texts), self.language)

    @cached_property
    def _starts(self) -> list[int]:
        sizes = (len(source.text) + len(_BETWEEN_SOURCES) for source in self.sources[:-1])
        return list(accumulate(sizes, initial=0))

    @cached_property
    def _lines(self) -> list[int]:
        sizes = (len(line) + 1 for line in self.index.text.split("\n"))
        return [*accumulate(sizes, initial=0)][:-1]

    def number_of(self, start: int) -> int:
        return bisect_right(self._starts, start) - 1

    def _part_at(self, at: int) -> _SourcePart:
        source = self.number_of(at)
        key = source, self.sources[source].part_of(at - self._starts[source])
        if key not in self._parts:
            self._parts[key] = _SourcePart(self.sources[source], key[1])
        return self._parts[key]

    def _row_at(self, at: int) -> tuple[list[PlacedCell], int] | None:
        """Return the row in which something stands, and the number of its cell."""
        rows, offset = self._part_at(at).rows, at - self._starts[self.number_of(at)]
        number = bisect_right(rows, offset, key=lambda cell: cell[0]) - 1
        return rows[number][1:] if number >= 0 else None

    def is_in_column(self, heading: Span, quote: Quote) -> bool:
        """Return whether a place is in the column of a heading in a row above."""
        if self.number_of(heading[0]) != self.number_of(quote.start):
            return False
        above, line = self._row_at(heading[0]), self._row_at(quote.start)
        if above is None or line is None or above[0] is line[0]:
            return False
        (heads, head), (cells, cell) = above, line
        under, is_table = cells[cell], len(heads) > 1 < len(cells)
        over = [n for n, it in enumerate(heads) if it.left < under.right and under.left < it.right]
        by_number = [cell] if len(heads) == len(cells) else []
        return is_table and head in (over or by_number)

    def has_only_marks(self, start: int, end: int) -> bool:
        """Return whether there is no word between a label and a value, as in `Total: | 84`."""
        return (
            end - start < _MOST_MARKS and _MARKS.fullmatch(self.index.text, start, end) is not None
        )

    def find(self, value: Any) -> list[Quote]:
        key = type(value), value
        if key not in self._known:
            quotes = self.index.find(value)
            inside = [q for q in quotes if self.number_of(q.start) == self.number_of(q.end - 1)]
            kept: list[Quote] = []  # of those that overlap, the exact one, else the longest
            for quote in sorted(inside, key=lambda q: (q.start, q.match != "exact", -q.end)):
                if not kept or quote.start >= kept[-1].end:
                    kept.append(quote)
                elif quote.match == "exact" and kept[-1].match != "exact":
                    kept[-1] = quote
            self._known[key] = kept
        return self._known[key]

    def evidence(self, leaf: _Leaf) -> dict[str, Any]:
        places = ("quote", "source", "page", "start", "end", "line", "column", "box")
        found: dict[str, Any] = {**dict.fromkeys(places), "match": "none"}
        found |= {"reason": None, "ratio": None}
        quote = leaf.chosen
        if quote is None:
            return {**found, "others": 0}
        number = self.number_of(quote.start)
        source, at = self.sources[number], self._starts[number]
        start, end = quote.start - at, quote.end - at
        found |= {"quote": source.text[start:end], "source": source.name}
        found |= {"start": start, "end": end, "match": quote.match}
        found |= {"reason": quote.reason, "ratio": quote.ratio}
        if source.only_page is not None:
            found["page"] = source.only_page
        elif source.is_paged:
            part = self._part_at(quote.start)
            found["page"] = part.number
            found["box"] = quote_box(source.text, part.cells, start, end)
        else:
            line = bisect_right(self._lines, quote.start) - 1
            first = bisect_right(self._lines, at) - 1
            found["line"] = line - first + 1
            found["column"] = quote.start - max(at, self._lines[line]) + 1
        return {**found, "others": len(leaf.found) - 1}


class _Choice:
    """Chooses among the places of each value: those with one place first, then their neighbours."""

    def __init__(self, sources: _Sources, leaves: Sequence[_Leaf]) -> None:
        self._sources = sources
        self._leaves = leaves
        self._anchors: dict[Path, list[Span]] = {}
        """The places chosen so far, in order, by each object and list around them."""
        self._taken: dict[Span, Path] = {}
        self._labels: dict[tuple[str, ...], list[Span]] = {}

    def choose(self) -> None:
        for leaf in sorted(self._leaves, key=lambda leaf: len(leaf.found)):
            if leaf.found:
                leaf.chosen = quote = self._best(leaf)
                span = quote.start, quote.end
                self._taken.setdefault(span, leaf.path)
                for n in range(len(leaf.path)):
                    insort(self._anchors.setdefault(leaf.path[:n], []), span)

    def _best(self, leaf: _Leaf) -> Quote:
        if len(leaf.found) == 1:
            return leaf.found[0]
        labels = self._places_of(leaf.labels)
        anchors = self._neighbours(leaf.path)
        return min(
            self._compared(leaf.found, labels, anchors),
            key=lambda quote: (
                self._cost(quote, leaf, labels, anchors), quote.match != "exact", quote.start
            ),
        )  # fmt: skip

    def _places_of(self, labels: Labels) -> list[Span]:
        """Return where the names of a field are, else those of the field around it, in order."""
        words = self._sources.index.words
        for names in labels:
            if names not in self._labels:
                spans = self._labels[names] = []
                for name in names:  # where it is, else where its longer words are
                    longer = (word for word in name.split() if len(word) > 3)
                    found = words.find(name) or chain.from_iterable(map(words.find, longer))
                    spans += ((quote.start, quote.end) for quote in found)
                spans.sort()
            if self._labels[names]:
                return self._labels[names]
        return []

    def _neighbours(self, path: Path) -> list[Span]:
        """Return chosen places of the same object, else of the nearest one around it."""
        for n in range(len(path) - 1, -1, -1):
            if found := self._anchors.get(path[:n]):
                return found
            number = path[n - 1] if n else None
            if isinstance(number, int):
                before, after = ((*path[: n - 1], number + step) for step in (-1, 1))
                if found := sorted(self._anchors.get(before, []) + self._anchors.get(after, [])):
                    return found
        return []

    def _compared(
        self, quotes: Sequence[Quote], labels: Sequence[Span], anchors: Sequence[Span]
    ) -> Sequence[Quote]:
        """Return the places to compare: of many, those next to labels and to other values."""
        if len(quotes) <= _MOST_COMPARED_QUOTES:
            return quotes
        step = max(1, len(anchors) // _MOST_NEIGHBOURS)
        near = [*anchors[::step], *(labels if len(labels) <= _MOST_LABEL_PLACES else ())]
        numbers = {0}
        for start, end in near:
            after = bisect_left(quotes, end, key=attrgetter("start"))
            before = bisect_left(quotes, start, key=attrgetter("start")) - 1
            numbers |= {n for n in (before - 1, before, after, after + 1) if 0 <= n < len(quotes)}
        return [quotes[n] for n in sorted(numbers)]

    def _cost(
        self, quote: Quote, leaf: _Leaf, labels: Sequence[Span], anchors: Sequence[Span]
    ) -> float:
        """Return how unlikely a place is for a value.

        1. It is far from the value's label.
        2. A number has another notation: a price has decimals, a quantity none.
        3. It is far from the chosen places of the same object.
        4. It is taken, or before the item before.
        """
        cost = self._label_cost(quote, labels)  # 1
        if isinstance(leaf.value, int | float):  # 2
            has_decimals = _DECIMALS.search(self._sources.index.text, quote.start, quote.end)
            cost += _OTHER_NOTATION if bool(has_decimals) != isinstance(leaf.value, float) else 0.0
        at = bisect_left(anchors, (quote.start, quote.start))  # 3
        near = anchors[max(0, at - 1) : at + 1]
        cost += math.log2(1 + min((self._apart(span, quote) for span in near), default=0))
        owner, item = self._taken.get((quote.start, quote.end)), _item_of(leaf.path)  # 4
        if owner is not None:
            cost += _TAKEN if _item_of(owner) == item else _TAKEN_BY_ITEM
        if item and item[-1]:
            before = self._anchors.get((*item[:-1], int(item[-1]) - 1))
            if before and quote.start < before[0][0]:
                cost += _OUT_OF_ORDER
        return cost

    def _label_cost(self, quote: Quote, labels: Sequence[Span]) -> float:
        at = bisect_left(labels, (quote.start, quote.start))
        costs: list[float] = [math.log2(_LABEL_REACH_CHARS)] if labels else [0.0]
        for span in labels[max(0, at - 1) : at]:
            if self._sources.has_only_marks(span[1], quote.start):
                return 0.0
            costs.append(math.log2(1 + self._apart(span, quote)))
        for span in labels[at : at + 1]:
            costs.append(math.log2(1 + _AFTER_VALUE * self._apart(span, quote)))
        column = labels[max(0, at - _MOST_HEADINGS) : at]
        if any(self._sources.is_in_column(heading, quote) for heading in column):
            costs.append(_IN_COLUMN)
        return min(costs)

    def _apart(self, span: Span, quote: Quote) -> int:
        """Return the distance in characters, as if longer on another line or in another source."""
        start, end = min(span[1], quote.end), max(span[0], quote.start)
        n = max(end - start, 0)
        if self._sources.number_of(span[0]) != self._sources.number_of(quote.start):
            return n + _OTHER_SOURCE_CHARS
        is_line = n < _LABEL_REACH_CHARS and self._sources.index.text.find("\n", start, end) < 0
        return n if is_line else 2 * n + _LINE_CHARS


def _item_of(path: Path) -> Path:
    numbers = [at for at, part in enumerate(path) if isinstance(part, int)]
    return path[: numbers[-1] + 1] if numbers else ()
