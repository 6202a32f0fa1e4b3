"""OpenDocument texts and slides, and FictionBook: their elements become those of HTML.

So `html` writes, marks and notes what their layout means as it does for a page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from html import escape
from math import inf
from typing import BinaryIO, NamedTuple
from xml.etree.ElementTree import Element, fromstring, tostring

from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import list_number

from .document_kinds import MEDIA_TYPES
from .html import html_to_markdown
from .inner_documents import InnerPictures
from .office import Look, damage_errors, in_reading_order
from .open_document import OBJECTS, OPEN_DOCUMENT, OpenDocument, attributes, name_of
from .reader import Document, ReadRequest

_TAGS = {
    **{"p": "p", "v": "p", "text-author": "p", "list": "ul", "list-item": "li", "subtitle": "h4"},
    **{"table": "table", "table-row": "tr", "table-cell": "td", "tr": "tr", "th": "th", "td": "td"},
    **{"table-header-rows": "thead", "table-rows": "tbody", "table-row-group": "tbody"},
    **{"cite": "blockquote", "epigraph": "blockquote", "strong": "b", "emphasis": "em", "a": "a"},
    **{"strikethrough": "s", "sup": "sup", "sub": "sub", "line-break": "br", "empty-line": "br"},
}
_INLINE = frozenset(("p", "span", "a", "b", "em", "s", "sup", "sub", "h4"))
_UNREAD = (
    *("tracked-changes", "binary", "binary-data", "ruby-text", "description", "page-number"),
    *("script", "content-validations", *OBJECTS),
)
_LENGTH = re.compile(r"(?:-?\d+(?:\.\d+)?)?")
_MOVED = re.compile(r"translate ?\(([^ ,)]+)[ ,]+([^ ,)]+)")
_GONE, _HIDDEN = ("collapse", "filter"), ("none", "false", "printer")
"""Of `visibility` and `display`: by ODF 1.3's schema all that hides, but for `is-hidden`."""
_MOST_REPEATED = 200  # cells and rows with the same text


class _Layout(Struct, frozen=True):
    look: Callable[[str], Look]
    levels: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """By the name of a list's style, empty for headings, and level: a number's form."""
    counts: dict[str, dict[int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hidden_layers: set[str] = field(default_factory=set)
    conditions: list[str] = field(default_factory=list)
    """Of texts which may be hidden, and of which the file does not say it."""

    def add(self, root: Element) -> None:
        for style in root.iter():
            has, kind = attributes(style), name_of(style)
            if kind == "layer" and has.get("display") in _HIDDEN:
                self.hidden_layers.add(has.get("name", ""))
            name = "" if kind == "outline-style" else has.get("name", "")
            for part in style if name or kind == "outline-style" else ():
                has = attributes(part)
                if has.get("display") == "condition":
                    self.conditions.append(has.get("condition", ""))
                if name_of(part).endswith(("-level-style-number", "outline-level-style")):
                    self.levels[name, has.get("level", "")] = has

    def number(self, name: str, level: int, start: str = "") -> str:
        has, counts = self.levels.get((name, str(level)), {}), self.counts.setdefault(name, {})
        counts[level] = int(start or counts.get(level, int(has.get("start-value") or 1) - 1) + 1)
        for deeper in [at for at in counts if at > level]:
            del counts[deeper]
        if not has.get("num-format"):
            return ""
        first = max(1, level - int(has.get("display-levels") or 1) + 1)
        forms = {at: self.levels.get((name, str(at)), {}) for at in range(first, level + 1)}
        numbers = (
            list_number(counts.get(at, 1), form["num-format"])
            for at, form in forms.items()
            if form.get("num-format")
        )
        return f"{has.get('num-prefix', '')}{'.'.join(numbers)}{has.get('num-suffix', '')}".strip()


def _read(kind: str, file: BinaryIO, request: ReadRequest) -> Document:
    what = "a FictionBook" if kind == "fb2" else OPEN_DOCUMENT
    pictures = InnerPictures(request)
    notes = list[str]()
    texts = list[str]()
    with damage_errors(what):
        opened = OpenDocument(file, what)
        roots, held, layout = opened.roots, opened.held, _Layout(opened.look)
        for root in roots:
            layout.add(root)

        def written(page: Element) -> str:
            seen = list[bytes]()
            for e in page.iter():
                name = attributes(e).get("href", "").removeprefix("./").rstrip("/")
                if name_of(e) == "object" and f"{name}/content.xml" in held:
                    formula = fromstring(held[f"{name}/content.xml"]())
                    e[:] = [formula] if name_of(formula) == "math" else []
                elif name_of(e) == "image":
                    seen.append(opened.picture(e))
            has_text = pictures.text(seen)
            objects = (
                e for e in page.iter() if name_of(e) in OBJECTS and e.find("{*}math") is None
            )
            tracked = Counter(map(name_of, page.iter()))
            unread = {"embedded object": len(list(objects)), "deletion": tracked["deletion"]}
            layout.notes.clear()
            _convert(page, layout, _Place())
            found = html_to_markdown(tostring(page, "unicode", "html") + "".join(layout.notes))
            notes.extend(found.notes)
            notes.extend(f": {counted(n, of)} not read" for of, n in unread.items() if n)
            if n := len(layout.conditions):
                what = counted(n, "text with a condition", "texts with conditions")
                notes.append(f": {what} read as shown; the file does not say whether they hold")
                layout.conditions.clear()
            if n := tracked["insertion"]:
                notes.append(f": {counted(n, 'insertion')} read as text")
            return "\n\n".join(filter(None, (found.text, has_text)))

        top = dict[str, None]()
        bottom = dict[str, None]()
        for part in opened.margins(has_own_fields=kind != "odt"):
            margin, is_top = Element("div"), name_of(part).startswith("header")
            margin.append(part)
            if any(map(str.isalpha, text := written(margin))):  # more than the number of a page
                (top if is_top else bottom)[text] = None
        for page in _pages(roots[-1]):
            request.check(len(texts[-1]) if texts else 0)
            texts.append(written(page))
        texts[:1] = ["\n\n".join(filter(None, (*top, text))) for text in texts[:1]]
        texts[-1:] = ["\n\n".join(filter(None, (text, *bottom))) for text in texts[-1:]]
    title = " ".join((roots[-1].findtext(".//{*}book-title") or "").split())
    notes += pictures.notes()
    return Document(tuple(texts), title, MEDIA_TYPES[kind], tuple(notes), pictures.why_empty)


def _pages(root: Element) -> Iterator[Element]:
    for body in [root] if name_of(root) == "FictionBook" else root.iterfind("./{*}body/*"):
        parts = [e for e in body if name_of(e) in ("page", "body")]
        for part in [body] if name_of(body) == "text" or not parts else parts:
            page = Element("div")
            page.append(part)
            if name_of(part) == "page":
                for shapes in (part, *(e for e in part.iter() if name_of(e) == "g")):
                    shapes[:] = in_reading_order(shapes, _sides_on_slide)
            yield page


def _sides_on_slide(shape: Element) -> tuple[float, float, float]:
    """Return the left, top and bottom of a shape: the title's is first, the speaker's notes' last.

    A group is where its first shape is. One program writes one unit of length.
    """
    if name_of(shape) == "notes" or attributes(shape).get("class") == "title":
        side = inf if name_of(shape) == "notes" else -inf
        return 0, side, side
    places = map(attributes, shape.iter())
    has = next((has for has in places if not {"y", "transform"}.isdisjoint(has)), {})
    moved = _MOVED.search(has.get("transform", ""))  # that of a turned one
    left, top = moved.groups() if moved else (has.get("x", ""), has.get("y", ""))
    first, last = (_length(text) for text in (top, has.get("height", "")))
    return _length(left), first, first + (0 if moved else last)


def _length(text: str) -> float:
    return float(_LENGTH.match(text)[0] or 0)  # type: ignore[index]  # it matches any text


class _Place(NamedTuple):
    above: str = ""
    """The tag of its parent, in HTML."""
    lists: str = ""
    """The style of the list that it is in."""
    level: int = 0
    """Of lists; below zero: in a cell, where none is shown as one."""
    number: str = ""
    """Of the item whose first part it is."""


def _convert(e: Element, layout: _Layout, place: _Place) -> None:
    """Make an element and all in it those of HTML.

    1. A formula is MathML already.
    2. Blanks, titles, notes, comments and what is not read are a text without elements in it.
    3. Headings and items get the numbers that the program shows.
    4. Cells and rows are there as often as they are repeated; a table's first row is its head.
    """
    name, has = name_of(e), attributes(e)
    look = layout.look(has.get("style-name", ""))
    css = "display:none;" if look.is_hidden or _is_hidden(e, name, has, layout) else ""
    css += ("", "vertical-align:super;", "vertical-align:sub;")[look.rise]
    css += "text-decoration:line-through;" if look.is_struck else ""
    e.attrib = {"style": css} if css else {}
    if name == "math":  # 1
        for part in e.iter():
            part.tag, part.attrib = name_of(part), {}
        return
    e.tag = _TAGS.get(name, "span" if place.above in _INLINE else "div")
    if (text := _whole_text(e, name, has, layout)) is not None:  # 2
        e.text, e[:] = text, []
        return
    inner = _numbered(e, name, has, layout, place)  # 3
    if name == "notes" and any(map(str.isalpha, _line(e))):
        e.text = "Notes:"
    if name == "a":
        e.attrib["href"] = has.get("href", "")
    elif e.tag in ("td", "th"):  # 4
        inner = inner._replace(level=-1_000)
        for span, of in (("colspan", "columns"), ("rowspan", "rows")):
            e.attrib[span] = has.get(span) or has.get(f"number-{of}-spanned", "1")
    gone = _hidden_columns(e) if name == "table" else set()
    if name in ("table", "table-row") or name_of(next(iter(e), e)) == "table-row":
        e[:] = list(_repeated(e))
    for child in e:
        _convert(child, layout, inner._replace(above=e.tag))
    if name == "table":
        lines = list(e.iter("tr"))
        for cell in (c for line in lines for at, c in _placed_cells(line) if at in gone):
            cell.attrib["style"] = "display:none"
        has_spans = any(cell.get("rowspan", "1") != "1" for line in lines for cell in line)
        while lines and not has_spans and all(len(row) > 1 and not _line(row[0]) for row in lines):
            for line in lines:
                del line[0]
        for cell in lines[0] if lines else ():
            cell.tag = "th"


def _is_hidden(e: Element, name: str, has: Mapping[str, str], layout: _Layout) -> bool:
    """Return whether it says that it is hidden; what says this of a paragraph is within it.

    Whether conditions hold is for their program, which stores it.
    """
    inner = [attributes(part) for part in e.iter() if name_of(part) == "hidden-paragraph"]
    own = [has] if name in ("section", "hidden-text") or "is-hidden" in has else []
    for states in (*own, *(inner if name in ("p", "h") else ())):
        if "condition" in states and "is-hidden" not in states and states.get("display") != "none":
            layout.conditions.append(states["condition"])
        if states.get("is-hidden") == "true":
            return True
    is_left_out = name != "annotation" and has.get("display") in _HIDDEN
    return is_left_out or has.get("visibility") in _GONE or has.get("layer") in layout.hidden_layers


def _whole_text(e: Element, name: str, has: Mapping[str, str], layout: _Layout) -> str | None:
    """Return the text of an element that nothing else is read of; None: its parts are read."""
    if has.get("class") == "title" or (name == "title" and len(e)):
        e.tag = "h2" if _line(e) else "div"
        return _line(e)
    match name:
        case "tab":
            return "\t"
        case "s":
            return " " * min(int(has.get("c") or 1), 100)
        case "a" if has.get("type") == "note":
            e.tag = "sup"
            return f"[{_line(e).strip('[]')}]"
        case "annotation":
            words = (
                _line(part)[:10] if name_of(part) == "date" else _line(part)
                for part in e
                if name_of(part) != "date-string"
            )
            return f" (comment: {' '.join(filter(None, words))}) "
        case "hidden-text" if not _line(e):
            return has.get("string-value", "") if has.get("is-hidden") == "true" else None
        case "note":
            label, body = (_line(part) for part in [*e, Element(""), Element("")][:2])
            layout.notes.append(f"<p><sup>[{escape(label)}]</sup> {escape(body)}</p>")
            e.tag = "sup"
            return f"[{label}]"
    return "" if name in _UNREAD and e.find("{*}math") is None else None


def _numbered(
    e: Element, name: str, has: Mapping[str, str], layout: _Layout, place: _Place
) -> _Place:
    """Write the number of a heading or an item, and return the place of what is in it."""
    first, inner = name_of(next(iter(e), e)), place._replace(number="")
    if name == "h":
        outline = int(has.get("outline-level") or 1)
        is_counted = not place.number and has.get("is-list-header") != "true"
        number = layout.number("", outline) if is_counted else place.number
        e.tag, e.text = f"h{min(outline, 6)}", " ".join(filter(None, (number, e.text)))
    elif name in ("list", "list-item") and (place.level < 0 or first == "list"):
        e.tag = "div"  # in a cell, or an item that is a list
    elif name == "list":
        inner = inner._replace(lists=has.get("style-name", place.lists), level=place.level + 1)
        if inner.level == 1 and not {"continue-numbering", "continue-list"} & has.keys():
            layout.counts.pop(inner.lists, None)
    elif name == "list-item":
        number = layout.number(place.lists, place.level, has.get("start-value", ""))
        inner = inner._replace(number=number)
        if first == "h":
            e.tag = "div"
        elif number:
            e.attrib["style"] = f"list-style-type:'{number}'"
    return inner


def _hidden_columns(table: Element) -> set[int]:
    """Return the places of a table's columns that are hidden, or in a group that is."""
    parents = {part: group for group in table.iter() for part in group}
    found, at = set[int](), 0
    for column in table.iter():
        if name_of(column) == "table-column":
            has, group = attributes(column), attributes(parents[column])
            n = min(int(has.get("number-columns-repeated") or 1), _MOST_REPEATED)
            is_gone = has.get("visibility") in _GONE or group.get("display") in _HIDDEN
            found.update(range(at, at + n) if is_gone else ())
            at += n
    return found


def _placed_cells(line: Element) -> Iterator[tuple[int, Element]]:
    at = 0
    for cell in line:
        yield at, cell
        at += int(cell.get("colspan") or 1)


def _repeated(parent: Element) -> Iterator[Element]:
    """Yield rows or cells as often as they are shown, without empty ones at their end."""
    n_empty = 0
    for child in parent:
        has, name, text = attributes(child), name_of(child), _line(child)
        n = int(has.get("number-columns-repeated") or has.get("number-rows-repeated") or 1)
        if name == "table-cell" and not text:
            n_empty += n
        elif text and name != "covered-table-cell":
            yield from (Element("td") for _ in range(min(n_empty, _MOST_REPEATED)))
            n_empty = 0
            yield from (deepcopy(child) for _ in range(min(n, _MOST_REPEATED)))
    yield from (Element("td") for _ in range(n_empty if n_empty < 10 else 0))


def _line(element: Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


read_odt, read_odp, read_fb2 = (partial(_read, kind) for kind in ("odt", "odp", "fb2"))
