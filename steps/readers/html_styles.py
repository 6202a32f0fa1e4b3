"""How the elements of a page look, by their tags, attributes and style sheets.

Marks them as raised, lowered, struck, hidden, or as standing apart, and collects what could hide a
text and is not decided here. Knows elements only by their attributes, so that `html` is the only
importer of BeautifulSoup.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from math import inf
from typing import Any
from xml.etree.ElementTree import Element

from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import counted

from .reader import text_sample
from .style_sheets import (
    BLACK,
    UNKNOWN,
    WHITE,
    WINDOW_PX,
    Cascade,
    Colour,
    CssSheet,
    Tokens,
    colour_of,
    property_of,
    px_of,
    resolved,
    words_of,
)

BLOCKS = (
    *("address", "aside", "center", "details", "dialog", "fieldset", "figure", "footer", "form"),
    *("head", "header", "hgroup", "legend", "main", "nav", "search", "summary"),
)
"""Blocks that markdownify takes for inline text: two in a row would be one word.

Where the end of `head` is left out, which is allowed, the whole page is in it.
"""
ROWS = ("thead", "tbody", "tfoot", "tr")
CELLS = ("td", "th")
_HOLDERS = ("table", *ROWS, "ul", "ol", "menu", "dl", "body", "html", "[document]")
"""What marks of text go into, not around."""
OUTER = frozenset(
    (
        *(*_HOLDERS, *CELLS, *BLOCKS, "p", "div", "section", "article", "blockquote", "li", "dt"),
        *("dd", "caption", "figcaption", "pre", "br", "hr", *(f"h{n}" for n in range(1, 7))),
    )
)
"""What text does not run across."""
_LIST_STYLES = {
    **{"decimal": "1", "lower-roman": "i", "upper-roman": "I", "none": "-"},
    **dict.fromkeys(("lower-alpha", "lower-latin"), "a"),
    **dict.fromkeys(("upper-alpha", "upper-latin"), "A"),
}
_SAYS = ("L", "N", "S", "Pd")
"""Categories of characters that mean something, unlike bullets and quotation marks."""
_EMPTY_TAGS = ("area", "br", "hr", "img", "input")
_LEAST_SHIFT = {"number": 9e9, "percentage": 20.0, "dimension": 2.0}
"""What raises or lowers text by more than aligns a picture."""

TINY_PX, _SMALL_PX = 2.67, 5.0  # two points
_FAINT, _PALE = 0.06, 0.2  # of opacity: at most 15 of 255 levels differ
_EQUAL, _NEAR = 0.05, 0.15  # how much colours differ: #f4f4f4 from white; #d9d9d9 from white
_CLIPPED_PX = 2.0  # of a box that cuts what is in it
_CHAR_EMS = 0.6  # how wide a character is at most, on average
_NARROW_PX = 300.0  # a column whose width is not known
_MOST_NAMED = 10


class _Look(Struct, frozen=True):
    """How text within an element is shown."""

    is_hidden: bool = False
    effects: dict[str, str] = field(default_factory=dict)
    """Of properties that elements within can undo."""
    font_px: float = 16.0
    rem_px: float = 16.0
    has_no_lines: bool = False
    is_nowrap: bool = False
    ink: Colour = BLACK
    papers: tuple[Colour, ...] = (WHITE,)
    """What may lie behind it."""
    opacity: float = 1.0
    doubts: frozenset[str] = frozenset()
    """Properties that could hide it and are not decided."""
    variables: dict[str, Tokens] = field(default_factory=dict)
    is_struck: bool = False
    is_marked: bool = False
    """Whether the mark of struck text is around an outer element."""

    @property
    def is_shut(self) -> bool:
        """Whether even a picture in it is hidden."""
        return self.is_hidden or self.opacity <= _FAINT or self.effects.get("visibility") == "hides"

    def verdict(self) -> tuple[bool, frozenset[str]]:
        """Return whether text is hidden; if not, the properties that still could hide it."""
        ink, known = self.ink, [paper for paper in self.papers if paper is not UNKNOWN]
        is_known = len(known) == len(self.papers)
        differences = [_differences(ink, paper) for paper in known if ink is not UNKNOWN]
        is_equal = is_known and max((most for most, _ in differences), default=1.0) < _EQUAL
        if self.is_shut or "hides" in self.effects.values():
            return True, frozenset()
        if (ink[3] <= _FAINT or is_equal) and not self.doubts:
            return True, frozenset()
        is_near = ink is UNKNOWN or min((light for _, light in differences), default=1.0) < _NEAR
        doubts = {name for name, effect in self.effects.items() if effect}
        doubts |= {"opacity"} if self.opacity < _PALE else set()
        doubts |= {"color"} if is_near else set()
        doubts |= set() if is_known else {"background"}
        return False, self.doubts | doubts


def _differences(ink: Colour, paper: Colour) -> tuple[float, float]:
    """Return by how much one part of two colours differs at most, and their brightness."""
    parts = [abs(a - b) for a, b in zip(_over(ink, paper)[:3], paper[:3], strict=True)]
    return max(parts), 0.3 * parts[0] + 0.59 * parts[1] + 0.11 * parts[2]


def _over(ink: Colour, paper: Colour) -> Colour:
    if ink is UNKNOWN or paper is UNKNOWN or ink[3] == 1:
        return ink if ink[3] == 1 else UNKNOWN
    red, green, blue = (a * ink[3] + b * (1 - ink[3]) for a, b in zip(ink[:3], paper, strict=False))
    return red, green, blue, 1.0


_AXES = (("width", "left", "right"), ("height", "top", "bottom"))
_MOVING = {"transform", "translate", "rotate"}
_MOVES_OTHERS = {"margin-top", "margin-bottom", "outline", "outline-width", "outline-offset"}


class _Declared(Struct):
    """What declarations mean for an element, in a look that grows."""

    look: _Look
    name: str
    values: dict[str, Tokens]
    hides: set[str] = field(default_factory=set)
    """Properties that hide all of it."""
    doubts: set[str] = field(default_factory=set)

    def set(self, **changes: Any) -> None:
        self.look = replace(self.look, **changes)

    def words(self, name: str) -> list[str]:
        return words_of(self.values.get(name, ()))

    def px(self, name: str) -> float | None:
        value = self.values.get(name, ())
        return px_of(value[0], self.look.font_px, self.look.rem_px) if len(value) == 1 else None

    def resolve_variables(self) -> None:
        for name, value in list(self.values.items()):
            if name.startswith("--"):
                known = {name: resolved(value, self.look.variables)}
                self.set(variables=self.look.variables | known)
                del self.values[name]
        for name, value in self.values.items():
            if any(token.type == "function" for token in value):
                self.values[name] = resolved(value, self.look.variables)
                self.doubts.update([] if self.values[name] else [name])

    def apply_fonts(self) -> None:
        if value := self.values.get("font-size"):
            size = self.px("font-size")
            if value[0].type == "percentage":
                size = float(value[0].value) * self.look.font_px / 100
            elif words := self.words("font-size"):
                size = self.look.font_px if words[0] in ("smaller", "larger") else 16.0
            self.doubts.update(["font-size"] if size is None else [])
            self.set(font_px=self.look.font_px if size is None else size)
            effect = "could" if self.look.font_px <= _SMALL_PX else ""
            effect = "hides" if self.look.font_px <= TINY_PX else effect
            self.set(effects=self.look.effects | {"font-size": effect})
            if self.name == "html":
                self.set(rem_px=self.look.font_px)
        if "line-height" in self.values:
            self.set(has_no_lines=self.px("line-height") == 0)
        if words := self.words("white-space"):
            self.set(is_nowrap=not {"nowrap", "pre"}.isdisjoint(words))

    def apply_colours(self, around: _Look) -> None:
        if value := self.values.get("color"):
            self.set(ink=colour_of(value[0], around.ink) or UNKNOWN)
        colour, *images = (
            [c for token in self.values.get(name, ()) if (c := colour_of(token, self.look.ink))]
            for name in ("background-color", "background-image")
        )
        papers = around.papers
        for paper in colour:
            if paper is not UNKNOWN and paper[3]:
                papers = tuple(dict.fromkeys(_over(paper, below) for below in papers))
        papers += (UNKNOWN,) if UNKNOWN in (*colour, *images[0]) else ()
        heights = (self.px("height"), self.px("max-height"))
        if min((px for px in heights if px is not None), default=inf) < self.look.font_px:
            # the text goes beyond it, and perhaps beyond what is around
            papers = tuple(dict.fromkeys((*papers, *around.papers, WHITE)))
        self.set(papers=papers)

    @property
    def is_cell(self) -> bool:
        return self.name in (*CELLS, *ROWS) and "display" not in self.values

    def apply_effects(self, *, is_box: bool, is_placed: bool) -> None:
        """Collect what each property does to text, as far as it applies."""
        for token in self.values.get("opacity", ()):
            self.set(opacity=self.look.opacity * _part(token))
        applies = {
            "placed": is_placed or not {"relative", "sticky"}.isdisjoint(self.words("position")),
            "margin": not self.is_cell,
            "margin-of-boxes": not self.is_cell,
        }
        for name, value in self.values.items():
            of = property_of(name)[1]
            if of.kind == "cannot-hide" or not applies.get(of.where, True) or name == "font-size":
                continue
            effect = of.effect(value, self.look.font_px)
            if effect and "box" in of.where and not is_box:
                effect = "could"
            if of.where.startswith("inherited"):
                self.set(effects=self.look.effects | {name: effect})
            elif effect:
                (self.hides if effect == "hides" else self.doubts).add(name)

    def apply_size(self, text: Callable[[], str], *, is_box: bool) -> None:
        """Decide whether a box cuts its text: it has no room, or surely enough."""
        ways = [set(self.words(f"overflow-{axis}")) for axis in "xy"]
        is_contained = "auto" in self.words("content-visibility")
        cuts = [is_contained or not way.isdisjoint(("hidden", "clip")) for way in ways]
        if not any(cuts) and all(way.isdisjoint(("auto", "scroll")) for way in ways):
            return
        sizes = list[float | None]()
        for size, before, after in _AXES:
            given = [self.px(size), self.px(f"max-{size}")]
            both = (*self.values.get(size, ()), *self.values.get(f"max-{size}", ()))
            self.doubts.update(size for token in both if token.type == "function")
            length = min((px for px in given if px is not None), default=None)
            if length is not None:
                is_outer = "border-box" in self.words("box-sizing")
                side = self.px(f"padding-{before if is_outer else after}") or 0.0
                length = max(length, self.px(f"min-{size}") or 0.0) + (-side if is_outer else side)
            sizes.append(length)
        width, height = WINDOW_PX if self.name in ("body", "html") else sizes
        height = 0.0 if height is None and self.look.has_no_lines else height
        grown = [px_of(token) for token in self.values.get("flex", ())]
        width = 0.0 if width is None and len(grown) > 2 and grown[0] == grown[2] == 0 else width
        for name, length in (("width", width), ("height", height)):
            if length is not None and length <= _CLIPPED_PX:
                (self.hides if is_box and not self.is_cell else self.doubts).add(name)
        if self.hides or not any(cuts) or not self.look.font_px:
            return
        words = text().split()
        char_px, n_chars = _CHAR_EMS * self.look.font_px, sum(map(len, words)) + len(words)
        longest = n_chars if self.look.is_nowrap else max(map(len, words), default=0)
        n_lines = inf if height is None else height // (1.2 * self.look.font_px)
        is_wide = cuts[0] and longest * char_px > (width or _NARROW_PX)
        if is_wide or (cuts[1] and n_chars * char_px > n_lines * (width or _NARROW_PX)):
            self.doubts.add("overflow")


def _part(token: Any) -> float:
    value = token.value if token.type in ("number", "percentage") else 1.0
    return min(1.0, max(0.0, value / 100 if token.type == "percentage" else value))


_FIELDS = ("input", "select", "textarea", "option")
_NOT_SHOWN = (
    *("datalist", "canvas", "audio", "video", "noframes", "noembed", "defs", "symbol", "desc"),
    *("clippath", "pattern", "marker", "mask", "lineargradient", "radialgradient"),
)
_NOT_APPLIED = ("noscript", "template")
_PLAIN_HINTS = {
    "a": "color: #0000ee",
    "mark": "background-color: yellow; color: black",
    "button": "background-color: #efefef; color: black",
    **dict.fromkeys(_FIELDS, "background-color: white; color: black"),
    **dict.fromkeys(_NOT_SHOWN, "display: none"),
}
"""What browsers do with elements, as declarations."""
_STYLING = {
    **{"bgcolor": "background-color: {}", "background": "background-image: url({})"},
    **{"color": "color: {}", "text": "color: {}", "hidden": "display: none"},
    "popover": "display: none",
}
"""Attributes that colour or hide an element, as declarations."""


def _hints(element: Any) -> tuple[str, ...]:
    name, attributes = element.name, element.attrs
    hints = list[str]()
    if name in _PLAIN_HINTS and (name != "a" or "href" in attributes):
        hints.append(_PLAIN_HINTS[name])
    if name == "dialog" and "open" not in attributes:
        hints.append("display: none")
    for key in attributes.keys() & _STYLING.keys():
        value = attribute(element, key).partition(";")[0]
        is_bare = len(value) == 6 and all(char in "0123456789abcdefABCDEF" for char in value)
        if key != "text" or name == "body":
            hints.append(_STYLING[key].format(f"#{value}" if is_bare else value))
    return tuple(hints)


def sheet_beside(parts: Iterable[bytes]) -> CssSheet | None:
    """Return the style sheets that come with pages, as parts of their own."""
    css = "\n".join(part.decode("utf-8", "replace") for part in parts)
    return CssSheet(css) if css.strip() else None


class PageStyles:
    """How the elements of one page look, by its own style sheets and those of its book."""

    def __init__(self, soup: Any, book: CssSheet | None = None) -> None:
        found = [s for s in soup.find_all("style") if s.find_parent(_NOT_APPLIED) is None]
        own = [
            f"@media {attribute(style, 'media')} {{{text}}}" if style.has_attr("media") else text
            for style in found
            if (text := style.get_text()).strip()
        ]
        sheets = [CssSheet("\n".join(own))] if own else []
        sheets += [book] if book is not None else []
        self._cascade = Cascade(sheets)
        self._doubted = {doubt: list[str]() for sheet in sheets for doubt in sheet.doubts}
        """By what could hide text, the texts that it could hide."""
        self._body = soup.new_tag("body")
        """For a page that has none."""
        self._counted = set[int]()
        """Values with counters, by their ids."""
        self._known = dict[tuple[int, int, str], tuple[_Look, Any, Any]]()
        """Looks by the ids of those around them and of declarations, which are kept with them."""
        self._verdicts = dict[int, tuple[bool, frozenset[str]]]()

    @property
    def notes(self) -> tuple[str, ...]:
        notes = list[str]()
        if n := len(self._counted):
            what = counted(n, "rule of its styles are", "rules of its styles are")
            notes.append(f": numbers by {what} not read")
        if self._doubted:
            named = [
                f"{name} ({text_sample(texts)})" if texts else name
                for name, texts in self._doubted.items()
            ]
            n_left = len(named) - _MOST_NAMED
            named = named[:_MOST_NAMED] + ([f"and {n_left} more"] if n_left > 0 else [])
            notes.append(f": styled page, not checked whether text is hidden by {', '.join(named)}")
        return tuple(notes)

    def mark(
        self, soup: Any, own_words: Callable[[Any], str], skipped: Container[str]
    ) -> list[str]:
        """Mark elements by how they look; return the texts that are not shown, in order.

        `own_words` returns what an element shows without having text in it; `skipped` are tags.
        """
        looks = self._find_looks(soup, skipped)
        plain, texts = _Look(), list[str]()
        seen = set[int]()
        unseen = list[Any]()
        for node in soup.descendants:
            words, doubts = "", frozenset[str]()
            if node.name is None:
                words = str(node) if type(node).__name__ == "NavigableString" else ""
                if not words.strip():
                    continue
                is_unseen, doubts = self._verdict(looks.get(id(node.parent), plain))
            elif node.name not in skipped:
                look = looks.get(id(node), plain)
                words, is_unseen = own_words(node), look.is_shut
            if not words.strip():
                continue
            if is_unseen:
                texts.append(words)
                unseen.append(node)
                continue
            for doubt in sorted(doubts):
                self._doubted.setdefault(doubt, []).append(words.strip())
            while node is not None and id(node) not in seen:
                seen.add(id(node))
                node = node.parent
        for node in unseen:
            _hide(soup, node, seen)
        return texts

    def _verdict(self, look: _Look) -> tuple[bool, frozenset[str]]:
        if id(look) not in self._verdicts:
            self._verdicts[id(look)] = look.verdict()
        return self._verdicts[id(look)]

    def _find_looks(self, soup: Any, skipped: Container[str]) -> dict[int, _Look]:
        """Return looks that are not plain, by the ids of elements, and put generated texts in."""
        looks, plain = dict[int, _Look](), _Look()
        generated = list[tuple[Any, str, str]]()
        for element, wrapped in self._elements(soup):
            name = element.name
            around = looks.get(id(element.parent), plain)
            if wrapped is None and name not in _SPECIAL and not element.attrs:
                look = around
            else:
                hints = _hints(element)
                style = attribute(element, "style") if "style" in element.attrs else ""
                found = self._cascade.declarations(wrapped, hints, style)
                look = self._look(element, around, found)
                for place in found.keys() & {"before", "after"}:
                    if name not in _EMPTY_TAGS and name not in skipped:
                        text = self._generated(element, look, found[place])
                        generated.append((element, place, text))
            if look is not plain:
                looks[id(element)] = look
                if element is self._body:
                    looks[id(soup)] = look
        if self._cascade.is_exhausted:
            self._doubted["styles of many elements"] = []
        for element, place, text in generated:
            if any(unicodedata.category(char).startswith(_SAYS) for char in text):
                element.insert(0 if place == "before" else len(element.contents), text)
        return looks

    def _elements(self, soup: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the elements with what selectors match; a page without a body has one for these."""
        tags = soup.find_all(True)
        if not self._cascade.has_rules:
            yield from ((tag, None) for tag in tags)
            return
        html = soup.find("html") or soup.new_tag("html")
        top = self._body if html.parent is None else html
        if top is self._body:
            html.append(top)
        mirrors, tag_of = dict[int, Element](), dict[int, Any]()
        for tag in (html, *([] if top is html else [top]), *(t for t in tags if t is not html)):
            mirrors[id(tag)] = mirror = _mirrored(tag)
            tag_of[id(mirror)] = tag
            if tag is not html:
                mirrors.get(id(tag.parent), mirrors[id(top)]).append(mirror)
        for wrapped in self._cascade.wrapped(mirrors[id(html)]):
            yield tag_of[id(wrapped.etree_element)], wrapped

    def _look(
        self, element: Any, around: _Look, found: Mapping[str, Mapping[str, Tokens]]
    ) -> _Look:
        name, values = element.name, found.get("", {})
        if name == "svg" and any(tag.attrs for tag in element.find_all(True)):
            around = replace(around, doubts=around.doubts | {"svg"})
        look = self._declared(element, around, values) if values else around
        for place in found:
            if place.startswith("?"):  # text that shows either way is shown
                possible = self._declared(element, around, found[place])
                look = _either(look, possible, place[1:])
        is_closed = name == "details" and "open" not in element.attrs
        if is_closed or (name == "summary" and "details" in look.doubts):
            doubts = look.doubts | {"details"} if is_closed else look.doubts - {"details"}
            look = replace(look, doubts=doubts)
        if name in ("s", "strike", "del") or "line-through" in words_of(
            values.get("text-decoration", ())
        ):
            look = replace(look, is_struck=True)
        if look.is_struck and not look.is_marked and name not in _HOLDERS:
            look = replace(look, is_marked=True)
            element.looks |= {"struck"}
        if values:
            _apply_style(element, values)
        return look

    def _declared(self, element: Any, around: _Look, values: Mapping[str, Tokens]) -> _Look:
        key, kept = (id(around), id(values), element.name), (around, values)
        if key in self._known:
            return self._known[key][0]
        name, d = element.name, _Declared(around, element.name, dict(values))
        d.resolve_variables()
        display = d.words("display")[:1]
        is_placed = not {"absolute", "fixed"}.isdisjoint(d.words("position"))
        is_floating = not {"left", "right"}.isdisjoint(d.words("float"))
        is_box = name in OUTER or is_placed or is_floating
        is_box |= display not in ([], ["inline"], ["contents"])
        if is_placed or is_floating or not _MOVING.isdisjoint(d.values):
            # the boxes around it may lie elsewhere
            below = (*around.papers, WHITE, *((UNKNOWN,) if is_placed else ()))
            around = replace(around, papers=tuple(dict.fromkeys(below)))
        d.apply_fonts()
        d.apply_colours(around)
        d.apply_effects(is_box=is_box, is_placed=is_placed)
        d.apply_size(element.get_text, is_box=is_box)
        if not {"animation", "animation-name"}.isdisjoint(d.doubts):  # it may end otherwise
            d.hides.clear()
            d.set(effects=around.effects, opacity=around.opacity)
        look = replace(
            d.look, is_hidden=around.is_hidden or bool(d.hides), doubts=around.doubts | d.doubts
        )
        is_over = is_placed and look.papers != around.papers and not look.is_shut
        for moved in _MOVES_OTHERS & (d.doubts | d.hides) | ({"position"} if is_over else set()):
            self._doubted[f"{moved} of others"] = []
        if not any(name.startswith("overflow") for name in values):
            self._known[key] = (look, *kept)
        return look

    def _generated(self, element: Any, look: _Look, values: Mapping[str, Tokens]) -> str:
        """Return the text of a `content`, without its pictures and counters."""
        text, counters = "", ("counter", "counters")
        shown = self._declared(element, look, values)
        for token in values.get("content", ()) if not shown.verdict()[0] else ():
            if token.type == "string":
                text += token.value
            elif token.type == "function" and token.lower_name == "attr":
                text += attribute(element, (*words_of(token.arguments), "")[0])
            elif token.type == "function" and token.lower_name in counters:
                self._counted.add(id(token))
        return text


def _either(look: _Look, possible: _Look, doubt: str) -> _Look:
    """Return a look that says nothing on which two differ; text that one of them shows is shown."""
    is_hidden, is_possible = look.verdict(), possible.verdict()
    shown = possible if is_hidden[0] else look
    is_doubtful = is_hidden != is_possible or possible.opacity < look.opacity
    changed = {n: () for n, v in possible.variables.items() if look.variables.get(n) is not v}
    return replace(
        shown,
        doubts=look.doubts | possible.doubts | ({doubt} if is_doubtful else set()),
        ink=look.ink if possible.ink == look.ink else UNKNOWN,
        papers=tuple(dict.fromkeys((*look.papers, *possible.papers))),
        variables=look.variables | changed,
    )


def _mirrored(element: Any) -> Element:
    """Return an element for selectors, which ask whether it has text."""
    mirror = Element(element.name)
    for name in element.attrs:
        mirror.set(name, attribute(element, name) if name == "class" else str(element[name] or ""))
    if any(node.name is None for node in element.contents):
        mirror.text = " "
    return mirror


_SPECIAL = frozenset(
    (*_PLAIN_HINTS, "dialog", "details", "summary", "svg", "s", "strike", "del")
) - {"a"}  # without attributes


def _apply_style(element: Any, values: Mapping[str, Tokens]) -> None:
    for token in values.get("vertical-align", ())[:1] if element.name not in OUTER else ():
        word = token.lower_value if token.type == "ident" else ""
        least = (
            0.2 if getattr(token, "lower_unit", "") == "em" else _LEAST_SHIFT.get(token.type, 9e9)
        )
        shift = token.value if token.type in _LEAST_SHIFT else 0
        if word in ("super", "sub") or abs(shift) >= least:
            element.looks |= {"lowered" if word == "sub" or shift < 0 else "raised"}
    listing = (*values.get("list-style", ()), *values.get("list-style-type", ()))
    words = words_of(listing)
    element.list_style = next((_LIST_STYLES[word] for word in words if word in _LIST_STYLES), "")
    for token in values.get("list-style-type", ()):
        if token.type == "string":  # the mark itself
            element.list_style = f"'{token.value.strip()}'"
    display = words_of(values.get("display", ()))
    if display and element.name not in OUTER and display[0] not in ("none", "inline", "contents"):
        is_block = display[0] in ("block", "flex", "grid", "table", "list-item", "table-row")
        element.looks |= {"block" if is_block else "apart"}


def _hide(soup: Any, node: Any, seen: Container[int]) -> None:
    """Mark the outermost element around a text in which nothing is shown."""
    found = node
    while node is not None and id(node) not in seen:
        if node.name is not None and "hidden" in node.looks:
            return
        if node.name is None or node.name not in _HOLDERS:
            found = node
        node = node.parent
    if found.name is None:
        found = found.wrap(soup.new_tag("span"))
    found.looks |= {"hidden"}


def attribute(element: Any, name: str) -> str:
    value = element.get(name) or ""
    return " ".join((" ".join(value) if isinstance(value, list) else str(value)).split())
