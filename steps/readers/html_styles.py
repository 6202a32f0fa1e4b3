"""How the elements of a page look, by their tags, attributes and style sheets.

Marks them as raised, lowered, struck, hidden, or as standing apart. Knows elements only by their
attributes, so that `html` is the only importer of BeautifulSoup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import counted

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
_HIDING = re.compile(
    r"(?:^|[;\s])(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|(?:font-size|opacity)\s*:\s*0*\.?0+(?:px|pt|r?em|%)?\s*(?:[;!]|$)"
    r"|(?:text-indent|left|top)\s*:\s*-\d{3,}|mso-hide\s*:\s*all|font-size\s*:\s*(?:[01](?:\.\d+)?p[xt]|2pt)\b"
    r"|(?:max-)?height\s*:\s*0(?:px)?\s*(?:[;!]|$)|clip\s*:\s*rect\(\s*[01](?:px)?\b"
    r"|color\s*:\s*transparent\b|clip-path\s*:\s*inset\(\s*(?:50|100)%"
    r"|transform\s*:\s*scale\(\s*0\s*\)|content-visibility\s*:\s*hidden)",
    re.IGNORECASE,
)
_STYLE = re.compile(
    r"(?:^|[;\s])(text-decoration(?:-line)?|vertical-align|mso-text-raise|list-style(?:-type)?|display)"
    r"\s*:\s*([^;!]+)",
    re.IGNORECASE,
)
_SHIFT = re.compile(
    r"(super|sub)\b|(-?)(?:0?\.[2-9]\d*em|[2-9][\d.]*p[xt]|[2-9]\d%)", re.IGNORECASE
)
"""What raises or lowers text by more than aligns a picture."""
_LIST_STYLES = {
    **{"decimal": "1", "lower-roman": "i", "upper-roman": "I", "none": "-"},
    **dict.fromkeys(("lower-alpha", "lower-latin"), "a"),
    **dict.fromkeys(("upper-alpha", "upper-latin"), "A"),
}
_GENERATED = re.compile(r"(.+?)::?(before|after)", re.IGNORECASE)
_CONTENT = re.compile(r"(?:^|[;\s])content\s*:\s*((?:\"[^\"]*\"|'[^']*'|[^;!\"'])+)", re.IGNORECASE)
_CONTENT_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|attr\(\s*([\w-]+)\s*\)", re.IGNORECASE)
_CSS_ESCAPE = re.compile(r"\\(?:([0-9A-Fa-f]{1,6})\s?|(.))")
_SAYS = re.compile("[LNS]|Pd")
"""Categories of characters that mean something, unlike bullets and quotation marks."""
_EMPTY_TAGS = ("area", "br", "hr", "img", "input")
_COUNTED = re.compile(r"content\s*:[^;}]{0,200}?\bcounters?\(", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_SIMPLE_SELECTOR = re.compile(r"[\w-]*[.#]?[\w-]+")
MOST_STYLE_CHARS = 200_000
_MOST_STEPS = 3_000_000  # from elements to those around them, some seconds


class _Look(Struct, frozen=True):
    """How an element is shown. A colour is `#rrggbb`, or a word where it is not known."""

    is_hidden: bool = False
    ink: str = "#000000"
    paper: str = "#ffffff"
    is_struck: bool = False
    is_marked: bool = False
    """Whether the mark of struck text is around an outer element."""

    @property
    def is_unseen(self) -> bool:
        return self.is_hidden or self.ink == self.paper

    def of(self, name: str, declarations: str) -> _Look:
        ink, paper = _INK_OF.get(name, self.ink), _PAPER_OF.get(name, self.paper)
        for place, value in _COLOURS.findall(declarations):
            colour = _colour(value)
            if place.lower() == "color":
                ink = colour or ink
            else:
                paper = colour or paper
        if _PLACED.search(declarations):  # over something else
            paper = "unknown paper"
        is_hidden = self.is_hidden or bool(_HIDING.search(declarations))
        return replace(self, is_hidden=is_hidden, ink=ink, paper=paper)


def _colour(written: str) -> str:
    """Return the colour of a declaration; empty: that of what is behind it or around it.

    >>> _colour("#FFF"), _colour("rgb(255, 0,10)"), _colour("White url(x.png)"), _colour("none")
    ('#ffffff', '#ff000a', 'url(x.png)', '')
    """
    value = written.strip().lower()
    if found := re.fullmatch(r"rgba?\(\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)\s*\)", value):
        return "#" + "".join(f"{min(int(part), 255):02x}" for part in found.groups())
    if short := re.fullmatch(r"#([0-9a-f])([0-9a-f])([0-9a-f])", value):
        return "#" + "".join(part * 2 for part in short.groups())
    words = value.split()
    if any("(" in word for word in words):
        return next((word for word in words if "(" in word), "")
    first = words[0] if words else ""
    return {"white": "#ffffff", "black": "#000000", **dict.fromkeys(_NO_COLOURS, "")}.get(
        first, first
    )


_COLOURS = re.compile(
    r"(?:^|[;\s])(background(?:-color|-image)?|color)\s*:\s*([^;!]+)", re.IGNORECASE
)
_NO_COLOURS = ("transparent", "none", "inherit", "initial", "unset", "currentcolor")
_PLACED = re.compile(r"(?:^|[;\s])position\s*:\s*(?:absolute|fixed|sticky)", re.IGNORECASE)
_FIELDS = ("button", "input", "select", "textarea", "option")
_INK_OF = {"a": "link", "svg": "drawn", **dict.fromkeys(_FIELDS, "field's ink")}
_PAPER_OF = {"mark": "marker", **dict.fromkeys(_FIELDS, "field")}
"""Colours that programs give to elements."""
_STYLING = {"bgcolor": "background: {}", "background": "background: url({})", "color": "color: {}"}
"""Attributes that colour an element, as declarations."""


class StyleSheets:
    """What a page's rules say of how its elements look.

    Of rules that hide or colour text only the simple selectors (`.x`, `#x`, `p`, `p.x`) are known:
    colours by others (`.x p`) are unknown ones, so that no text is hidden by them.
    """

    def __init__(self, soup: Any, styles: str) -> None:
        styles = "\n".join([*(style.get_text() for style in soup.find_all("style")), styles])
        styles = _COMMENT.sub("", styles[:MOST_STYLE_CHARS])
        self._rules: dict[str, str] = {}
        self._rules_within: dict[str, list[tuple[list[str], str]]] = {}
        """By its last part, a selector's other parts (`>` among them) and its declarations."""
        self._contents: dict[str, list[tuple[list[str], str, str]]] = {}
        """By the same, the other parts, `before` or `after`, and what is shown there."""
        self._n_steps_left = _MOST_STEPS
        for selectors, declarations in _rules_of(styles):
            for selector in selectors.split(","):
                self._add(selector.strip(), declarations)
        n_counted = len(_COUNTED.findall(styles))
        what = counted(n_counted, "rule of its styles are", "rules of its styles are")
        self.notes = (f": numbers by {what} not read",) if n_counted else ()

    def _add(self, selector: str, declarations: str) -> None:
        if found := _GENERATED.fullmatch(selector):
            *parts, last = re.findall(r">|[^\s>]+", found[1]) or [""]
            is_known = all(p == ">" or _SIMPLE_SELECTOR.fullmatch(p) for p in (*parts, last))
            shown = _CONTENT.search(declarations)
            if is_known and shown and not _HIDING.search(declarations):
                self._contents.setdefault(last, []).append((parts, found[2].lower(), shown[1]))
            return
        places = {name.lower() for name, _ in _COLOURS.findall(declarations)}
        styling = "".join(f"; {name}: {value}" for name, value in _STYLE.findall(declarations))
        if not _SIMPLE_SELECTOR.fullmatch(selector):
            parts = re.findall(r">|[^\s>]+", selector)
            if styling and parts and all(p == ">" or _SIMPLE_SELECTOR.fullmatch(p) for p in parts):
                self._rules_within.setdefault(parts[-1], []).append((parts[:-1], styling))
            selector = re.split(r"[\s>+~:\[]+", selector.partition(":")[0].strip())[-1]
            declarations = "".join(f"; {name}: some-{name}" for name in sorted(places))
        elif not (
            styling or places or _HIDING.search(declarations) or _PLACED.search(declarations)
        ):
            return
        if declarations:
            self._rules[selector] = f"{self._rules.get(selector, '')}; {declarations}"

    def add_generated(self, soup: Any, skipped: Container[str]) -> None:
        """Put what rules show before and behind elements into them, where it says something."""
        for element in soup.find_all(True) if self._contents else ():
            shown = dict[str, str]()
            for selector in _selectors_of(element):
                for parts, place, content in self._contents.get(selector, ()):
                    if self._is_within(element, parts):
                        shown[place] = _generated_text(element, content)
            if element.name in _EMPTY_TAGS or element.name in skipped:
                continue
            for place, text in shown.items():
                if any(_SAYS.match(unicodedata.category(char)) for char in text):
                    element.insert(0 if place == "before" else len(element.contents), text)

    def _is_within(self, element: Any, parts: Sequence[str]) -> bool:
        is_parent = False
        for part in reversed(parts):
            if part == ">":
                is_parent = True
                continue
            element = element.parent
            while element is not None and part not in _selectors_of(element):
                self._n_steps_left -= 1
                element = None if is_parent or self._n_steps_left < 0 else element.parent
            if element is None:
                return False
            is_parent = False
        return True

    def mark(
        self, soup: Any, own_words: Callable[[Any], str], skipped: Container[str]
    ) -> list[str]:
        """Mark elements by how they look; return the texts that are not shown, in order.

        `own_words` returns what an element shows without having text in it; `skipped` are tags.
        """
        plain, texts = _Look(), list[str]()
        looks = dict[int, _Look]()
        """By the id of an element that looks other than the page does."""
        seen = set[int]()
        unseen = list[Any]()
        for node in soup.descendants:
            around = looks.get(id(node.parent), plain)
            words = ""
            if node.name is None:
                words = str(node) if type(node).__name__ == "NavigableString" else ""
                is_unseen = around.is_unseen
            elif node.name not in skipped:
                look = self._look(node, around)
                if look != plain:
                    looks[id(node)] = look
                words, is_unseen = own_words(node), look.is_hidden
            if not words.strip():
                continue
            if is_unseen:
                texts.append(words)
                unseen.append(node)
            else:
                while node is not None and id(node) not in seen:
                    seen.add(id(node))
                    node = node.parent
        for node in unseen:
            _hide(soup, node, seen)
        return texts

    def _look(self, element: Any, around: _Look) -> _Look:
        name, attributes = element.name, element.attrs
        declared = list[str]()
        for selector in _selectors_of(element):
            declared += [self._rules[selector]] if selector in self._rules else []
            for parts, declarations in self._rules_within.get(selector, ()):
                declared += [declarations] if self._is_within(element, parts) else []
        for key in attributes.keys() & _STYLING.keys():
            declared.append(_STYLING[key].format(attribute(element, key)))
        declared += [attribute(element, "style")] if "style" in attributes else []
        look, declarations = around, "; ".join(declared)
        if declared or name in _INK_OF or name in _PAPER_OF:
            look = around.of(name, declarations)
        if "hidden" in attributes or (name == "dialog" and "open" not in attributes):
            look = replace(look, is_hidden=True)
        found = _STYLE.findall(declarations)
        style = {key.lower(): v if v[:1] in "'\"" else v.lower() for key, v in found}
        if name in ("s", "strike", "del") or any(
            "line-through" in value for key, value in style.items() if key.startswith("text-")
        ):
            look = replace(look, is_struck=True)
        if look.is_struck and not look.is_marked and name not in _HOLDERS:
            look = replace(look, is_marked=True)
            element.looks |= {"struck"}
        if style:
            _apply_style(element, style)
        return look


def _apply_style(element: Any, style: Mapping[str, str]) -> None:
    shift = _SHIFT.match(style.get("vertical-align", style.get("mso-text-raise", "")).strip())
    if shift and element.name not in OUTER:
        is_low = shift[1] == "sub" or shift[2] == "-"
        element.looks |= {"lowered" if is_low else "raised"}
    listing = f"{style.get('list-style', '')} {style.get('list-style-type', '')}".split()
    element.list_style = next((_LIST_STYLES[w] for w in listing if w in _LIST_STYLES), "")
    if style.get("list-style-type", "").startswith(("'", '"')):  # the mark itself
        element.list_style = style["list-style-type"].strip()
    display = style.get("display", "").split()
    if display and element.name not in OUTER and display[0] not in ("none", "inline", "contents"):
        is_block = display[0] in ("block", "flex", "grid", "table", "list-item", "table-row")
        element.looks |= {"block" if is_block else "apart"}


def _generated_text(element: Any, content: str) -> str:
    """Return the text of a `content`, without its pictures and counters."""
    text = ""
    for double, single, name in _CONTENT_PART.findall(content):
        text += attribute(element, name) if name else _CSS_ESCAPE.sub(_unescaped, double or single)
    return text


def _unescaped(found: re.Match[str]) -> str:
    code = int(found[1] or "0", 16)
    return found[2] or (chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "")


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


def _selectors_of(element: Any) -> Iterator[str]:
    name = element.name
    yield name
    if element.attrs:
        marks = [f".{name}" for name in attribute(element, "class").split()]
        marks += [f"#{name}" for name in attribute(element, "id").split()]
        yield from marks
        yield from (f"{name}{mark}" for mark in marks)


def _rules_of(styles: str) -> Iterator[tuple[str, str]]:
    """Yield selectors and declarations of the rules that are in no other one, such as `@media`."""
    open_rules: list[str] = []
    at = 0
    for brace in re.finditer("[{}]", styles):
        text, at = styles[at : brace.start()], brace.end()
        if brace[0] == "{":
            open_rules.append(text)
        elif open_rules:
            selectors = open_rules.pop()
            if not open_rules:
                yield selectors, text


def attribute(element: Any, name: str) -> str:
    value = element.get(name) or ""
    return " ".join((" ".join(value) if isinstance(value, list) else str(value)).split())
