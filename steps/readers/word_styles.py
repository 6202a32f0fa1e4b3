"""Styles and automatic numbers of Word: what a run or paragraph inherits, and what its list shows.

Word counts for each abstract list, also where several lists are made of it; a list with a start of
its own begins there once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from paddock.pipelines.text_marks import list_number

from .office import OFF

WORD_NS = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)
_MOST_LEVEL = 8
_MOST_STYLES = 20  # of a chain; the program allows ten, and a circle has no end
_MOST_NUMBER = 32_767
_MOST_MARK_CHARS = 100
_PLACE = re.compile(r"%([1-9])")
_NUMBER_FORMATS: dict[str, Callable[[int], str]] = {
    "decimal": str,
    "none": lambda _: "",
    "decimalZero": "{:02}".format,
    "numberInDash": "- {} -".format,
    "upperRoman": lambda n: list_number(n, "I"),
    "lowerRoman": lambda n: list_number(n, "i"),
    "upperLetter": lambda n: list_number(n, "A", is_doubled=True),
    "lowerLetter": lambda n: list_number(n, "a", is_doubled=True),
    "ordinal": lambda n: (
        f"{n}{({1: 'st', 2: 'nd', 3: 'rd'} if n // 10 % 10 != 1 else {}).get(n % 10, 'th')}"
    ),
    "decimalEnclosedCircle": lambda n: list_number(n, "①"),
    "chicago": lambda n: "*†‡§"[(n - 1) % 4] * min((n + 3) // 4, _MOST_MARK_CHARS),
}


def number_format(name: str) -> Callable[[int], str]:
    return _NUMBER_FORMATS.get(name, str)


def value_of(form: Any, name: str) -> str:
    found = None if form is None else form.find(f"{WORD_NS}{name}")
    return "" if found is None else found.get(f"{WORD_NS}val", "")


def table_style(run: Any) -> str:
    table = next(run.iterancestors(f"{WORD_NS}tbl"), None)
    return "" if table is None else value_of(table.find(f"{WORD_NS}tblPr"), "tblStyle")


def form_of(paragraph: Any) -> Any:
    """Return a paragraph's format, its first element: a search would go through all its runs."""
    first = next(paragraph.iterchildren("*"), None)
    return first if first is not None and first.tag == f"{WORD_NS}pPr" else None


def _by_id(parent: Any, tag: str, key: str) -> dict[str, Any]:
    found = () if parent is None else parent.iterchildren(f"{WORD_NS}{tag}")
    return {element.get(f"{WORD_NS}{key}", ""): element for element in found}


def is_on(switch: Any) -> bool:
    return switch is not None and switch.get(f"{WORD_NS}val", "1") not in OFF


class StyleSheet:
    """What styles give to runs and paragraphs, by the styles that they are based on."""

    def __init__(self, styles: Any) -> None:
        self.by_id = _by_id(styles, "style", "styleId")
        self._default = ""
        for name, style in self.by_id.items():
            is_default = style.get(f"{WORD_NS}default") in ("1", "true")
            if is_default and style.get(f"{WORD_NS}type") == "paragraph":
                self._default = name
        self._run_defaults = styles.find(f"{WORD_NS}docDefaults/{WORD_NS}rPrDefault/{WORD_NS}rPr")
        self._inherited: dict[tuple[str, str], Any] = {}

    def chain(self, name: str) -> Iterator[Any]:
        for _ in range(_MOST_STYLES):
            if name not in self.by_id:
                break
            yield self.by_id[name]
            name = value_of(self.by_id[name], "basedOn")

    def paragraph_style(self, paragraph: Any) -> str:
        return value_of(form_of(paragraph), "pStyle") or self._default

    def of_run(self, run: Any, name: str) -> Any:
        own, by_style = self._formats(run, name)
        found = (e for e in (own, *by_style) if e is not None)
        return next(found, None if self._run_defaults is None else self._run_defaults.find(name))

    def is_on(self, run: Any, name: str) -> bool:
        """Return a switch of a run; where both its styles have it on, it is off."""
        own, by_style = self._formats(run, name)
        return is_on(own) if own is not None else sum(map(is_on, by_style)) == 1

    def heading_level(self, paragraph: Any) -> int:
        for style in self.chain(self.paragraph_style(paragraph)):
            outline = value_of(style.find(f"{WORD_NS}pPr"), "outlineLvl")
            named = value_of(style, "name")
            if found := _HEADING.match(named):
                return min(6, int(found[1]))
            if outline.isdecimal() or named.lower() == "title":
                return min(6, int(outline) + 1 if outline else 1) if outline != "9" else 0
        return 0

    def _formats(self, run: Any, name: str) -> tuple[Any, list[Any]]:
        form = run.find(f"{WORD_NS}rPr")
        paragraph = next(run.iterancestors(f"{WORD_NS}p"), None)
        of_paragraph = "" if paragraph is None else self.paragraph_style(paragraph)
        found = []
        for style in (value_of(form, "rStyle"), of_paragraph, table_style(run)):
            key = style, name
            if key not in self._inherited:
                places = (s.find(f"{WORD_NS}rPr/{name}") for s in self.chain(key[0]))
                self._inherited[key] = next((place for place in places if place is not None), None)
            found.append(self._inherited[key])
        return None if form is None else form.find(name), found


class ListMark(NamedTuple):
    """What stands before a paragraph of a list: a number, or nothing for a bullet."""

    text: str
    level: int


class ListNumbers:
    def __init__(self, styles: StyleSheet, numbering: Any) -> None:
        self.styles = styles
        self.n_unknown = 0
        """Numbers whose format is not known."""
        self._counts: dict[str, dict[int, int]] = {}
        self._started: set[tuple[str, int]] = set()
        self._lists = _by_id(numbering, "num", "numId")
        self._abstract = _by_id(numbering, "abstractNum", "abstractNumId")
        self._levels = {n: _by_id(found, "lvl", "ilvl") for n, found in self._abstract.items()}
        self._overrides = {
            n: _by_id(found, "lvlOverride", "ilvl") for n, found in self._lists.items()
        }

    def next(self, paragraph: Any) -> ListMark | None:
        name, level = self._place_of(paragraph)
        abstract = self._abstract_of(name)
        if not abstract:
            return None
        self._count(name, abstract, level)
        form = self._level(name, abstract, level)
        if self._format(form) == "bullet":
            return ListMark("", level)
        text = f"%{level + 1}." if form is None else value_of(form, "lvlText")[:_MOST_MARK_CHARS]
        is_legal = form is not None and is_on(form.find(f"{WORD_NS}isLgl"))

        def shown(place: re.Match[str]) -> str:
            at = int(place[1]) - 1
            n = self._counts[abstract].get(at, 0) if at <= level else 0
            written = self._format(self._level(name, abstract, at))
            if written.isdecimal():  # of its own: `001, 002, 003, ...`
                return f"{n:0{min(len(written), 9)}}"
            self.n_unknown += written not in _NUMBER_FORMATS
            return str(n) if is_legal else _NUMBER_FORMATS.get(written, str)(n)

        text = " ".join(_PLACE.sub(shown, text).split())
        return ListMark(text, level) if text else None

    def _place_of(self, paragraph: Any) -> tuple[str, int]:
        form = form_of(paragraph)
        own = None if form is None else form.find(f"{WORD_NS}numPr")
        name, level = value_of(own, "numId"), value_of(own, "ilvl")
        styles = list(self.styles.chain(self.styles.paragraph_style(paragraph)))
        for style in styles if not name else ():
            listed = style.find(f"{WORD_NS}pPr/{WORD_NS}numPr")
            if name := value_of(listed, "numId"):
                linked = {
                    value_of(form, "pStyle"): at
                    for at, form in self._levels.get(self._abstract_of(name), {}).items()
                }
                names = (style.get(f"{WORD_NS}styleId") for style in styles)
                by_link = next((linked[style] for style in names if style in linked), "")
                level = level or by_link or value_of(listed, "ilvl")
                break
        return name, min(int(level), _MOST_LEVEL) if level.isdecimal() else 0

    def _abstract_of(self, name: str) -> str:
        """Return the abstract list of a list; that of a style of lists where it names one."""
        for _ in range(_MOST_STYLES):
            if name not in self._lists:
                break
            abstract = value_of(self._lists[name], "abstractNumId")
            linked = value_of(self._abstract.get(abstract), "numStyleLink")
            if not linked or linked not in self.styles.by_id:
                return abstract if abstract in self._abstract else ""
            form = self.styles.by_id[linked].find(f"{WORD_NS}pPr/{WORD_NS}numPr")
            name = value_of(form, "numId")
        return ""

    def _level(self, name: str, abstract: str, level: int) -> Any:
        override = self._overrides[name].get(str(level))
        own = None if override is None else override.find(f"{WORD_NS}lvl")
        return self._levels[abstract].get(str(level)) if own is None else own

    def _format(self, form: Any) -> str:
        found = None if form is None else next(form.iter(f"{WORD_NS}numFmt"), None)
        if found is None:
            return "decimal"
        kind: str = found.get(f"{WORD_NS}val", "decimal")
        own: str = found.get(f"{WORD_NS}format", "")
        return own.partition(",")[0] if kind == "custom" else kind

    def _count(self, name: str, abstract: str, level: int) -> None:
        counts = self._counts.setdefault(abstract, {})

        def start(at: int) -> int:
            own = value_of(self._overrides[name].get(str(at)), "startOverride")
            written = own or value_of(self._level(name, abstract, at), "start")
            return min(int(written), _MOST_NUMBER) if written.isdecimal() else 1

        has_start = value_of(self._overrides[name].get(str(level)), "startOverride") != ""
        is_first = has_start and (name, level) not in self._started
        self._started.add((name, level))
        counts[level] = start(level) if is_first or level not in counts else counts[level] + 1
        for deeper in [at for at in counts if at > level]:
            after = value_of(self._level(name, abstract, deeper), "lvlRestart")
            if not after.isdecimal() or level < int(after):
                del counts[deeper]
        for higher in range(level):
            counts.setdefault(higher, start(higher))
