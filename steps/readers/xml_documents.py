"""OpenDocument texts, sheets and slides, and FictionBook: their elements become those of HTML.

So `html` writes, marks and notes what their layout means as it does for a page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import BinaryIO
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from paddock.engine.system.text import counted

from .document_kinds import MEDIA_TYPES
from .html import html_to_markdown
from .office import damage_errors, open_archive
from .reader import Document, ReadRequest, Unreadable

_TAGS = {
    **{"p": "p", "v": "p", "text-author": "p", "list": "ul", "list-item": "li", "subtitle": "h4"},
    **{"table": "table", "table-row": "tr", "table-cell": "td", "tr": "tr", "th": "th", "td": "td"},
    **{"cite": "blockquote", "epigraph": "blockquote", "strong": "b", "emphasis": "em", "a": "a"},
    **{"strikethrough": "s", "sup": "sup", "sub": "sub", "line-break": "br", "empty-line": "br"},
}
_INLINE = frozenset(("p", "span", "a", "b", "em", "s", "sup", "sub", "h4"))
_UNREAD = ("tracked-changes", "binary", "binary-data", "object", "ruby-text", "description")
_MOST_REPEATED = 200  # cells and rows with the same text; an empty sheet is a million rows


@dataclass(frozen=True, slots=True)
class _Layout:
    styles: dict[str, str]
    """By name: `sup`, `sub`, `s` or `hidden`; of a list's style and level the kind of numbers."""
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # items of the last list of each style


def _read(kind: str, file: BinaryIO, request: ReadRequest) -> Document:
    what = "a FictionBook" if kind == "fb2" else "an OpenDocument file"
    parts = [file.read()]
    with damage_errors(what):
        if parts[0].startswith(b"PK"):
            with open_archive(file, what) as archive:
                members = ("META-INF/manifest.xml", "styles.xml", "content.xml")
                parts = [archive.read(name) for name in members if name in archive.namelist()]
            if any(b"encryption-data" in part for part in parts[:1]):
                raise Unreadable("is protected by a password", "Save it without a password.")
        roots = [fromstring(part) for part in parts]
        layout = _Layout({name: mark for root in roots for name, mark in _styles(root)})
        texts, notes = list[str](), list[str]()
        for page in _pages(roots[-1]):
            request.check(len(texts[-1]) if texts else 0)
            unread = Counter(map(_name, page.iter()))
            layout.notes.clear()
            _convert(page, layout)
            found = html_to_markdown(tostring(page, "unicode", "html") + "".join(layout.notes))
            texts.append(found.text)
            notes += found.notes
            for what, name in (("embedded object", "object"), ("deletion", "deletion")):
                if unread[name]:
                    notes.append(f": {counted(unread[name], what)} not read")
    title = " ".join((roots[-1].findtext(".//{*}book-title") or "").split())
    return Document(tuple(texts), title, MEDIA_TYPES[kind], tuple(notes))


def _pages(root: Element) -> Iterator[Element]:
    """Yield the slides, sheets or bodies of a document."""
    for body in [root] if _name(root) == "FictionBook" else root.iterfind("./{*}body/*"):
        parts = [e for e in body if _name(e) in ("page", "table", "body")]
        for part in [body] if _name(body) == "text" or not parts else parts:
            page = Element("div")
            if _name(part) == "table" and _line(part):
                SubElement(page, "h").text = _attributes(part).get("name", "")
            page.append(part)
            yield page


def _styles(root: Element) -> Iterator[tuple[str, str]]:
    """Yield what is raised, lowered, struck or hidden by style, and the numbers of lists."""
    for style in root.iter():
        name = _attributes(style).get("name", "")
        for part in style if name else ():
            has = _attributes(part)
            position = has.get("text-position", "").partition("%")[0].strip("0 ")
            if _name(part) == "list-level-style-number":
                yield f"{name} {has.get('level')}", has.get("num-format") or "1"
            elif {has.get("display"), has.get("visibility")} & {"none", "false", "hidden"}:
                yield name, "hidden"
            elif position:
                yield name, "sub" if position.startswith(("sub", "-")) else "sup"
            elif has.get("text-line-through-style", "none") != "none":
                yield name, "s"


def _convert(e: Element, layout: _Layout, above: str = "", lists: str = "", level: int = 0) -> None:
    """Make an element and all in it those of HTML; `above` is the tag of its parent."""
    name, has, text = _name(e), _attributes(e), None
    mark = layout.styles.get(has.get("style-name", ""), "")
    tag = _TAGS.get(name, "span" if above in _INLINE else "div")
    is_hidden = mark == "hidden" or has.get("visibility") in ("collapse", "filter")
    e.attrib = {"style": "display:none"} if is_hidden else {}
    if name == "span" and mark in ("sup", "sub", "s"):
        tag = mark
    elif name == "h":
        tag = f"h{min(int(has.get('outline-level') or 1), 6)}"
    elif has.get("class") == "title" or (name == "title" and len(e)):
        text = _line(e)
        tag = "h2" if text else "div"
    elif name in ("s", "tab"):
        text = "\t" if name == "tab" else " " * min(int(has.get("c") or 1), 100)
    elif name in ("list", "list-item") and (level < 0 or _name(next(iter(e), e)) == "list"):
        tag = "div"  # in a cell, or an item that is a list
    elif name == "list":
        lists, level = has.get("style-name", lists), level + 1
        if number := layout.styles.get(f"{lists} {level}"):
            counts, key = layout.counts, f"{lists} {level}"
            if level > 1 or not {"continue-numbering", "continue-list"} & has.keys():
                counts[key] = 0
            tag, e.attrib = "ol", {"type": number, "start": str(counts[key] + 1)}
            counts[key] += sum(_name(child) == "list-item" for child in e)
    elif name == "list-item" and "start-value" in has:
        e.attrib["value"] = has["start-value"]
    elif name == "a":
        e.attrib["href"] = has.get("href", "")
        if has.get("type") == "note":
            tag, text = "sup", f"[{_line(e).strip('[]')}]"
    elif tag in ("td", "th"):
        level = -1_000  # lists within it are none
        for span, name in (("colspan", "columns"), ("rowspan", "rows")):
            e.attrib[span] = has.get(span) or has.get(f"number-{name}-spanned", "1")
    elif name == "annotation":
        text = f" (comment: {_line(e)}) "
    elif name == "note":
        label, body = (_line(part) for part in [*e, Element(""), Element("")][:2])
        tag, text = "sup", f"[{label}]"
        layout.notes.append(f"<p><sup>[{escape(label)}]</sup>: {escape(body)}</p>")
    elif name in _UNREAD:
        text = ""
    e.tag = tag
    if text is not None:
        e.text, e[:] = text, []
    elif name in ("table", "table-row") or _name(next(iter(e), e)) == "table-row":
        e[:] = list(_repeated(e))
    for child in e:
        _convert(child, layout, tag, lists, level)
    lines = list(e.iter("tr")) if name == "table" else []
    has_spans = any(cell.get("rowspan", "1") != "1" for line in lines for cell in line)
    while lines and not has_spans and all(len(line) > 1 and not _line(line[0]) for line in lines):
        for line in lines:
            del line[0]
    for cell in lines[0] if lines else ():
        cell.tag = "th"


def _repeated(parent: Element) -> Iterator[Element]:
    """Yield rows or cells as often as they are shown, without empty ones at their end."""
    n_empty = 0
    for child in parent:
        has, name, text = _attributes(child), _name(child), _line(child)
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


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _attributes(element: Element) -> dict[str, str]:
    return {name.rpartition("}")[2]: value for name, value in element.items()}


read_odt, read_ods, read_odp, read_fb2 = (
    partial(_read, kind) for kind in ("odt", "ods", "odp", "fb2")
)
