"""HTML to Markdown: headings, lists, tables and links stay, scripts and styles go.

What a page shows without being text becomes text: `alt` of pictures, values of forms, words of
drawings, formulas, numbers of lists, and marks for what is raised, struck, hidden or a note
(`paddock.pipelines.text_marks`). What it hides, or shows from elsewhere, is noted. Cells that span
columns or rows are followed by empty ones. The only importer of BeautifulSoup and markdownify.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import bs4
from markdownify import MarkdownConverter

from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import (
    escaped,
    hidden,
    list_number,
    lowered,
    note_label,
    raised,
    struck,
)

from .formulas import mathml_text
from .html_styles import BLOCKS, CELLS, OUTER, ROWS, PageStyles, attribute
from .reader import Unreadable, hidden_text_note, text_sample
from .style_sheets import CssSheet

_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*>")  # XHTML; BeautifulSoup would take it for XML
_UNREAD_TAGS = ("noscript", "template")
_SKIPPED_TAGS = ("script", "style", "title", "iframe", *_UNREAD_TAGS)
_MAX_TAGS = 1_000_000  # opening and closing ones; each takes 600 bytes and 0.1 ms
_MOST_BLANKS = 200
_LONG_BLANK = re.compile(rf"[^\S\n]{{{_MOST_BLANKS},}}")  # markdownify's time is their square
_MAX_DEPTH = 200  # markdownify goes down by recursion; Python's stack ends near 1,000 calls

_CHOICES = ("checkbox", "radio")
_ENDED_BY = {
    **dict.fromkeys(("dt", "dd"), ("dt", "dd")),
    **dict.fromkeys(("td", "th"), ("td", "th")),
    **dict.fromkeys(ROWS[:3], ROWS),
    **{name: (name,) for name in ("li", "tr", "option", "select")},
    "optgroup": ("option", "optgroup"),
}
"""By the name of a tag, the open elements that it ends: their end tags may be left out."""
_END_TAG_CONTAINERS = ("table", "ul", "ol", "menu", "dl", "select")
_UNSHOWN = ("hidden", "password")
_PARAGRAPHS = ("p", "div", "ul", "ol", "blockquote", "br", "h1", "h2", "h3", "h4", "h5", "h6")
_NOTE_TYPES = frozenset(("footnote", "endnote", "rearnote", "doc-footnote", "doc-endnote"))
_NOTE_ID = re.compile(
    r"(?:foot|end|cite_)?note|^_?(?:fn|ftn|edn|sdfootnote|en)[\W_]?\w", re.IGNORECASE
)


class HtmlText(Struct, frozen=True):
    text: str
    title: str
    notes: tuple[str, ...] = ()
    """As those of a `Document`."""


def html_to_markdown(html: str, styles: CssSheet | None = None) -> HtmlText:
    """Return the page's text as Markdown, its title, and what is not shown or not read.

    1. Parse it, and note what is shown from elsewhere while all of it is there.
    2. Apply the style sheets, its own and those in `styles`: add generated texts, mark what is not
       shown.
    3. Replace drawings, pictures and fields of forms by their texts.
    4. Shape lists, tables and notes as Markdown has them.
    5. Convert.

    Raises:
        Unreadable: its markup cannot be parsed.
    """
    if html.count("<") > _MAX_TAGS:
        raise _unreadable_html(f"it has more than {_MAX_TAGS:,} tags, which is the maximum")
    tags, end, rest = _DECLARATION.sub("", html).rpartition(">")  # 1: in the rest are no tags
    plain = tags + end + rest.replace("<", "&lt;")
    soup = _parsed_html(_LONG_BLANK.sub(lambda found: found[0][:_MOST_BLANKS], plain))
    notes = tuple(_unread_notes(soup))
    if styles is None and "stylesheet" in plain and (n := len(soup.find_all(_is_sheet_elsewhere))):
        what = counted(n, "style sheet elsewhere is", "style sheets elsewhere are")
        notes += (f": {what} not read; text hidden there is read as shown",)
    looks = PageStyles(soup, styles)  # 2
    unseen = looks.mark(soup, _own_words, _SKIPPED_TAGS)
    notes += looks.notes
    for drawing in soup.find_all("svg"):  # 3: the words of a drawing lie somewhere on it
        if drawing.find_parent("svg") is None:
            for element in drawing.find_all(("script", "style", "metadata")):
                element.decompose()
            words = [attribute(drawing, "aria-label"), *drawing.stripped_strings]
            _become_text(drawing, f" {' '.join(' '.join(words).split())} ")
    named = soup.title or soup.h1
    title = " ".join(named.get_text().split()) if named else ""
    notes += (*_skipped_notes(soup), *hidden_text_note("the page", unseen))
    for picture in soup.find_all(("img", "area")):
        text = attribute(picture, "alt") or attribute(picture, "aria-label")
        _become_text(picture, f" ![{text}] " if text else "")
    for picture in soup.find_all(role="img"):
        if not picture.get_text(strip=True) and (text := attribute(picture, "aria-label")):
            picture.string = f" ![{text}] "
    _replace_forms(soup)
    for menu in soup.find_all(("menu", "dir")):  # 4
        menu.name = "ul"
    _fit_tables(soup)
    _number_items(soup)
    labels = _mark_notes(soup)
    for element in soup.find_all(BLOCKS):
        element.name = "div"
    for head in soup.find_all("thead"):  # what markdownify counts for each row again
        rows = head.find_all("tr")
        head.find_all = lambda _, rows=rows: rows
    soup.smooth()  # 5
    lines = (line.rstrip() for line in _Converter(labels).convert_soup(soup).split("\n"))
    return HtmlText(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), title, notes)


def _parsed_html(html: str) -> Any:
    class Element(bs4.Tag):
        _last = 0
        looks: frozenset[str] = frozenset()
        """Of `raised`, `lowered`, `struck`, `hidden`, `block`, `apart`."""
        list_style = ""
        marker = ""
        """An item's number."""
        cites = ""
        """The label of the note that it is the mark of."""
        explains = ""
        """The label of the note that begins with it."""
        is_dropped = False

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


def _own_words(element: Any) -> str:
    """Return what a picture or a field of a form shows without having text in it."""
    if element.name == "input" and attribute(element, "type").lower() not in _CHOICES:
        return _input_text(element).strip()
    return attribute(element, "alt") if element.name in ("img", "area") else ""


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
    n_unshown = sum(1 for field in inputs if attribute(field, "value"))
    if n_unshown:
        yield f": values of {counted(n_unshown, 'hidden or password field')} are not read"
    if n_inserted := sum(1 for element in soup.find_all("ins") if element.get_text(strip=True)):
        yield f": {counted(n_inserted, 'inserted text is', 'inserted texts are')} read as text"


def _is_sheet_elsewhere(tag: Any) -> bool:
    return tag.name == "link" and "stylesheet" in attribute(tag, "rel") and tag.has_attr("href")


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


def _become_text(element: Any, text: str) -> None:
    if element.looks:
        element.name, element.attrs, element.string = "span", {}, text
    else:
        element.replace_with(text)


def _replace_forms(soup: Any) -> None:
    for field in soup.find_all("input"):
        _become_text(field, _input_text(field))
    for group in soup.find_all("optgroup"):
        group.insert(0, f" {attribute(group, 'label')}: ")
    for choice in soup.find_all("select"):
        options = choice.find_all("option")
        chosen = {id(option) for option in options if option.has_attr("selected")}
        if not chosen and not choice.has_attr("multiple"):
            chosen = {id(option) for option in options[:1]}  # as a browser shows it
        for option in options:
            option.string = _choice(id(option) in chosen) + _option_text(option)
    for option in soup.find_all("option"):
        if option.find_parent("select") is None:
            option.string = f" {_option_text(option)}"
    for element in soup.find_all(("select", "textarea", "button", "label")):
        element.insert_before(" ")
        element.insert_after(" ")
    for element in soup.find_all(("meter", "progress", "data")):
        if not element.get_text(strip=True):
            element.string = f" {attribute(element, 'value')} "


def _input_text(field: Any) -> str:
    kind, value = attribute(field, "type").lower(), attribute(field, "value")
    if kind in _CHOICES:
        return _choice(field.has_attr("checked"))
    if kind in _UNSHOWN:
        return ""
    if kind == "image":
        return f" {attribute(field, 'alt')} "
    return f" {value or attribute(field, 'placeholder')} "


def _choice(is_chosen: bool) -> str:
    return " [x] " if is_chosen else " [ ] "


def _option_text(option: Any) -> str:
    text = " ".join(option.get_text().split())
    return text or attribute(option, "label") or attribute(option, "value")


def _fit_tables(soup: Any) -> None:
    """Put empty cells where others span columns and rows, and let no table be within a table.

    Before that, what is in a table and in no cell is moved before it, as browsers do.

    1. Leave out an empty table.
    2. Write one that is left in a cell in a line: `a, b; c, d`.
    3. Turn one that lays out a page into blocks and tables: it is around others, or of one row of
       paragraphs, and has no heads, border or caption.
    4. Keep any other.
    """
    tables = soup.find_all("table")
    for part in soup.find_all(("table", *ROWS)) if tables else ():
        table = part
        while table is not None and table.name != "table":
            table = table.parent
        if table is not None:
            _move_strays(soup, table, part)
    outer = {id(table.find_parent("tr")) for table in tables}
    for part in soup.find_all(("colgroup", "col")):
        part.decompose()
    n_left = 10_000 + 10 * len(soup.find_all(CELLS))
    for table in tables:
        if table.decomposed or next(table.stripped_strings, None) is None:
            table.decompose()  # 1
            continue
        rows = [
            row
            for part in (table, *table.find_all(ROWS[:3], recursive=False))
            for row in part.find_all("tr", recursive=False)
        ]
        cells = _with_cells(rows)
        has_border = attribute(table, "border") not in ("", "0")
        is_data = has_border or bool(table.find(("thead", "caption"), recursive=False))
        is_data = is_data or any(cell.name == "th" for _, found in cells for cell in found)
        for caption in table.find_all("caption", recursive=False):  # no row has one before it
            caption.name = "p"
            table.insert_before(caption)
        is_frame = len(rows) == 1 and (len(cells[0][1]) < 2 or bool(rows[0].find(_PARAGRAPHS)))
        if table.find_parent(CELLS) is not None:
            _write_in_line(table, cells)  # 2
        elif not is_data and (is_frame or any(id(row) in outer for row in rows)):  # 3
            for part in _write_as_blocks(soup, table, cells, outer):
                inner = _with_cells(part.find_all("tr", recursive=False))
                n_left = _fill_spans(soup, inner, n_left)
        else:
            n_left = _fill_spans(soup, cells, n_left)  # 4
            _join_row_groups(soup, table)


_TABLE_PARTS = {
    "table": (*ROWS, "caption", "colgroup", "col"),
    **dict.fromkeys(ROWS[:3], ("tr",)),
    "tr": CELLS,
}
"""What may be within the parts of a table."""


def _move_strays(soup: Any, table: Any, part: Any) -> None:
    for form in [child for child in part.contents if child.name == "form"]:
        form.unwrap()
    run = row = None
    for stray in list(part.contents):
        if stray.name in _TABLE_PARTS[part.name] or _is_blank(stray):
            run, row = (run, row) if _is_blank(stray) else (None, None)
        elif stray.name in CELLS:  # of a row that is not written
            if row is None:
                row = soup.new_tag("tr")
                stray.insert_before(row)
            row.append(stray)
        elif stray.name == "table":
            table.insert_after(stray)
        else:
            if run is None:
                run = soup.new_tag("div")
                table.insert_before(run)
            run.append(stray)


_Rows: TypeAlias = Sequence[tuple[Any, list[Any]]]
"""Rows of a table, each with its cells."""


def _with_cells(rows: Sequence[Any]) -> _Rows:
    return [(row, row.find_all(CELLS, recursive=False)) for row in rows]


def _write_as_blocks(soup: Any, table: Any, rows: _Rows, outer: Container[int]) -> list[Any]:
    """Make a block of each row that is around tables, is alone or has one cell; return the parts.

    The rows between them stay tables, one for those without a block between.
    """
    parts = list[Any]()
    for row, cells in rows:
        if id(row) in outer or len(rows) == 1 or len(cells) < 2:
            for part in (row, *cells):
                part.name = "div"
            parts.append(row)
        else:
            if not parts or parts[-1].name != "table":
                parts.append(soup.new_tag("table"))
            parts[-1].append(row)
    table.name = "div"
    table.extend(parts)
    return parts


def _write_in_line(table: Any, rows: _Rows) -> None:
    for row, cells in rows:
        for cell in cells:
            cell.name = "span"
            if cell is not cells[-1]:
                cell.insert_after(", ")
        row.name = "span"
        if row is not rows[-1][0]:
            row.insert_after("; ")
    for part in (table, *table.find_all(ROWS[:3], recursive=False)):
        part.name = "span"


def _fill_spans(soup: Any, rows: _Rows, n_left: int) -> int:
    """Return how many more empty cells the page may get."""
    spans = [[_span(cell, "colspan") for cell in cells] for _, cells in rows]
    for _, cells in rows:
        for cell in cells:
            del cell["colspan"]
    width = max((sum(row) if len(row) > 1 else 1 for row in spans), default=0)
    section, open_rows = None, dict[int, int]()
    """By the column, in how many more rows a cell of a row above stands."""
    for (row, cells), row_spans in zip(rows, spans, strict=True):
        if row.parent is not section:  # no cell goes on in another part of the table
            section, open_rows = row.parent, {}
        column = 0
        for cell, n_columns in zip((*cells, None), (*row_spans, 1), strict=True):
            while open_rows.get(column, 0) or (cell is None and column < max(open_rows, default=0)):
                open_rows[column] = open_rows.get(column, 0) - 1
                n_left -= 1
                empty = soup.new_tag(cells[0].name if cells else "td")
                cell.insert_before(empty) if cell is not None else row.append(empty)
                column += 1
            if cell is None:
                break
            n_rows = _span(cell, "rowspan")
            n_columns = max(1, min(n_columns, width - column))
            for n in range(n_columns):
                if n_rows > 1:
                    open_rows[column + n] = n_rows - 1
                if n:
                    cell.insert_after(soup.new_tag(cell.name))
            n_left -= n_columns - 1
            column += n_columns
            if n_left < 0:
                return n_left
    return n_left


def _join_row_groups(soup: Any, table: Any) -> None:
    """Write one head for adjacent bodies, feet and rows, and move their only foot to the end.

    markdownify writes a head before the first row of each group, unless an element precedes it.
    """
    for group in table.find_all(ROWS[:3], recursive=False):
        if all(map(_is_blank, group)):
            group.decompose()
    parts = [part for part in table.contents if not _is_blank(part)]
    for only_rows, run in groupby(parts, _holds_only_rows):
        joined = list(run) if only_rows else []
        feet = [part for part in joined if part.name == "tfoot"]
        if len(feet) == 1 and feet[0] is not joined[-1]:
            joined[-1].insert_after(feet[0])
            joined.sort(key=lambda part: part.name == "tfoot")
        for part in joined[1:]:
            if part.name != "tr":
                part.insert(0, soup.new_tag("span"))


def _holds_only_rows(part: Any) -> bool:
    return part.name == "tr" or (
        part.name in ROWS[1:3] and all(node.name == "tr" or _is_blank(node) for node in part)
    )


def _is_blank(node: Any) -> bool:
    return node.name is None and (isinstance(node, bs4.Comment) or not node.strip())


def _span(cell: Any, name: str) -> int:
    written = attribute(cell, name)
    n = int(written) if written.isdecimal() and len(written) < 6 else 1
    return n or (65_534 if name == "rowspan" else 1)


def _number_items(soup: Any) -> None:
    for items in soup.find_all(("ol", "ul")):
        found = items.find_all("li", recursive=False)
        kind = attribute(items, "type")
        style = items.list_style or (kind if kind in ("a", "A", "i", "I") else "1")
        if items.name == "ul" and not (items.list_style and style != "-"):
            style = "-"
        is_reversed = items.has_attr("reversed")
        n = _number(items, "start", len(found) if is_reversed else 1)
        for item in found:
            n = _number(item, "value", n)
            shown = item.list_style or style
            item.marker = "-" if shown == "-" else f"{list_number(n, shown)}."
            if shown[:1] in ("'", '"'):
                item.marker = shown.strip("'\" ")
            n += -1 if is_reversed else 1


def _number(element: Any, name: str, default: int) -> int:
    found = re.fullmatch(r"\s*([+-]?\d{1,9})\s*", str(element.get(name, "")))
    return int(found[1]) if found else default


def _mark_notes(soup: Any) -> frozenset[str]:
    """Mark notes and their marks; return the labels of the notes.

    A note's mark is a link that says so, a raised link to a place, or one to what is a note by its
    type or name, or links back. Raised text that begins a paragraph is a note's label where the
    page has it elsewhere too.
    """
    places = {attribute(element, "id"): element for element in soup.find_all(id=True)}
    labels = set[str]()
    for link in soup.find_all("a", href=True):
        kinds = f"{attribute(link, 'epub:type')} {attribute(link, 'role')}".split()
        is_said = "noteref" in kinds or "doc-noteref" in kinds
        label = note_label(link.get_text()) or (
            note_label(link.get_text().strip()[:4]) if is_said else ""
        )
        path, _, place = attribute(link, "href").partition("#")
        if not (label and (place or is_said)) or _text_beside(link, "previous_sibling") == "":
            continue
        target = places.get(place) if not path else None
        around = link.parent if link.parent.get_text().strip() == link.get_text().strip() else link
        names = {attribute(link, "id"), attribute(around, "id"), attribute(link, "name")} - {""}
        is_raised = "sup" in (link.name, around.name) or link.find("sup") is not None
        is_note = target is not None and (
            _is_note(target)
            or bool(_NOTE_ID.search(place))
            or any(attribute(back, "href")[1:] in names for back in target.find_all("a", href=True))
        )
        is_raised = is_raised or "raised" in around.looks | link.looks
        if is_said or is_note or (is_raised and place):
            (around if around.name == "sup" else link).cites = label
            if target is not None and not target.explains:
                labels.add(label)
                _mark_note(target, label)
    for note in soup.find_all(_is_note):
        first = note.find(("a", "sup"))
        label = note_label(first.get_text()) if first is not None and not note.explains else ""
        if label and not _text_beside(first, "previous_sibling"):
            labels.add(label)
            _mark_note(note, label)
    first_ones = dict[str, list[Any]]()
    inner = set[str]()
    for element in soup.find_all(lambda tag: tag.name == "sup" or "raised" in tag.looks):
        label = note_label(element.get_text())
        if (
            element.cites
            or element.is_dropped
            or not label
            or any(n.is_dropped for n in element.parents)
        ):
            continue
        if _text_beside(element, "previous_sibling"):
            inner.add(label)
        elif len((beside := _text_beside(element, "next_sibling")).split()) > (beside[:1] != " "):
            first_ones.setdefault(label, []).append(element)
    for label, elements in first_ones.items():
        if label in inner or (label not in labels and not label.isalnum()):
            labels.add(label)
            for element in elements:
                element.explains, element.is_dropped = label, True
    return frozenset(labels)


def _is_note(tag: Any) -> bool:
    kinds = f"{attribute(tag, 'epub:type')} {attribute(tag, 'role')}".split()
    return not _NOTE_TYPES.isdisjoint(kinds) and tag.name != "a"


def _mark_note(note: Any, label: str) -> None:
    note.explains = label
    if note.name not in OUTER:  # an anchor at the beginning of the note
        note.is_dropped = note_label(note.get_text()) in (label, "")
        return
    for node in list(note.descendants):
        words = node.get_text()
        if node.name in ("a", "sup") and (note_label(words) or not re.search(r"\w", words)):
            node.is_dropped = node.name == "sup" or "#" in attribute(node, "href")
        elif (
            node.name is None
            and re.search(r"\w", node)
            and not any(n.is_dropped for n in node.parents)
        ):
            rest = re.sub(rf"^\s*(?:[\[(]?{re.escape(label)}[\])]?)?[.:)]?\s+", "", node)
            node.replace_with(rest)
            break
        elif node.name is None and node.strip() in ("^", "↑"):
            node.replace_with("")
    for back in note.find_all("a", href=re.compile("#")):
        back.is_dropped = back.is_dropped or not re.search(r"\w", back.get_text())


def _text_beside(element: Any, direction: str) -> str:
    """Return what stands next to it in its line, at least a word of it where there is one."""
    text, node = "", element
    while True:
        beside = getattr(node, direction)
        if beside is None:
            node = node.parent
            if node is None or node.name in OUTER:
                return text
            continue
        node = beside
        if node.name in OUTER:
            return text
        piece = node.get_text() if node.name is not None else str(node)
        text = f"{piece}{text}" if direction == "previous_sibling" else f"{text}{piece}"
        if text.strip() and len(text) > 20:
            return text


class _Converter(MarkdownConverter):
    def __init__(self, labels: Container[str]) -> None:
        super().__init__(
            heading_style="ATX", bullets="-", escape_asterisks=False, escape_underscores=False
        )
        self._labels = labels

    def process_text(self, el: Any, parent_tags: Any = None) -> str:
        return escaped(super().process_text(el, parent_tags))  # type: ignore[misc]  # untyped

    def get_conv_fn(self, tag_name: str) -> Callable[..., str]:
        convert = super().get_conv_fn(tag_name)  # type: ignore[misc]  # untyped

        def marked(element: Any, text: str, parent_tags: set[str]) -> str:
            return self._marked(element, text, parent_tags, convert)

        return marked

    def _marked(self, element: Any, text: str, parent_tags: set[str], convert: Any) -> str:
        looks = element.looks
        if element.is_dropped:
            text = ""
        elif element.cites:
            return f"[^{element.cites}]"
        elif element.name in ("sup", "sub") or looks & {"raised", "lowered"}:
            before = _text_beside(element, "previous_sibling")
            after = _text_beside(element, "next_sibling")
            if element.find(("sup", "sub", "a")) is None:  # without signs of formats
                text = escaped(element.get_text())
            if element.name == "sup" or "raised" in looks:
                text = raised(text, before, after, self._labels)
            else:
                text = lowered(text, before, after)
        text = struck(text) if "struck" in looks else text
        text = hidden(text) if "hidden" in looks else text
        if element.explains:
            is_apart = not text and _text_beside(element, "next_sibling")[:1].isspace()
            text = f"[^{element.explains}]:{'' if is_apart else ' '}{text.lstrip()}"
            convert = None if element.is_dropped else convert
        if convert is not None:
            text = convert(element, text, parent_tags)
        if "block" in looks and "_inline" not in parent_tags:
            return f"\n{text.strip()}\n"
        return f" {text} " if looks & {"block", "apart"} else text

    def convert_td(self, el: Any, text: str, parent_tags: Any) -> str:
        text = text.replace("|", "\\|")
        return super().convert_td(el, text, parent_tags)  # type: ignore[misc,no-any-return]

    convert_th = convert_td

    def convert_del(self, el: Any, text: str, parent_tags: Any) -> str:
        return text

    convert_s = convert_sup = convert_sub = convert_del

    def convert_math(self, el: Any, text: str, parent_tags: Any) -> str:
        return mathml_text(el)

    def convert_rt(self, el: Any, text: str, parent_tags: Any) -> str:
        return text if el.parent.find("rp") else f"({text})"

    def convert_li(self, el: Any, text: str, parent_tags: Any) -> str:
        if not (text := (text or "").strip()):
            return "\n"
        bullet = "" if el.explains else f"{el.marker or '-'} "
        return bullet + text.replace("\n", "\n" + " " * len(bullet)) + "\n"
