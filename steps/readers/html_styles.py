"""How the elements of a page look, by their tags, attributes and style sheets.

Marks them as raised, lowered, struck, hidden, or as standing apart, and collects what could hide a
text and is not decided here. Knows elements only by their attributes, so that `html` is the only
importer of BeautifulSoup.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import cache
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
_FAINT = 0.06  # of opacity: at most 15 of 255 levels differ
_PALE = 0.2
_EQUAL, _NEAR = 1.1, 1.4  # contrast by WCAG: #f4f4f4 on white; #dbdbdb on white
_LEAST_TINT = 0.12  # of one of three parts of a colour
_CLIPPED_PX = 2.0  # of a box that cuts what is in it
_MOST_PAPERS = 16
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
    fill: Colour | None = None
    """Of letters, where it is not the ink."""
    papers: tuple[Colour, ...] = (WHITE,)
    """What may lie behind it."""
    opacity: float = 1.0
    is_cut: bool = False
    """Whether a box around it cuts what goes beyond."""
    makes_boxes: bool = False
    """Whether elements within are boxes, whatever they are else."""
    is_drawn: bool = False
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
        ink = self.fill or self.ink
        known = [paper for paper in self.papers if paper is not UNKNOWN]
        contrasts = [_contrast(ink, paper) for paper in known if ink is not UNKNOWN]
        is_equal = len(known) == len(self.papers) and max(contrasts, default=9) < _EQUAL
        if self.is_shut or "hides" in self.effects.values():
            return True, frozenset()
        if (ink[3] <= _FAINT or is_equal) and not self.doubts:
            return True, frozenset()
        doubts = {name for name, effect in self.effects.items() if effect}
        doubts |= {"opacity"} if self.opacity < _PALE else set()
        is_near = ink is UNKNOWN or min(contrasts, default=9) < _NEAR
        doubts |= {"color"} if is_near else set()
        doubts |= {"background"} if len(known) < len(self.papers) else set()
        return False, self.doubts | doubts


def _contrast(ink: Colour, paper: Colour) -> float:
    shown = _over(ink, paper)
    light, dark = sorted((_light(shown), _light(paper)), reverse=True)
    most = max(abs(a - b) for a, b in zip(shown[:3], paper[:3], strict=True))
    return max((light + 0.05) / (dark + 0.05), _EQUAL if most > _LEAST_TINT else 1.0)


def _over(ink: Colour, paper: Colour) -> Colour:
    if ink is UNKNOWN or ink[3] == 1:
        return ink
    red, green, blue = (a * ink[3] + b * (1 - ink[3]) for a, b in zip(ink[:3], paper, strict=False))
    return red, green, blue, 1.0


@cache
def _light(colour: Colour) -> float:
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


_FONT_SIZES = {"xx-small": 9.0, "x-small": 10.0, "small": 13.0, "smaller": 13.0}
_IMAGES = ("url", "image", "image-set", "element", "cross-fade", "paint", "-webkit-image-set")
_AXES = (("width", "left", "right"), ("height", "top", "bottom"))
_MAKE_BOXES = ("flex", "grid", "inline-flex", "inline-grid", "-webkit-box", "-webkit-flex")
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

    def has(self, name: str, *words: str) -> bool:
        return not set(words).isdisjoint(self.words(name))

    def px(self, name: str) -> float | None:
        value = self.values.get(name, ())
        return px_of(value[0], self.look.font_px, self.look.rem_px) if len(value) == 1 else None

    def resolve(self) -> None:
        own = {name: value for name, value in self.values.items() if name.startswith("--")}
        if own:
            self.set(variables=self.look.variables | own)
        for name, value in list(self.values.items()):
            if name in own:
                del self.values[name]
            elif any(token.type == "function" for token in value):
                known = resolved(value, self.look.variables)
                self.values[name] = known or ()
                self.doubts.update([name] if known is None else [])

    def fonts(self) -> None:
        if value := self.values.get("font-size"):
            size = self.px("font-size")
            if value[0].type == "percentage":
                size = float(value[0].value) * self.look.font_px / 100
            word = next(iter(self.words("font-size")), "")
            size = _FONT_SIZES.get(word, 16.0) if word else size
            self.doubts.update(["font-size"] if size is None else [])
            self.set(font_px=self.look.font_px if size is None else size)
            effect = "" if self.look.font_px > _SMALL_PX else "could"
            effect = "hides" if self.look.font_px <= TINY_PX else effect
            self.set(effects=self.look.effects | {"font-size": effect})
            if self.name == "html":
                self.set(rem_px=self.look.font_px)
        if "line-height" in self.values:
            self.set(has_no_lines=self.px("line-height") == 0)
        if words := self.words("white-space"):
            self.set(is_nowrap=not {"nowrap", "pre"}.isdisjoint(words))

    def colours(self, around: _Look) -> None:
        if value := self.values.get("color"):
            self.set(ink=colour_of(value[0], around.ink) or around.ink)
        if fill := self.values.get("fill" if around.is_drawn else "-webkit-text-fill-color"):
            is_empty = words_of(fill) == ["none"]
            other = (0.0, 0.0, 0.0, 0.0) if is_empty else UNKNOWN
            self.set(fill=colour_of(fill[0], self.look.ink) or other)
        if (alpha := self.values.get("fill-opacity")) and around.is_drawn:
            red, green, blue, own = self.look.fill or self.look.ink
            self.set(fill=(red, green, blue, own * _part(alpha[0])))
        shown = self.values.get("background-color", ())
        images = [token for token in self.values.get("background-image", ()) if _is_image(token)]
        paper = next((c for t in shown if (c := colour_of(t, self.look.ink))), None)
        papers = around.papers
        if paper is not None and paper[3]:
            papers = tuple(dict.fromkeys(_over(paper, below) for below in papers))
        for image in images:
            colours = [c for t in _tokens_in(image) if (c := colour_of(t, self.look.ink))][:8]
            is_known = colours and image.type == "function" and "gradient" in image.lower_name
            over = [_over(c, below) for c in colours for below in papers[:4]]
            papers += tuple(over) if is_known else (UNKNOWN,)
        size = min(
            (px for n in ("height", "max-height") if (px := self.px(n)) is not None), default=inf
        )
        if size < self.look.font_px:  # text goes beyond it, and perhaps beyond what is around
            papers = tuple(dict.fromkeys((*papers, *around.papers, WHITE)))
        if self.has("background-clip", "text") or self.has("background-image", "text"):
            if (self.look.fill or self.look.ink)[3] < 1:
                self.set(ink=UNKNOWN, fill=None)
            papers = around.papers
        self.set(papers=papers)

    @property
    def is_cell(self) -> bool:
        return self.name in (*CELLS, *ROWS) and "display" not in self.values

    def effects(self, *, is_box: bool, is_placed: bool) -> None:
        """Collect what each property does to text, where it applies."""
        faded = [_part(token) for token in self.values.get("opacity", ())]
        for token in self.values.get("filter", ()):
            if token.type == "function" and token.lower_name == "opacity":
                faded += map(_part, token.arguments)
        for part in faded:
            self.set(opacity=self.look.opacity * part)
        is_moved = is_placed or self.has("position", "relative", "sticky")
        applies = {"box": is_box, "placed": is_moved}
        applies |= {"margin": not self.is_cell, "margin-of-boxes": is_box and not self.is_cell}
        for name, value in self.values.items():
            of = property_of(name)[1]
            if of.kind == "cannot-hide" or not applies.get(of.where, True):
                continue
            effect = of.effect(value, self.look.font_px)
            if of.where == "inherited-by-boxes" and not is_box:
                kept = self.look.effects.get(name, "")  # it is that of boxes within
                effect = kept or ("could" if effect else "")
            if of.where.startswith("inherited"):
                if name != "font-size":
                    self.set(effects=self.look.effects | {name: effect})
            elif effect:
                (self.hides if effect == "hides" else self.doubts).add(name)

    def boxes(self, text: Callable[[], str]) -> None:
        """Decide whether a box cuts its text: it has no room, or surely enough."""
        ways = [set(self.words(f"overflow-{axis}")) for axis in "xy"]
        is_contained = self.has("content-visibility", "auto")
        cuts = [is_contained or not way.isdisjoint(("hidden", "clip")) for way in ways]
        if not any(cuts) and all(way.isdisjoint(("auto", "scroll")) for way in ways):
            return
        sizes = list[float | None]()
        for size, before, after in _AXES:
            named = [self.values[n] for n in (size, f"max-{size}") if n in self.values]
            self.doubts.update([size] if any(v[0].type == "function" for v in named if v) else [])
            given = [self.px(size), self.px(f"max-{size}")]
            length = min((px for px in given if px is not None), default=None)
            if length is not None:
                is_outer = self.has("box-sizing", "border-box")
                side = self.px(f"padding-{before if is_outer else after}") or 0.0
                length = max(length, self.px(f"min-{size}") or 0.0) + (-side if is_outer else side)
            sizes.append(length)
        width, height = WINDOW_PX if self.name in ("body", "html") else sizes
        height = 0.0 if height is None and self.look.has_no_lines else height
        grown = [px_of(token) for token in self.values.get("flex", ())]
        width = 0.0 if width is None and len(grown) > 2 and grown[0] == grown[2] == 0 else width
        for name, length in (("width", width), ("height", height)):
            if length is not None and length <= _CLIPPED_PX:
                (self.doubts if self.is_cell else self.hides).add(name)
        if self.hides or not any(cuts):
            return
        self.set(is_cut=True)
        words = text().split()
        char_px, n_chars = _CHAR_EMS * self.look.font_px, sum(map(len, words)) + len(words)
        longest = n_chars if self.look.is_nowrap else max(map(len, words), default=0)
        if cuts[0] and longest * char_px > (width or _NARROW_PX):
            self.doubts.add("overflow")
        n_lines = inf if height is None else height // (1.2 * self.look.font_px)
        if cuts[1] and n_chars * char_px > n_lines * (width or _NARROW_PX):
            self.doubts.add("height")

    def animate(self, keyframes: Mapping[str, frozenset[str]]) -> None:
        """Doubt what an animation of the page changes: it may end otherwise than it begins."""
        names = [word for word in self.words("animation") if word in keyframes]
        if changed := frozenset[str]().union(*(keyframes[name] for name in names)):
            self.doubts.add("animation")
            self.hides -= changed
            self.set(opacity=max(self.look.opacity, 1.0 if "opacity" in changed else 0.0))
            kept = {n: e for n, e in self.look.effects.items() if n not in changed}
            self.set(effects=kept)


def _part(token: Any) -> float:
    value = token.value if token.type in ("number", "percentage") else 1.0
    return min(1.0, max(0.0, value / 100 if token.type == "percentage" else value))


def _tokens_in(token: Any) -> Iterator[Any]:
    """Yield a token and what a function is given, as far as colours are within one another."""
    yield token
    for inner in token.arguments if token.type == "function" else ():
        yield inner
        yield from inner.arguments if inner.type == "function" else ()


def _is_image(token: Any) -> bool:
    name = token.lower_name if token.type == "function" else token.type
    return name in _IMAGES or name.endswith("gradient")


_FIELDS = ("input", "select", "textarea", "option")
_NOT_SHOWN = (
    *("datalist", "canvas", "audio", "video", "noframes", "noembed", "defs", "symbol", "desc"),
    *("clippath", "pattern", "marker", "mask", "lineargradient", "radialgradient"),
)
_NOT_APPLIED = ("noscript", "template")
_SHAPES = ("rect", "path", "circle", "ellipse", "polygon", "image", "use", "foreignobject")
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


def _hints(element: Any, *, is_drawn: bool) -> tuple[str, ...]:
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
    if is_drawn:
        hints += (
            f"{k}: {attribute(element, k).partition(';')[0]}" for k in _DRAWN & attributes.keys()
        )
    return tuple(hints)


_DRAWN = frozenset(
    (
        *("fill", "fill-opacity", "opacity", "visibility", "display", "font-size", "clip-path"),
        *("transform", "mask", "filter", "color", "letter-spacing", "text-anchor", "stroke"),
    )
)
"""Attributes of drawings that are properties."""


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
        self._keyframes = {n: changed for sheet in sheets for n, changed in sheet.keyframes.items()}
        self._doubted = {doubt: list[str]() for sheet in sheets for doubt in sheet.doubts}
        """By what could hide text, the texts that it could hide."""
        self._sheets = sheets
        self._soup = soup
        self._body = soup.new_tag("body")
        """For a page that has none."""
        self._papers: tuple[Colour, ...] = ()
        self._counted = set[int]()
        """Values with counters, by their ids."""
        self._known = dict[tuple[int, int, str], _Look]()
        """Looks by those around them, declarations and the element's name."""
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
                hints = _hints(element, is_drawn=around.is_drawn or name == "svg")
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
        html = next((tag for tag in tags if tag.name == "html"), None) or soup.new_tag("html")
        root = _mirrored(html)
        mirrors, of = {id(html): root}, {id(root): html}
        top = root
        if html.parent is None:
            html.append(self._body)
            top = _mirrored(self._body)
            root.append(top)
            of[id(top)] = self._body
        for tag in tags:
            if tag is not html:
                mirrors[id(tag)] = mirror = _mirrored(tag)
                mirrors.get(id(tag.parent), top).append(mirror)
                of[id(mirror)] = tag
        for wrapped in self._cascade.wrapped(root):
            yield of[id(wrapped.etree_element)], wrapped

    def _look(
        self, element: Any, around: _Look, found: Mapping[str, Mapping[str, Tokens]]
    ) -> _Look:
        name, values = element.name, found.get("", {})
        if name == "svg":
            papers = (*around.papers, UNKNOWN) if element.find(_SHAPES) else around.papers
            around = replace(around, is_drawn=True, fill=BLACK, papers=papers)
        look = self._declared(element, around, values) if values else around
        for place in found:
            if place.startswith("?") and not look.is_hidden:
                possible = self._declared(element, around, {**values, **found[place]})
                if possible.verdict()[0] and not look.verdict()[0]:
                    look = replace(look, doubts=look.doubts | {place[1:]})
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
        key = (id(around), id(values), element.name)
        if key in self._known:
            return self._known[key]
        name, d = element.name, _Declared(around, element.name, dict(values))
        d.resolve()
        display = d.words("display")[:1]
        is_placed = d.has("position", "absolute", "fixed")
        is_floating = d.has("float", "left", "right")
        is_box = name in OUTER or name in _REPLACED or around.makes_boxes or is_placed
        is_box |= is_floating or display not in ([], ["inline"], ["contents"])
        is_moved = is_floating or not _MOVING.isdisjoint(d.values)
        if is_placed or is_moved:  # the boxes around it may lie elsewhere
            below = self._page_papers() if is_placed else (WHITE,)
            around = replace(around, papers=tuple(dict.fromkeys((*around.papers, *below))))
        d.fonts()
        d.colours(around)
        d.effects(is_box=is_box, is_placed=is_placed)
        if is_box:
            d.boxes(element.get_text)
        d.animate(self._keyframes)
        look = replace(
            d.look,
            is_hidden=around.is_hidden or bool(d.hides),
            doubts=around.doubts | d.doubts,
            makes_boxes=bool(display) and display[0] in _MAKE_BOXES,
        )
        is_over = is_placed and look.papers != around.papers and not look.is_shut
        for moved in _MOVES_OTHERS & (d.doubts | d.hides) | ({"position"} if is_over else set()):
            self._doubted[f"{moved} of others"] = []
        if not any(name.startswith("overflow") for name in values):
            self._known[key] = look
        return look

    def _page_papers(self) -> tuple[Colour, ...]:
        """Return what may lie behind a text that is placed somewhere on the page."""
        if not self._papers:
            shown = [value for sheet in self._sheets for value in sheet.backgrounds]
            for tag in self._soup.find_all(
                lambda tag: "style" in tag.attrs or "bgcolor" in tag.attrs
            ):
                for css in (*_hints(tag, is_drawn=False), attribute(tag, "style")):
                    shown += (v for name, v, _ in self._cascade.inline(css) if name in _BACKGROUNDS)
            tokens = [t for value in shown for token in value for t in _tokens_in(token)]
            colours = {c for t in tokens if (c := colour_of(t, UNKNOWN)) and c[3]}
            is_unknown = any(t.type == "url" for t in tokens)
            is_unknown |= any(t.type == "function" and t.lower_name == "var" for t in tokens)
            if is_unknown or self._soup.find(("img", "svg", "video", "canvas")):
                colours.add(UNKNOWN)
            self._papers = (WHITE, *(colours if len(colours) <= _MOST_PAPERS else {UNKNOWN}))
        return self._papers

    def _generated(self, element: Any, look: _Look, values: Mapping[str, Tokens]) -> str:
        """Return the text of a `content`, without its pictures and counters."""
        text, counters = "", ("counter", "counters")
        shown = self._declared(element, look, {n: v for n, v in values.items() if n != "content"})
        for token in values.get("content", ()) if not shown.verdict()[0] else ():
            if token.type == "string":
                text += token.value
            elif token.type == "function" and token.lower_name == "attr":
                text += attribute(element, (*words_of(token.arguments), "")[0])
            elif token.type == "function" and token.lower_name in counters:
                self._counted.add(id(token))
        return text


def _mirrored(element: Any) -> Element:
    """Return an element for selectors, which ask whether it has text."""
    mirror = Element(element.name)
    for name in element.attrs:
        mirror.set(name, attribute(element, name) if name == "class" else str(element[name] or ""))
    if any(node.name is None for node in element.contents):
        mirror.text = " "
    return mirror


_BACKGROUNDS = ("background", "background-color", "background-image")
_REPLACED = ("img", "svg", "math", "meter", "progress", "button", *_FIELDS)
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
