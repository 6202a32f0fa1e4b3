"""Alignment of a paper with the decided papers of a layout: what of it they explain, and what not.

A paper is a sequence of parts: its lines, and rows of items, whose amounts make a sum behind them,
as one. Decided papers are aligned with one another to a sequence of places, each with the parts
that stood there. A part of a new paper is explained

1. where one like it stood, at this place between its neighbours;
2. where others stood each time, but for the words around that were always there: any words;
3. where its amount, and all new ones, are among those that make a later amount: it was not decided
   that this line matters, and the sum says that it is counted. So is one that is missing.

A place that some decided papers lack may be empty. All else is left over. The time is linear in the
number of parts, but for those that stand several times.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from paddock.engine.system.records import Struct

from .cell_values import MARKERS, WITH_CENTS, currency_id

if TYPE_CHECKING:
    from .cell_values import OfferedLine, OfferedValue

_N_FREE = 3  # of so many words in a place, most others, none tells anything
_MOST_ADDENDS = 24
_MOST_SUM_WORDS = 6  # of a new line in a sum: `Discount 2%: -10.00`
_MARKERS = frozenset(MARKERS.values())
_NO_DIGITS = re.compile(r"\D")
FormKind = Literal["currency", "sign", "code", "rate", "digits"]
_MAY_VARY: tuple[FormKind, ...] = ("code", "rate")
_LETTERS = re.compile(r"[\W\d_]")


class PaperPart(Struct, frozen=True, dict=True):
    key: str
    lines: Sequence[OfferedLine]
    cents: int | None
    """Its only amount, or the sum of the items; None: it has none, or several."""

    is_items: bool = False

    @cached_property
    def forms(self) -> frozenset[tuple[FormKind, str]]:
        """How its values are written; of items, which are others each time, the currency alone."""
        values = [value for line in self.lines for value in line.values]
        found = set[tuple[FormKind, str]]()
        for number, value in enumerate(values):
            if value.kind == "amount":
                found.add(("currency", currency_id(value.unit)))
            if self.is_items:
                continue
            cents = _cents_of(value)
            if value.kind == "amount":
                is_zero = not value.written.strip("-0.,")
                found.add(("sign", "0" if is_zero else "-" if value.written[0] == "-" else "+"))
            elif value.kind == "code":
                found.add(("code", _LETTERS.sub("", value.written)))
            elif value.kind == "rate":
                found.add(("rate", value.written))
            if cents is None and value.kind in ("amount", "code"):
                found.add(("digits", f"{number} {value.written}"))
        return frozenset(found)

    @property
    def is_addend(self) -> bool:
        words = self.key.split()
        n_words = sum(word not in _MARKERS for word in words[:-1])
        return bool(self.cents) and 0 < n_words <= _MOST_SUM_WORDS


def _cents_of(value: OfferedValue) -> int | None:
    return _cents_in(value.written) if value.kind == "amount" else None


@lru_cache(maxsize=8192)  # a decided paper's own is asked for several times
def _cents_in(written: str) -> int | None:
    if not WITH_CENTS.search(written):
        return None
    cents = int(_NO_DIGITS.sub("", written))
    return -cents if written[0] == "-" else cents


def _cents(line: OfferedLine) -> int | None:
    """Return the only amount of a line with cents, or that in a table's last cell."""
    if not line.values:
        return None
    amounts = [cents for value in line.values if (cents := _cents_of(value)) is not None]
    is_last = line.key.endswith(MARKERS["amount"]) and _cents_of(line.values[-1]) is not None
    return amounts[-1] if is_last and (len(amounts) == 1 or line.cells) else None


def parts_of(lines: Sequence[OfferedLine]) -> list[PaperPart]:
    """Return the parts of a paper: rows of items alike are one, if their amounts make a sum.

    Of items with a name and an amount alone, which look like net sum and tax, that has to be one of
    the amounts that make another; they come first, and have no rate.
    """
    parts, at = list[PaperPart](), 0
    cents = [_cents(line) for line in lines]
    named = [
        own and all(value.kind != "rate" for value in line.values)
        for own, line in zip(cents, lines, strict=True)
    ]
    first = next((n for n, own in enumerate(cents) if own), None)
    while at < len(lines):
        cells, total, end = lines[at].cells, cents[at] or 0, at + 1
        if total and cells:
            while end < len(lines) and lines[end].cells == cells and cents[end]:
                total, end = total + (cents[end] or 0), end + 1
            is_sum = "w" in cells and _makes_sum(total, cents[end:])
        else:
            while at == first and end < len(lines) and named[end] and cents[end] != total:
                total, end = total + (cents[end] or 0), end + 1
            following = cents[end : end + 1] if at == first and named[at] else []
            is_sum = following == [total] and _makes_sum(total, cents[end + 1 :], least=1)
            end = end if is_sum else at + 1
        items = lines[at:end]
        if is_sum:
            parts.append(PaperPart(f"items {cells or 'wv'}", items, total, is_items=True))
        else:
            parts += (PaperPart(lines[n].key, [lines[n]], cents[n]) for n in range(at, end))
        at = end
    return parts


def _makes_sum(total: int, following: Sequence[int | None], *, least: int = 0) -> bool:
    """Return whether a sum, with at least so many amounts right behind it, is the next amount."""
    amounts = [cents for cents in following[:_MOST_ADDENDS] if cents is not None]
    for n, amount in enumerate(amounts):
        if n >= least and amount == total:
            return True
        total += amount
    return False


def is_sum_of_others(value: float, parts: Iterable[PaperPart]) -> bool:
    """Return whether an amount is the sum of amounts that follow one another, near it."""
    lines = (line for part in parts for line in part.lines)
    amounts = [cents for line in lines for value in line.values if (cents := _cents_of(value))]
    total = round(value * 100)
    for at in [n for n, amount in enumerate(amounts) if abs(amount) == abs(total)]:
        near = range(max(0, at - _MOST_ADDENDS), min(len(amounts), at + _MOST_ADDENDS))
        for first in near:
            rest = amounts[at]
            for n in range(first, near.stop):
                if n == at:
                    break
                rest -= amounts[n]
                if rest == 0 and n > first:
                    return True
    return False


# --- places of a layout


class LayoutPlace(Struct, dict=True):
    """What stood at one place of decided papers, by the numbers of these."""

    variants: dict[str, set[int]]
    forms: set[tuple[FormKind, str]]
    """How values are written there."""

    @cached_property
    def papers(self) -> Set[int]:
        return set().union(*self.variants.values())

    @cached_property
    def are_unlike(self) -> bool:
        """Whether sentences that share no word at their ends stood there: each came and went."""
        ways = [key.split() for key in self.variants]
        first, last = min(ways), max(ways)
        is_alike = _n_common(first, last) or _n_common(first[::-1], last[::-1])
        return len(ways) > 1 and min(map(len, ways)) > 2 and not is_alike

    def is_optional(self, n_papers: int) -> bool:
        return len(self.papers) < n_papers or self.are_unlike

    def new_forms(self, part: PaperPart, *, is_fixed: bool) -> Set[FormKind]:
        """Return in what values are not written as there, if they were not others each time.

        Digits, but for amounts with cents and days, are fixed where two papers had the same.
        `is_fixed`: the form of a code is that of a field.
        """
        n_of = Counter(kind for kind, _ in self.forms)
        varied: set[FormKind] = {kind for kind in _MAY_VARY if n_of[kind] > 1}
        new = {kind for kind, _ in part.forms - self.forms} - varied
        places = {text.split()[0] for kind, text in self.forms if kind == "digits"}
        if n_of["digits"] > len(places) or len(self.papers) < 2:
            new -= {"digits"}
        return new - ({"code", "digits"} if is_fixed else set())

    @property
    def is_amount(self) -> bool:
        return all(key.endswith(MARKERS["amount"]) for key in self.variants)

    @cached_property
    def frame(self) -> tuple[list[str], list[str], range] | None:
        """What stands before and behind what is another each time, and how long that may be."""
        if len(self.variants) < _N_FREE or 2 * len(self.variants) <= len(self.papers):
            return None
        ways = [key.split() for key in self.variants]
        first, last = min(ways), max(ways)
        before = _n_common(first, last)
        least = min(map(len, ways)) - before
        behind = min(least, min(_n_common(way[::-1], first[::-1]) for way in ways))
        lengths = [len(way) - before - behind for way in ways]
        return first[:before], first[len(first) - behind :], range(min(lengths), max(lengths) + 1)

    def is_free(self, key: str) -> bool:
        """Return whether a part has other words where those of decided papers are others (2)."""
        if self.frame is None:
            return False
        before, behind, lengths = self.frame
        words = key.split()
        own = words[len(before) : len(words) - len(behind)]
        met = {word for known in self.variants for word in known.split() if word in _MARKERS}
        return (
            words[: len(before)] == before
            and words[len(words) - len(behind) :] == behind
            and len(own) in lengths
            and {word for word in own if word in _MARKERS} <= met
        )


def _n_common(first: Sequence[str], second: Sequence[str]) -> int:
    n = 0
    while n < min(len(first), len(second)) and first[n] == second[n]:
        n += 1
    return n


Pair = tuple[int, int]
"""The number of a part, and of the place where it stands."""


def aligned(keys: Sequence[str], places: Sequence[Collection[str]]) -> list[Pair]:
    """Return which parts stand at which places, both in their order: those met once come first."""
    at, n_of, found, last = defaultdict[str, list[int]](list), Counter(keys), list[Pair](), (-1, -1)
    for number, known in enumerate(places):
        for key in known:
            at[key].append(number)
    once = [(n, at[key][0]) for n, key in enumerate(keys) if n_of[key] == 1 == len(at[key])]
    for anchor in [*_rising(once), (len(keys), len(places))]:
        reached = last[1]
        for n in range(last[0] + 1, anchor[0]):
            known_at = at[keys[n]]
            nearest = bisect_right(known_at, reached)
            if nearest < len(known_at) and known_at[nearest] < anchor[1]:
                reached = known_at[nearest]
                found.append((n, reached))
        found.append(anchor)
        last = anchor
    return found[:-1]


def _rising(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the longest part of pairs whose second numbers rise."""
    ends, piles, before = list[int](), list[Pair](), dict[Pair, Pair | None]()
    for pair in pairs:
        pile = bisect_left(ends, pair[1])
        before[pair] = piles[pile - 1] if pile else None
        ends[pile : pile + 1], piles[pile : pile + 1] = [pair[1]], [pair]
    found, pair_ = list[Pair](), piles[-1] if piles else None
    while pair_ is not None:
        found.append(pair_)
        pair_ = before[pair_]
    return found[::-1]


def _gaps(pairs: Sequence[Pair], n: int, n_places: int) -> Iterator[tuple[range, range]]:
    """Yield the parts and places between two pairs that stand nowhere."""
    for (n_before, before), (n_next, next_) in pairwise([(-1, -1), *pairs, (n, n_places)]):
        yield range(n_before + 1, n_next), range(before + 1, next_)


def add_paper(
    places: list[LayoutPlace], parts: Sequence[PaperPart], papers: Iterable[int]
) -> list[LayoutPlace]:
    """Add decided papers with the same parts to the places of a layout; return where these stand.

    Between what is alike, as many others as places stand at these, else each at one of its own.
    """
    keys = [part.key for part in parts]
    pairs = aligned(keys, [place.variants for place in places])
    stands, all_places = dict(pairs), list[LayoutPlace]()
    at = [places[stands[n]] if n in stands else LayoutPlace({}, set()) for n in range(len(keys))]
    for some, gap in _gaps(pairs, len(keys), len(places)):
        if len(some) == len(gap):
            at[some.start : some.stop] = [places[number] for number in gap]
        else:
            all_places += [places[number] for number in gap]
        all_places += at[some.start : some.stop + 1]
    for place, part in zip(at, parts, strict=True):
        place.variants.setdefault(part.key, set()).update(papers)
        place.forms |= part.forms
        place.__dict__.clear()
    places[:] = all_places
    return at


# --- what explains a paper


class Explanation(Struct, dict=True):
    stands: dict[int, int]
    """By place, the part that stands there."""
    new: list[int]
    missing: list[int]
    free: dict[int, int]
    """Of `stands`, those with words that no decided paper has there."""
    replaced: dict[int, int]
    """By missing place, the new part that stands where it stood."""

    @property
    def cost(self) -> int:
        return len(self.new) + len(self.missing) - len(self.replaced)


def explained(
    parts: Sequence[PaperPart],
    places: Sequence[LayoutPlace],
    n_papers: int,
    fixed: Set[int],
    is_remark: Callable[[str], bool],
    always: Set[str],
) -> Explanation:
    """Align a paper with the places of a layout.

    `fixed`: places with the value of a field, whose words are never free; `is_remark`: whether a
    part of some key does not matter; `always`: keys of parts that matter each time.
    """
    keys = [part.key for part in parts]
    pairs = [
        (n, p) for n, p in aligned(keys, [p.variants for p in places]) if keys[n] not in always
    ]
    found = Explanation({place: n for n, place in pairs}, [], [], {}, {})
    for some, gap in _gaps(pairs, len(keys), len(places)):
        new = [n for n in some if keys[n] in always or parts[n].cents or not is_remark(keys[n])]
        missing = [*gap]
        for n in [*new]:
            at = next((p for p in missing if p not in fixed and places[p].is_free(keys[n])), None)
            if at is not None and keys[n] not in always:
                found.stands[at] = found.free[at] = n
                new.remove(n)
                missing = [p for p in missing if p > at]
        missing = [
            p
            for p in gap
            if p not in found.free
            and not places[p].is_optional(n_papers)
            and not any(map(is_remark, places[p].variants))
        ]
        if len(new) == len(missing):
            found.replaced |= zip(missing, new, strict=True)
        else:
            found.replaced |= {
                p: n
                for p in missing
                for n in new
                if any(_is_like(key, keys[n]) for key in places[p].variants)
            }
        found.new += new
        found.missing += missing
    other_forms = {
        n: kinds
        for place, n in found.stands.items()
        if (kinds := places[place].new_forms(parts[n], is_fixed=place in fixed))
    }
    found.new += other_forms
    odd = {n for n, kinds in other_forms.items() if kinds != {"sign"}}
    remarks = {n for n in found.new if keys[n] not in always and is_remark(keys[n])}
    _explain_by_sums(found, parts, places, fixed, remarks, odd)
    return found


def _is_like(known: str, key: str) -> bool:
    """Return whether two parts begin with the same words, before a value or all."""
    first, second = known.split(), key.split()
    n = _n_common(first, second)
    return n > 0 and (n == len(first) or first[n] in _MARKERS or n == len(second))


def _explain_by_sums(
    found: Explanation,
    parts: Sequence[PaperPart],
    places: Sequence[LayoutPlace],
    fixed: Set[int],
    remarks: Set[int],
    odd: Set[int],
) -> None:
    """Take out what sums explain (3): amounts that are counted, and those that are missing.

    Where the amounts of fields are sums of others in this paper, no other amount lacks. `remarks`:
    new parts that may be such a sum, as a new balance is; `odd`: those in another currency.
    """
    if not (found.new or found.missing):
        return
    place_of = {n: place for place, n in found.stands.items()}
    known = {form for place in places for form in place.forms if form[0] == "currency"}
    new = {n for n in found.new if parts[n].is_addend} - ({*found.replaced.values()} - remarks)
    new = {n for n in new - odd if {f for f in parts[n].forms if f[0] == "currency"} <= known}
    amounts = [n for n, part in enumerate(parts) if part.cents and (n in place_of or n in new)]
    open_sums = {n for n in amounts if place_of.get(n) in fixed}
    for end, total in enumerate(amounts):
        run, rest = list[int](), parts[total].cents or 0
        is_known = total in place_of or total in remarks
        for n in reversed(amounts[max(0, end - _MOST_ADDENDS) : end] if is_known else []):
            run.append(n)
            rest -= parts[n].cents or 0
            if rest == 0 and len(run) > 1 and run[-1] in place_of:
                run += [total] if total in remarks else []
                found.new = [n for n in found.new if n not in new or n not in run]
                open_sums.discard(total)
                break
    is_sum = {
        p
        for p in (found.missing if amounts and not open_sums else ())
        if p not in found.replaced and p not in fixed and places[p].is_amount
    }
    found.missing = [p for p in found.missing if p not in is_sum]
