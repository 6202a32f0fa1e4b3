"""HTML to Markdown: headings, lists, tables and links stay, scripts and styles go.

What a page shows without being text becomes text: `alt` of pictures, values of forms, words of
drawings, and what is raised or lowered (`10^6`, `H_2O`). What it hides, or shows from elsewhere, is
noted. The only module that knows BeautifulSoup and markdownify.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import bs4
from markdownify import MarkdownConverter

from paddock.engine.system.text import counted

from .hidden_text_notes import hidden_text_note
from .reader import Unreadable, text_sample

_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*>")  # XHTML; BeautifulSoup would take it for XML
_UNREAD_TAGS = ("noscript", "template")
_SKIPPED_TAGS = ("script", "style", "title", "iframe", *_UNREAD_TAGS)
_MAX_TAGS = 1_000_000  # opening and closing ones; each takes 600 bytes and 0.1 ms
_MOST_BLANKS = 200
_LONG_BLANK = re.compile(rf"[^\S\n]{{{_MOST_BLANKS},}}")  # markdownify's time is their square
_MAX_DEPTH = 200  # markdownify goes down by recursion; Python's stack ends near 1,000 calls

_BLOCKS = (
    *("address", "aside", "details", "dialog", "fieldset", "figure", "footer", "form", "head"),
    *("header", "legend", "main", "nav", "summary"),
)
"""Blocks that markdownify takes for inline text: two in a row would be one word.

Where the end of `head` is left out, which is allowed, the whole page is in it.
"""
_HIDING = re.compile(
    r"(?:^|[;\s])(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|(?:font-size|opacity)\s*:\s*0*\.?0+(?:px|pt|r?em|%)?\s*(?:[;!]|$)"
    r"|(?:text-indent|left|top)\s*:\s*-\d{3,}|mso-hide\s*:\s*all|font-size\s*:\s*1p[xt]\b"
    r"|(?:max-)?height\s*:\s*0(?:px)?\s*(?:[;!]|$)|clip\s*:\s*rect\(\s*[01](?:px)?\b"
    r"|color\s*:\s*transparent\b|clip-path\s*:\s*inset\(\s*(?:50|100)%"
    r"|transform\s*:\s*scale\(\s*0\s*\)|content-visibility\s*:\s*hidden)",
    re.IGNORECASE,
)
_RAISED = re.compile(r"(?:^|[;\s])vertical-align\s*:\s*(super|sub)\b", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_SIMPLE_SELECTOR = re.compile(r"[\w-]*[.#]?[\w-]+")
MOST_STYLE_CHARS = 200_000
_ORDINALS = frozenset(
    ("st", "nd", "rd", "th", "er", "ère", "re", "e", "ème", "eme", "nde", "o", "os", "a", "as")
)
_MARKS = frozenset(("tm", "sm", "®", "™", "℠", "©"))
_CHOICES = ("checkbox", "radio")
_ROWS = ("thead", "tbody", "tfoot", "tr")
_ENDED_BY = {
    **dict.fromkeys(("dt", "dd"), ("dt", "dd")),
    **dict.fromkeys(("td", "th"), ("td", "th")),
    **dict.fromkeys(_ROWS[:3], _ROWS),
    **{name: (name,) for name in ("li", "tr", "option", "select")},
    "optgroup": ("option", "optgroup"),
}
"""By the name of a tag, the open elements that it ends: their end tags may be left out."""
_END_TAG_CONTAINERS = ("table", "ul", "ol", "menu", "dl", "select")
_UNSHOWN = ("hidden", "password")


@dataclass(frozen=True, slots=True)
class HtmlText:
    """A page as Markdown."""

    text: str
    title: str
    notes: tuple[str, ...] = ()
    """As those of a `Document`."""


def html_to_markdown(html: str, styles: str = "") -> HtmlText:
    """Return the page's text as Markdown, its title, and what is not shown or not read.

    `styles` are style sheets besides its own.

    Raises:
        Unreadable: its markup cannot be parsed.
    """
    if html.count("<") > _MAX_TAGS:
        raise _unreadable_html(f"it has more than {_MAX_TAGS:,} tags, which is the maximum")
    tags, end, rest = _DECLARATION.sub("", html).rpartition(">")  # in the rest are no tags
    plain = tags + end + rest.replace("<", "&lt;")
    soup = _parsed_html(_LONG_BLANK.sub(lambda found: found[0][:_MOST_BLANKS], plain))
    notes = tuple(_unread_notes(soup))
    hidden = _HidingStyles(soup, styles).hidden_texts(soup)
    _replace_drawings(soup)
    title = _html_title(soup)
    notes += (*_skipped_notes(soup), *hidden_text_note("the page", hidden))
    _replace_pictures(soup)
    _replace_forms(soup)
    _mark_formulas(soup)
    _mark_raised(soup)
    for element in soup.find_all(_BLOCKS):
        element.name = "div"
    lines = (line.rstrip() for line in _markdown(soup).split("\n"))
    return HtmlText(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), title, notes)


def _parsed_html(html: str) -> Any:
    class Element(bs4.Tag):
        _last = 0

        def index(self, element: Any) -> int:
            """Look near the child that was found before: one after the other takes linear time."""
            n, last = len(self.contents), self._last
            for distance in range(n + 1):
                for at in (last + distance, last - distance):
                    if 0 <= at < n and self.contents[at] is element:
                        self._last = at
                        return at
            return super().index(element)

    class Soup(Element, bs4.BeautifulSoup):
        def handle_starttag(self, name: str, *args: Any, **options: Any) -> Any:
            ended = _ENDED_BY.get(name, ())
            closed = None
            for tag in reversed(self.tagStack) if ended else ():
                closed = tag.name if tag.name in ended else closed
                if tag.name in _END_TAG_CONTAINERS:
                    break
            if closed is not None:
                self.handle_endtag(closed)
            if len(self.tagStack) > _MAX_DEPTH:  # as browsers do: elements go on as siblings
                self.endData()
                self.popTag()
            return super().handle_starttag(name, *args, **options)

    try:
        return Soup(html, "html.parser", element_classes={bs4.Tag: Element})
    except bs4.exceptions.ParserRejectedMarkup as error:
        raise _unreadable_html("its markup cannot be parsed") from error


def _unreadable_html(why: str) -> Unreadable:
    remedy = "Set `type: txt` to read it as plain text."
    return Unreadable(f"cannot be read as HTML: {why}", remedy)


def _html_title(soup: Any) -> str:
    element = soup.title or soup.h1
    return " ".join(element.get_text().split()) if element else ""


@dataclass(frozen=True, slots=True)
class _Look:
    """How an element is shown. A colour is `#rrggbb`, or a word where it is not known."""

    is_hidden: bool = False
    ink: str = "#000000"
    paper: str = "#ffffff"

    @property
    def is_unseen(self) -> bool:
        return self.is_hidden or self.ink == self.paper

    def of(self, name: str, declarations: str) -> _Look:
        """Return the look of an element within."""
        ink, paper = _INK_OF.get(name, self.ink), _PAPER_OF.get(name, self.paper)
        for place, value in _COLOURS.findall(declarations):
            colour = _colour(value)
            if place.lower() == "color":
                ink = colour or ink
            else:
                paper = colour or paper
        if _PLACED.search(declarations):  # over something else
            paper = "unknown paper"
        return _Look(self.is_hidden or bool(_HIDING.search(declarations)), ink, paper)


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


class _HidingStyles:
    """The simple selectors (`.x`, `#x`, `p`, `p.x`) of a page's rules that hide or colour text.

    Colours by other selectors (`.x p`) are not known, so that no text is hidden by them.
    """

    def __init__(self, soup: Any, styles: str) -> None:
        styles = "\n".join([*(style.get_text() for style in soup.find_all("style")), styles])
        self._rules: dict[str, str] = {}
        for selectors, declarations in _rules_of(_COMMENT.sub("", styles[:MOST_STYLE_CHARS])):
            for selector in selectors.split(","):
                self._add(selector.strip(), declarations)

    def _add(self, selector: str, declarations: str) -> None:
        places = {name.lower() for name, _ in _COLOURS.findall(declarations)}
        if not _SIMPLE_SELECTOR.fullmatch(selector):
            selector = re.split(r"[\s>+~:\[]+", selector.partition(":")[0].strip())[-1]
            declarations = "".join(f"; {name}: some-{name}" for name in sorted(places))
        elif not places and not _HIDING.search(declarations) and not _PLACED.search(declarations):
            return
        if declarations:
            self._rules[selector] = f"{self._rules.get(selector, '')}; {declarations}"

    def hidden_texts(self, soup: Any) -> list[str]:
        """Return the texts within elements that are not shown, in order."""
        plain, texts = _Look(), list[str]()
        looks = dict[int, _Look]()
        """By the id of an element that looks other than the page does."""
        for node in soup.descendants:
            around = looks.get(id(node.parent), plain)
            if node.name is None:
                if around.is_unseen and type(node).__name__ == "NavigableString" and node.strip():
                    texts.append(node)
            elif node.name not in _SKIPPED_TAGS:
                look = self._look(node, around)
                if look != plain:
                    looks[id(node)] = look
                texts += filter(None, [_own_words(node)]) if look.is_hidden else ()
        return texts

    def _look(self, element: Any, around: _Look) -> _Look:
        name, attributes = element.name, element.attrs
        if "hidden" in attributes or (name == "dialog" and "open" not in attributes):
            return replace(around, is_hidden=True)
        declared = [self._rules[name] for name in _selectors_of(element) if name in self._rules]
        for attribute in attributes.keys() & _STYLING.keys():
            declared.append(_STYLING[attribute].format(_attribute(element, attribute)))
        declared += [_attribute(element, "style")] if "style" in attributes else []
        if declared or name in _INK_OF or name in _PAPER_OF:
            return around.of(name, "; ".join(declared))
        return around


def _selectors_of(element: Any) -> Iterator[str]:
    """Yield the simple selectors that an element matches."""
    name = element.name
    yield name
    if element.attrs:
        marks = [f".{name}" for name in _attribute(element, "class").split()]
        marks += [f"#{name}" for name in _attribute(element, "id").split()]
        yield from marks
        yield from (f"{name}{mark}" for mark in marks)


def _own_words(element: Any) -> str:
    """Return what a picture or a field of a form shows without having text in it."""
    if element.name == "input" and _attribute(element, "type").lower() not in _CHOICES:
        return _input_text(element).strip()
    return _attribute(element, "alt") if element.name in ("img", "area") else ""


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


def _attribute(element: Any, name: str) -> str:
    """Return an attribute as one line; empty if it is missing."""
    value = element.get(name) or ""
    return " ".join((" ".join(value) if isinstance(value, list) else str(value)).split())


def _unread_notes(soup: Any) -> Iterator[str]:
    """Yield what a page shows from elsewhere, and the values that it does not show."""
    frames = soup.find_all(("iframe", "frame", "object", "embed", "audio", "video"))
    n_frames = sum(
        1 for f in frames if any(map(f.get, ("src", "srcdoc", "data"))) or f.find("source")
    )
    if n_frames:
        what = counted(n_frames, "embedded page or file is", "embedded pages or files are")
        yield f": {what} not read"
    inputs = soup.find_all("input", type=re.compile("^(?:hidden|password)$", re.IGNORECASE))
    n_unshown = sum(1 for field in inputs if _attribute(field, "value"))
    if n_unshown:
        yield f": values of {counted(n_unshown, 'hidden or password field')} are not read"


def _skipped_notes(soup: Any) -> Iterator[str]:
    """Remove what is no text of the page; yield a note on text that some browsers would show."""
    for shown in soup.find_all("template", shadowrootmode=True):
        shown.name = "div"
    unread = list[str]()
    for element in soup.find_all(_SKIPPED_TAGS):
        if element.name in _UNREAD_TAGS and not element.decomposed:
            unread += filter(None, [" ".join(element.get_text(" ").split())])
        element.decompose()
    if unread:
        yield f": text of `noscript` and `template` is not read ({text_sample(unread)})"


def _replace_drawings(soup: Any) -> None:
    """Replace each drawing by its words: they are pieces that lie somewhere on it."""
    for drawing in soup.find_all("svg"):
        if drawing.find_parent("svg") is None:
            for element in drawing.find_all(("script", "style", "metadata")):
                element.decompose()
            words = [_attribute(drawing, "aria-label"), *drawing.stripped_strings]
            drawing.replace_with(f" {' '.join(' '.join(words).split())} ")


def _replace_pictures(soup: Any) -> None:
    for picture in soup.find_all(("img", "area")):
        text = _attribute(picture, "alt") or _attribute(picture, "aria-label")
        picture.replace_with(f" ![{text}] " if text else "")
    for picture in soup.find_all(role="img"):
        if not picture.get_text(strip=True) and (text := _attribute(picture, "aria-label")):
            picture.string = f" ![{text}] "


def _replace_forms(soup: Any) -> None:
    """Replace the fields of forms by their values; `[x]` is a chosen one."""
    for field in soup.find_all("input"):
        field.replace_with(_input_text(field))
    _replace_options(soup)
    for element in soup.find_all(("select", "textarea", "button", "label")):
        element.insert_before(" ")
        element.insert_after(" ")
    for element in soup.find_all(("meter", "progress", "data")):
        if not element.get_text(strip=True):
            element.string = f" {_attribute(element, 'value')} "


def _replace_options(soup: Any) -> None:
    for group in soup.find_all("optgroup"):
        group.insert(0, f" {_attribute(group, 'label')}: ")
    for choice in soup.find_all("select"):
        _mark_chosen(choice)
    for option in soup.find_all("option"):
        if option.find_parent("select") is None:
            option.string = f" {_option_text(option)}"


def _mark_chosen(choice: Any) -> None:
    options = choice.find_all("option")
    chosen = {id(option) for option in options if option.has_attr("selected")}
    if not chosen and not choice.has_attr("multiple"):
        chosen = {id(option) for option in options[:1]}  # as a browser shows it
    for option in options:
        option.string = _choice(id(option) in chosen) + _option_text(option)


def _input_text(field: Any) -> str:
    kind, value = _attribute(field, "type").lower(), _attribute(field, "value")
    if kind in _CHOICES:
        return _choice(field.has_attr("checked"))
    if kind in _UNSHOWN:
        return ""
    if kind == "image":
        return f" {_attribute(field, 'alt')} "
    return f" {value or _attribute(field, 'placeholder')} "


def _choice(is_chosen: bool) -> str:
    return " [x] " if is_chosen else " [ ] "


def _option_text(option: Any) -> str:
    text = " ".join(option.get_text().split())
    return text or _attribute(option, "label") or _attribute(option, "value")


def _mark_formulas(soup: Any) -> None:
    """Write powers, indices and fractions of MathML as HTML has them."""
    names = {"msup": ("", "sup"), "msub": ("", "sub"), "msubsup": ("", "sub", "sup")}
    for formula in soup.find_all(tuple(names)):
        parts = formula.find_all(recursive=False)
        for part, name in zip(parts, names[formula.name], strict=False):
            if name:
                part.wrap(soup.new_tag(name))
    for fraction in soup.find_all("mfrac"):
        for part in islice(fraction.find_all(recursive=False), 1, 2):
            part.insert_before("/")


def _mark_raised(soup: Any) -> None:
    """Write `10^6` and `H_2O`; ordinals (1st) and marks of notes ([1]) stay as they are.

    Not the raised digits of Unicode: where texts are compared they count as plain ones.
    """
    for element in soup.find_all(style=_RAISED):
        if found := _RAISED.search(_attribute(element, "style")):
            element.name = {"super": "sup", "sub": "sub"}[found[1].lower()]
    for element in reversed(soup.find_all(("sup", "sub"))):  # from the inner to the outer ones
        text, before = " ".join(element.get_text().split()), _character_before(element)
        if not text or not before or _is_joined(element.name, text, before):
            continue
        mark = "^" if element.name == "sup" else "_"
        node = element.next_sibling
        if node is None:
            text_after = ""
        else:
            text_after = str(node)[:2] if node.name is None else node.get_text()[:2]
        is_open = _runs_on(text, text_after)
        opening, closing = (f"{mark}(", ")") if is_open else (mark, "")
        if element.find(True) is None:
            element.string = f"{opening}{text}{closing}"
        else:
            element.insert(0, opening)
            element.append(closing)


def _is_joined(name: str, text: str, before: str) -> bool:
    if text.startswith(("[", "^", "(")) and not before.isdigit():
        return True
    word = text.rstrip(".").casefold()
    is_ordinal = word in _ORDINALS and (before.isdigit() or before in "IVXLCDMn" or len(word) > 1)
    return name == "sup" and (is_ordinal or word in _MARKS)


def _runs_on(text: str, after: str) -> bool:
    """Return whether it needs brackets to be told from what follows."""
    if text.isdigit():
        return re.match(r"[.,]?\d", after) is not None
    if re.fullmatch(r"[+\-−–]?\d+[+\-−–]?|[+\-−–]", text):  # noqa: RUF001 - the minus signs of pages
        return re.match(r"[.,]?\d", after) is not None
    return not text.isalnum() or after[:1].isalnum()


def _character_before(element: Any) -> str:
    for node in islice(element.previous_elements, 20):
        if node.name is None and type(node).__name__ == "NavigableString" and node:
            return str(node)[-1]
    return ""


def _markdown(soup: Any) -> str:
    # What it counts for each item and row again is known here.
    for items in soup.find_all("ol"):
        for n, item in enumerate(items.find_all("li", recursive=False)):
            item.find_previous_siblings = lambda _, n=n: range(n)
    for head in soup.find_all("thead"):
        rows = head.find_all("tr")
        head.find_all = lambda _, rows=rows: rows
    soup.smooth()
    converter = MarkdownConverter(
        heading_style="ATX",
        bullets="-",
        escape_misc=False,
        escape_asterisks=False,
        escape_underscores=False,
    )
    return str(converter.convert_soup(soup))
