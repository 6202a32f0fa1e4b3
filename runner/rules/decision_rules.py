"""Rules that decisions of people make, and what they read in a document. Pure; nothing is stored.

The key is who sent a document, and its layout: the cells with the names that a person confirmed,
and the same set of words beside its values. Within it a rule of a field says which labels govern
its value, and how that is read. It reads nothing, and the field is open,

1. where no decision, or decisions on two senders, have this key, or they differ in a constant;
2. where one of its labels is missing, or governs two values;
3. where a label is new in the block of the value, unless the value is the sum of what stands before
   it, and the new label does, too;
4. where what is written there has another form, or could be read in two ways;
5. where it would not give what was decided on any document so far: there it is gone.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

from paddock.engine.system.records import record
from paddock.engine.system.text import canonical_json
from paddock.pipelines.checking.numbers import amount_of
from paddock.pipelines.checking.source_index import SourceIndex

from .document_offers import OfferedValue, Offers, name_of

Anchor = tuple[str, str]
"""How a label governs a value, and its words."""
_MARKS = frozenset((".", ","))
_ORDERS = frozenset(("day first", "month first"))
_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_IN_DIGITS = re.compile(r"(\d{1,2})\D(\d{1,2})\D(?:\d\d|\d{4})")
_NAMED = r'(?:[\w-]+: )?"?{}"?\s*(?:$|[,<|(])'
_DIGITS = re.compile(r"\d+")
_SPACE = re.compile("[ \u00a0\u202f]")


@record(frozen=True)
class TaughtAnswer:
    """What a person decided on a document, as far as they looked at it, and what it offered."""

    id: str
    answer: Mapping[str, Any]
    fields: frozenset[str]
    """The fields that they looked at; the others are the reading of a rule."""
    constants: frozenset[str]
    """Fields of a few values, which stand nowhere: kinds, currencies."""
    packed: str

    @cached_property
    def offers(self) -> Offers:
        return Offers.unpack(self.packed)

    @cached_property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Fields and cells of what it calls by name: its sender."""
        found = list[tuple[str, str]]()
        for field, value in sorted(self.answer.items()):
            is_text = isinstance(value, str) and field not in self.constants
            if is_text and len(value) > 2 and not any(map(str.isdigit, value)):
                form = re.compile(_NAMED.format(re.escape(name_of(value))))
                cells = sorted({name for name in self.offers.names if form.match(name)})
                found += [(field, cell) for cell in cells]
        return tuple(found)


@record(frozen=True, slots=True)
class FieldReading:
    """The value of a field that a rule reads, why, and where."""

    value: Any
    rules: tuple[str, ...]
    """Ids of the decisions that it rests on."""
    label: str = ""
    """What governs its place; empty: it is the same in all documents of this sender and layout."""


@record(frozen=True, slots=True)
class _Form:
    """How a field's values are written, as far as decisions show it."""

    of: type
    marks: frozenset[str] = _MARKS
    """What may be the decimal mark."""
    orders: frozenset[str] = _ORDERS
    shapes: frozenset[str] = frozenset()
    is_whole: bool = False
    """Whether all numbers were whole."""

    def read(self, written: str) -> Any:
        """Return the value of what is written; None: it has another form, or two values."""
        if self.of is float:
            found = {_amount(written, mark) for mark in self.marks}
            amount = found.pop() if len(found) == 1 else None
            if amount is None or (self.is_whole and amount % 1):
                return None
            return int(amount) if self.is_whole else float(amount)
        if self.of is datetime.date:
            days = {day for day, orders in _days(written).items() if orders & self.orders}
            return days.pop() if len(days) == 1 else None
        return written if _DIGITS.sub("9", written) in self.shapes else None


def _form_of(value: Any, written: str) -> _Form | None:
    """Return the form in which a value is written there; None: it is not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        marks = frozenset(m for m in _MARKS if _amount(written, m) == Decimal(repr(value)))
        return _Form(float, marks, is_whole=isinstance(value, int)) if marks else None
    if not isinstance(value, str):
        return None
    if _ISO_DAY.fullmatch(value):
        orders = _days(written).get(value, frozenset())
        return _Form(datetime.date, orders=orders) if orders else None
    return _Form(str, shapes=frozenset([_DIGITS.sub("9", written)])) if written == value else None


def _common(forms: Sequence[_Form]) -> _Form:
    return _Form(
        forms[0].of,
        frozenset.intersection(*(form.marks for form in forms)),
        frozenset.intersection(*(form.orders for form in forms)),
        frozenset().union(*(form.shapes for form in forms)),
        all(form.is_whole for form in forms),
    )


@lru_cache(maxsize=8192)
def _amount(written: str, mark: str) -> Decimal | None:
    digits = written.removeprefix("-")
    amount = amount_of(_SPACE.sub("\u00a0", digits), mark) if digits[:1].isdigit() else None
    return None if amount is None else -amount if written != digits else amount


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


# --- anchors


def _under(offers: Offers, anchor: Anchor) -> list[OfferedValue]:
    return [value for value in offers.values if value.anchor == anchor]


def _only(offers: Offers, anchor: Anchor, form: _Form) -> OfferedValue | None:
    """Return the value under an anchor; None: there is none, or it is not the only one."""
    under = _under(offers, anchor)
    found = {str(read): v for v in under if (read := form.read(v.written)) is not None}
    return next(iter(found.values())) if len(found) == 1 else None


def _candidates(taught: TaughtAnswer, value: Any) -> dict[Anchor, _Form]:
    """Return the anchors which lead to a decided value alone in its document, and its form there.

    Those in sentences count only where there are no others.
    """
    found = dict[Anchor, _Form]()
    for offered in taught.offers.values:
        form = _form_of(value, offered.written)
        if form is None or not offered.label:
            continue
        others = _under(taught.offers, offered.anchor)
        values = (o.written for o in others if form.read(o.written) is not None)
        if all(_form_of(value, written) is not None for written in values):
            was = found.get(offered.anchor)
            found[offered.anchor] = form if was is None else _common([was, form])
    labels = {anchor: form for anchor, form in found.items() if anchor[0] != "prose"}
    return labels or found


@record(frozen=True, slots=True)
class _FieldRule:
    anchors: frozenset[Anchor]
    """All of them have to lead to the value."""
    form: _Form
    known: Mapping[Anchor, frozenset[str]]
    """The labels that stood in the block of each anchor."""
    ids: tuple[str, ...]

    def read(self, offers: Offers) -> FieldReading | None:
        values = list[OfferedValue]()
        for anchor in sorted(self.anchors):
            value = _only(offers, anchor, self.form)
            if value is None or not self._is_known_place(offers, value):
                return None
            values.append(value)
        read = {canonical_json(self.form.read(value.written)) for value in values}
        if len(read) != 1:
            return None
        return FieldReading(self.form.read(values[0].written), self.ids, values[0].label)

    def _is_known_place(self, offers: Offers, value: OfferedValue) -> bool:
        new = offers.blocks[value.block] - self.known[value.anchor]
        return not new or (self.form.of is float and _is_sum(offers, value, new, self.form))


def _is_sum(offers: Offers, value: OfferedValue, new: frozenset[str], form: _Form) -> bool:
    """Return whether an amount is the sum of those before it, and all new labels stand there."""
    in_block = sorted((v for v in offers.values if v.block == value.block), key=attrgetter("start"))
    if any(v.label in new for v in in_block if v.start >= value.start):
        return False
    before = [(v.start, form.read(v.written)) for v in in_block if v.start < value.start]
    by_place = {start: Decimal(repr(read)) for start, read in before if read is not None}
    terms = [*by_place.values()]
    total = Decimal(repr(form.read(value.written)))
    return any(
        sum(terms[-n:]) == total
        and new <= {v.label for v in in_block if v.start in [*by_place][-n:]}
        for n in range(2, len(terms) + 1)
    )


# --- rules of a sender's layout


class NoRule(Enum):
    """Why a decision makes no rule; the value is its sentence."""

    TOGETHER = "accepted together with others: no one looked at it"
    GONE = "its document is deleted"
    NO_OFFERS = "its step does not ask `when: unsure`, or OCR or several documents were read"
    NO_SENDER = "no name that was decided stands in a cell of its own, so the sender is not known"
    DIFFERENT = "decisions on this sender and layout differ in a field that is always the same"


@record(frozen=True)
class _SenderLayout:
    """The decisions on documents of one sender and layout, and what they teach."""

    decisions: tuple[TaughtAnswer, ...]

    @cached_property
    def constants(self) -> Mapping[str, Any] | None:
        """What is the same in all of them; None: they differ, so that nothing is known."""
        found = dict[str, Any]()
        for taught in self.decisions:
            named = {field for field, _ in taught.names}
            for field in (named | taught.constants) & taught.answer.keys():
                value = taught.answer[field]
                if found.setdefault(field, value) != value:
                    return None
        return found

    @cached_property
    def taught_constants(self) -> Mapping[str, tuple[str, ...]]:
        """Constant fields that a person looked at, and the ids of these decisions."""
        of = self.constants or ()
        ids = {f: tuple(t.id for t in self.decisions if f in t.fields) for f in of}
        return {field: some for field, some in ids.items() if some}

    @cached_property
    def empty(self) -> Mapping[str, tuple[frozenset[str], tuple[str, ...]]]:
        """Fields without a value in any of them, the labels of these documents, and their ids."""
        found = dict[str, tuple[frozenset[str], tuple[str, ...]]]()
        for name in {f for t in self.decisions for f in t.fields} - {*(self.constants or {})}:
            taught = [t for t in self.decisions if name in t.fields]
            if {canonical_json(t.answer.get(name)) for t in taught} in ({"null"}, {'""'}):
                labels = (block for t in taught for block in t.offers.blocks)
                found[name] = frozenset().union(*labels), tuple(t.id for t in taught)
        return found

    @cached_property
    def fields(self) -> Mapping[str, Sequence[_FieldRule]]:
        names = {f for t in self.decisions for f in t.fields} - {*(self.constants or {})}
        return {name: [*self._rules(name)] for name in sorted(names)}

    def _rules(self, field: str) -> Iterator[_FieldRule]:
        taught = [t for t in self.decisions if field in t.fields and field in t.answer]
        by_anchors = defaultdict[frozenset[Anchor], list[tuple[TaughtAnswer, _Form]]](list)
        for t in taught:
            candidates = _candidates(t, t.answer[field])
            if len({form.of for form in candidates.values()}) == 1:
                form = _common([*candidates.values()])
                by_anchors[frozenset(candidates)].append((t, form))
        seen = set[frozenset[Anchor]]()
        for anchors in by_anchors:
            alike = [other for other in by_anchors if other & anchors]
            core = frozenset.intersection(*alike)
            if not core or core in seen:
                continue
            seen.add(core)
            own = [pair for other in alike for pair in by_anchors[other]]
            known = {
                anchor: frozenset().union(
                    *(t.offers.blocks[v.block] for t, _ in own for v in _under(t.offers, anchor))
                )
                for anchor in core
            }
            ids = {t.id for t, _ in own}
            in_order = tuple(t.id for t in taught if t.id in ids)
            rule = _FieldRule(core, _common([form for _, form in own]), known, in_order)
            checked = ((rule.read(t.offers), canonical_json(t.answer[field])) for t in taught)
            if all(r is None or canonical_json(r.value) == value for r, value in checked):
                yield rule

    def shown(self) -> NoRule | Mapping[str, Any]:
        """Return the rules as JSON, by field, and the `open` fields, which no rule reads."""
        first, found = self.decisions[0], defaultdict[str, list[dict[str, Any]]](list)
        if not first.names or (constants := self.constants) is None:
            return NoRule.DIFFERENT if first.names else NoRule.NO_SENDER
        always = {f: (constants[f], ids) for f, ids in self.taught_constants.items()}
        always |= {f: (first.answer.get(f), ids) for f, (_, ids) in self.empty.items()}
        for field, (value, ids) in always.items():
            found[field].append({"label": None, "value": value, "decisions": ids})
        for field, rules in self.fields.items():
            for rule in rules:
                label = " / ".join(sorted({label for _, label in rule.anchors}))
                found[field].append({"label": label, "value": None, "decisions": rule.ids})
        rest = sorted({name for t in self.decisions for name in t.fields} - found.keys())
        sender, words = sorted({cell for _, cell in first.names}), sorted(first.offers.words)
        return {"sender": sender, "layout": words, "fields": found, "open": rest}


class Rules:
    def __init__(self, decisions: Iterable[TaughtAnswer]) -> None:
        """`decisions`: the oldest first; a reading names the first that it rests on."""
        by_key: dict[frozenset[str], dict[tuple[tuple[str, str], ...], list[TaughtAnswer]]] = {}
        for taught in decisions:
            of_words = by_key.setdefault(taught.offers.words, {})
            of_words.setdefault(taught.names, []).append(taught)
        self._layouts = {
            words: {names: _SenderLayout(tuple(some)) for names, some in senders.items()}
            for words, senders in by_key.items()
        }

    def shown(self) -> Iterator[tuple[list[str], NoRule | Mapping[str, Any]]]:
        """Yield the ids of the decisions on each sender and layout, and what these teach."""
        for senders in self._layouts.values():
            for layout in senders.values():
                yield [taught.id for taught in layout.decisions], layout.shown()

    def read(self, offers: Offers) -> dict[str, FieldReading]:
        """Return the fields of which a rule knows the value in a document."""
        senders = self._layouts.get(offers.words, {})
        cells = {*offers.names}
        of = [lay for names, lay in senders.items() if names and {c for _, c in names} <= cells]
        if len(of) != 1 or (constants := of[0].constants) is None:
            return {}
        ids_of = of[0].taught_constants
        found = {field: FieldReading(constants[field], ids) for field, ids in ids_of.items()}
        labels = frozenset().union(*offers.blocks)
        for field, (known, ids) in of[0].empty.items():
            if labels <= known:  # where nothing is new, nothing that it may be is
                found[field] = FieldReading(of[0].decisions[0].answer.get(field), ids)
        for field, rules in of[0].fields.items():
            readings = [reading for rule in rules if (reading := rule.read(offers)) is not None]
            if len({canonical_json(reading.value) for reading in readings}) == 1:
                found[field] = readings[0]
        return found
