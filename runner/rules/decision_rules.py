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

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set

from .field_rules import FieldReading, SenderNames, TaughtAnswer
from .offers import Offers
from .reasons import WhyOpen
from .sender_layouts import DocumentReadings, LayoutDifference, SenderLayout, layouts_of_sender

_SPACE = re.compile("[ \u00a0\u202f]")


class Rules:
    def __init__(self, decisions: Iterable[TaughtAnswer]) -> None:
        """`decisions`: the oldest first; a reading names the first that it rests on."""
        by_names: dict[SenderNames, list[TaughtAnswer]] = {}
        for taught in decisions:
            by_names.setdefault(taught.names, []).append(taught)
        self._layouts = {names: [*layouts_of_sender(some)] for names, some in by_names.items()}
        self._named_by = defaultdict[str, list[SenderNames]](list)
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
        for names in self._senders({*offers.names, offers.seller}):
            if not self._accounts[names].issuperset(offers.accounts):
                texts = {field: _SPACE.sub("", str(r.value)) for field, r in found.items()}
                of_account = {field for field, text in texts.items() if text in offers.accounts}
                for field in {*of_account, *(field for field, _ in names)}:
                    found.pop(field, None)
                    why[field] = WhyOpen.OTHER_ACCOUNT
        return DocumentReadings(found, why, by_rules.otherwise)

    def _senders(self, cells: Set[str]) -> Iterator[SenderNames]:
        """Yield the names of each sender all of whose cells are there."""
        for cell in cells:
            for names in self._named_by.get(cell, ()):
                if {c for _, c in names} <= cells:
                    yield names

    def _read_by_rules(self, offers: Offers) -> DocumentReadings:
        """Read a document by the rules of the only layout which it fits; of several, nothing."""
        if offers.unread is not None:
            return DocumentReadings({}, {}, offers.unread)
        senders = self._senders({*offers.names})
        layouts = [layout for names in senders for layout in self._layouts[names]]
        differences = [LayoutDifference(layout, offers) for layout in layouts]
        near = [difference for difference in differences if not difference.is_other_layout]
        same = [difference for difference in near if not difference.changes]
        fitting = same or ([] if offers.words in self._unnamed else near)
        if len(fitting) == 1:
            return fitting[0].layout.read(offers, fitting[0].changes)
        new = WhyOpen.NEW_LAYOUT if layouts else WhyOpen.NEW_SENDER
        return DocumentReadings({}, {}, WhyOpen.SEVERAL_FIT if fitting else new)
