"""Proposals for fields that no rule reads: what a form shows first. Nothing is taken for them.

A softmax regression ranks the values, names and choices of a document by what decisions at any
sender show of a field: words of labels, the order on the page and by size, which amount is the sum
of net and tax at a rate. It begins with what is known before any decision: choices and names of
fields that stand on the page, such sums, and that a sender stands first.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import exp, fsum
from typing import Any

from paddock.pipelines.checking.schema_parts import SchemaParts

from .cell_values import (
    PIECE,
    WITH_CENTS,
    WORD,
    OfferedLine,
    OfferedValue,
    currency_id,
    is_currency,
    words_of,
)
from .field_rules import TaughtAnswer, amount_in, days_of
from .offers import Offers

_MOST_PAPERS = 60  # the newest of each sender and constants; of so many a field takes 0.1 s
_ROUNDS, _RATE = 20, 0.2
_CLOSE = 0.5  # without it 4 more of 420 fields of new senders are right, and 20 more are shown
_PRIOR = {"*nothing": 0.5, "*named True": 2.0, "*titled True": 2.0, "*part True": -2.0}
_TERMS = dict.fromkeys(("gross", "payable"), "*gross True") | {"seller": "*first True"}
_MOST_LINES, _MOST_CHOICES, _MOST_AMOUNTS, _MOST_RANK = 100, 40, 60, 4
_TYPES = {"number": ["number"], "integer": ["number"], "date": ["date"], "string": ["code", "name"]}
_NAME = re.compile(r'(?:[\w-]+: )?"?([^\d,<|(·":]*[^\d,<|(·":\s])"?(?:\s*$|\s*[,<|(·]|\s+-\s)')
_CODE_BEGINS = re.compile(r"(?<!\S)[^\W\d_a-z]{1,5} $")
Candidate = tuple[Any, set[str]]
"""A value, and what is to be seen of it."""


class _Page:
    """What a document has for a field."""

    def __init__(self, lines: Sequence[OfferedLine], common: Collection[str]) -> None:
        """`common`: names in papers of several senders."""
        lines = [*lines[:_MOST_LINES], *lines[_MOST_LINES:][-_MOST_LINES:]]
        self._texts, self._found = (
            [li.text for li in lines],
            defaultdict[str, list[Candidate]](list),
        )
        for kind, value, own in _values_in(lines):
            self._found[kind].append((value, own))
        for match in filter(None, map(_NAME.match, self._texts)):
            is_first = not self._found["name"] or match[0].startswith("From: ")
            own = _words(match[1]) | {f"*common {match[1] in common}", f"*first {is_first}"}
            self._found["name"].append((match[1], own))
        for kind, some in self._found.items():
            sizes = sorted({value for value, _ in some if kind in ("date", "number")})
            for at, (value, own) in enumerate(some):
                size = bisect_left(sizes, value) if sizes else 0
                ranks = enumerate((at, len(some) - at, size, len(sizes) - size))
                own |= {f"*{n} {min(rank, _MOST_RANK)}" for n, rank in ranks}

    def candidates(self, schema: SchemaParts) -> Iterator[Candidate]:
        """Yield the choices, amounts, days or texts that a field's type allows, and nothing."""
        yield None, {"*nothing"}
        choices = [c for part in schema.parts for c in part.get("enum", ()) if c is not None]
        types = re.findall(r"\w+", f"{[p.get('format', p.get('type')) for p in schema.parts]}")
        for kind in dict.fromkeys(kind for name in types for kind in _TYPES.get(name, ())):
            yield from () if choices else self._found[kind]
        if not 0 < len(choices) <= _MOST_CHOICES:
            return
        pieces = {piece for text in self._texts for piece in PIECE.findall(text)}
        currencies = {name for piece in pieces for name in currency_id(piece).split()}
        texts = {*map(words_of, self._texts)}
        whole = f" {' '.join(texts)} "
        for choice in map(str, choices):
            is_money, words = is_currency(choice), words_of(choice)
            own = {f"{choice} {word}" for word in ("", *whole.split()) if not (is_money and word)}
            is_named = choice in currencies if is_money else f" {words} " in whole
            yield choice, own | {f"*named {is_named}", f"*titled {words in texts}"}


def _values_in(lines: Sequence[OfferedLine]) -> Iterator[tuple[str, Any, set[str]]]:
    """Yield type and value of amounts, days and codes, and what governs each."""
    values = [value for line in lines for value in line.values]
    rates = {size for v in values if v.kind == "rate" and (size := _size(v))}
    cents = {round(100 * size) for v in values if v.kind == "amount" and (size := _size(v))}
    largest = sorted(cents)[-_MOST_AMOUNTS:]
    sums = ((gross, net) for gross in largest for net in largest if gross - net in cents)
    at_rate = (g for g, net in sums if any(abs(net * r / 100 - g + net) <= 1 for r in rates))
    gross = max(at_rate, default=0)
    orders = [frozenset().union(*days.values()) for v in values if (days := days_of(v.written))]
    order = frozenset.intersection(*orders) if orders else frozenset()
    order = order if len(order) == 1 else frozenset(["day first"])
    heads, row = list[str](), -1
    for line in lines:
        if not line.values:
            heads, row = [*(heads if line.row == row else ()), line.text], line.row
        under, at = heads[-len(line.values) :] if line.cells else [], 0
        for number, v in enumerate(line.values):
            before, at = line.text[at : v.start], v.end
            own = _words(under[number] if len(under) == len(line.values) else before)
            if days := days_of(v.written):
                yield "date", min(days, key=lambda day: (not days[day] & order, day)), {*own}
            elif v.kind == "amount" and (size := _size(v)) is not None:
                has_cents = bool(WITH_CENTS.search(v.written))
                seen = own | {f"*gross {round(100 * size) == gross}", f"*cents {has_cents}"}
                yield "number", -size if v.written[0] == "-" else size, seen
            if v.kind == "code" or v.written.isdigit():
                own |= {f"*digits {sum(map(str.isdigit, v.written)) // 3}"}
                if (begin := _CODE_BEGINS.search(before)) is not None:
                    yield "code", f"{begin[0]}{v.written}", {*own}
                yield "code", v.written, {*own, f"*part {begin is not None}"}


def _words(text: str) -> set[str]:
    return {shown for word in WORD.findall(text.casefold()) for shown in (word, f"{word[:4]}…")}


def _size(value: OfferedValue) -> float | None:
    """Return an amount without its sign; None: it is none, or has two readings."""
    sizes = {abs(a) for mark in ".," if (a := amount_in(value.written, mark)) is not None}
    return float(sizes.pop()) if len(sizes) == 1 else None


class Proposals:
    def __init__(self, decisions: Sequence[TaughtAnswer]) -> None:
        """`decisions`: the oldest first."""
        newest = {(t.names, *(f"{t.answer.get(n)}" for n in t.constants)): t for t in decisions}
        self._taught = [*newest.values()][-_MOST_PAPERS:]
        matches = ((t.names, _NAME.match(li.text)) for t in self._taught for li in t.offers.lines)
        n_of = Counter(name for _, name in {(sender, m[1]) for sender, m in matches if m})
        self._common = {name for name, n in n_of.items() if n > 1}
        self._pages = [_Page(t.offers.lines, self._common) for t in self._taught]
        self._weights = dict[str, Mapping[str, float]]()

    def of(self, offers: Offers, schema: Any, terms: Mapping[str, str]) -> dict[str, Any]:
        """Return by field what a document may have, if no other value is nearly as likely.

        `terms`: the fields that an e-invoice states, with its terms.
        """
        page, found = _Page(offers.lines, self._common), dict[str, Any]()
        for field in schema["properties"]:
            parts, scores = SchemaParts.of(schema).field(field), dict[Any, float]()
            if field not in self._weights:
                self._weights[field] = self._learnt(field, parts, terms.get(field, ""))
            for value, own in page.candidates(parts):
                score = fsum(self._weights[field].get(feature, 0) for feature in own)
                scores[value] = max(score, scores.get(value, score))
            (value, most), *rest = sorted(scores.items(), key=lambda pair: -pair[1])
            if rest and most - rest[0][1] > _CLOSE:
                found[field] = value
        return found

    def _learnt(self, field: str, parts: SchemaParts, term: str) -> Mapping[str, float]:
        names = words_of(" ".join((field, *parts.titles))).split()
        weights = defaultdict[str, float](float, _PRIOR | dict.fromkeys(names, 2.0))
        weights[_TERMS.get(term, "")] = 2.0
        pairs = zip(self._pages, self._taught, strict=True)
        decided = [([*page.candidates(parts)], t) for page, t in pairs if field in t.fields]
        for candidates, t in decided * _ROUNDS:
            scores = [fsum(weights[feature] for feature in own) for _, own in candidates]
            odds = [exp(score - max(scores)) for score in scores]
            is_right = [value == t.answer.get(field) for value, _ in candidates]
            right = sum(p for p, is_so in zip(odds, is_right, strict=True) if is_so)
            for p, is_so, (_, own) in zip(odds, is_right, candidates, strict=True):
                for feature in own if right else ():
                    weights[feature] += _RATE * ((p / right if is_so else 0) - p / sum(odds))
        return weights
