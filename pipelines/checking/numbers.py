"""Numbers in digits: what a token of a text is as a number, and its unit.

A token is digits with the marks between them. It is a number by itself only if nothing makes it
another one or a part of something: per cent, a power, a scale word, a range, a fraction, a code, a
date. Its unit is what stands right before or behind it, as CLDR and ISO 4217 name it.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Literal, TypeAlias
from unicodedata import category

from paddock.engine.system.records import Struct

from . import amounts, cldr
from .amounts import MARKED, SPACED_TOKEN, TOKEN, TOKEN_BEFORE, amount_of
from .cldr import UNKNOWN, Unit, unit_named
from .codes import is_in_address, is_in_groups, is_letter, is_within_word
from .folding import Span

_PART = re.compile(MARKED)
_MAY_BE_SPACED = re.compile(r"(?<![\d.,])\d{1,3} \d{3}(?!\d)")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?:\u00a0\d{3}| 0\d\d|(?: \d{3}){2,})(?!\d)")
_MARK = re.compile(r"\D")
_POWER = re.compile(
    r"[ \u00a0\n]?[x\u00d7*\u00b7\u22c5][ \u00a0\n]?10(?![\d.,])|[ \u00a0]?\^|\*\*(?=-?\d)"
)
_FRACTION = re.compile(r"[ \u00a0]?\d+[/\u2044]\d")
_DASH = r"[ \u00a0]?(?:[-~\u301c\uff5e]|\.{2,3})(?:[ \u00a0]|(?<![.,]\d\d-)\n)?"
_RANGE = re.compile(rf"{_DASH}(?P<before>[^\s\d]{{0,4}}[ \u00a0]?)(?=\d)")
_RANGE_BEFORE = re.compile(
    rf"(?<![\w.,/-])\d(?:[.,']?\d)*[ \u00a0]?(?P<unit>[^\s\d]{{0,24}}){_DASH}\Z"
)
_BOUND_BEFORE = re.compile(
    r"(?:[<>!]=|(?:\A|[^<])<|[\u223c\u2241-\u2260\u2262-\u228b\u2a7d-\u2aa2±∓]|(?:\A|[\s(|])~"
    r"|[^\S\n\f]>|[^\W\d_]>)[ \u00a0\n]?\Z"
)
"""What makes a number a bound, about, or another one: a relation of Unicode but `=` and `≡`. A line
that begins with `>` is a quotation, and a tag ends with it."""
_COMPUTING = frozenset(
    "/_@&?\\^\0"
    + "".join(map(chr, (*range(0x2070, 0x209D), *range(0x2150, 0x2160), *range(0x2200, 0x2205))))
    + "".join(map(chr, (*range(0x2206, 0x2212), *range(0x221A, 0x221E), *range(0x2227, 0x223C))))
    + "\u00b2\u00b3\u00b9\u00bc\u00bd\u00be\u00ac\u00f7\u2044\u2189\u2215\u2216"
)
"""What joins a number to what is before it, or makes another one of it: powers, fractions, and
signs of calculation that are no relation, such as a root."""
_MAY_BE_MINUS = frozenset("\u25b2\u25b3\u25b4\u25b5\u25bc\u25bd\u25be\u25bf")
"""Triangles up and down: Japan's accounts write a minus so, others a rise or a fall."""
_BLANKS = frozenset(("", " ", "\n", "\t", "\f", "\u00a0"))
_IN_QUERY = re.compile(r"[?&][\w.%-]*=\Z")
_SEPARATED = re.compile(r"[^\W\d_]|['\"()\[\]{}|,;%]")
"""What a comma parts from the digits behind it, as in a row of CSV."""
_TIMES = frozenset("xX\u00d7")
_TIMES_BEFORE = re.compile(rf"(?<![\w.,'/-])({MARKED})[xX\u00d7]\Z")
_TIMES_BEHIND = re.compile(rf"[xX\u00d7]({MARKED})(?![\w'/-]|[.,]\d)")
_PRICE = re.compile(r".*[.,]\d\d")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*>[ \u00a0\n]?\Z")
_WORD_AND_UNIT = re.compile(r"-(?=[^\W\d_]{2})")  # a 30-day period
_BRACKETED = re.compile(r"[(\[]([^()\[\]\n]{1,24})[)\]] ?:? ?\Z")
_LINE_END = re.compile(r"[\n\f]")
_PER = re.compile(
    r"[ \u00a0]?/[ \u00a0]?[^\W\d_]|[\u00b2\u00b3\u2070-\u209f^\u00b7\u22c5]|-[^\W\d_]"
)
_REST = re.compile(
    r"[ \u00a0]?(?:[x\u00d7*\u00b7\u22c5][ \u00a0]?)?"
    r"(?:[^\s,;:!?()]|(?<=\d),(?=\d))*[^\s.,;:!?()]"
)
"""What belongs to a number that is no number by itself."""
_NUMBER_BEHIND = re.compile(rf"[ \u00a0]?-?({SPACED_TOKEN.pattern})")
_IS_MONEY = re.compile(r".*\D\d{2,3}")
_OPENED = re.compile(r"\([-\d.,']+\Z")
_MINUS_BEHIND = re.compile(r"(?P<gap>[ \u00a0]?)-(?![^\s)|])")
_SIDE_BEHIND = re.compile(r"[ \u00a0]?(?:CR|DR|Cr|Dr|cr|dr)(?![^\W_])")
"""Credit or debit: whose statement it is decides what they say."""
_SCALED_CURRENCY = re.compile(
    r"[ \u00a0]?(?:[TkKM](?P<name>[A-Z]{3}|[^\w\s])|(?P<code>[A-Z]{3})[a-z]{1,3})(?![^\W_])"
)
"""450 TEUR, 5 k€, 8 EURm."""
_LINE_OR_CELL_START = re.compile(r"(?:\A|[\n\f\t|])[ \u00a0]?\Z")
_DASH_OF_NEXT_LINE = re.compile(r"[ \u00a0]?[\n\f]- ")
_LINE_CHARS = 200
_TAG_CHARS = 60
_LINE_OR_CELL_END = re.compile(r"[ \u00a0]?(?:\Z|[\n\f\t|])")
_END = re.compile(r"[ \u00a0]?(?:\Z|[\n\f\t|;)]|[.!?,](?!\S))")
_UNIT_CHARS, _CURRENCY_CHARS = 36, 7
_ELIDED = re.compile(r"'[^\W\d_]")  # 3 l'année
_MOST_PLACES = 1000
"""Of one number: the first ones count."""


Obstacle: TypeAlias = Literal[
    "code", "range", "power", "scale", "fraction", "dash", "sign", "bound"
]
"""What keeps a token from being a number by itself; `sign`: whether it is negative is open."""


class NumberToken(Struct, frozen=True):
    start: int
    """With its sign and a currency before it."""
    end: int
    """With a unit behind it."""
    digits: Span
    """With its sign only."""
    raw: str
    is_negative: bool
    unit: Unit | None
    """UNKNOWN: it has one that no table has."""
    obstacle: Obstacle | None = None


class SoughtNumber(Struct, frozen=True):
    amount: Decimal | None
    """None: its own marks leave open which number it is."""
    raw: str = ""
    """How the answer writes it, where it is a text."""
    is_negative: bool = False
    unit: Unit | None = None
    keeps_fraction: bool = False
    """It may be a version: the text has the same digits behind the point."""


class NumberIndex:
    def __init__(
        self,
        text: str,
        languages: Callable[[], Sequence[str]],
        is_in_date: Callable[[int, int], bool],
    ) -> None:
        self._text = text
        self._languages = languages
        self._is_in_date = is_in_date
        self._heads = dict[int, list[Span]]()
        """By the start of a line of a table, the cells of its first one."""

    def find(self, sought: SoughtNumber, within: float = 0.0) -> Iterator[NumberToken]:
        """Yield where a number is; with `within`, also one that differs by this share."""
        places = self.same_digits(sought)
        if within:
            places = [place for held in self._by_digits.values() for place in held]
        for start, end in places:
            if self._may_be(sought, self._text[start:end], within):
                token = read_number(self._text, start, end, self._is_in_date)
                if token.obstacle is None and self._is_place(sought, token):
                    yield token

    def same_digits(self, sought: SoughtNumber) -> list[Span]:
        """Return where a number's digits stand; of very many places, the first ones."""
        digits = sought.raw or f"{sought.amount:f}"
        return self._by_digits.get(amounts.significant(digits), [])[:_MOST_PLACES]

    def all(self, is_sought: Callable[[str], object] = bool) -> Iterator[NumberToken]:
        """Yield the numbers whose digits, with their marks, are sought."""
        for start, end in self._tokens:
            if is_sought(self._text[start:end]):
                yield read_number(self._text, start, end, self._is_in_date)

    def parts(self, start: int, end: int) -> Iterator[NumberToken]:
        """Yield the numbers of a token if its spaces group nothing."""
        for found in _PART.finditer(self._text, start, end):
            yield read_number(self._text, *found.span(), self._is_in_date)

    def is_open(self, start: int, end: int) -> bool:
        """Return whether a space may group thousands in a token, or part two numbers."""
        is_spaced = amounts.GROUPED_BY_SPACE.search(self._text, start, end) is not None
        return is_spaced and self.groups_by_space is None

    def amount(self, raw: str) -> Decimal | None:
        return amount_of(raw, self.decimal_mark if amount_of(raw, "") is None else "")

    def _may_be(self, sought: SoughtNumber, raw: str, within: float) -> bool:
        if sought.raw and raw == sought.raw:
            return True
        found = None if sought.amount is None else self.amount(raw)
        if found is None or sought.amount is None:
            return False
        if within:
            return abs(found - sought.amount) <= abs(sought.amount) * Decimal(within)
        is_same = not sought.keeps_fraction or amounts.n_decimals(raw) == amounts.n_decimals(
            sought.raw
        )
        return found == sought.amount and is_same

    def _is_place(self, sought: SoughtNumber, token: NumberToken) -> bool:
        if sought.is_negative != token.is_negative and sought.amount != 0:
            return False
        unit = token.unit
        if sought.unit is None:
            is_clock = unit is not None and "clock" in unit.ids and not token.raw.isdecimal()
            if is_clock or (unit is not None and unit.ids & PER_HUNDRED):
                return False
        elif not any(
            other.is_same(sought.unit)
            or cldr.sign_means(other.name, self._languages()) in sought.unit.ids
            for other in (self._units_of_cell(token) if unit is None else (unit,))
        ):
            return False
        is_year = len(token.raw) == 4 and token.raw.isdecimal() and sought.unit is None
        return is_year or not self._is_in_date(*token.digits)

    def _units_of_cell(self, token: NumberToken) -> Iterator[Unit]:
        """Yield the units that a number takes which is a cell's only content.

        They stand in brackets at the end of the cell beside it or of its column's head; a currency
        also without anything else there.
        """
        text = self._text
        start = _line_start(text, token.start)
        cells = _cells(text, start)
        at = next((n for n, (a, b) in enumerate(cells) if a <= token.start < b), -1)
        if len(cells) < 2 or text[slice(*cells[at])].strip() != text[token.start : token.end]:
            return
        beside = [text[slice(*cells[n])] for n in (at - 1, at + 1) if 0 <= n < len(cells)]
        head = text[slice(*self._head_of(start, cells)[at])]
        for label in (*beside, head):
            bracketed = _BRACKETED.search(label)
            unit = unit_named((label if bracketed is None else bracketed[1]).strip())
            if unit is not None and (bracketed or unit.is_currency):
                yield unit

    def _head_of(self, start: int, cells: list[Span]) -> list[Span]:
        """Return the cells of the first of the lines above that have as many."""
        passed = list[int]()
        while start and start not in self._heads:
            above = _line_start(self._text, start - 1)
            found = _cells(self._text, above)
            passed.append(start)
            if len(found) != len(cells) or self._text[start - 1] == "\f":
                break
            cells, start = found, above
        cells = self._heads.get(start, cells)
        self._heads.update(dict.fromkeys(passed, cells))
        return cells

    @cached_property
    def decimal_mark(self) -> str:
        """What begins the fraction: in the text's amounts, else in its language; "": it is open."""
        marks: Counter[str] = Counter()
        for start, end in self._tokens:
            raw = self._text[start:end]
            found = [] if raw.isdecimal() else _MARK.findall(raw)
            is_sure = raw[-3:-2] in (".", ",") or len({*found}) > 1
            if is_sure and amount_of(raw, "") is not None and found[-1] not in found[:-1]:
                marks[found[-1]] += 1
        used = marks.keys() & {".", ","}
        return next(iter(used)) if len(used) == 1 else cldr.decimal_mark(self._languages())

    @cached_property
    def groups_by_space(self) -> bool | None:
        """Whether a space groups thousands; None: that is open, so none of these is a number."""
        if not _MAY_BE_SPACED.search(self._text):
            return False
        is_sure = _SPACED.search(self._text) is not None
        return True if is_sure or cldr.groups_by_space(self._languages()) else None

    @cached_property
    def _by_digits(self) -> dict[str, list[Span]]:
        """The tokens by their digits, without zeros at the ends."""
        found: dict[str, list[Span]] = {}
        for start, end in self._tokens:
            if not self.is_open(start, end):
                found.setdefault(amounts.significant(self._text[start:end]), []).append(
                    (start, end)
                )
        return found

    @cached_property
    def _tokens(self) -> list[Span]:
        tokens = (TOKEN if self.groups_by_space is False else SPACED_TOKEN).finditer(self._text)
        return [token.span() for token in tokens]


def _line_start(text: str, at: int) -> int:
    start = text.rfind("\n", 0, at) + 1
    return text.rfind("\f", start, at) + 1 or start


def _cells(text: str, start: int) -> list[Span]:
    """Return where the cells of a line are, between bars or tabs."""
    found = _LINE_END.search(text, start)
    end = found.start() if found else len(text)
    sides = [start - 1, *(m.start() for m in _SIDE.finditer(text, start, end)), end]
    return [(a + 1, b) for a, b in itertools.pairwise(sides)]


_SIDE = re.compile(r"[|\t]")
PER_HUNDRED = frozenset(("percent", "permille", "permyriad"))


def read_number(
    text: str, start: int, end: int, is_in_date: Callable[[int, int], bool]
) -> NumberToken:
    """Return a token with its sign and unit, and the first obstacle that is met.

    Digits that make no number, or are a part of a code, have neither sign nor unit.
    """
    raw, span = text[start:end], (start, end)
    is_number = amount_of(raw, ".") is not None or amount_of(raw, ",") is not None
    if not is_number or _is_in_code(text, start, end):
        return NumberToken(*span, span, raw, is_negative=False, unit=None, obstacle="code")
    reader = _TokenReader(text, start, end, begin=start, stop=end, digits=span)
    reader.read_lead()
    reader.read_unit()
    if reader.obstacle is None and not reader.is_negative:
        reader.read_sign_apart()
    reader.obstacle = reader.obstacle or reader.behind
    if reader.obstacle is None:
        reader.read_scale()
    reader.read_bound()
    if reader.obstacle is None:
        reader.read_range(is_in_date)
    reader.read_rest()
    reader.choose_unit()
    if reader.unit is None and amounts.is_address(raw):
        reader.obstacle = "code"
    return NumberToken(
        reader.begin,
        reader.stop,
        reader.digits,
        raw,
        reader.is_negative,
        reader.unit,
        reader.obstacle,
    )


class _TokenReader(Struct, eq=False):
    """Reads what belongs to a number, stage by stage, from its digits outwards."""

    text: str
    start: int
    """Of the bare digits, which stay as they are."""
    end: int
    begin: int
    """Of the token, as far as it is read."""
    stop: int
    digits: Span
    """With its sign."""
    currency: Unit | None = None
    """Before the digits."""
    unit: Unit | None = None
    is_negative: bool = False
    obstacle: Obstacle | None = None
    behind: Obstacle | None = None
    """What stands where a unit could; a sign apart explains it."""

    def read_lead(self) -> None:
        """Read a currency and a sign before the digits: EUR 40, -EUR 40, EUR -40."""
        text, start = self.text, self.start
        self.begin, self.currency = _currency_before(text, start)
        sign_at = start if text[start - 1 : start] == "-" else self.begin
        if text[sign_at - 1 : sign_at] != "-":
            return
        self.is_negative = True
        if text[start] in ".,":  # a dash stands for no francs as well
            self.obstacle = "sign"
        before_sign = text[sign_at - 2 : sign_at - 1] if sign_at > 1 else ""
        if before_sign.isdecimal() or before_sign == "-":
            self.obstacle = "code"
        if sign_at < start:
            self.begin = sign_at - 1
            return
        self.digits = start - 1, self.end
        begin, self.currency = _currency_before(text, start - 1)
        self.begin = min(begin, start - 1)

    def read_unit(self) -> None:
        """Read a unit behind the digits, or what stands there in place of one."""
        text, end = self.text, self.end
        if text[end : end + 2] in (".-", ",-") and not text[end + 2 : end + 3].isalnum():
            end += 2  # CHF 40.-
        last = text[end : end + 1]
        at = end + (last == ")" and _OPENED.search(text, max(0, end - 24), end) is not None)
        at += text[at : at + 1] in (" ", "\u00a0")  # ninety (90) days
        near = text[at : at + 1]
        is_sign = near != "" and not near.isdecimal()
        self.stop = end
        if (after := _unit_after_hyphen(text, end)) is not None:
            self.stop, self.unit = after
        elif last == "-" and not text[end + 1 : end + 2].isdecimal():
            self.behind = "dash"
        elif _POWER.match(text, end):
            self.behind = "power"
        elif _FRACTION.match(text, end) or (is_sign and category(near) in ("No", "Nl")):
            self.behind = "fraction"
        elif at == end and is_sign and unicodedata.numeric(near, None) is not None:
            self.stop, self.behind = end + 1, "scale"  # 5万
        else:
            stop, unit = _named_unit(text, at)
            if unit is None:
                is_rate = last == "/" and _named_unit(text, end + 1)[1] is not None
                self.unit = UNKNOWN if is_rate else None
            elif not unit.is_currency or _owner(text, at, stop, end) != "behind":
                is_more = _PER.match(text, stop) or text[stop : stop + 1].isdecimal()
                self.stop, self.unit = stop, UNKNOWN if is_more else unit

    def read_sign_apart(self) -> None:
        """Read a sign that stands apart: a minus behind, a dash and a space before, brackets.

        1. Words for credit and debit leave open whether it is negative, and so do triangles.
        2. A minus that touches an amount makes it negative, and so does any of these signs where
           the amount is alone in its line or cell and is no entry of a list; but not a dash and a
           minus.
        3. Brackets do not count where it is no amount, but has a unit or is a year.
        4. Otherwise a minus, brackets, and a dash before what is alone, leave that open.
        5. A dash is an obstacle unless it is between a word and the number, `Lunch - 12`, and open
           behind a currency, `EUR - 12`. It is none before words, `- 12 apples`.
        """
        text, begin, end, unit_end = self.text, self.begin, self.end, self.stop
        is_dashed = text[begin - 2 : begin] in ("- ", "-\u00a0")
        is_closed = text[begin - 1 : begin] == "(" and text[unit_end : unit_end + 1] == ")"
        first = begin - 2 if is_dashed else begin - 1 if is_closed else begin
        minus = _MINUS_BEHIND.match(text, end) or _MINUS_BEHIND.match(text, unit_end)
        last = minus.end() if minus else unit_end + 1 if is_closed else unit_end
        is_first = _LINE_OR_CELL_START.search(text, max(0, first - 2), first) is not None
        is_last = _LINE_OR_CELL_END.match(text, last) is not None
        if minus and minus["gap"] and not is_last and _named_unit(text, last + 1)[1] is None:
            minus, last = None, unit_end  # 4711 - 3 May
        may_be_minus = text[max(0, begin - 2) : begin].strip(" \u00a0")[-1:] in _MAY_BE_MINUS
        if may_be_minus or _SIDE_BEHIND.match(text, unit_end):
            self.obstacle = "sign"  # 1
        elif minus or is_closed or (is_dashed and is_first and is_last):
            unit = self.currency or self.unit
            is_decimal = text[self.start : end].isdecimal()
            is_amount = not is_decimal if unit is None else unit.is_currency
            above = text[max(0, first - _LINE_CHARS) : first].rstrip("\n\f").rpartition("\n")[2]
            is_listed = above.startswith("- ") or _DASH_OF_NEXT_LINE.match(text, last) is not None
            is_alone = is_first and is_last and not (is_dashed and is_listed)
            makes_negative = is_alone or (minus is not None and not minus["gap"])
            if is_amount and makes_negative and not (minus and is_dashed):  # 2
                self.begin, self.stop = self.digits = first, last
                self.is_negative = True
                self.behind = None
            elif is_amount or not is_closed or (unit_end == end and end - self.start != 4):  # 3
                self.obstacle = "sign"  # 4
        elif is_dashed and not is_first:  # 5
            around = text[max(0, first - 2) : first]
            if around[-1] != " " or not (around[0].isalpha() or around[0] in "')]"):
                self.obstacle = "dash"
            elif begin == self.start and _currency_before(text, first)[1] is not None:
                self.obstacle = "sign"

    def read_scale(self) -> None:
        """Read a word for thousands or more."""
        end = _scale_end(self.text, self.start, self.end, is_of_money=self.currency is not None)
        if end is None and self.unit is not None and self.unit.is_currency:  # 8 EUR million
            end = _scale_end(self.text, self.stop, self.stop, is_of_money=True)
        if end is not None:
            self.obstacle, self.stop = "scale", end

    def read_bound(self) -> None:
        text, begin = self.text, self.begin
        if (
            _BOUND_BEFORE.search(text, max(0, begin - 4), begin)
            and not _TAG.search(text, max(0, begin - _TAG_CHARS), begin)
        ):  # fmt: skip
            self.obstacle = self.obstacle or "bound"
            self.begin -= not text[begin - 1].isspace()

    def read_range(self, is_in_date: Callable[[int, int], bool]) -> None:
        """Read the rest of a range of which it is a part: 5-40, 5 EUR - 40 EUR."""
        text = self.text
        for at in {self.stop, self.end}:
            found = _RANGE.match(text, at)
            if found is None or is_in_date(found.end(), found.end() + 1):
                continue
            before = found["before"].strip()
            if not before or unit_named(before):
                rest = _REST.match(text, found.end())
                self.obstacle, self.stop = "range", (rest or found).end()
                return
        found = _RANGE_BEFORE.search(text, max(0, self.begin - 32), self.begin)
        if found is not None and (not found["unit"] or unit_named(found["unit"]) is not None):
            self.obstacle = "range"

    def read_rest(self) -> None:
        if self.obstacle in ("power", "fraction") or self.unit is UNKNOWN:
            found = _REST.match(self.text, self.stop)
            self.stop = found.end() if found else self.stop

    def choose_unit(self) -> None:
        """Prefer the currency before it, and the percent sign of Turkish: %5, but not in 5 % 12."""
        text, unit = self.text, self.unit
        if self.currency is not None and (unit is None or unit.ids):
            if unit is not None and not unit.is_currency:
                self.stop = self.end
            is_other = unit is not None and unit.is_currency and not unit.is_same(self.currency)
            self.unit = UNKNOWN if is_other else self.currency
        sign_at = self.begin - 1 - (text[self.begin - 1 : self.begin] in (" ", "\u00a0"))
        is_percent = sign_at >= 0 and text[sign_at] in "%\u066a"
        if is_percent and _owner(text, sign_at, sign_at + 1) == "behind":
            self.unit = unit_named("%")


def _is_in_code(text: str, start: int, end: int) -> bool:
    """Return whether digits are a part of a code: of one word, of groups, of an address.

    What touches a number has to be explained; punctuation and pictures say nothing of it.

    1. A letter touches them from the left, itself or by a hyphen, that is not of a currency.
    2. Another sign touches them from the left that joins them to what is before it, or computes.
    3. A sign touches them from the right and joins them to what is behind it, but for a rate such
       as 88/min, and the unit of a 30-day period.
    4. A letter touches them from the right that is not of a unit: 5th, not 5kg. A unit that
       touches a number has two letters or more.
    5. A product is a size, 3x12, but for how many at which price: 3x12,50.
    6. They are in groups or in an address.
    """
    sign_before = text[start - 1 : start] if start else ""
    before = text[max(0, start - 2) : start - 1]
    sign_behind = text[end : end + 1]
    behind = text[end + 1 : end + 2]
    is_hyphenated = sign_before == "-"
    is_factor = sign_behind in _TIMES or sign_before in _TIMES
    times = _times_of(text, start, end) if is_factor else ()
    if times is None:  # 5
        return True
    if sign_before in _BLANKS or start in times:
        is_joined = False
    elif is_letter(sign_before) or (is_hyphenated and is_letter(before)):  # 1
        is_joined = not _is_currency_word(text, start - is_hyphenated, end)
    elif sign_before == ".":  # 2
        is_joined = before != "." and not _is_currency_word(text, start, end)
    elif sign_before == ",":
        is_joined = text[start:end].isdecimal() and not _SEPARATED.match(before)
    elif sign_before == "=":
        is_joined = _IN_QUERY.search(text, max(0, start - _TAG_CHARS), start) is not None
    elif sign_before in "+#":
        is_joined = _joins(before)
    elif before.isdecimal() and (sign_before in ":'" or category(sign_before) == "Sc"):
        is_joined = True
    else:
        is_joined = sign_before in _COMPUTING
    if is_joined:
        return True
    if sign_behind and end not in times and _unit_after_hyphen(text, end) is None:
        is_rate = sign_behind == "/" != sign_before and _named_unit(text, end + 1)[1] is not None
        is_joined = sign_behind in "/\u2044:.'-#" and _joins(behind)
        if not is_rate and (sign_behind in "_@\\\x00" or is_joined):  # 3
            return True
        if is_letter(sign_behind):  # 4
            stop, unit = _named_unit(text, end)
            is_letter_only = stop - end == 1 and sign_behind.isalpha()
            if unit is None or is_letter_only or text[stop : stop + 1].isdecimal():  # 12EUR50
                return True
        elif behind.isdecimal() and category(sign_behind) == "Sc":  # 12€50
            return True
    return is_in_groups(text, start, end) or is_in_address(text, start, end)  # 6


def _times_of(text: str, start: int, end: int) -> tuple[int, ...] | None:
    """Return the end at which a number is a factor of a price; None: it is a part of a size."""
    raw, behind = text[start:end], _TIMES_BEHIND.match(text, end)
    before = _TIMES_BEFORE.search(text, max(0, start - _UNIT_CHARS), start)
    if (other := before or behind) is None:
        return ()
    stop = max(end, other.end())
    stop += text[stop : stop + 1] in (" ", "\u00a0")
    unit = _named_unit(text, stop)[1]
    is_price = {*map(bool, map(_PRICE.fullmatch, (raw, other[1])))} == {True, False}
    is_counted = raw.isdecimal() or other[1].isdecimal()
    is_bill = is_price and is_counted and (unit is None or unit.is_currency)
    return ((start if before else end),) if is_bill and not (before and behind) else None


def _joins(sign: str) -> bool:
    return sign.isalnum() or sign == "_"


def _owner(text: str, start: int, end: int, before: int = 0) -> Literal["before", "behind", "both"]:
    """Return which number a currency or % belongs to: that before it, behind it; both: it is open.

    `before` is where that before it ends, if that is known.

    1. There is only one, or the other one is a part of a code.
    2. Only one touches it; has no other unit; is written as an amount of money.
    3. That behind it ends the line, cell or sentence, and is no year: Pier 3 EUR 40.
    """
    before = before or start
    first = TOKEN_BEFORE.search(text, max(0, before - 24), before)
    last = _NUMBER_BEHIND.match(text, end)
    if first is None or _is_in_code(text, *first.span(1)):  # 1
        return "behind"
    if last is None or _is_in_code(text, *last.span(1)):
        return "before"
    behind = last.end() + (text[last.end() : last.end() + 1] in (" ", "\u00a0"))
    own, currency = _currency_named_before(text, first.start(1))
    is_free = currency is None or TOKEN_BEFORE.search(text, max(0, own - 24), own) is not None
    for of_first, of_last in (  # 2
        (first.end(1) == start, last.start(1) == end),
        (is_free, _named_unit(text, behind)[1] is None),
        [_IS_MONEY.fullmatch(found[1]) is not None for found in (first, last)],
    ):
        if of_first != of_last:
            return "before" if of_first else "behind"
    is_year = len(last[1]) == 4 and last[1].isdecimal()
    return "behind" if _END.match(text, last.end()) and not is_year else "both"  # 3


def _currency_before(text: str, at: int) -> tuple[int, Unit | None]:
    """Return where a currency begins that stands right before a place, and belongs to it."""
    start, unit = _currency_named_before(text, at)
    is_other = unit is not None and _owner(text, start, start + len(unit.name)) == "before"
    return (at, None) if is_other else (start, unit)


def _currency_named_before(text: str, at: int) -> tuple[int, Unit | None]:
    last = text[at - 1 : at]
    for end in (at, at - 1) if last == "." else (at - (last in (" ", "\u00a0")),):  # Rs.500
        near = text[max(0, end - _CURRENCY_CHARS) : end]
        for n in cldr.name_lengths("currency", near):
            unit = unit_named(near[-n:])
            if unit is not None and unit.is_currency and not is_within_word(text, end - n):
                return end - n, unit
    unit = cldr.letter_currency(last) if last.isalpha() else None
    if unit is not None and (of := TOKEN.match(text, at)) and _PRICE.fullmatch(of[0]):  # R1,234.56
        return (at, None) if _joins(text[at - 2 : at - 1]) else (at - 1, unit)
    return at, None


def _is_currency_word(text: str, start: int, end: int) -> bool:
    """Return whether letters that touch a number are a currency: `US$40`, and `EUR12.50`.

    Such letters are a code's as well, so that the number has to be written as money.
    """
    begin, unit = _currency_named_before(text, start)
    if unit is None or begin == start:
        return False
    name, raw = text[begin:start].rstrip("."), text[start:end]
    if not name.isalpha() or (text[start - 1] == "." and len(name) > 1):
        return True
    return not raw.isdecimal() if len(name) == 3 else _IS_MONEY.fullmatch(raw) is not None


def _named_unit(text: str, at: int) -> tuple[int, Unit | None]:
    """Return the longest name of a unit that begins at a place, and where it ends."""
    near = text[at : at + _UNIT_CHARS].replace("\u00a0", " ")
    for n in cldr.name_lengths("unit", near):
        unit = unit_named(near[:n])
        if unit is not None and not (is_within_word(near, n) or _ELIDED.match(near, n)):
            return at + n, unit
    return at, None


def _unit_after_hyphen(text: str, end: int) -> tuple[int, Unit] | None:
    """Return the unit of a number that is one word with it: a 30-day period."""
    if not _WORD_AND_UNIT.match(text, end):
        return None
    stop, unit = _named_unit(text, end + 1)
    is_word = not text[stop : stop + 2].lstrip("-").isalpha() and text[stop : stop + 1] != "_"
    return (stop, unit) if unit is not None and not unit.is_currency and is_word else None


def _scale_end(text: str, start: int, end: int, *, is_of_money: bool) -> int | None:
    """Return where a number ends that has a word for thousands or more behind it, or before it.

    One that is a unit as well is the unit, but of money: $5 K, 5 K EUR.
    """
    before, behind = cldr.scale_words()
    scaled = _SCALED_CURRENCY.match(text, end)
    of_scaled = unit_named(scaled["name"] or scaled["code"]) if scaled else None
    if scaled and of_scaled is not None and of_scaled.is_currency:
        return scaled.end()
    at = end + (text[end : end + 1] in (" ", "\u00a0", "\n"))
    least = 2 if text[end : end + 1] == "\n" or (start == end < at) else 0
    near = text[at : at + 24].replace("\u00a0", " ")
    for n in cldr.name_lengths("scale", near):
        name = near[:n]
        is_known = name in behind or (n > 2 and name.casefold() in behind)
        if is_known and n > least and not is_within_word(near, n):
            after = at + n + (text[at + n : at + n + 1] in (" ", "\u00a0"))
            unit_end, unit = _named_unit(text, after)
            is_of_money = is_of_money or (unit is not None and unit.is_currency)
            if cldr.is_unit(name) and not is_of_money:
                return None
            return at + n if unit is None else unit_end
    word = text[max(0, start - 24) : start].rstrip(" \u00a0")
    is_before = word.rpartition(" ")[2] in before and text[start - 1].isspace()
    return end if is_before else None
