"""Layouts of a sender's papers: what decided documents have in common, and how others differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import canonical_json

from .cell_values import WITH_CENTS
from .field_rules import (
    FieldOutcome,
    FieldReading,
    FieldRule,
    TaughtAnswer,
    is_money,
    rules_of_field,
)
from .offers import Offers
from .reasons import NoRule, WhyOpen

_REASONS = [*WhyOpen].index
_N_FREE = 3  # of so many words in a place of papers of one kind, most others, none tells the kind


class DocumentReadings(Struct, frozen=True):
    """The fields of a document that are sure, and why the others are open."""

    sure: Mapping[str, FieldReading]
    why: Mapping[str, WhyOpen]
    otherwise: WhyOpen
    """Why a field is open that is in neither."""

    def why_open(self, field: str) -> WhyOpen:
        return self.why.get(field, self.otherwise)


class SenderLayout(Struct, frozen=True, dict=True):
    """The decisions on documents of one sender and layout, and what they teach."""

    decisions: tuple[TaughtAnswer, ...]
    words: frozenset[str]
    """Those in all of the documents."""
    remarks: frozenset[str] = frozenset()
    """Lines that only some have, though a person found kind and sender alike."""
    is_mixed: bool = False
    """Whether the same lines stood in papers of other constants: what is behind labels tells."""

    @cached_property
    def words_behind(self) -> Mapping[str, frozenset[str]]:
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

    @cached_property
    def remarks_begin(self) -> frozenset[str]:
        """How remarks begin, of which there are several."""
        n_of = Counter(filter(None, map(_beginning, self.remarks)))
        return frozenset(words for words, n in n_of.items() if n >= _N_FREE)

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

    def knows_currencies(self, named: Sequence[str]) -> bool:
        """Return whether a decided paper named these, or one was decided and is these alone."""
        known = [t.offers.currencies for t in self.decisions]
        decided = [[value] for value in (self.constants or {}).values()]
        return named in known or named in decided

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
        return {name: [*rules_of_field(self.decisions, name)] for name in sorted(names)}

    # --- what is read in a document

    def read(self, offers: Offers, changes: Set[str]) -> DocumentReadings:
        """Read a document of this layout; `changes` may be what tells kind and sender."""
        if self.constants is None:
            return DocumentReadings({}, {}, WhyOpen.DIFFERENT)
        labels = frozenset().union(*offers.blocks)
        fields, anchors = filter(None, self.fields.values()), offers.by_anchor.keys()
        if any(all(rule.anchors - anchors for rule in rules) for rules in fields):
            changes |= labels - self.labels  # one stands instead of another: `Credit note no.`
        found = self._read_constants(offers, changes)
        for field, (known, ids) in self.empty.items():
            is_known = labels <= known and not changes  # else something new may be its value
            value = self.decisions[0].answer.get(field)
            found[field] = FieldReading(value, ids) if is_known else WhyOpen.NEW_LABEL
        for field, rules in self.fields.items():
            if readings := [rule.read(offers) for rule in rules]:
                found[field] = _one_reading(readings)
        sure = {field: how for field, how in found.items() if isinstance(how, FieldReading)}
        why = {field: how for field, how in found.items() if isinstance(how, WhyOpen)}
        return DocumentReadings(sure, why, WhyOpen.NO_PLACE)

    def _read_constants(self, offers: Offers, changes: Set[str]) -> dict[str, FieldOutcome]:
        constants = self.constants or {}
        found: dict[str, FieldOutcome] = dict.fromkeys(constants, WhyOpen.NEW_LINE)
        has_signs = any(word[0] == "¤" for word in offers.words)
        for field, ids in self.taught_constants.items():
            is_currency = is_money(constants[field])
            is_other = is_currency and not self.knows_currencies(offers.currencies)
            if is_other or {*offers.named.get(field, ())} - self.named[field]:
                found[field] = WhyOpen.OTHER_NAMED
            elif not changes or (has_signs and is_currency):
                found[field] = FieldReading(constants[field], ids)
        return found

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
        behind = self.words_behind.items()
        words += sorted(f"{label}: {w}" for label, some in behind for w in some if label and w)
        fields = {name: found[name] for name in [*first.answer, *found] if name in found}
        return {"sender": sender, "layout": words, "fields": fields, "open": rest}


def _one_reading(readings: Sequence[FieldOutcome]) -> FieldOutcome:
    """Return what rules of one field agree on; in any order of decisions the same reason."""
    sure = [reading for reading in readings if isinstance(reading, FieldReading)]
    if not sure:
        return max((r for r in readings if isinstance(r, WhyOpen)), key=_REASONS)
    is_one = len({canonical_json(reading.value) for reading in sure}) == 1
    return sure[0] if is_one else WhyOpen.TWO_READINGS


class LayoutDifference(Struct, frozen=True, dict=True):
    """How a document differs from the decided ones of a layout, one property a rule."""

    layout: SenderLayout
    offers: Offers

    @cached_property
    def new_lines(self) -> frozenset[str]:
        """Lines that no decided document has, but for those that begin as several remarks do."""
        new = self.offers.words - self.layout.words - self.layout.remarks
        return frozenset(line for line in new if _beginning(line) not in self.layout.remarks_begin)

    @cached_property
    def missing_lines(self) -> frozenset[str]:
        return self.layout.words - self.offers.words

    @property
    def is_other_layout(self) -> bool:
        """Whether more than a line differs, or what may tell what the values mean."""
        return self.differs_in_lines or self.names_currency_or_label

    @property
    def differs_in_lines(self) -> bool:
        """Whether several lines are new or missing, or one stands for one that begins otherwise."""
        new, missing = self.new_lines, self.missing_lines
        begin = {*map(_beginning, new | missing)}
        is_replaced = bool(new and missing) and (len(begin) > 1 or "" in begin)
        return is_replaced or max(len(new), len(missing)) > 1

    @property
    def names_currency_or_label(self) -> bool:
        """Whether a line that differs is a currency's sign, or has the words of a label."""
        labels = {f" {label} " for block in self.offers.blocks for label in block if label}
        lines = self.new_lines | self.missing_lines
        return any(line[0] == "¤" or any(la in f" {line} " for la in labels) for line in lines)

    @property
    def other_pairs(self) -> set[str]:
        """Labels behind which no decided document has these words."""
        pairs, known = self.offers.pairs, self.layout.words_behind
        return {label for label, words in known.items() if {*pairs.get(label, [""])} - words}

    @property
    def new_labels(self) -> frozenset[str]:
        """New labels in a block without amounts, `Refund of: RE-101`, or known labels."""
        offers, known = self.offers, self.layout.labels
        prose = {v.block for v in offers.values if v.how == "prose"}
        sums = {v.block for v in offers.values if WITH_CENTS.fullmatch(v.written.lstrip("-"))}
        blocks = [(n in sums, b) for n, b in enumerate(offers.blocks) if n not in prose]
        new = (b for is_sum, b in blocks if not is_sum or not b & known)
        return frozenset().union(*new) - known - {""}

    @cached_property
    def changes(self) -> frozenset[str]:
        """All in which it differs that may tell kind and sender."""
        return self.new_lines | self.missing_lines | self.new_labels | self.other_pairs


def _beginning(line: str) -> str:
    """Return the first two words of a line; empty: it has no more."""
    first, _, rest = line.partition(" ")
    second, _, third = rest.partition(" ")
    return f"{first} {second}" if third else ""


# --- which decisions are of one layout


def layouts_of_sender(taught: Sequence[TaughtAnswer]) -> Iterator[SenderLayout]:
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
        in_all, layouts = frozenset.intersection(*alike), [looked_at[words] for words in alike]
        decisions = tuple(taught for layout in layouts for taught in layout.decisions)
        remarks, is_mixed = frozenset().union(*alike) - in_all, any(la.is_mixed for la in layouts)
        found.append(SenderLayout(decisions, in_all, remarks, is_mixed))
    known = [*found]  # in any order of decisions the same
    for own in (layout for layout in group if layout.words not in looked_at):
        near = [
            n
            for n, layout in enumerate(known)
            if not any(LayoutDifference(layout, t.offers).is_other_layout for t in own.decisions)
        ]
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
                by_rest[words - {line}][words] = _beginning(line)
    for rest, alike in by_rest.items():
        first = dict[str, frozenset[str]]()
        for words, beginning in alike.items():
            key = "" if rest in alike else beginning or " ".join(sorted(words))
            other = joined[first.setdefault(key, words)]
            if other is not joined[words]:
                other += joined[words]
                joined.update(dict.fromkeys(joined[words], other))
    return {id(some): some for some in joined.values()}.values()
