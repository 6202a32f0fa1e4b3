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
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, islice
from typing import Any, TypeAlias

from paddock.engine.system.text import path_text
from paddock.pipelines.text_marks import searchable

from .dates_and_values import TextValue, ValueIndex, values_in
from .digits_and_cells import MOST_DIGITS, rounded, table_cells
from .numbers import Number, NumberReading
from .schema_parts import Path, SchemaParts, empty_fields, is_empty
from .text_index import Quote, Span, TextIndex, folded_words, is_whole
from .units import NO_UNIT, PERCENT, currency_names
from .value_search import index_of

_BETWEEN_SOURCES = "\n\x00\n"
"""No value has it, so none is found across two sources."""
_OTHER_SOURCE_CHARS = 1_000_000
_MOST_COMPARED_QUOTES = 32  # of one value; of more, those next to labels and to other values
_MOST_LABEL_PLACES = 64
_MOST_READ_PARTS = 500  # about 75,000 characters
_MOST_NEIGHBOURS = 8
_LABEL_REACH_CHARS = 2_000  # about a page: what is farther from its label does not belong to it
_AFTER_VALUE = 4  # a label is usually before its value
_TAKEN_BY_ITEM, _TAKEN = 6.0, 3.0  # in halvings of a distance
_OUT_OF_ORDER = 1.0
_OTHER_KIND, _OTHER_NOTATION = 5.0, 2.5
_IN_COLUMN = 1.0
_MOST_HEADINGS = 8
_PERCENT_AFTER = re.compile(r"\s?[%‰]")
_PERCENT_NAME = re.compile(
    r"%|percent|prozent|pourcent|porcent|\brates?\b|satz|taux|tasa|aliquota|pct|share",
    re.IGNORECASE,
)
_DECIMALS = re.compile(r"\d[.,]\d{1,2}(?!\d)")
_CELL = re.compile(r"[^\t|;]+(?=[\t|;]|$)|(?<=[\t|;])(?=[\t|;])")
_SPACED_CELL, _ONE_WORD = re.compile(r"\S+(?: \S+)*"), re.compile(r"\S+")
_MOST_LINE_CHARS = 2000
_WORDS = re.compile(r"[^\W\d_]+|\d+")
_MARKS = re.compile(r"[^\w\x00\n]*\n?[^\w\x00\n]*")
_MOST_MARKS = 40
_LINE_CHARS = 40  # what another line counts as: columns of a row are farther apart than rows


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text that an answer was made of."""

    name: str
    text: str
    page_starts: tuple[int, ...] = ()
    """Offsets at which pages begin; empty: it has no pages."""


def locate(
    answer: Any, schema: Any, sources: Sequence[SourceText], only: Collection[str] = ()
) -> Any:
    """Return where each value of an answer is in the sources, in the shape of the answer.

    A value is null where no evidence is asked for: null, true and false, empty texts, values of
    `enum` and `const`, parts with `x-evidence: false`, and what is not in `only` (names of fields,
    or paths such as `items.price`). An empty field that the schema requires is nowhere. Else it is
    a mapping with `quote`, `source`, `page`, `start` and `end` in the source's text, `line` and
    `column` if there are no pages, `box` (null here), `match`, `ratio` and the number of `others`
    that may be meant as well. Of a `fuzzy` match the place is a hint for people: the value itself
    is not in the source.

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
    searched = _Sources(tuple(sources), tuple(leaf.value for leaf in sought))
    for leaf in sought:
        leaf.found = searched.find(leaf.value)
    _Choice(searched, sought).choose()
    return _mirror(answer, (), {leaf.path: searched.evidence(leaf) for leaf in leaves})


def missing_paths(evidence: Any) -> list[str]:
    """Return the paths of values that are nowhere in the sources; what is only similar is missing.

    A dot of a name gets a backslash.

    >>> missing_paths({"items": [{"price": {"match": "none"}}], "day": {"match": "exact"}})
    ['items.0.price']
    """
    return [path_text(path) for path in missing_keys(evidence)]


def missing_keys(evidence: Any) -> list[Path]:
    """Return where values are that are nowhere in the sources, as names and numbers of items."""
    is_found = ("exact", "normalised")
    return [path for path, leaf in located_values(evidence) if leaf not in is_found]


def located_values(evidence: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield path and match of each value; fields of an object may be called `match` too."""
    if isinstance(evidence, Mapping):
        if isinstance(evidence.get("match"), str):
            yield path, evidence["match"]
            return
        for name, held in evidence.items():
            yield from located_values(held, (*path, name))
    elif isinstance(evidence, list | tuple):
        for at, held in enumerate(evidence):
            yield from located_values(held, (*path, at))


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
    elif (path in empty or _needs_evidence(value, schema)) and _is_among(path, only):
        yield path, value, labels


def _needs_evidence(value: Any, schema: SchemaParts) -> bool:
    if isinstance(value, bool) or is_empty(value):
        return False
    return schema.marked() is True or not schema.lists(value)


def _is_among(path: Path, only: tuple[str, ...]) -> bool:
    names = [name for name in path if isinstance(name, str)]
    paths = {".".join(names[: at + 1]) for at in range(len(names))}
    fields = (".".join(part for part in name.split(".") if not part.isdecimal()) for name in only)
    return not only or any(name in paths or name in names for name in fields)


_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _label_of(name: str) -> str:
    """Return a field's name as a text has it.

    >>> _label_of("pay_by"), _label_of("dueDate")
    ('pay by', 'due Date')
    """
    return _CAMEL.sub(" ", name).replace("_", " ").replace("-", " ").strip()


@dataclass
class _Found:
    """The places that may be meant by a value, in order."""

    quotes: Sequence[Quote]

    @cached_property
    def starts(self) -> list[int]:
        return [quote.start for quote in self.quotes]


@dataclass(slots=True)
class _Leaf:
    """A value of the answer, where it may be, and which of these was chosen."""

    path: Path
    value: Any
    labels: Labels
    found: _Found = field(default_factory=lambda: _Found(()))
    chosen: Quote | None = None
    is_empty: bool = False
    """It is missing in the answer."""


@dataclass
class _Sources:
    """All sources as one text."""

    sources: tuple[SourceText, ...]
    values: Sequence[Any]
    """Those of the answer."""
    _known: dict[tuple[type, Any], _Found] = field(default_factory=dict)
    """Values that occur often in an answer often occur often in the text."""

    @cached_property
    def index(self) -> TextIndex:
        texts = (searchable(source.text) for source in self.sources)
        return TextIndex(_BETWEEN_SOURCES.join(texts))

    @cached_property
    def _index_of_values(self) -> ValueIndex:
        values = (value for data in self.values for value in _possible_values(data))
        return index_of(self.index.text, values, _MOST_READ_PARTS)

    @cached_property
    def _starts(self) -> list[int]:
        sizes = (len(source.text) + len(_BETWEEN_SOURCES) for source in self.sources[:-1])
        return list(accumulate(sizes, initial=0))

    @cached_property
    def _lines(self) -> list[int]:
        """The offsets at which the lines of all sources begin."""
        return [0, *(found.end() for found in re.finditer("\n", self.index.text))]

    def number_of(self, start: int) -> int:
        """Return which of the sources has an offset."""
        return bisect_right(self._starts, start) - 1

    def is_one_line(self, start: int, end: int) -> bool:
        return self.index.text.find("\n", start, end) < 0

    def is_in_column(self, heading: Span, quote: Quote) -> bool:
        """Return whether a place is in the column of a heading on a line above."""
        above, line = self._line_of(heading[0]), self._line_of(quote.start)
        if above == line:
            return False
        texts = [self.index.text[start:end] for start, end in (above, line)]
        at, place = heading[0] - above[0], quote.start - line[0]
        for pattern in (_CELL, _SPACED_CELL, _ONE_WORD):
            cells = [[found.span() for found in pattern.finditer(text)] for text in texts]
            if len(cells[0]) == len(cells[1]) > 1:
                numbers = [
                    bisect_right([start for start, _ in row], offset) - 1
                    for row, offset in zip(cells, (at, place), strict=True)
                ]
                return numbers[0] == numbers[1]
        is_table = len(_SPACED_CELL.findall(texts[0])) > 1 < len(_SPACED_CELL.findall(texts[1]))
        n_heading, n_quote = heading[1] - heading[0], quote.end - quote.start
        return is_table and at < place + n_quote and place < at + n_heading

    def _line_of(self, at: int) -> Span:
        number = bisect_right(self._lines, at) - 1
        start = self._lines[number]
        end = self._lines[number + 1] - 1 if number + 1 < len(self._lines) else len(self.index.text)
        return start, min(end, start + _MOST_LINE_CHARS)

    def has_only_marks(self, start: int, end: int) -> bool:
        """Return whether there is no word between a label and a value, as in `Total: | 84`."""
        return (
            end - start < _MOST_MARKS and _MARKS.fullmatch(self.index.text, start, end) is not None
        )

    def find(self, value: Any) -> _Found:
        key = type(value), value
        if key not in self._known:
            is_number = isinstance(value, int | float)
            quotes = self._find_number(value) if is_number else self._find_text(str(value))
            inside = (q for q in quotes if self.number_of(q.start) == self.number_of(q.end - 1))
            self._known[key] = _Found(_without_overlaps(inside))
        return self._known[key]

    def _find_number(self, value: float) -> list[Quote]:
        if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
            return self._find_text(str(value))
        found: list[Quote] = []
        for sought in _possible_values(value):
            is_percent = any(reading.unit == PERCENT for reading in _readings_of(sought))
            found = found or self._find_value(sought, has_unit=is_percent)
        return [self._exactly(quote, _written(value)) for quote in found]

    def _exactly(self, quote: Quote, written: Collection[str]) -> Quote:
        """Return a quote as `exact` if the value is written so, or in it as the year of a date."""
        text = self.index.text[quote.start : quote.end]
        if text in written:
            return replace(quote, match="exact")
        for form in written:
            at = re.search(rf"(?<!\d){re.escape(form)}(?!\d)", text) if len(form) == 4 else None
            if at is not None and re.search(r"\d\D+\d|[^\W\d_]", text):
                start = quote.start + at.start()
                return Quote(start, start + len(form), "exact")
        return quote

    def _find_text(self, text: str) -> list[Quote]:
        quotes = self.index.find(text)
        has_digits = any(map(str.isdecimal, text))
        if has_digits:
            return [q for q in self._find_digits(text, quotes) if not self._goes_on(text, q)]
        exact = [quote for quote in quotes if quote.match == "exact"]
        return exact or quotes or self._find_digits(text, quotes)

    def _goes_on(self, text: str, quote: Quote) -> bool:
        """Return whether a code goes on next to its place: FT/2291 in FT/2291-B."""
        bare, whole = text.strip(), self.index.text
        if quote.match == "fuzzy" or not _CODE.fullmatch(bare):
            return False
        after, before = _MORE_AFTER.match(whole, quote.end), whole[: quote.start][-4:]
        if bare.isdecimal():
            return (
                _MORE_BEFORE.search(before) is not None and not before[-3:].strip("-").isdecimal()
            )
        is_grouped = _DIGIT_GROUPS.fullmatch(bare) is not None
        return after is not None and (not after["group"] or is_grouped)

    def _find_digits(self, text: str, quotes: list[Quote]) -> list[Quote]:
        exact = [quote for quote in quotes if quote.match == "exact"]
        values = _possible_values(text)
        if len(values) == 1 and values[0].text == text.strip().rstrip("."):
            quotes = [*exact, *self._find_whole_value(text, values[0])]
        elif exact:
            return exact
        return quotes or next(filter(None, self._less_sure(text, values)), [])

    def _find_whole_value(self, text: str, sought: TextValue) -> list[Quote]:
        found, whole = self._find_value(sought), self.index.text
        bare = text.strip()
        found = [q for q in found if _are_padded_alike(bare, whole[q.start : q.end])]
        if not bare[0].isalpha():
            return found
        return [q for q in found if is_whole(whole, q.start, q.end)]  # no 4414 in 4414F

    def _less_sure(self, text: str, values: Sequence[TextValue]) -> Iterator[list[Quote]]:
        """Yield the places where it may be in other ways, the surest first."""
        yield self._find_moment(text, values)
        yield [] if values else self._find_currency(text)
        yield self.index.find_code(text)
        yield self._find_phrase(text, values)
        yield self._find_in_cells(text)
        yield self.index.find_similar(text)

    def _find_phrase(self, text: str, values: Sequence[TextValue]) -> list[Quote]:
        """Return where the same words are around one value in another notation."""
        if len(values) != 1 or values[0].text == text.strip():
            return []
        before, after = folded_words(text[: values[0].start]), folded_words(text[values[0].end :])
        bound = _BOUND.search(text[: values[0].start])
        quotes = []
        whole, reach = self.index.text, 2 * len(text) + _LINE_CHARS
        for quote in self._find_value(values[0])[:_MOST_COMPARED_QUOTES]:
            if bound and bound[0].strip() != whole[: quote.start].rstrip()[-1:]:
                continue
            first = [*_WORDS.finditer(whole, max(0, quote.start - reach), quote.start)]
            first = first[len(first) - len(before) :]
            last = [*islice(_WORDS.finditer(whole, quote.end, quote.end + reach), len(after))]
            if [part[0].casefold() for part in first] + [part[0].casefold() for part in last] == [
                *before,
                *after,
            ]:
                start = first[0].start() if first else quote.start
                end = last[-1].end() if last else quote.end
                if is_whole(whole, start, end):
                    quotes.append(Quote(start, end, "normalised"))
        return quotes

    def _find_in_cells(self, text: str) -> list[Quote]:
        """Return where a number is in a cell, and its unit in the next one."""
        number, _, unit = text.strip().partition(" ")
        if not (number[-1:].isdecimal() and _UNIT.fullmatch(unit)):
            return []
        cells = rf"{re.escape(number)}[^\S\n]?[|;,\t][^\S\n]?{re.escape(unit)}"
        spans = (found.span() for found in re.finditer(cells, self.index.text))
        whole = self.index.text
        return [Quote(*span, "normalised") for span in spans if is_whole(whole, *span)]

    def _find_currency(self, text: str) -> list[Quote]:
        found = (quote for name in currency_names(text.strip()) for quote in self.index.find(name))
        return [replace(quote, match="normalised") for quote in found]

    def _find_value(self, sought: TextValue, *, has_unit: bool = False) -> list[Quote]:
        """Return where a number, date or time is; what may be none only if there is no other."""
        number = sought.number
        if number is not None and number.code:  # 2024 is not INV-2024
            sought = replace(sought, number=replace(number, readings=frozenset()))
        elif number is not None:
            has_unit = has_unit or _is_in_percent(number)
        found = [v for v in self._index_of_values.find(sought) if self._is_of(sought, v)]
        if has_unit:
            found = [*filter(_has_unit, found)]
        is_bare = sought.bare == (sought.start, sought.end)
        spans = (place.bare if is_bare else (place.start, place.end) for place in _surest(found))
        return [Quote(*span, "normalised") for span in spans]

    def _is_of(self, sought: TextValue, found: TextValue) -> bool:
        # Whether a number is a part of a code there: 2041 in A-2041, but 2024 in mid-2024
        is_code = found.number is not None and bool(found.number.code)
        is_sought = sought.number is not None and bool(sought.number.code or sought.number.written)
        is_in_code = is_code and not is_sought and any(map(str.isupper, found.text))
        return not is_in_code and not self._is_of_two_cells(found)

    def _is_of_two_cells(self, found: TextValue) -> bool:
        """Return whether the comma of a number is between two of at least three cells of a row."""
        if "," not in found.text or "\n" not in self._cells[found.start : found.end]:
            return False
        return self.index.text.count(",", *self._line_of(found.start)) > 1

    @cached_property
    def _cells(self) -> str:
        return table_cells(self.index.text)

    def _find_moment(self, text: str, values: Sequence[TextValue]) -> list[Quote]:
        """Return where a day and a time next to it are."""
        if len(values) != 2:
            return []
        day, clock = sorted(values, key=lambda value: not value.days)
        rest = text.replace(day.text, "").replace(clock.text, "")
        if not (day.days and clock.clocks) or not _MOMENT_REST.fullmatch(rest):
            return []
        clocks = sorted(self._find_value(clock), key=lambda quote: quote.start)
        starts = [quote.start for quote in clocks]
        quotes = []
        for quote in self._find_value(day):
            at = bisect_left(starts, quote.start)
            for other in clocks[max(0, at - 1) : at + 1]:
                start, end = min(quote.start, other.start), max(quote.end, other.end)
                if end - start <= _MOMENT_CHARS:
                    quotes.append(Quote(start, end, "normalised"))
        return quotes

    def evidence(self, leaf: _Leaf) -> dict[str, Any]:
        places = ("quote", "source", "page", "start", "end", "line", "column", "box")
        found: dict[str, Any] = {**dict.fromkeys(places), "match": "none", "ratio": None}
        quote = leaf.chosen
        if quote is None:
            return {**found, "others": 0}
        number = self.number_of(quote.start)
        source, at = self.sources[number], self._starts[number]
        start, end = quote.start - at, quote.end - at
        found |= {"quote": source.text[start:end], "source": source.name}
        found |= {"start": start, "end": end, "match": quote.match, "ratio": quote.ratio}
        if source.page_starts:
            found["page"] = max(1, bisect_right(source.page_starts, start))
        else:
            line = bisect_right(self._lines, quote.start) - 1
            first = bisect_right(self._lines, at) - 1
            found["line"] = line - first + 1
            found["column"] = quote.start - max(at, self._lines[line]) + 1
        return {**found, "others": len(leaf.found.quotes) - 1}


_CODE = re.compile(r"\d{5,}|(?=.*\d)[A-Za-z]*\d*[-/][\w/-]*|\d+(?: \d+){2,}|\d+(?:\.\d+){2,}")
_DIGIT_GROUPS = re.compile(r"\d+(?: \d+)+")
_MORE_AFTER = re.compile(r"[-/](?:\d|[A-Z]{1,3}\b)|(?P<group> \d{2,4}\b)")
_MORE_BEFORE = re.compile(r"(?<!\d)\d{1,3}[-/]\Z")
_MOMENT_REST = re.compile(r"[T,\s]*(?::00(?:\.0+)?)?\s*(?:Z|[+-]\d\d:\d\d)?", re.IGNORECASE)
_UNIT = re.compile(r"(?=\D)\S{1,12}")
_BOUND = re.compile(r"[<>≤≥±≈~]\s*\Z")
_MOMENT_CHARS = 120  # a day and a time that are one


_MOST_VALUE_CHARS = 100


def _possible_values(value: Any) -> list[TextValue]:
    """Return the values that a value of an answer may be; longer texts are sentences."""
    if isinstance(value, str):
        is_short = len(value) <= _MOST_VALUE_CHARS
        return [found for found in values_in(value) if found.is_sure] if is_short else []
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        return _possible_values(str(value))
    if not math.isfinite(value):
        return []
    readings = [NumberReading(rounded(abs(value), MOST_DIGITS))]
    if isinstance(value, float) and value:  # 0.19 may be written as 19 %
        readings.append(NumberReading(rounded(abs(value) * 100), PERCENT))
    return [_number(reading, value) for reading in readings]


def _is_in_percent(number: Number) -> bool:
    return all(reading.unit.dimension.startswith("percent") for reading in number.readings)


def _surest(found: list[TextValue]) -> list[TextValue]:
    return [value for value in found if value.is_sure] or found


def _has_unit(value: TextValue) -> bool:
    return any(reading.unit != NO_UNIT for reading in _readings_of(value))


def _readings_of(value: TextValue) -> Collection[NumberReading]:
    return () if value.number is None else value.number.readings


def _number(reading: NumberReading, value: float) -> TextValue:
    sign = -1 if value < 0 else 1
    return TextValue("", number=Number("", 0, 0, frozenset((reading,)), sign))


def _are_padded_alike(text: str, other: str) -> bool:
    """Return whether neither of two texts of digits is the other one without zeros before it.

    Each is the number of something; two digits may be those of a day or a month.
    """
    longest = max(text, other, key=len)
    return not (longest[0] == "0" and longest.isdecimal() and len(longest) > 2) or text == other


def _written(value: float) -> set[str]:
    """Return how a number is written in JSON, also without a fraction of zero."""
    whole = {str(int(value))} if value == int(value) else set()
    return {repr(value), *whole}


def _without_overlaps(quotes: Iterator[Quote]) -> list[Quote]:
    """Return quotes in order; of those that overlap, the exact one, else the longest."""
    kept: list[Quote] = []
    for quote in sorted(quotes, key=lambda q: (q.start, q.match != "exact", -q.end)):
        if not kept or quote.start >= kept[-1].end:
            kept.append(quote)
        elif quote.match == "exact" and kept[-1].match != "exact":
            kept[-1] = quote
    return kept


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
        for leaf in sorted(self._leaves, key=lambda leaf: len(leaf.found.quotes)):
            if leaf.found.quotes:
                self._take(leaf, self._best(leaf))

    def _take(self, leaf: _Leaf, quote: Quote) -> None:
        leaf.chosen = quote
        span = quote.start, quote.end
        self._taken.setdefault(span, leaf.path)
        for n in range(len(leaf.path)):
            insort(self._anchors.setdefault(leaf.path[:n], []), span)

    def _best(self, leaf: _Leaf) -> Quote:
        if len(leaf.found.quotes) == 1:
            return leaf.found.quotes[0]
        labels = self._places_of(leaf.labels)
        anchors = self._neighbours(leaf.path)
        return min(
            self._compared(leaf.found, labels, anchors),
            key=lambda quote: (
                self._label_cost(quote, labels)
                + self._kind_cost(quote, leaf)
                + self._anchor_cost(quote, anchors)
                + self._order_cost(quote, leaf.path),
                quote.match != "exact",
                quote.start,
            ),
        )

    def _places_of(self, labels: Labels) -> list[Span]:
        """Return where the names of a field are, else those of the field around it, in order."""
        for names in labels:
            if names not in self._labels:
                spans = ((quote.start, quote.end) for name in names for quote in self._named(name))
                self._labels[names] = sorted(spans)
            if self._labels[names]:
                return self._labels[names]
        return []

    def _named(self, label: str) -> Iterator[Quote]:
        """Yield where a label is, else where its longer words are."""
        found = self._sources.index.find(label)
        words = () if found else [word for word in label.split() if len(word) > 3]
        yield from found
        yield from (quote for word in words for quote in self._sources.index.find(word))

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
        self, found: _Found, labels: Sequence[Span], anchors: Sequence[Span]
    ) -> Sequence[Quote]:
        """Return the places to compare: of many, those next to labels and to other values."""
        quotes, starts = found.quotes, found.starts
        if len(quotes) <= _MOST_COMPARED_QUOTES:
            return quotes
        step = max(1, len(anchors) // _MOST_NEIGHBOURS)
        near = [*anchors[::step], *(labels if len(labels) <= _MOST_LABEL_PLACES else ())]
        numbers = {0}
        for start, end in near:
            after = bisect_left(starts, end)
            before = bisect_left(starts, start) - 1
            numbers |= {n for n in (before - 1, before, after, after + 1) if 0 <= n < len(quotes)}
        return [quotes[n] for n in sorted(numbers)]

    def _label_cost(self, quote: Quote, labels: Sequence[Span]) -> float:
        """Return the distance to the nearest label, in doublings."""
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

    def _kind_cost(self, quote: Quote, leaf: _Leaf) -> float:
        """Return what a number's notation costs: a price has decimals, a quantity and 0 % none."""
        if not isinstance(leaf.value, int | float):
            return 0.0
        text = self._sources.index.text
        cost = 0.0
        is_percent = _PERCENT_AFTER.match(text, quote.end) is not None
        names = leaf.labels[0] if leaf.labels else ()
        if is_percent and not any(map(_PERCENT_NAME.search, names)):
            cost += _OTHER_KIND
        has_decimals = _DECIMALS.search(text, quote.start, quote.end) is not None
        return cost + (_OTHER_NOTATION if has_decimals != isinstance(leaf.value, float) else 0.0)

    def _anchor_cost(self, quote: Quote, anchors: Sequence[Span]) -> float:
        at = bisect_left(anchors, (quote.start, quote.start))
        near = anchors[max(0, at - 1) : at + 1]
        return math.log2(1 + min((self._apart(span, quote) for span in near), default=0))

    def _apart(self, span: Span, quote: Quote) -> int:
        """Return the distance in characters, as if longer on another line or in another source."""
        start, end = min(span[1], quote.end), max(span[0], quote.start)
        n = max(end - start, 0)
        if self._sources.number_of(span[0]) != self._sources.number_of(quote.start):
            return n + _OTHER_SOURCE_CHARS
        is_line = n < _LABEL_REACH_CHARS and self._sources.is_one_line(start, end)
        return n if is_line else 2 * n + _LINE_CHARS

    def _order_cost(self, quote: Quote, path: Path) -> float:
        """Return what it costs to use a place again, or to be before the item before."""
        cost = 0.0
        owner = self._taken.get((quote.start, quote.end))
        if owner is not None:
            cost += _TAKEN if _item_of(owner) == _item_of(path) else _TAKEN_BY_ITEM
        item = _item_of(path)
        if item and item[-1]:
            before = self._anchors.get((*item[:-1], int(item[-1]) - 1))
            if before and quote.start < before[0][0]:
                cost += _OUT_OF_ORDER
        return cost


def _item_of(path: Path) -> Path:
    """Return the path of the innermost item of a list that a value is in."""
    numbers = [at for at, part in enumerate(path) if isinstance(part, int)]
    return path[: numbers[-1] + 1] if numbers else ()
