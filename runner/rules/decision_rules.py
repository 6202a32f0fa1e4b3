"""Rules that decisions of people make, and what they read in a document. Pure; nothing is stored.

A paper's sender is known by the cells with the names that a person confirmed. Its layouts say what
each part of a paper is: what stood there in decided papers, the place of a field's value, what was
other words each time, rows of items, amounts that a sum explains. A field is read

1. where nothing that may tell it is left over, by any layout that explains the paper as well;
2. where its value stands in its places alike, in a form that decisions show, and no decided paper
   has another value there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from functools import cached_property

from paddock.engine.system.records import replace

from .alignment import parts_of
from .field_rules import FieldReading, SenderNames, TaughtAnswer
from .offers import Offers
from .reasons import WhyOpen
from .sender_layouts import DocumentReadings, Remarks, SenderLayout, layouts_of_sender, nearest

_LEAST_EXPLAINED = 0.5  # of a paper's parts; of fewer, it is of another layout


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
            elif found.get(field, FieldReading(value)).value == value:
                found[field] = FieldReading(value)
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
        parts = parts_of(offers.lines)
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
