"""Word documents to Markdown: headings, lists, tables, notes, text boxes, headers and footers.

The body is walked here, since python-docx's `paragraph.text` leaves out tracked insertions, form
fields and text boxes. Text that tracked changes have deleted, and what is embedded, is noted and
not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, BinaryIO

from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import escaped, hidden, note_label

from .document_kinds import HEAD_BYTES, MEDIA_TYPES, UnknownKind, kind_within
from .formulas import MATH_NS, omml_text
from .inner_documents import InnerPictures
from .office import (
    DRAWING_NS,
    DRAWN_RUN,
    OFF,
    PLAIN,
    RELATION_ID,
    TINY_POINTS,
    WORD_DOCUMENT,
    Look,
    Piece,
    damage_errors,
    described,
    drawn_texts,
    embedded_notes,
    import_library,
    is_clear,
    markdown_table,
    marked,
    open_archive,
    part_tree,
    refuse_textless,
    with_note_marks,
)
from .office_archives import load_archive
from .reader import Document, ReadRequest, Unreadable, hidden_text_note, text_sample
from .word_styles import (
    WORD_NS,
    ListNumbers,
    StyleSheet,
    form_of,
    is_on,
    number_format,
    table_style,
    value_of,
)

_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TEXT_BOX = f"{WORD_NS}txbxContent"
# Not text: what was moved away, formatting.
_GONE_TAGS = (f"{WORD_NS}del", f"{WORD_NS}moveFrom")
_SKIPPED_TAGS = frozenset((f"{WORD_NS}moveFrom", f"{WORD_NS}pPr", f"{WORD_NS}rPr"))
_DRAWING_PLACE = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}"
_PICTURE = f"{_DRAWING_PLACE}docPr"

_VML_NS = "{urn:schemas-microsoft-com:vml}"
_VML_HIDES = re.compile(r"(?:^|;)\s*(?:visibility\s*:\s*hidden|display\s*:\s*none)")

_SYMBOLS = {
    "wingdings": {0x6F: "[ ]", 0xA8: "[ ]", 0xFD: "[x]", 0xFE: "[x]", 0xFB: "✗", 0xFC: "✓"},
    "wingdings 2": {0xA3: "[ ]", 0x52: "[x]", 0x53: "[x]", 0x4F: "✗", 0x50: "✓"},
    "symbol": dict(zip(range(0x61, 0x7B), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True))
    | {0x44: "Δ", 0x53: "Σ", 0x57: "Ω", 0xA3: "≤", 0xB0: "°", 0xB1: "±", 0xB3: "≥", 0xB4: "\u00d7"}
    | {0xB7: "•", 0xB9: "≠", 0xBB: "≈", 0xA5: "∞"},
}
"""What fonts of symbols show in place of their characters."""
_NOTES = (("footnotes", "footnote"), ("endnotes", "endnote"), ("comments", "comment"))
"""Kind of part, and its elements."""
_TEXT = f"{WORD_NS}t"
_DELETED_MARK = f"{WORD_NS}rPr/{WORD_NS}del"
_CHUNK = "/aFChunk"
_NUMBER_FIELD = re.compile(r"\s*(?:LISTNUM|AUTONUM)")  # whose results no file has
_LEAST_RAISED_HALF_POINTS = 4  # less is for looks: two points
_MOST_COLUMNS = 64


def read_docx(file: BinaryIO, request: ReadRequest) -> Document:
    """Read it as one page: the file has no page breaks of the layout."""
    docx = import_library("docx", WORD_DOCUMENT)
    archive = open_archive(file, WORD_DOCUMENT)

    def load(file: BinaryIO) -> Any:
        document = docx.Document(file)
        _ = document.core_properties  # raises for two of them
        if getattr(document.element, "body", None) is None:
            raise ValueError("its document has no body")
        return document

    with damage_errors(WORD_DOCUMENT), load_archive(load, file, archive) as (document, _, damage):
        lines = _DocxLines.of_document(document, request)
        blocks = [block for block in lines.of(document.element.body) if block]
        notes = _docx_notes(document, lines)
        top, bottom = _headers_and_footers(document, lines)
        title = (document.core_properties.title or "").strip()
        relations = [r for r in document.part.rels.values() if not r.is_external]
        drawn = [text for relation in relations for text in drawn_texts(relation) if text]
        pictures = InnerPictures(request)
        seen = pictures.of_part(document.part)
    body = with_note_marks(_joined_blocks([*top, *blocks, *drawn]), set(lines.labels.values()))
    text = _joined_blocks([body, *filter(None, [seen]), *notes, *bottom])
    kinds = [relation.reltype for relation in document.part.rels.values()]
    refuse_textless(WORD_DOCUMENT, text, kinds, damage)
    unread = [kind for kind in kinds if not kind.endswith(_CHUNK)] + lines.unread_chunks
    unshown = hidden_text_note("the document", lines.hidden)
    losses = (*damage, *unshown, *embedded_notes(unread), *lines.unread_notes(), *lines.chunk_notes)
    losses += (*pictures.notes(),)
    return Document((text,), title or lines.title, MEDIA_TYPES["docx"], losses)


_LIGHT = re.compile("(?:[Ff][0-9A-Fa-f]){3}")
_WHITE_THEMES = ("background1", "bg1", "light1", "lt1")
_FILLED = (f"{WORD_NS}shd", f"{WORD_NS}highlight", f"{DRAWING_NS}solidFill")


def _is_white(element: Any) -> bool:
    theme = element.get(f"{WORD_NS}themeColor")
    if theme is not None:
        dark = (element.get(f"{WORD_NS}themeShade"), element.get(f"{WORD_NS}themeTint"))
        return theme in _WHITE_THEMES and dark == (None, None)
    written = element.get(f"{WORD_NS}val") or element.get(f"{WORD_NS}color") or ""
    return bool(_LIGHT.fullmatch(written))


def _fills(element: Any) -> bool:
    """Return whether an element, or one within its format, has a colour behind its text."""
    fields = (inner for name in _FILLED for inner in element.iter(name))
    fills = (f.get(f"{WORD_NS}fill", "" if f.tag == _FILLED[0] else "dark") for f in fields)
    return any(fill not in ("", "auto") and not _LIGHT.fullmatch(fill) for fill in fills)


class _Paper:
    """Where a document's white pages have a colour, so that white text is seen."""

    def __init__(self, styles: StyleSheet) -> None:
        self.styles = styles
        self.filled_styles = {name for name, style in styles.by_id.items() if _fills(style)}

    def is_filled(self, run: Any) -> bool:
        form = run.find(f"{WORD_NS}rPr")
        paragraph = next(run.iterancestors(f"{WORD_NS}p"), run)
        styles = {value_of(form, "rStyle"), self.styles.paragraph_style(paragraph)}
        if styles & self.filled_styles or (form is not None and _fills(form)):
            return True
        for around in run.iterancestors():
            if around.tag.endswith(("}wsp", "}shape", "}rect")):  # a text box: its fill is unknown
                return _fills(around) or around.get("fillcolor") is not None
            for name in ("pPr", "tcPr", "tblPr"):
                found = around.find(f"{WORD_NS}{name}")
                if found is not None and (
                    _fills(found) or value_of(found, "tblStyle") in self.filled_styles
                ):
                    return True
        return False


class _Item(str):
    """A paragraph of a list: another one follows in the next line."""


def _joined_blocks(blocks: Iterable[str]) -> str:
    parts: list[str] = []
    is_after_item = False
    for block in filter(None, blocks):
        is_item = isinstance(block, _Item)
        parts += ["\n" if is_after_item and is_item else "\n\n", block]
        is_after_item = is_item
    return "".join(parts[1:])


class _DocxLines(Struct):
    document: Any
    request: ReadRequest
    styles: StyleSheet
    numbers: ListNumbers
    paper: _Paper | None = None
    """Where white text is seen; None: everywhere, since the pages have a colour."""
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    """By the kind of a reference and the identifier of its note: the label that is shown."""
    title: str = ""
    hidden: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    n_inserted: int = 0
    n_symbols: int = 0
    """Unknown characters of symbol fonts."""
    chunks: set[str] = field(default_factory=set)
    chunk_notes: list[str] = field(default_factory=list)
    unread_chunks: list[str] = field(default_factory=list)
    """Of documents that this one shows as part of itself: the kinds of relations."""
    _looks: dict[tuple[Any, ...], tuple[Look, bool]] = field(default_factory=dict)
    """By what decides it, the look of a run, and whether it is white."""
    _boxes: list[Any] = field(default_factory=list)

    @classmethod
    def of_document(cls, document: Any, request: ReadRequest) -> _DocxLines:
        styles = StyleSheet(document.styles.element)
        kinds = {r.reltype.rpartition("/")[2]: r for r in document.part.rels.values()}
        numbering = part_tree(kinds["numbering"]) if "numbering" in kinds else None
        page = document.element.find(f"{WORD_NS}background")
        paper = _Paper(styles) if page is None or _is_white(page) else None
        lines = cls(document, request, styles, ListNumbers(styles, numbering), paper)
        lines._find_labels()
        return lines

    def _find_labels(self) -> None:
        """Find the labels of all notes, before the first mark of one is written."""
        body, settings = self.document.element, self.document.settings.element
        for kind, default in (("footnote", "decimal"), ("endnote", "lowerRoman")):
            forms = [e for tree in (settings, body) for e in tree.iter(f"{WORD_NS}{kind}Pr")]
            formats = [value_of(form, "numFmt") for form in forms]
            shown = number_format(next(filter(None, formats), default))
            n = 0
            for mark in body.iter(f"{WORD_NS}{kind}Reference"):
                if any(around.tag in _GONE_TAGS for around in mark.iterancestors()):
                    continue
                own = mark.get(f"{WORD_NS}customMarkFollows", "0") not in OFF
                n += not own
                texts = "".join(map(_own_text, mark.itersiblings())) if own else shown(n)
                label = note_label(texts)
                is_taken = not label or label in self.labels.values()
                identifier = mark.get(f"{WORD_NS}id", "")
                self.labels[kind, identifier] = f"{kind[0]}{n or identifier}" if is_taken else label

    def unread_notes(self) -> Iterator[str]:
        if self.deleted:
            what = counted(len(self.deleted), "deletion is", "deletions are")
            yield f": {what} tracked and not read ({text_sample(self.deleted)})"
        if self.n_inserted:
            what = counted(self.n_inserted, "insertion is", "insertions are")
            yield f": {what} tracked and read as text"
        fields = self.document.element.iter(f"{WORD_NS}instrText", f"{WORD_NS}fldSimple")
        written = (field.text or field.get(f"{WORD_NS}instr", "") for field in fields)
        if n := sum(map(bool, map(_NUMBER_FIELD.match, written))):
            yield f": {counted(n, 'number')} of fields (LISTNUM, AUTONUM) not read"
        if self.n_symbols:
            yield f": {counted(self.n_symbols, 'symbol')} of special fonts cannot be read"
        if self.numbers.n_unknown:
            what = counted(self.numbers.n_unknown, "automatic number has", "automatic numbers have")
            yield f": {what} a format that is not known and written in digits"

    def of(self, parent: Any, *, is_cell: bool = False) -> Iterator[str]:
        for child in parent:
            if child.tag == f"{WORD_NS}p":
                yield self._paragraph(child, is_cell=is_cell)
                boxes, self._boxes = self._boxes, []
                for box in boxes:
                    blocks = list(filter(None, self.of(box)))
                    is_unseen = _is_unseen_shape(box)
                    self.hidden += blocks if is_unseen else ()
                    yield from map(hidden, blocks) if is_unseen else blocks
            elif child.tag == f"{WORD_NS}tbl":
                self.request.check()
                yield from self._table(child, is_within=is_cell)
            elif child.tag == f"{WORD_NS}altChunk":
                yield self._chunk(child)
            elif _has_text(child):
                yield from self.of(child, is_cell=is_cell)

    def _table(self, table: Any, *, is_within: bool) -> Iterator[str]:
        form = table.find(f"{WORD_NS}tblPr")
        yield " ".join(filter(None, (value_of(form, name) for name in _TABLE_TEXTS)))
        rows = [row for row in table.iter(f"{WORD_NS}tr") if _is_inside(row, table)]
        cells = [[c for c in row.iter(f"{WORD_NS}tc") if _is_inside(c, row)] for row in rows]
        is_around = next(table.iterdescendants(f"{WORD_NS}tbl"), None) is not None
        if is_around and all(len(row) == 1 for row in cells):  # a frame around other tables
            for (cell,) in cells:
                yield from self.of(cell)
            return
        shown = [self._row(row, found) for row, found in zip(rows, cells, strict=True)]
        within = "; ".join(", ".join(filter(None, row)) for row in shown if any(row))
        yield within if is_within else markdown_table(shown)

    def _row(self, row: Any, cells: list[Any]) -> list[str]:
        """Return a row's cells in their columns; no text is shown of one merged with that above."""
        form = row.find(f"{WORD_NS}trPr")
        if form is not None and form.find(f"{WORD_NS}del") is not None:
            self._delete(row)
            return []
        is_row_hidden = form is not None and is_on(form.find(f"{WORD_NS}hidden"))
        shown = [""] * _columns(form, "gridBefore", 0)
        for cell in cells:
            form = cell.find(f"{WORD_NS}tcPr")
            merged = None if form is None else form.find(f"{WORD_NS}vMerge")
            text = ""
            if form is not None and form.find(f"{WORD_NS}cellDel") is not None:
                self._delete(cell)
            else:
                text = " ".join(filter(None, self.of(cell, is_cell=True))).strip()
            is_covered = merged is not None and merged.get(f"{WORD_NS}val") != "restart"
            if text and (is_row_hidden or is_covered):
                self.hidden.append(text)
                text = hidden(text)
            shown += [text, *[""] * (_columns(form, "gridSpan", 1) - 1)]
        return shown

    def _delete(self, element: Any) -> None:
        texts = "".join(map(_own_text, element.iter(_TEXT, f"{WORD_NS}delText")))
        self.deleted += [texts] if texts else []

    def _chunk(self, chunk: Any) -> str:
        """Return the text of a document that is embedded as a part of this one."""
        relation = self.document.part.rels.get(chunk.get(RELATION_ID))
        if relation is None or relation.is_external:
            return ""
        part = relation.target_part
        if part.partname in self.chunks:
            return ""  # each once: two of two of two are many
        self.chunks.add(part.partname)
        with suppress(UnknownKind, Unreadable):
            kind = kind_within(part.partname, part.content_type, part.blob[:HEAD_BYTES])
            found = self.request.within(kind, BytesIO(part.blob))
            self.chunk_notes += found.notes
            return found.text
        self.unread_chunks.append(_CHUNK)
        return ""

    def _paragraph(self, paragraph: Any, *, is_cell: bool) -> str:
        text = self._marked(self._pieces(paragraph, PLAIN)).strip()
        form = form_of(paragraph)
        if not text and form is not None and form.find(_DELETED_MARK) is not None:
            return ""
        number = self.numbers.next(paragraph)
        if not text:
            return ""
        level = self.styles.heading_level(paragraph)
        if level:
            text = " ".join(text.split())
            text = f"{number.text} {text}" if number and number.text else text
            self.title = self.title or text
            return text if is_cell else f"{'#' * level} {text}"
        if number:
            return _Item(f"{'  ' * number.level}{number.text or '-'} {text}")
        named = next(self.styles.chain(self.styles.paragraph_style(paragraph)), None)
        if value_of(named, "name").lower().startswith("list bullet"):
            return _Item(f"- {text}")
        return text

    def _marked(self, pieces: Iterable[Piece]) -> str:
        text, unshown = marked(pieces)
        self.hidden += unshown
        return text

    def _pieces(self, parts: Iterable[Any], look: Look) -> Iterator[Piece]:
        for child in parts:
            if child.tag in _SHOWN_TAGS:
                yield escaped(_SHOWN_TAGS[child.tag](child)), look
            elif child.tag in _REFERENCES:
                kind, identifier = _REFERENCES[child.tag], child.get(f"{WORD_NS}id", "")
                label = self.labels.get((kind, identifier), f"c{identifier}")
                yield f"[^{label}]", look._replace(rise=0)
                if child.get(f"{WORD_NS}customMarkFollows", "0") not in OFF:
                    return
            elif child.tag == _TEXT_BOX:
                self._boxes.append(child)
            elif child.tag == f"{WORD_NS}del":
                self._delete(child)
            elif child.tag == f"{WORD_NS}ruby":  # how to pronounce what is below it
                spoken, below = (child.findall(f"{WORD_NS}{name}") for name in ("rt", "rubyBase"))
                yield from self._pieces(below, look)
                yield from (("(", look), *self._pieces(spoken, look), (")", look))
            elif child.tag == f"{MATH_NS}oMath":
                text = omml_text(child, lambda part: self._marked(self._pieces([part], look)))
                previous = child.getprevious()
                is_beside = previous is not None and "".join(previous.itertext())[-1:].isalnum()
                yield f" {text}" if is_beside and text[:1].isdigit() else text, look
            elif child.tag == f"{WORD_NS}sym":
                code, font = (
                    int(child.get(f"{WORD_NS}char", "0"), 16),
                    child.get(f"{WORD_NS}font", ""),
                )
                shown = chr(code)
                if 0xE000 <= code < 0xF900:  # an area of private characters: the font decides
                    shown = _SYMBOLS.get(font.lower(), {}).get(code & 0xFF, "")
                    self.n_symbols += not shown
                yield shown, look
            elif child.tag == f"{WORD_NS}r":
                yield from self._pieces(child, self._look(child))
            elif _has_text(child):
                if child.tag == f"{WORD_NS}ins" and next(child.iter(_TEXT), None) is not None:
                    self.n_inserted += 1
                yield from self._pieces(child, look)

    def _look(self, run: Any) -> Look:
        form = run.find(f"{WORD_NS}rPr")
        paragraph = next(run.iterancestors(f"{WORD_NS}p"), run)
        named = value_of(form_of(paragraph), "pStyle")
        own = () if form is None else [(e.tag, *e.values()) for e in form if e.tag in _LOOK_TAGS]
        key = (named, table_style(run), *own)
        if key not in self._looks:  # documents have few looks, and many runs
            size = self.styles.of_run(run, f"{WORD_NS}sz")
            points = "" if size is None else size.get(f"{WORD_NS}val", "")
            is_hidden = self.styles.is_on(run, f"{WORD_NS}vanish") or (
                points.isdecimal() and int(points) <= 2 * TINY_POINTS
            )
            is_struck = any(self.styles.is_on(run, name) for name in _STRIKES)
            colour = self.styles.of_run(run, f"{WORD_NS}color")
            is_white = self.paper is not None and colour is not None and _is_white(colour)
            aligned = self.styles.of_run(run, f"{WORD_NS}vertAlign")
            position = self.styles.of_run(run, f"{WORD_NS}position")
            moved = "" if position is None else position.get(f"{WORD_NS}val", "")
            half_points = int(moved) if moved.lstrip("-").isdecimal() else 0
            is_moved = abs(half_points) >= _LEAST_RAISED_HALF_POINTS
            rise = (1 if half_points > 0 else -1) if is_moved else 0
            rise = rise if aligned is None else _RISES.get(aligned.get(f"{WORD_NS}val"), rise)
            self._looks[key] = Look(rise, is_struck, is_hidden), is_white
        look, is_white = self._looks[key]
        if form is not None and any(map(is_clear, form.iterfind(_TEXT_FILL))):
            return look._replace(is_hidden=True)
        if is_white and self.paper and not self.paper.is_filled(run):
            return look._replace(is_hidden=True)
        return look


_LOOK_TAGS = frozenset(
    f"{WORD_NS}{name}"
    for name in ("rStyle", "vertAlign", "position", "sz", "vanish", "strike", "dstrike", "color")
)
_TEXT_FILL = "{http://schemas.microsoft.com/office/word/2010/wordml}textFill"
_STRIKES = (f"{WORD_NS}strike", f"{WORD_NS}dstrike")
_RISES = {"superscript": 1, "subscript": -1}


def _is_unseen_shape(box: Any) -> bool:
    """Return whether the shape around a text box, or one around that, is hidden."""
    for around in box.iterancestors():
        if around.tag in (f"{_DRAWING_PLACE}inline", f"{_DRAWING_PLACE}anchor"):
            switches = (
                around.get("hidden"),
                getattr(around.find(_PICTURE), "attrib", {}).get("hidden"),
            )
            if not {"1", "true", "on"}.isdisjoint(switches):
                return True
        elif around.tag.startswith(_VML_NS) and _VML_HIDES.search(around.get("style", "")):
            return True
    return False


def _columns(form: Any, name: str, default: int) -> int:
    written = value_of(form, name)
    return min(int(written), _MOST_COLUMNS) if written.isdecimal() else default


_TABLE_TEXTS = ("tblCaption", "tblDescription")
"""The alternative text of a table: its title, and the rest."""


def _has_text(element: Any) -> bool:
    """Return whether an element may hold text; a fallback does where there is nothing else."""
    if element.tag == _FALLBACK:
        return not any(s.tag.endswith("}Choice") for s in element.itersiblings(preceding=True))
    return isinstance(element.tag, str) and element.tag not in _SKIPPED_TAGS


def _own_text(element: Any) -> str:
    return element.text or ""


def _check_box(box: Any) -> str:
    switch = box.find(f"{WORD_NS}checked")
    switch = box.find(f"{WORD_NS}default") if switch is None else switch
    return "[x] " if switch is not None and is_on(switch) else "[ ] "


def _chosen_entry(choice: Any) -> str:
    entries = choice.findall(f"{WORD_NS}listEntry")
    result = choice.find(f"{WORD_NS}result")
    index = int(result.get(f"{WORD_NS}val", "0")) if result is not None else 0
    return entries[index].get(f"{WORD_NS}val", "") if index < len(entries) else ""


_SHOWN_TAGS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys((f"{WORD_NS}t", f"{MATH_NS}t", DRAWN_RUN), _own_text),
    f"{WORD_NS}tab": lambda _: "\t",
    **dict.fromkeys((f"{WORD_NS}br", f"{WORD_NS}cr"), lambda _: "\n"),
    f"{WORD_NS}noBreakHyphen": lambda _: "-",
    f"{WORD_NS}checkBox": _check_box,
    f"{WORD_NS}ddList": _chosen_entry,
    _PICTURE: described,
    f"{_VML_NS}imagedata": lambda picture: described(picture.getparent(), "alt"),
    f"{_VML_NS}textpath": lambda watermark: watermark.get("string", ""),
}
"""Elements that are shown as text: by their own, or by their attributes."""


_REFERENCES = {f"{WORD_NS}{kind}Reference": kind for kind in ("footnote", "endnote", "comment")}


def _is_inside(inner: Any, outer: Any) -> bool:
    above = inner.getparent()
    while above is not outer:
        if above.tag in (f"{WORD_NS}tbl", f"{WORD_NS}tc"):
            return False
        above = above.getparent()
    return True


def _docx_notes(document: Any, lines: _DocxLines) -> list[str]:
    found: list[str] = []
    for kind, name in _NOTES:
        for relation in document.part.rels.values():
            if relation.is_external or not relation.reltype.endswith(f"/{kind}"):
                continue
            for note in part_tree(relation).iter(f"{WORD_NS}{name}"):
                if note.get(f"{WORD_NS}type", "normal") != "normal":  # a line between them
                    continue
                text = " ".join(block for block in lines.of(note) if block)
                who = note.get(f"{WORD_NS}author", ""), note.get(f"{WORD_NS}date", "")[:10]
                author, identifier = " ".join(filter(None, who)), note.get(f"{WORD_NS}id", "")
                label = (
                    f"c{identifier}" if name == "comment" else lines.labels.get((name, identifier))
                )
                if text and label is None:  # its mark was deleted
                    lines.hidden.append(text)
                    found.append(hidden(text))
                elif text:
                    found.append(f"[^{label}]: {f'{author}: {text}' if author else text}")
    return found


def _headers_and_footers(document: Any, lines: _DocxLines) -> tuple[list[str], list[str]]:
    top: dict[str, None] = {}
    bottom: dict[str, None] = {}
    for section in document.sections:
        margins = [(section.header, top), (section.footer, bottom)]
        if section.different_first_page_header_footer:
            margins += [(section.first_page_header, top), (section.first_page_footer, bottom)]
        if document.settings.odd_and_even_pages_header_footer:
            margins += [(section.even_page_header, top), (section.even_page_footer, bottom)]
        for margin, texts in margins:
            with suppress(KeyError):  # a part that is missing, or a reference that names none
                if not margin.is_linked_to_previous:
                    texts.update(dict.fromkeys(filter(None, lines.of(margin._element))))
    return list(top), list(bottom)
