"""Doubts about a paper: in what it differs from all papers of its sender, however read. Pure.

A doubt is no reading: a value may be explained to its last word, or stated by an e-invoice, and
still be wrong. Papers that wait, or were rejected, are not known.

1. An account, a currency that none of them has. A sender without accounts may have any.
2. An amount of ten times the largest of two or more.
3. A day before the last one's of the same kind, if that came in an earlier run, no other day of the
   paper is later, and its number is not that of an older paper. Days to pay by may be earlier.
4. A code again in a paper of the same kind, where codes of this field are mostly new ones: those of
   customers are not.

The same text again has none: it was renamed, or is a copy.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from typing import Any

from paddock.engine.system.records import Struct

from .field_rules import is_money, names_in
from .offers import Offers
from .reasons import WhyOpen

Doubts = dict[str, dict[str, Any]]
_LEAST_AMOUNTS, _TIMES = 2, 10
_MOST_SHOWN = 3
_MOST_TERMS_DAYS = 90  # by so much a paper may be due before the one before it
_MOST_OF_SENDER = 1_000  # the newest, which a paper is compared with in 4 ms
_DIGITS = re.compile(r"\d+")
_SPACE = re.compile(r"[\s\u00a0\u202f.-]")


def doubt(why: WhyOpen, new: Any, known: Sequence[Any] = ()) -> dict[str, Any]:
    """Return why a field is open: what the paper has, and a few of those of its sender."""
    return {"open": why.name.lower(), "new": [new], "known": [*dict.fromkeys(known)][:_MOST_SHOWN]}


class KnownPaper(Struct, frozen=True, gc=False):
    """A paper that came to its end: what it came to, and who sent it."""

    id: str
    answer: Mapping[str, Any]
    senders: tuple[frozenset[str], ...]
    """What names its sender: cells of its page, and the seller of an e-invoice, folded."""
    named: frozenset[str]
    """The fields with the name."""
    accounts: tuple[str, ...]
    packed: str
    read_at: float
    """When it was first read, in seconds since the epoch."""

    @classmethod
    def of(
        cls,
        id_: str,
        answer: Mapping[str, Any],
        kinds: Collection[str],
        packed: str,
        read_at: float,
    ) -> KnownPaper:
        """Return a paper; `kinds`: fields of a few values, but for currencies."""
        constants = {*kinds, *(field for field, value in answer.items() if is_money(value))}
        offers = Offers.without_lines(packed)
        names, seller = names_in(answer, constants, offers.names), offers.seller.casefold()
        cells = frozenset(cell.casefold() for _, cell in names)
        named = {field for field, _ in names} | {
            field for field, value in answer.items() if seller and _folded(value) == seller
        }
        senders = tuple(filter(None, (cells, frozenset([seller] if seller else ()))))
        return cls(id_, answer, senders, frozenset(named), offers.accounts, packed, read_at)


class SenderPapers:
    def __init__(self, papers: Iterable[KnownPaper] = (), kinds: Collection[str] = ()) -> None:
        """`papers`: the oldest first; `kinds`: fields of a few values, but for currencies."""
        newest = partial(deque[tuple[frozenset[str], KnownPaper]], maxlen=_MOST_OF_SENDER)
        self._by_cell = defaultdict[str, deque[tuple[frozenset[str], KnownPaper]]](newest)
        self._kinds = sorted(kinds)
        n_of, is_new = Counter[Any](), defaultdict[str, list[bool]](list)
        for paper in papers:
            for cells in paper.senders:
                self._by_cell[min(cells)].append((cells, paper))
            for cells in paper.senders[:1]:
                for field, code in self._codes(paper.answer, paper.named):
                    own = (cells, field, *self._kind(paper.answer))
                    if n_of[own]:
                        is_new[field].append(not n_of[*own, code])
                    n_of.update([own, (*own, code)])
        self._repeated = {field for field, some in is_new.items() if 2 * sum(some) < len(some)}

    def doubts(
        self,
        offers: Offers,
        values: Mapping[str, Any],
        id_: str,
        read_at: float,
        dues: Collection[str] = (),
    ) -> Doubts:
        """Return by field what is in doubt of a paper.

        `id_`: its own, if it is known itself; `dues`: fields with days to pay by.
        """
        if not (papers := [*self._of_sender(offers, id_)]):
            return {}
        packed = offers.pack()
        if any(paper.packed == packed for paper in papers):  # renamed, or a copy
            return {}
        found = Doubts()
        alike = [p for p in papers if self._kind(p.answer) == self._kind(values)]
        named = frozenset().union(*(paper.named for paper in papers))
        for field, code in self._codes(values, named):  # 4
            is_again = any(paper.answer.get(field) == code for paper in alike)
            if is_again and field not in self._repeated and code not in offers.accounts:
                found[field] = doubt(WhyOpen.SAME_NUMBER, code)
        found |= self._early_days(values, [p for p in alike if p.read_at < read_at], dues)  # 3
        for field, value in values.items():
            known = [paper.answer[field] for paper in papers if paper.answer.get(field) is not None]
            if _is_amount(value):  # 2
                amounts = [abs(amount) for amount in known if _is_amount(amount)]
                most = max(amounts, default=0)
                if len(amounts) >= _LEAST_AMOUNTS and 0 < most * _TIMES <= abs(value):
                    found[field] = doubt(WhyOpen.FAR_LARGER, value, [most])
            elif is_money(value) and known and value not in known:  # 1
                found[field] = doubt(WhyOpen.OTHER_CURRENCY, value, known[::-1])
        accounts = [account for paper in reversed(papers) for account in paper.accounts]
        new = [account for account in offers.accounts if account not in accounts]
        if accounts and new:
            of_account = {f for f, v in values.items() if _SPACE.sub("", str(v)).upper() in new}
            how = {**doubt(WhyOpen.OTHER_ACCOUNT, "", accounts), "new": new}
            found |= dict.fromkeys(of_account | named or values.keys(), how)
        return found

    def _of_sender(self, offers: Offers, id_: str) -> Iterator[KnownPaper]:
        cells = {cell.casefold() for cell in (*offers.names, offers.seller) if cell}
        found = {
            paper.id: paper
            for cell in cells
            for own, paper in self._by_cell.get(cell, ())
            if own <= cells and paper.id != id_
        }
        yield from sorted(found.values(), key=lambda paper: (paper.read_at, paper.id))

    def _kind(self, answer: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(answer.get(field) for field in self._kinds)

    def _codes(
        self, answer: Mapping[str, Any], named: Collection[str]
    ) -> Iterator[tuple[str, str]]:
        for field, value in answer.items():
            is_text = isinstance(value, str) and field not in named and field not in self._kinds
            if is_text and _DIGITS.search(value) and not _is_day(value):
                yield field, value

    def _early_days(
        self, values: Mapping[str, Any], before: Sequence[KnownPaper], dues: Collection[str]
    ) -> Doubts:
        found, last_of = Doubts(), dict[str, str]()
        for field, day in values.items():
            days = [paper.answer[field] for paper in before if _is_day(paper.answer.get(field))]
            if _is_day(day) and days:
                slack = timedelta(_MOST_TERMS_DAYS if field in dues else 0)
                last_of[field] = f"{date.fromisoformat(max(days)) - slack}"
        if any(values[field] >= last for field, last in last_of.items()):
            return {}
        codes = [*self._codes(values, frozenset())]
        for field, last in last_of.items():
            later = [p for p in before if _is_day(d := p.answer.get(field)) and d > values[field]]
            if not any(all(_is_lower(code, p.answer.get(of)) for p in later) for of, code in codes):
                found[field] = doubt(WhyOpen.EARLIER_DAY, values[field], [last])
        return found


def tells_kind(parts: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a field, by its parts of a schema, has a few values that are no currencies."""
    choices = [choice for part in parts for choice in part.get("enum", [part.get("const")])]
    some = [choice for choice in choices if choice is not None]
    is_bool = any(part.get("type") == "boolean" for part in parts)
    return is_bool or (bool(some) and not any(map(is_money, some)))


def _folded(value: Any) -> str:
    return value.casefold() if isinstance(value, str) else ""


def _is_day(value: Any) -> bool:
    with suppress(ValueError):
        return isinstance(value, str) and f"{date.fromisoformat(value)}" == value
    return False


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_lower(code: str, other: Any) -> bool:
    """Return whether two codes are of one form, and the first is the older one."""
    if not isinstance(other, str) or _DIGITS.sub("9", code) != _DIGITS.sub("9", other):
        return False
    numbers, of_other = (tuple(map(int, _DIGITS.findall(text))) for text in (code, other))
    return numbers < of_other
