"""Rules that decisions of people make, and what they read in a document. Pure; nothing is stored.

The key is who sent a document, and its layout: the cells with the names that a person confirmed,
and the words beside its values, but for remarks: lines that some decided documents have and others
lack, all else being equal. A line that is unlike all remarks so far opens what has no place: kind
and sender. So do a tick elsewhere, other words behind a label, if these were not others each time,
and a label that is new beside codes and days. Within the key a rule of a field says which labels
govern its value, and how that is read. It reads nothing, and the field is open,

1. where no decision, or decisions on two senders, have this key, or they differ in a constant, or
   the text names a choice of it that no such document named;
2. where one of its labels governs two values or is missing, unless it is nowhere, and the value is
   the sum of what stands before it, and the largest;
3. where a label is new in the block of the value, unless the value is the sum of what stands before
   it, and the new label does, too;
4. where what is written there has another form, or could be read in two ways; what stands around a
   number in its row is a part of its form, but for currencies and a minus before it;
5. where it would not give what was decided on any document so far: there it is gone.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import canonical_json
from paddock.pipelines.checking.numbers import amount_of
from paddock.pipelines.checking.source_index import SourceIndex

from .document_offers import WITH_CENTS, OfferedValue, Offers, is_currency, name_of
from .reasons import NoRule, WhyOpen

Anchor = tuple[str, str]
"""How a label governs a value, and its words."""
_MARKS = frozenset((".", ","))
_PLAIN = frozenset([("", False)])
_ORDERS = frozenset(("day first", "month first"))
_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_IN_DIGITS = re.compile(r"(\d{1,2})\D(\d{1,2})\D(?:\d\d|\d{4})")
_NEGATIVE = re.compile("\\(0|0[-\u2212\u2013]")
_PLAIN_NUMBER = re.compile(r"-?\d{1,6}(?:[.,]\d\d)?")
_BEFORE_NAME, _BEHIND_NAME = re.compile(r'(?:[\w-]+: )?"?'), re.compile(r'"?\s*(?:$|[,<|(])')
_NAMED = f"{_BEFORE_NAME.pattern}{{}}{_BEHIND_NAME.pattern}"
_LOST = r"(?:{}|\s?[^\w\s]\s?)"  # a letter that a page's font lacks stands as a box
_DIGITS, _NO_DIGITS = re.compile(r"\d+"), re.compile(r"\D+")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_SPACE = re.compile("[ \u00a0\u202f]")
_REASONS = [*WhyOpen].index
_N_FREE = 3  # of so many words in a place of papers of one kind, most others, none tells the kind


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
        kinds = (name for name in self.constants if not _is_currency_value(self.answer.get(name)))
        return self.fields.issuperset(kinds)

    @cached_property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Fields and cells of what it calls by name: its sender."""
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


class DocumentReadings(Struct, frozen=True):
    """The fields of a document that are sure, and why the others are open."""

    sure: Mapping[str, FieldReading]
    why: Mapping[str, WhyOpen]
    otherwise: WhyOpen
    """Why a field is open that is in neither."""

    def why_open(self, field: str) -> WhyOpen:
        return self.why.get(field, self.otherwise)


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


def _forms(value: Any, offered: Sequence[OfferedValue]) -> dict[OfferedValue, ValueForm]:
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


def _common(forms: Sequence[ValueForm]) -> ValueForm:
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


# --- anchors


def _only(offers: Offers, anchor: Anchor, form: ValueForm) -> OfferedValue | WhyOpen:
    """Return the value under an anchor, if it is the only one, else why none is read."""
    of_form = (v for v in offers.by_anchor.get(anchor, ()) if form.size(v) is not None)
    found = {form.read(v): v for v in of_form}
    if None in found:
        return WhyOpen.NEW_AROUND
    return next(iter(found.values())) if len(found) == 1 else WhyOpen.NO_VALUE


def _candidates(taught: TaughtAnswer, field: str) -> dict[Anchor, ValueForm]:
    """Return the anchors which lead to a decided value alone in its document, and its form there.

    Where a person clicked on it, those of that place; those in sentences count only where there
    are no others.
    """
    found, place = dict[Anchor, ValueForm](), taught.places.get(field)
    forms = _forms(taught.answer[field], taught.offers.values)
    here = (o for o in forms if place is None or (o.start < place[1] and place[0] < o.end))
    for anchor in {o.anchor for o in here if o.label}:
        under = taught.offers.by_anchor[anchor]
        own, others = (forms[o] for o in under if o in forms), [o for o in under if o not in forms]
        if sure := [form for form in own if all(form.size(o) is None for o in others)]:
            found[anchor] = _common(sure)
    labels = {anchor: form for anchor, form in found.items() if anchor[0] != "prose"}
    return labels or found


class FieldRule(Struct, frozen=True):
    anchors: frozenset[Anchor]
    """All of them have to lead to the value; one whose label is nowhere may be missed by a sum."""
    form: ValueForm
    known: Mapping[Anchor, frozenset[str]]
    """The labels that stood in the block of each anchor."""
    ids: tuple[str, ...]

    def read(self, offers: Offers) -> FieldReading | WhyOpen:
        values, n_missing = dict[Any, OfferedValue](), 0
        only = {anchor: _only(offers, anchor, self.form) for anchor in sorted(self.anchors)}
        if WhyOpen.NEW_AROUND in only.values():
            return WhyOpen.NEW_AROUND
        for anchor, value in only.items():
            if isinstance(value, WhyOpen):
                n_missing += 1
                if self.form.of is not float or anchor in offers.by_anchor:
                    return value
            elif not self._is_known_place(offers, value):
                return WhyOpen.NEW_LABEL
            else:
                values.setdefault(self.form.read(value), value)
        if len(values) > 1:
            return WhyOpen.TWO_READINGS
        for read, value in values.items():
            if not n_missing or _is_whole_sum(offers, value, self.form):
                return FieldReading(read, self.ids, value.label)
        return WhyOpen.NO_VALUE

    def _is_known_place(self, offers: Offers, value: OfferedValue) -> bool:
        new = offers.blocks[value.block] - self.known[value.anchor]
        return not new or (self.form.of is float and _is_sum(offers, value, new, self.form))


def _is_whole_sum(offers: Offers, value: OfferedValue, form: ValueForm) -> bool:
    """Return whether an amount is the sum of those before it, and no other one is larger."""
    most = max(size for v in offers.values if (size := form.size(v)) is not None)
    return abs(form.read(value)) == most and _is_sum(offers, value, frozenset(), form)


def _is_sum(offers: Offers, value: OfferedValue, new: frozenset[str], form: ValueForm) -> bool:
    """Return whether an amount is the sum of those before it, and all new labels stand there."""
    in_block = sorted((v for v in offers.values if v.block == value.block), key=attrgetter("start"))
    if any(v.label in new for v in in_block if v.start >= value.start):
        return False
    by_place = dict[int, Decimal]()
    for v in in_block:
        if v.start < value.start:
            if (read := form.read(v)) is not None:
                by_place[v.start] = Decimal(repr(read))
            elif form.size(v) is not None:  # its sign is open: no sum with it is right
                by_place.setdefault(v.start, Decimal("NaN"))
    terms = [*by_place.values()]
    total = Decimal(repr(form.read(value)))
    return any(
        sum(terms[-n:]) == total
        and new <= {v.label for v in in_block if v.start in [*by_place][-n:]}
        for n in range(2, len(terms) + 1)
    )


# --- rules of a sender's layout


class SenderLayout(Struct, frozen=True, dict=True):
    """The decisions on documents of one sender and layout, and what they teach."""

    decisions: tuple[TaughtAnswer, ...]
    words: frozenset[str]
    """Those in all of the documents."""
    remarks: frozenset[str] = frozenset()
    """Lines that only some have, though a person found kind and sender alike."""
    is_mixed: bool = False
    """Whether the same lines stood in papers of other constants: what is behind labels tells."""

    def difference(self, offers: Offers) -> frozenset[str] | None:
        """Return the lines in which a document differs, remarks apart; None: too much differs.

        That is more than a line, a sign, or a line that names a label, whose meaning it may tell.
        """
        new, heads = offers.words - self.words - self.remarks, self._heads
        new = frozenset(line for line in new if _head(line) not in heads)
        missing = self.words - offers.words
        pairs, begins = offers.pairs, {*map(_head, new | missing)}
        other = {la for la, known in self._pairs.items() if {*pairs.get(la, [""])} - known}
        changed = new | missing | self._alone(offers) | other
        is_other = new and missing and (len(begins) > 1 or "" in begins)
        if max(len(new), len(missing)) > 1 or is_other:
            return None
        labels = {f" {label} " for block in offers.blocks for label in block if label}
        lines = new | missing
        if any(line[0] == "¤" or any(la in f" {line} " for la in labels) for line in lines):
            return None
        return changed

    @cached_property
    def _pairs(self) -> Mapping[str, frozenset[str]]:
        """By label, the words behind it, empty for none, if not others nearly each time."""
        of_each, found = [t.offers.pairs for t in self.decisions], dict[str, frozenset[str]]()
        for label in self.words.union(*of_each):
            ways = {frozenset(pairs.get(label, [""])) for pairs in of_each}
            is_free = len(ways) >= _N_FREE and 2 * len(ways) > len(of_each)
            if self.is_mixed or (label and not is_free):
                found[label] = frozenset().union(*ways)
        return found

    @cached_property
    def labels(self) -> frozenset[str]:
        return frozenset().union(*(b for taught in self.decisions for b in taught.offers.blocks))

    def _alone(self, offers: Offers) -> frozenset[str]:
        """Return new labels in a block without amounts, `Refund of: RE-101`, or known labels."""
        prose = {v.block for v in offers.values if v.how == "prose"}
        sums = {v.block for v in offers.values if WITH_CENTS.fullmatch(v.written.lstrip("-"))}
        blocks = [(n in sums, b) for n, b in enumerate(offers.blocks) if n not in prose]
        new = (b for is_sum, b in blocks if not is_sum or not b & self.labels)
        return frozenset().union(*new) - self.labels - {""}

    @cached_property
    def _heads(self) -> frozenset[str]:
        """How remarks begin, of which there are several."""
        n_of = Counter(filter(None, map(_head, self.remarks)))
        return frozenset(head for head, n in n_of.items() if n >= _N_FREE)

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

    def knows_currencies(self, named: Sequence[str] | None) -> bool:
        """Return whether a decided paper named these alone; or it is not known what they named."""
        known = [t.offers.currencies for t in self.decisions]
        decided = [[value] for value in (self.constants or {}).values()]
        return named is None or None in known or named in known or named in decided

    @cached_property
    def named(self) -> Mapping[str, Set[str]]:
        """The choices of constant fields that are named in decided documents, and the decided."""
        return {
            field: {str(value)}.union(*(t.offers.named.get(field, ()) for t in self.decisions))
            for field, value in (self.constants or {}).items()
        }

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
    def fields(self) -> Mapping[str, Sequence[FieldRule]]:
        names = {f for t in self.decisions for f in t.fields} - {*(self.constants or {})}
        return {name: [*self._rules(name)] for name in sorted(names)}

    def _rules(self, field: str) -> Iterator[FieldRule]:
        taught = [t for t in self.decisions if field in t.fields and field in t.answer]
        by_anchors = defaultdict[frozenset[Anchor], list[tuple[TaughtAnswer, ValueForm]]](list)
        for t in taught:
            candidates = _candidates(t, field)
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
                    *(t.offers.blocks[v.block] for t, _ in own for v in t.offers.by_anchor[anchor])
                )
                for anchor in core
            }
            ids = {t.id for t, _ in own}
            in_order = tuple(t.id for t in taught if t.id in ids)
            rule = FieldRule(core, _common([form for _, form in own]), known, in_order)
            checked = ((rule.read(t.offers), t.answer[field]) for t in taught)
            if all(isinstance(r, WhyOpen) or r.value == value for r, value in checked):
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
        sender = sorted({cell for _, cell in first.names})
        words = sorted(word.replace("¤", "amounts in ") for word in self.words)
        words += sorted(f"{la}: {w}" for la, some in self._pairs.items() for w in some if la and w)
        fields = {name: found[name] for name in [*first.answer, *found] if name in found}
        return {"sender": sender, "layout": words, "fields": fields, "open": rest}


def _head(line: str) -> str:
    """Return how a line begins: two words; empty: it has no more."""
    first, _, rest = line.partition(" ")
    second, _, third = rest.partition(" ")
    return f"{first} {second}" if third else ""


def _is_currency_value(value: Any) -> bool:
    return isinstance(value, str) and is_currency(value)


def _layouts(taught: Sequence[TaughtAnswer]) -> Iterator[SenderLayout]:
    """Yield the layouts of one sender: decisions on the same words, and on words but for remarks.

    Those with other constants are never one: a new line may tell the kind, or words behind a label,
    if nothing else differs. Nor does one teach a remark on which no one looked at the kind.
    """
    by_words: dict[frozenset[str], list[TaughtAnswer]] = {}
    for answer in taught:
        by_words.setdefault(answer.offers.words, []).append(answer)
    groups = defaultdict[str, list[SenderLayout]](list)
    for words, some in by_words.items():
        parts = defaultdict[str, list[TaughtAnswer]](list)
        for t in some:
            parts[canonical_json(SenderLayout((t,), words).constants)].append(t)
        ways = [way for p in parts.values() for way in {canonical_json(t.offers.pairs) for t in p}]
        if len(ways) > len({*ways}):
            yield SenderLayout(tuple(some), words)
            continue
        for constants, part in parts.items():
            groups[constants].append(SenderLayout(tuple(part), words, is_mixed=len(parts) > 1))
    for group in groups.values():
        yield from _joined(group)


def _joined(group: Sequence[SenderLayout]) -> Iterator[SenderLayout]:
    found = list[SenderLayout]()
    looked_at = {lay.words: lay for lay in group if any(t.has_seen_kind for t in lay.decisions)}
    for alike in _but_for_a_line(looked_at):
        core, layouts = frozenset.intersection(*alike), [looked_at[words] for words in alike]
        decisions = tuple(taught for layout in layouts for taught in layout.decisions)
        remarks, is_mixed = frozenset().union(*alike) - core, any(la.is_mixed for la in layouts)
        found.append(SenderLayout(decisions, core, remarks, is_mixed))
    known = [*found]  # in any order of decisions the same
    for own in (layout for layout in group if layout.words not in looked_at):
        offered = [t.offers for t in own.decisions]
        near = [n for n, lay in enumerate(known) if None not in map(lay.difference, offered)]
        if len(near) == 1:
            layout = found[near[0]]
            found[near[0]] = replace(layout, decisions=(*layout.decisions, *own.decisions))
        else:
            found.append(own)
    yield from found


def _but_for_a_line(layouts: Iterable[frozenset[str]]) -> Iterable[list[frozenset[str]]]:
    """Return the layouts that are joined by steps of one line more, less, or that begins alike."""
    by_rest = defaultdict[frozenset[str], dict[frozenset[str], str]](dict)
    joined = {words: [words] for words in layouts}
    for words in joined:
        by_rest[words][words] = ""
        for line in words:
            if line[0] != "¤":
                by_rest[words - {line}][words] = _head(line)
    for rest, alike in by_rest.items():
        first = dict[str, frozenset[str]]()
        for words, head in alike.items():
            key = "" if rest in alike else head or " ".join(sorted(words))
            other = joined[first.setdefault(key, words)]
            if other is not joined[words]:
                other += joined[words]
                joined.update(dict.fromkeys(joined[words], other))
    return {id(some): some for some in joined.values()}.values()


class Rules:
    def __init__(self, decisions: Iterable[TaughtAnswer]) -> None:
        """`decisions`: the oldest first; a reading names the first that it rests on."""
        by_names: dict[tuple[tuple[str, str], ...], list[TaughtAnswer]] = {}
        for taught in decisions:
            by_names.setdefault(taught.names, []).append(taught)
        self._layouts = {names: [*_layouts(some)] for names, some in by_names.items()}
        self._named_by = defaultdict[str, list[tuple[tuple[str, str], ...]]](list)
        for names in filter(None, by_names):
            self._named_by[names[0][1]].append(names)
        self._unnamed = {t.offers.words for t in by_names.get((), ())}
        self._refuted = {
            (t.offers.seller, field)
            for some in by_names.values()
            for t in some
            for field in t.fields & t.offers.stated.keys()
            if t.answer.get(field) != t.offers.stated[field]
        }
        """Sellers and fields that a person decided otherwise than an e-invoice states them."""
        self._accounts = {
            names: {account for t in some for account in t.offers.accounts}
            for names, some in by_names.items()
        }

    @property
    def layouts(self) -> list[SenderLayout]:
        return [layout for some in self._layouts.values() for layout in some]

    def read(self, offers: Offers) -> DocumentReadings:
        """Read what rules and an e-invoice know, if not both otherwise.

        A sender with an account that no decision on them has is asked about, and so is the account.
        """
        found, why, otherwise = self._read_by_rules(offers)
        for field, value in offers.stated.items():
            if (offers.seller, field) in self._refuted:
                why.setdefault(field, WhyOpen.DECIDED_OTHERWISE)
            elif found.get(field, FieldReading(value)).value == value:
                found[field] = FieldReading(value)
            else:
                del found[field]
                why[field] = WhyOpen.TWO_READINGS
        for names in self._senders({*offers.names, offers.seller}):
            if not self._accounts[names].issuperset(offers.accounts):
                texts = {field: _SPACE.sub("", str(r.value)) for field, r in found.items()}
                of_account = {field for field, text in texts.items() if text in offers.accounts}
                for field in {*of_account, *(field for field, _ in names)}:
                    found.pop(field, None)
                    why[field] = WhyOpen.OTHER_ACCOUNT
        return DocumentReadings(found, why, otherwise)

    def _senders(self, cells: Set[str]) -> Iterator[tuple[tuple[str, str], ...]]:
        """Yield the names of each sender all of whose cells are there."""
        for cell in cells:
            for names in self._named_by.get(cell, ()):
                if {c for _, c in names} <= cells:
                    yield names

    def _read_by_rules(
        self, offers: Offers
    ) -> tuple[dict[str, FieldReading], dict[str, WhyOpen], WhyOpen]:
        """Return the fields of which a rule knows the value, why others are open, and the rest."""
        if offers.unread is not None:
            return {}, {}, offers.unread
        senders = self._senders({*offers.names})
        layouts = [layout for names in senders for layout in self._layouts[names]]
        near = [(c, lay) for lay in layouts if (c := lay.difference(offers)) is not None]
        same = [(changed, layout) for changed, layout in near if not changed]
        fitting = same or ([] if offers.words in self._unnamed else near)
        if len(fitting) != 1:
            new = WhyOpen.NEW_LAYOUT if layouts else WhyOpen.NEW_SENDER
            return {}, {}, WhyOpen.SEVERAL_FIT if fitting else new
        changed, layout = fitting[0]
        if (constants := layout.constants) is None:
            return {}, {}, WhyOpen.DIFFERENT
        labels = frozenset().union(*offers.blocks)
        fields, places = filter(None, layout.fields.values()), offers.by_anchor.keys()
        if any(all(rule.anchors - places for rule in rules) for rules in fields):
            changed |= labels - layout.labels  # one stands instead of another: `Credit note no.`
        signs = [word for word in offers.words if word[0] == "¤"]
        found, why = dict[str, FieldReading](), dict.fromkeys(constants, WhyOpen.NEW_LINE)
        for field, ids in layout.taught_constants.items():
            is_money = _is_currency_value(constants[field])
            is_other = is_money and not layout.knows_currencies(offers.currencies)
            if is_other or {*offers.named.get(field, ())} - layout.named[field]:
                why[field] = WhyOpen.OTHER_NAMED
            elif not changed or (signs and is_money):
                found[field] = FieldReading(constants[field], ids)
        for field, (known, ids) in layout.empty.items():
            why[field] = WhyOpen.NEW_LABEL
            if labels <= known and not changed:  # else something new may be its value
                found[field] = FieldReading(layout.decisions[0].answer.get(field), ids)
        for field, rules in layout.fields.items():
            readings = [rule.read(offers) for rule in rules]
            sure = [reading for reading in readings if isinstance(reading, FieldReading)]
            if len({canonical_json(reading.value) for reading in sure}) == 1:
                found[field] = sure[0]
            elif sure:
                why[field] = WhyOpen.TWO_READINGS
            elif readings:  # in any order of decisions the same one of several reasons
                why[field] = max((r for r in readings if isinstance(r, WhyOpen)), key=_REASONS)
        return found, why, WhyOpen.NO_PLACE
