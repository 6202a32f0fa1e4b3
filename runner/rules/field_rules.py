"""Rules of one field: which labels govern its value in a sender's papers, and how that is read.

Numbers are those of `decision_rules`.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.checking.amounts import amount_of
from paddock.pipelines.checking.source_index import SourceIndex

from .cell_values import is_currency, name_of
from .offers import OfferedValue, Offers
from .reasons import WhyOpen

_MARKS = frozenset((".", ","))
_PLAIN = frozenset([("", False)])
_ORDERS = frozenset(("day first", "month first"))
_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_IN_DIGITS = re.compile(r"(\d{1,2})\D(\d{1,2})\D(?:\d\d|\d{4})")
_NEGATIVE = re.compile("\\(0|0[-\u2212\u2013]")
_PLAIN_NUMBER = re.compile(r"-?\d{1,6}(?:[.,]\d\d)?")
_DIGITS, _NO_DIGITS = re.compile(r"\d+"), re.compile(r"\D+")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_SPACE = re.compile("[ \u00a0\u202f]")
Anchor = tuple[str, str]
"""How a label governs a value, and its words."""
SenderNames = tuple[tuple[str, str], ...]
"""Fields and cells of what a decision calls by name."""
_BEFORE_NAME, _BEHIND_NAME = re.compile(r'(?:[\w-]+: )?"?'), re.compile(r'"?\s*(?:$|[,<|(])')
_NAMED = f"{_BEFORE_NAME.pattern}{{}}{_BEHIND_NAME.pattern}"
_LOST = r"(?:{}|\s?[^\w\s]\s?)"  # a letter that a page's font lacks stands as a box


class TaughtAnswer(Struct, frozen=True, dict=True):
    """What a person decided on a document, as far as they looked at it, and what it offered."""

    id: str
    answer: Mapping[str, Any]
    fields: frozenset[str]
    """The fields that they looked at; the others are the reading of a rule."""
    constants: frozenset[str]
    """Fields of a few values, which stand nowhere: kinds, currencies."""
    packed: str
    places: Mapping[str, tuple[int, int]] = {}
    """By field, the words on which they clicked: their label governs it, whatever else stands."""

    @cached_property
    def offers(self) -> Offers:
        return Offers.unpack(self.packed)

    @property
    def has_seen_kind(self) -> bool:
        """Whether they looked at all that has no place in it."""
        kinds = (name for name in self.constants if not is_money(self.answer.get(name)))
        return self.fields.issuperset(kinds)

    @cached_property
    def names(self) -> SenderNames:
        """Its sender."""
        found = list[tuple[str, str]]()
        for field, value in sorted(self.answer.items()):
            is_text = isinstance(value, str) and field not in self.constants
            if is_text and len(value) > 2 and not any(map(str.isdigit, value)):
                cells = sorted(_cells_with(name_of(value), self.offers.names))
                found += [(field, cell) for cell in cells]
        return tuple(found)


def _cells_with(name: str, cells: Iterable[str]) -> set[str]:
    """Return the cells that are a name, or begin with it, whatever their case."""
    if not name.isascii():
        letters = (re.escape(c) if c.isascii() else _LOST.format(c) for c in name)
        form = re.compile(_NAMED.format("".join(letters)), re.IGNORECASE)
        return {cell for cell in cells if form.match(cell)}
    # To compile a form for each of 5,000 senders would take 0.7 s.
    starts = {cell: cell.lower().find(name.lower()) for cell in cells}
    return {
        cell
        for cell, at in starts.items()
        if at >= 0
        and _BEFORE_NAME.fullmatch(cell, 0, at)
        and _BEHIND_NAME.match(cell, at + len(name))
    }


def is_money(value: Any) -> bool:
    return isinstance(value, str) and is_currency(value)


class FieldReading(Struct, frozen=True, gc=False):
    """The value of a field that a rule reads, why, and where."""

    value: Any
    rules: tuple[str, ...] = ()
    """Ids of the decisions that it rests on; empty: an e-invoice states it."""
    label: str = ""
    """What governs its place; empty: it is the same in all documents of this sender and layout."""

    @property
    def rule(self) -> str:
        """The id of the first of these."""
        return self.rules[0] if self.rules else ""


# --- how values are written


class ValueForm(Struct, frozen=True, gc=False):
    """How a field's values are written, as far as decisions show it."""

    of: type
    marks: frozenset[str] = _MARKS
    """What may be the decimal mark."""
    orders: frozenset[str] = _ORDERS
    shapes: frozenset[str] = frozenset()
    is_whole: bool = False
    """Whether all numbers were whole."""
    signs: frozenset[tuple[str, bool]] = _PLAIN
    """What may stand around a number, and whether that was negative."""

    def read(self, offered: OfferedValue) -> Any:
        """Return the value of what is written; None: it has another form, or two values."""
        written = offered.written
        if self.of is float:
            text, around = _apart(offered)
            signs = [is_negative for known, is_negative in self.signs if known == around]
            number = self._number(text) if len(signs) == 1 else None
            return -number if number and signs[0] else number
        if self.of is datetime.date:
            days = {day for day, orders in _days(written).items() if orders & self.orders}
            return days.pop() if len(days) == 1 else None
        return written if _DIGITS.sub("9", written) in self.shapes else None

    def size(self, offered: OfferedValue) -> Any:
        """Return the value, whatever stands around it; None: it has none in this form."""
        if self.of is not float:
            return self.read(offered)
        number = replace(self, is_whole=False)._number(offered.written)
        return None if number is None else abs(number)

    def _number(self, text: str) -> int | float | None:
        found = {_amount(text, mark) for mark in self.marks}
        amount = found.pop() if len(found) == 1 else None
        if amount is None or (self.is_whole and amount % 1):
            return None
        return int(amount) if self.is_whole else float(amount)


def _forms_of_value(value: Any, offered: Sequence[OfferedValue]) -> dict[OfferedValue, ValueForm]:
    """Return those of some that are written as a value, each with its form there."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number, is_whole = Decimal(repr(value)), isinstance(value, int)
        digits, end = _digits(f"{number:f}"), f"{int(abs(number))}"[-3:]  # no mark is within these
        alike = (o for o in offered if end in o.written and _digits(o.written) == digits)
        forms = {o: _form_of_number(o, number, is_whole) for o in alike}
        return {o: form for o, form in forms.items() if form is not None}
    if not isinstance(value, str):
        return {}
    if _ISO_DAY.fullmatch(value):
        n = value[-2:].lstrip("0")
        day = re.compile(rf"(?<!\d)0?{n}(?!\d)")
        with_day = (o for o in offered if n in o.written and day.search(o.written))
        may_be_days = (o for o in with_day if not _PLAIN_NUMBER.fullmatch(o.written))
        orders = ((o, _days(o.written).get(value)) for o in may_be_days)
        return {o: ValueForm(datetime.date, orders=some) for o, some in orders if some}
    shapes = frozenset([_DIGITS.sub("9", value)])
    return {o: ValueForm(str, shapes=shapes) for o in offered if o.written == value}


def _digits(text: str) -> str:
    return _NO_DIGITS.sub("", text).strip("0")


def _apart(offered: OfferedValue) -> tuple[str, str]:
    """Return a number and what stands around it, with a minus, where that is more than one."""
    if offered.around and offered.written[0] == "-":
        return offered.written[1:], f"-{offered.around}"
    return offered.written, offered.around


def _form_of_number(offered: OfferedValue, number: Decimal, is_whole: bool) -> ValueForm | None:
    """Return the form of a number there; None: it is another. Brackets are negative, 0 nothing."""
    text, around = _apart(offered)
    is_negative = bool(around) and number < 0
    if around and not is_negative and (not number or _NEGATIVE.search(around)):
        return None
    marks = (m for m in _MARKS if _amount(text, m) == (-number if is_negative else number))
    form = ValueForm(
        float, frozenset(marks), is_whole=is_whole, signs=frozenset([(around, is_negative)])
    )
    return form if form.marks else None


def _common_form(forms: Sequence[ValueForm]) -> ValueForm:
    if len(forms) == 1:
        return forms[0]
    return ValueForm(
        forms[0].of,
        frozenset.intersection(*(form.marks for form in forms)),
        frozenset.intersection(*(form.orders for form in forms)),
        frozenset().union(*(form.shapes for form in forms)),
        all(form.is_whole for form in forms),
        frozenset().union(*(form.signs for form in forms)),
    )


@lru_cache(maxsize=8192)  # a decision's own is asked for four times
def _amount(written: str, mark: str) -> Decimal | None:
    digits = _SPACE.sub("\u00a0", written.removeprefix("-"))
    is_latin = digits[:1].isdigit() and not _OTHER_DIGIT.search(digits)
    amount = amount_of(digits, mark) if is_latin else None
    return None if amount is None else -amount if written[0] == "-" else amount


@lru_cache(maxsize=8192)  # 5,000 decisions ask for the same days again and again
def _days(written: str) -> Mapping[str, frozenset[str]]:
    """Return the days that a text may mean, each with the orders of day and month that say so."""
    tokens = [d for d in SourceIndex(written, "und").dates.all() if d.end - d.start == len(written)]
    found, digits = dict[str, frozenset[str]](), _IN_DIGITS.fullmatch(written)
    for year, month, day in {day for token in tokens for day in token.days}:
        if year is None:
            continue
        orders = _ORDERS
        if digits is not None:
            pair = int(digits[1]), int(digits[2])
            ways = {"day first": (day, month), "month first": (month, day)}
            orders = frozenset(name for name, way in ways.items() if way == pair)
        found[datetime.date(year, month, day).isoformat()] = orders
    return found


# --- a field's rule

FieldOutcome = FieldReading | WhyOpen


class FieldRule(Struct, frozen=True):
    anchors: frozenset[Anchor]
    """All of them have to lead to the value; one whose label is nowhere may be missed by a sum."""
    form: ValueForm
    known: Mapping[Anchor, frozenset[str]]
    """The labels that stood in the block of each anchor."""
    ids: tuple[str, ...]

    def read(self, offers: Offers) -> FieldOutcome:
        is_amount, is_label_missing = self.form.of is float, False
        governed = {a: _only_value(offers, a, self.form) for a in sorted(self.anchors)}
        if WhyOpen.NEW_AROUND in governed.values():  # 4
            return WhyOpen.NEW_AROUND
        values = dict[Any, OfferedValue]()
        for anchor, value in governed.items():
            if isinstance(value, WhyOpen):  # 2
                is_label_missing = True
                if not is_amount or anchor in offers.by_anchor:
                    return value
                continue
            new_labels = offers.blocks[value.block] - self.known[anchor]
            if new_labels and not (is_amount and _is_sum(offers, value, self.form, new_labels)):
                return WhyOpen.NEW_LABEL  # 3
            values.setdefault(self.form.read(value), value)
        if len(values) > 1:
            return WhyOpen.TWO_READINGS
        for read, value in values.items():
            if not is_label_missing or _is_total(offers, value, self.form):
                return FieldReading(read, self.ids, value.label)
        return WhyOpen.NO_VALUE


def _only_value(offers: Offers, anchor: Anchor, form: ValueForm) -> OfferedValue | WhyOpen:
    """Return the value under an anchor, if it is the only one, else why none is read."""
    of_form = (v for v in offers.by_anchor.get(anchor, ()) if form.size(v) is not None)
    found = {form.read(v): v for v in of_form}
    if None in found:
        return WhyOpen.NEW_AROUND
    return next(iter(found.values())) if len(found) == 1 else WhyOpen.NO_VALUE


# --- a sum explains an amount


def _is_total(offers: Offers, value: OfferedValue, form: ValueForm) -> bool:
    """Return whether an amount is the sum of those before it, and no other one is larger."""
    most = max(size for v in offers.values if (size := form.size(v)) is not None)
    return abs(form.read(value)) == most and _is_sum(offers, value, form, frozenset())


def _is_sum(
    offers: Offers, value: OfferedValue, form: ValueForm, new_labels: frozenset[str]
) -> bool:
    """Return whether an amount is the sum of some right before it in its block.

    All new labels have to stand at these: none at the sum itself, or behind it.
    """
    block = [v for v in offers.values if v.block == value.block]
    if any(v.label in new_labels for v in block if v.start >= value.start):
        return False
    amounts = _amounts_by_place((v for v in block if v.start < value.start), form)
    expected, total, places = Decimal(repr(form.read(value))), Decimal(0), set[int]()
    for place in reversed(amounts):
        total += amounts[place]
        places.add(place)
        labels = {v.label for v in block if v.start in places}
        if total == expected and len(places) > 1 and new_labels <= labels:
            return True
    return False


def _amounts_by_place(values: Iterable[OfferedValue], form: ValueForm) -> dict[int, Decimal]:
    """Return amounts in their order; NaN where the sign is open: no sum with it is right."""
    found = dict[int, Decimal]()
    for value in sorted(values, key=attrgetter("start")):
        if (read := form.read(value)) is not None:
            found[value.start] = Decimal(repr(read))
        elif form.size(value) is not None:
            found.setdefault(value.start, Decimal("NaN"))
    return found


# --- rules that decisions make


def rules_of_field(decisions: Sequence[TaughtAnswer], field: str) -> Iterator[FieldRule]:
    """Yield a rule for each set of labels; one that reads a decided value otherwise is gone (5)."""
    taught = [t for t in decisions if field in t.fields and field in t.answer]
    by_anchors = defaultdict[frozenset[Anchor], list[tuple[TaughtAnswer, ValueForm]]](list)
    for t in taught:
        candidates = _candidates(t, field)
        if len({form.of for form in candidates.values()}) == 1:
            form = _common_form([*candidates.values()])
            by_anchors[frozenset(candidates)].append((t, form))
    seen = set[frozenset[Anchor]]()
    for anchors in by_anchors:
        alike = [other for other in by_anchors if other & anchors]
        shared = frozenset.intersection(*alike)
        if not shared or shared in seen:
            continue
        seen.add(shared)
        own = [pair for other in alike for pair in by_anchors[other]]
        known = {anchor: _labels_beside([t.offers for t, _ in own], anchor) for anchor in shared}
        ids = {t.id for t, _ in own}
        in_order = tuple(t.id for t in taught if t.id in ids)
        rule = FieldRule(shared, _common_form([form for _, form in own]), known, in_order)
        checked = ((rule.read(t.offers), t.answer[field]) for t in taught)
        if all(isinstance(r, WhyOpen) or r.value == value for r, value in checked):
            yield rule


def _labels_beside(documents: Iterable[Offers], anchor: Anchor) -> frozenset[str]:
    """Return the labels that stand in a block with a value under an anchor."""
    blocks = (offers.blocks[v.block] for offers in documents for v in offers.by_anchor[anchor])
    return frozenset().union(*blocks)


def _candidates(taught: TaughtAnswer, field: str) -> dict[Anchor, ValueForm]:
    """Return the anchors which lead to a decided value alone in its document, and its form there.

    Where a person clicked on it, those of that place; those in sentences count only where there
    are no others.
    """
    found, place = dict[Anchor, ValueForm](), taught.places.get(field)
    forms = _forms_of_value(taught.answer[field], taught.offers.values)
    here = (o for o in forms if place is None or (o.start < place[1] and place[0] < o.end))
    for anchor in {o.anchor for o in here if o.label}:
        under = taught.offers.by_anchor[anchor]
        own, others = (forms[o] for o in under if o in forms), [o for o in under if o not in forms]
        if sure := [form for form in own if all(form.size(o) is None for o in others)]:
            found[anchor] = _common_form(sure)
    labels = {anchor: form for anchor, form in found.items() if anchor[0] != "prose"}
    return labels or found
