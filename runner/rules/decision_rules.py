"""Rules that decisions of people make, and what they read in a document. Pure; nothing is stored.

A paper's sender is known by the cells with the names that a person confirmed. Its layouts say what
each part of a paper is: what stood there in decided papers, the place of a field's value, what was
other words each time, rows of items, amounts that a sum explains. A field is read

1. where nothing that may tell it is left over, by any layout that explains the paper as well;
2. where its value stands in its places alike, in a form that decisions show, and no decided paper
   has another value there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from itertools import groupby
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import canonical_json

from .alignment import (
    Explanation,
    LayoutPlace,
    PaperPart,
    add_paper,
    aligned,
    explained,
    is_sum_of_others,
)
from .cell_values import MARKERS, key_of, name_of, values_in
from .field_rules import (
    Mark,
    SenderNames,
    TaughtAnswer,
    ValueForm,
    ValuePlace,
    common_form,
    form_of,
    label_before,
    places_of_value,
)
from .offers import Offers
from .readings import Reading
from .reasons import NoRule, WhyOpen

_Paper = tuple[TaughtAnswer, Sequence[PaperPart]]
_SHOWN = {ord(marker): "\u2026" for marker in MARKERS.values()}
_LEAST_EXPLAINED = 0.5  # of a paper's parts; of fewer, it is of another layout
_MOST_LEFT = 3  # parts; where more are left over, codes are open as well
_LEAST_ALIKE = 0.5  # of the parts of papers of one layout


class LeftOver(Struct, frozen=True):
    """A part of a paper that no decided one explains, or one that is missing."""

    text: str
    start: int
    """Its offsets in the document; -1: it is missing."""
    end: int
    key: str
    fields: tuple[str, ...]
    """What it may tell."""


class DocumentReadings(Struct, frozen=True):
    """The fields of a document that are sure, and why the others are open."""

    sure: Mapping[str, Reading]
    why: Mapping[str, WhyOpen]
    otherwise: WhyOpen
    """Why a field is open that is in neither."""
    proposed: Mapping[str, Reading] = {}
    """What was read of fields that are open all the same."""
    left_over: tuple[LeftOver, ...] = ()

    def why_open(self, field: str) -> WhyOpen:
        return self.why.get(field, self.otherwise)


class FieldRule(Struct, frozen=True):
    """Where the value of a field stands in a layout, and how it is written there."""

    places: tuple[ValuePlace, ...]
    form: ValueForm
    ids: tuple[str, ...]
    is_sum: bool = False
    """Whether it was the sum of other amounts each time."""


class SenderLayout(Struct, dict=True):
    """The decisions on papers of one sender and layout, and what they teach."""

    decisions: list[TaughtAnswer]
    parts: list[Sequence[PaperPart]]
    """Of each of their papers, in the same order."""
    places: list[LayoutPlace]
    stands: list[list[LayoutPlace]]
    """Of each paper, the place of each part; one list for all with the same parts."""
    not_free: set[int]
    """Places whose other words tell another kind, or currency."""

    def accepts(self, decided: TaughtAnswer, parts: Sequence[PaperPart]) -> bool:
        """Return whether a paper is like them, and its values stand in their places."""
        keys, least = [part.key for part in parts], len(self.decisions)
        stands = {p: n for n, p in aligned(keys, [place.variants for place in self.places])}
        required = sum(len(place.papers) == least for place in self.places)
        if len(stands) < _LEAST_ALIKE * max(len(keys), required):
            return False
        for field in self.fields.keys() & decided.fields:
            lines = [
                (at, parts[n].lines[0])
                for at in self.fields[field].places
                if (n := stands.get(at.place)) is not None
            ]
            value = decided.answer.get(field)
            if not any(form_of(value, at.written(line) or "", line.key) for at, line in lines):
                return False
        nowhere = ({*self._taught_fields} - self.fields.keys()) & decided.fields
        return not any(
            [*places_of_value(decided.answer.get(field), line, 0, None)]
            for field in nowhere
            for part in parts
            for line in part.lines
        )

    def add(self, papers: Sequence[_Paper]) -> None:
        """Add papers with the same parts."""
        first = len(self.parts)
        stands = add_paper(self.places, papers[0][1], range(first, first + len(papers)))
        self.stands += [stands] * len(papers)
        self.decisions += [decided for decided, _ in papers]
        self.parts += [parts for _, parts in papers]
        self.__dict__.clear()

    # --- what they teach

    @cached_property
    def number_of(self) -> Mapping[int, int]:
        return {id(place): number for number, place in enumerate(self.places)}

    @cached_property
    def constants(self) -> Mapping[str, Any]:
        """What is the same in all of them, or nothing in all."""
        found = dict[str, Any]()
        for taught in self.decisions:
            found |= constants_of(taught)
        return found

    @cached_property
    def sender_at(self) -> Set[int]:
        """The places with the sender's name."""
        named = {cell for taught in self.decisions for _, cell in taught.names}
        lists = {id(stands): n for n, stands in enumerate(self.stands)}
        return {
            number
            for n in lists.values()
            for number, part in self._by_place(n)
            if name_of(part.lines[0].text) in named
        }

    @cached_property
    def taught_constants(self) -> Mapping[str, tuple[str, ...]]:
        """Constant fields that a person looked at, and the ids of these decisions."""
        ids = {f: tuple(t.id for t in self.decisions if f in t.fields) for f in self.constants}
        return {field: some for field, some in ids.items() if some}

    @cached_property
    def _taught_fields(self) -> list[str]:
        return sorted({f for t in self.decisions for f in t.fields} - {*self.constants})

    @cached_property
    def marks(self) -> Mapping[str, Mark]:
        return {key: mark for taught in self.decisions for key, mark in taught.marks.items()}

    @cached_property
    def remarks(self) -> Sequence[str]:
        """The keys of lines of several words that some of these papers have, and others not.

        None where a field has no place, as a line may be why.
        """
        if {*self._taught_fields} - self.fields.keys():
            return []
        n_papers = len(self.decisions)
        some = {n for n, place in enumerate(self.places) if place.is_optional(n_papers)}
        ways = [{at.place for at in rule.places} for rule in self.fields.values()]
        some -= {n for way in ways if way <= some for n in way}  # no other place has its value
        return [key for n in some for key in self.places[n].variants if len(key.split()) > 2]

    @cached_property
    def value_keys(self) -> Set[str]:
        """The keys of lines with the value of a field that stands nowhere else."""
        only = (rule.places[0].place for rule in self.fields.values() if len(rule.places) == 1)
        return {key for n in only for key in self.places[n].variants}

    @cached_property
    def fields(self) -> dict[str, FieldRule]:
        found = ((name, self._rule(name)) for name in self._taught_fields)
        return {name: rule for name, rule in found if rule is not None}

    def _rule(self, field: str) -> FieldRule | None:
        """Return where a field stands, wherever it does not stand elsewhere in a decided paper."""
        taught = [
            (n, t) for n, t in enumerate(self.decisions) if field in t.fields and field in t.answer
        ]
        at, seen = dict[ValuePlace, None](), set[int]()
        for n, t in taught:
            if id(self.stands[n]) in seen and field not in t.places:
                continue  # what stands wherever it is decided stands in the first of those alike
            seen.add(id(self.stands[n]))
            clicked = t.places.get(field)
            at |= dict.fromkeys(
                place
                for number, part in self._by_place(n)
                if len(part.lines) == 1
                for place in places_of_value(t.answer[field], part.lines[0], number, clicked)
            )
        kept, forms = list[ValuePlace](), list[ValueForm]()
        for place in at:
            own = [
                form_of(t.answer[field], place.written(part.lines[0]) or "", part.key)
                for n, t in taught
                if (part := self._part_at(n, place.place)) is not None
            ]
            if None not in own:
                kept.append(place)
                forms += (form for form in own if form is not None)
        if not kept or len({form.of for form in forms}) != 1:
            return None
        is_sum = forms[0].of is float and all(
            is_sum_of_others(t.answer[field], self.parts[n]) for n, t in taught
        )
        return FieldRule(tuple(kept), common_form(forms), tuple(t.id for _, t in taught), is_sum)

    def borrow(self, others: Sequence[SenderLayout]) -> None:
        """Take rules of fields that no one looked at here from others with lines alike."""
        names = {name for taught in self.decisions for name in taught.answer}
        for field in names - {*self._taught_fields} - self.constants.keys():
            for other in others:
                if (rule := other.fields.get(field)) is not None:
                    at = [
                        replace(own, place=n)
                        for own in rule.places
                        for n, place in enumerate(self.places)
                        if place.variants.keys() & other.places[own.place].variants.keys()
                    ]
                    if at and all(
                        rule.form.read(own.written(line) or "", line.key) == taught.answer[field]
                        for n, taught in enumerate(self.decisions)
                        for own in at
                        if (part := self._part_at(n, own.place)) is not None
                        for line in part.lines[:1]
                    ):
                        self.fields[field] = replace(rule, places=tuple(at))
                        break

    def _by_place(self, paper: int) -> Iterator[tuple[int, PaperPart]]:
        pairs = zip(self.stands[paper], self.parts[paper], strict=True)
        return ((self.number_of[id(place)], part) for place, part in pairs)

    def _part_at(self, paper: int, place: int) -> PaperPart | None:
        n = self._parts_of_places[id(self.stands[paper])].get(place)
        return None if n is None else self.parts[paper][n]

    @cached_property
    def _parts_of_places(self) -> Mapping[int, Mapping[int, int]]:
        lists = {id(stands): stands for stands in self.stands}
        return {
            id_: {self.number_of[id(place)]: n for n, place in enumerate(stands)}
            for id_, stands in lists.items()
        }

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """How lines with the values of fields begin: no article is called so."""
        keys = (key for n in self.fixed for key in self.places[n].variants)
        begin = (re.split(f"[{''.join(MARKERS.values())}]", key)[0].rstrip(" :.") for key in keys)
        return tuple(sorted({f"{words} " for words in begin if words}))

    @cached_property
    def fixed(self) -> Set[int]:
        """Places with a decided value: no other words are free there."""
        return {at.place for rule in self.fields.values() for at in rule.places} | self.not_free

    # --- what is read in a document

    def explain(self, parts: Sequence[PaperPart], remarks: Remarks | None = None) -> Explanation:
        marks = self.marks
        found = explained(
            parts,
            self.places,
            len(self.decisions),
            self.fixed,
            lambda key: marks.get(key) == "never" or (remarks is not None and remarks.has(key)),
            {key for key, mark in marks.items() if mark == "always"},
        )
        found.new += [
            n
            for n in {*found.stands.values()} - {*found.new}
            if parts[n].is_items and any(ln.key.startswith(self.labels) for ln in parts[n].lines)
        ]
        return found

    def n_absent(self, how: Explanation) -> int:
        """Return at how many places nothing stands where each decided paper has a sentence."""
        n_papers = len(self.decisions)
        always = (n for n, place in enumerate(self.places) if len(place.papers) == n_papers)
        return sum(n not in how.stands and n not in how.missing for n in always)

    def read(self, parts: Sequence[PaperPart], how: Explanation) -> DocumentReadings:
        """Read a document of this layout, and open what may be told by a part that is left over."""
        read, why, rows = (
            dict[str, Reading](),
            dict[str, WhyOpen](),
            defaultdict[str, set[int]](set),
        )
        constants = self.constants
        for field, ids in self.taught_constants.items():
            read[field] = Reading(constants[field], "rule", ids)
        missing = {*how.missing}
        for field, rule in self.fields.items():
            values = dict[Any, Reading]()
            for at in rule.places:
                n = how.stands.get(at.place, how.replaced.get(at.place))
                line = None if n is None else parts[n].lines[0]
                if line is None:
                    continue
                rows[field].add(line.row)
                if at.place in missing:
                    why[field] = WhyOpen.LEFT_OVER
                written = at.written(line)
                value = None if written is None else rule.form.read(written, line.key)
                if value is None:
                    why.setdefault(field, WhyOpen.NO_VALUE)
                else:
                    label = label_before(line, at.first)
                    values.setdefault(value, Reading(value, "rule", rule.ids, label))
            if len(values) > 1:
                why[field] = WhyOpen.TWO_READINGS
            if values:
                read[field] = next(iter(values.values()))
            else:
                why.setdefault(field, WhyOpen.NO_VALUE)
        left = self._left_over(parts, how, rows)
        for part in left:
            for field in part.fields:
                why.setdefault(field, WhyOpen.LEFT_OVER)
        for field in read.keys() & self.fields.keys() - why.keys():
            if self.fields[field].is_sum and not is_sum_of_others(read[field].value, parts):
                why[field] = WhyOpen.NO_SUM
        untaught = {f: WhyOpen.NO_PLACE for f in constants if f not in read}
        why = untaught | why
        sure = {field: reading for field, reading in read.items() if field not in why}
        proposed = {field: reading for field, reading in read.items() if field in why}
        return DocumentReadings(sure, why, WhyOpen.NO_PLACE, proposed, left)

    def _left_over(
        self, parts: Sequence[PaperPart], how: Explanation, rows: Mapping[str, Set[int]]
    ) -> tuple[LeftOver, ...]:
        """Return what is left over, with the fields that it may tell: all but codes.

        A code is only where several parts are left over, or one has another code, stands in its
        row, or has a word of its label.
        """
        codes = {f for f, rule in self.fields.items() if rule.form.of is str}
        labels = {f: self._label_words(f) for f in codes}
        found, is_many = list[LeftOver](), how.cost > _MOST_LEFT
        gone = [p for p in how.missing if p not in how.replaced]

        def opened(row: int, words: Set[str], has_code: bool) -> tuple[str, ...]:
            fields = {*self.fields, *self.constants}
            closed = {
                f
                for f in codes
                if not (
                    is_many
                    or has_code
                    or words & labels[f]
                    or any(abs(row - at) < 2 for at in rows[f])
                )
            }
            return tuple(sorted(fields - closed))

        for n in sorted(how.new):
            line, last = parts[n].lines[0], parts[n].lines[-1]
            words = {*parts[n].key.split()}
            has_code = n not in how.replaced.values() and any(
                v.kind == "code" or (v.kind == "amount" and v.written.isdigit())
                for v in line.values
            )
            text = " ".join(own.text for own in parts[n].lines)
            end = last.start + len(last.text)
            found.append(
                LeftOver(text, line.start, end, parts[n].key, opened(line.row, words, has_code))
            )
        for p in gone:
            key = next(iter(self.places[p].variants))
            row = min((parts[n].lines[0].row for at, n in how.stands.items() if at > p), default=0)
            fields = opened(row, {*key.split()}, False)
            found.append(LeftOver(key.translate(_SHOWN), -1, -1, key, fields))
        return tuple(found)

    def _label_words(self, field: str) -> Set[str]:
        keys = (key for at in self.fields[field].places for key in self.places[at.place].variants)
        return {word for key in keys for word in key.split() if word.isalpha()}

    def shown(self) -> NoRule | Mapping[str, Any]:
        """Return the rules as JSON, by field, and the `open` fields, which no rule reads."""
        first, found = self.decisions[0], defaultdict[str, list[dict[str, Any]]](list)
        if not first.names:
            return NoRule.NO_SENDER
        always = {f: (self.constants[f], ids) for f, ids in self.taught_constants.items()}
        for field, (value, ids) in always.items():
            found[field].append({"label": None, "value": value, "decisions": ids})
        for field, rule in self.fields.items():
            lines = [
                (part.lines[0], at.first)
                for at in rule.places
                for n in range(len(self.parts))
                if (part := self._part_at(n, at.place)) is not None
            ]
            label = " / ".join(sorted({label_before(line, n) for line, n in lines}))
            found[field].append({"label": label, "value": None, "decisions": rule.ids})
        rest = sorted({name for t in self.decisions for name in t.fields} - found.keys())
        sender = sorted({cell for _, cell in first.names})
        keys = (key for place in self.places for key in place.variants)
        words = [*dict.fromkeys(key.translate(_SHOWN) for key in keys)]
        fields = {name: found[name] for name in [*first.answer, *found] if name in found}
        marks = [
            (taught.id, key.translate(_SHOWN), mark)
            for taught in self.decisions
            for key, mark in taught.marks.items()
        ]
        own = {"sender": sender, "layout": words, "fields": fields}
        return {**own, "open": rest, "marks": marks}


def constants_of(taught: TaughtAnswer) -> dict[str, Any]:
    """Return kind, currency, sender and what is empty: papers of one layout have them alike."""
    named = {field for field, _ in taught.names}
    empty = {field for field in taught.fields if taught.answer.get(field) in (None, "")}
    return {field: taught.answer.get(field) for field in named | taught.constants | empty}


# --- which decisions are of one layout


def layouts_of_sender(taught: Iterable[TaughtAnswer]) -> list[SenderLayout]:
    """Return the layouts of one sender, the same in any order of decisions.

    Papers with other constants are never of one layout; else those that have most parts in common.
    """
    papers = [(t, t.offers.parts) for t in taught]
    papers.sort(key=lambda p: (not p[0].has_seen_kind, [part.key for part in p[1]], p[0].id))
    groups = defaultdict[str, list[SenderLayout]](list)
    for (constants, _), alike in groupby(
        papers, lambda p: (canonical_json(constants_of(p[0])), [part.key for part in p[1]])
    ):
        rest, group = [*alike], groups[constants]
        for layout in group:
            own = [paper for paper in rest if layout.accepts(*paper)]
            if own:
                layout.add(own)
                rest = _others(rest, own)
        while rest:
            layout = SenderLayout([], [], [], [], set())
            layout.add(rest[:1])
            own = [paper for paper in rest[1:] if layout.accepts(*paper)]
            if own:
                layout.add(own)
            group.append(layout)
            rest = _others(rest[1:], own)
    found = [layout for group in groups.values() for layout in group]
    for layout in found:
        layout.borrow([other for other in found if other is not layout])
    for layout in found:
        for other in found:
            if other.constants != layout.constants:
                for parts in other.parts:
                    how = layout.explain(parts)
                    if not how.cost:
                        layout.not_free |= how.free.keys()
        layout.__dict__.pop("fixed", None)
    return found


def _others(papers: Sequence[_Paper], own: Sequence[_Paper]) -> list[_Paper]:
    ids = {decided.id for decided, _ in own}
    return [paper for paper in papers if paper[0].id not in ids]


class Remarks:
    """Lines that came and went in papers of any sender, and nothing else changed with them.

    The name of another known sender in such a line is a value, as a day is.
    """

    def __init__(self, layouts: Sequence[SenderLayout]) -> None:
        papers = (taught for layout in layouts for taught in layout.decisions)
        names = {str(taught.answer[field]) for taught in papers for field, _ in taught.names}
        self._names = defaultdict[str, list[list[str]]](list)
        for words in (key_of(name, values_in(name)).split() for name in names):
            self._names[words[0]].append(words)
        values = {key for layout in layouts for key in layout.value_keys}
        keys = {key for layout in layouts for key in layout.remarks} - values
        self._keys = {self._without_names(key) for key in keys}
        self._alike = defaultdict[str, LayoutPlace](lambda: LayoutPlace({}, set()))
        for number, key in enumerate(sorted(keys)):
            self._alike[_beginning(key)].variants[key] = {number}

    def has(self, key: str) -> bool:
        """Return whether it is one, or begins and ends as several do, with other words within."""
        alike = self._alike.get(_beginning(key))
        is_free = alike is not None and alike.is_free(key)
        return is_free or self._without_names(key) in self._keys

    def _without_names(self, key: str) -> str:
        words, found, at = key.split(), list[str](), 0
        while at < len(words):
            alike = (own for own in self._names.get(words[at], ()) if words[at:][: len(own)] == own)
            name = max(alike, key=len, default=[])
            found.append("name" if name else words[at])
            at += len(name) or 1
        return " ".join(found) if len(found) > 2 else key


def _beginning(key: str) -> str:
    return " ".join(key.split()[:2])


def nearest(
    layouts: Iterable[SenderLayout], parts: Sequence[PaperPart], remarks: Remarks | None = None
) -> Iterator[tuple[SenderLayout, Explanation]]:
    """Yield the layouts that explain a paper as a whole; of none, those that leave least over.

    Of several the ones of whose sentences it lacks least, though each of them came and went.
    """
    found = [(layout, layout.explain(parts, remarks)) for layout in layouts]
    costs = [(how.cost, layout.n_absent(how)) for layout, how in found]
    least = min(costs, default=None)
    return (pair for pair, cost in zip(found, costs, strict=True) if cost == least)


# --- the rules of a step


class Rules:
    def __init__(self, decisions: Iterable[TaughtAnswer]) -> None:
        """`decisions`: the oldest first; a reading names the first that it rests on."""
        self._decisions = defaultdict[SenderNames, list[TaughtAnswer]](list)
        for taught in decisions:
            self._decisions[taught.names].append(taught)
        self._layouts = dict[SenderNames, list[SenderLayout]]()
        self._named_by = defaultdict[str, list[SenderNames]](list)
        for names in filter(None, self._decisions):
            self._named_by[names[0][1]].append(names)
        self._unnamed = {frozenset(_keys(t.offers)) for t in self._decisions.get((), ())}
        self._refuted = {
            (t.offers.seller, field)
            for some in self._decisions.values()
            for t in some
            for field in t.fields & t.offers.stated.keys()
            if t.answer.get(field) != t.offers.stated[field]
        }
        """Sellers and fields that a person decided otherwise than an e-invoice states them."""

    @property
    def layouts(self) -> list[SenderLayout]:
        return [layout for names in self._decisions for layout in self._of_sender(names)]

    @cached_property
    def _remarks(self) -> Remarks:
        return Remarks(self.layouts)

    def _of_sender(self, names: SenderNames) -> list[SenderLayout]:
        if names not in self._layouts:
            self._layouts[names] = layouts_of_sender(self._decisions[names])
        return self._layouts[names]

    def read(self, offers: Offers) -> DocumentReadings:
        """Read what rules and an e-invoice know, if not both otherwise."""
        by_rules = self._read_by_rules(offers)
        found, why = {**by_rules.sure}, {**by_rules.why}
        for field, value in offers.stated.items():
            if (offers.seller, field) in self._refuted:
                why.setdefault(field, WhyOpen.DECIDED_OTHERWISE)
            elif field not in found or found[field].value == value:
                found[field] = Reading(value, "xml")
            else:
                del found[field]
                why[field] = WhyOpen.TWO_READINGS
        return replace(by_rules, sure=found, why=why)

    def _senders(self, cells: Set[str]) -> Iterator[SenderNames]:
        """Yield the names of each sender all of whose cells are there."""
        for cell in cells:
            for names in self._named_by.get(cell, ()):
                if {c for _, c in names} <= cells:
                    yield names

    def _read_by_rules(self, offers: Offers) -> DocumentReadings:
        """Read a document by the layouts that explain most of it, where these agree."""
        if offers.unread is not None:
            return DocumentReadings({}, {}, offers.unread)
        parts = offers.parts
        senders = self._senders({*offers.names})
        layouts = [layout for names in senders for layout in self._of_sender(names)]
        near = [*nearest(layouts, parts)]
        if not near:
            return DocumentReadings({}, {}, WhyOpen.NEW_SENDER)
        if near[0][1].cost:
            near = [*nearest(layouts, parts, self._remarks)]
        readings = [layout.read(parts, how) for layout, how in near]
        found, (layout, how) = readings[0], near[0]
        n_explained = len(parts) - len(how.new)
        is_new = n_explained < _LEAST_EXPLAINED * max(
            len(parts), len(how.stands) + len(how.missing)
        )
        is_new |= not layout.sender_at.isdisjoint(how.missing)  # its name in another's paper
        if is_new or (how.cost and frozenset(_keys(offers)) in self._unnamed):
            proposed = {**found.proposed, **found.sure}
            return DocumentReadings({}, {}, WhyOpen.NEW_LAYOUT, proposed)
        for other in readings[1:]:
            for field in [*found.sure]:
                reading = other.sure.get(field)
                if reading is None or reading.value != found.sure[field].value:
                    found = replace(
                        found,
                        sure={f: r for f, r in found.sure.items() if f != field},
                        why={**found.why, field: WhyOpen.DIFFERENT},
                    )
        return found


def _keys(offers: Offers) -> Iterator[str]:
    return (line.key for line in offers.lines)
