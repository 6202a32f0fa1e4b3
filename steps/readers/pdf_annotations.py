"""What a PDF's page has besides its text: fields, typed texts, comments, files, hidden values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from ctypes import byref, c_ulong, create_string_buffer
from typing import Any, TypeAlias

import pypdfium2  # type: ignore[import-untyped]
from pypdfium2 import raw

from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import counted, one_line
from paddock.pipelines.text_cells import PageBox, TextCell

from .pdfium import PDFIUM_LOCK, PageFrame, clean_text, utf16
from .reader import hidden_text_note


class Losses(Struct):
    """What a document hides, or has besides what is read."""

    hidden: list[str] = field(default_factory=list)
    files: list[Any] = field(default_factory=list)
    """PDFium's handles of files that are attached to a page."""
    n_unshown: int = 0
    """Fields whose values are hidden or passwords."""
    n_unread: int = 0
    """Typed texts that are kept only as drawings; films and sounds."""

    def attached(self, document: Any) -> Iterator[tuple[str, int, bytes]]:
        """Yield names, sizes and contents of files, each once; no content of a huge one."""
        with PDFIUM_LOCK:
            n_files = raw.FPDFDoc_GetAttachmentCount(document)
            own = [raw.FPDFDoc_GetAttachment(document, index) for index in range(n_files)]
        known = set[int]()
        for handle in filter(None, (*own, *self.files)):
            with PDFIUM_LOCK:
                name = " ".join(utf16(raw.FPDFAttachment_GetName, handle).split()) or "unnamed"
                size, data = c_ulong(), create_string_buffer(0)
                raw.FPDFAttachment_GetFile(handle, None, 0, byref(size))
                if 0 < size.value <= _MOST_FILE_BYTES:
                    data = create_string_buffer(size.value)
                    raw.FPDFAttachment_GetFile(handle, data, size.value, byref(size))
            file = name, size.value, data.raw
            if hash(file) not in known:
                known.add(hash(file))
                yield file

    def notes(self, document: Any) -> Iterator[str]:
        with PDFIUM_LOCK:
            is_dynamic = document.get_formtype() == raw.FORMTYPE_XFA_FULL
        if is_dynamic:
            yield ": its dynamic form (XFA) is not read; save it as a plain PDF to have its values"
        yield from hidden_text_note("the page", self.hidden)
        if self.n_unshown:
            fields = counted(self.n_unshown, "hidden or password field")
            yield f": values of {fields} are not read"
        if self.n_unread:
            what = counted(self.n_unread, "text, film or sound", "texts, films or sounds")
            yield f": {what} laid over its pages cannot be read"


_Piece: TypeAlias = tuple[str, PageBox | None]
"""A piece of a line, and where it stands on the page."""


class LaidOver(Struct, frozen=True):
    """The text of what is laid over a page, and where its pieces stand."""

    text: str
    cells: tuple[TextCell, ...]


class Annotations:
    def __init__(self, page: Any, number: int, textpage: Callable[[], Any], losses: Losses) -> None:
        self._page, self._number = page, number
        self._textpage, self._losses = textpage, losses
        self._n_drawings = 0
        self._form = page.formenv.raw if page.formenv else None
        self._fields: dict[tuple[str, str], list[_Piece]] = {}
        """By name and label: the label, then the value or the choices."""
        self.struck: list[list[complex]] = []
        """The corners of words that people have struck out, in points."""
        self._typed: list[list[_Piece]] = []
        self._comments: list[list[_Piece]] = []
        for index in range(raw.FPDFPage_GetAnnotCount(page)):
            annotation = raw.FPDFPage_GetAnnot(page, index)
            if annotation:
                self._add(annotation, index)
                raw.FPDFPage_CloseAnnot(annotation)

    def joined(self) -> LaidOver:
        fields = list(self._fields.values())
        parts = {"Form fields": fields, "Text boxes": self._typed, "Comments": self._comments}
        text = ""
        cells = list[TextCell]()
        for name, lines in parts.items():
            gap = "\n\n" if text else ""
            text += f"{gap}{name}:" if lines else ""
            for line in lines:
                text += "\n-"
                for piece, box in line:
                    text += f" {piece}"
                    start = len(text) - len(piece)
                    cells += [TextCell(start, len(text), box, p=1.0)] if box else []
        return LaidOver(text, tuple(cells))

    def _add(self, annotation: Any, index: int) -> None:
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        is_hidden = bool(raw.FPDFAnnot_GetFlags(annotation) & _HIDDEN_FLAGS)
        if kind == raw.FPDF_ANNOT_WIDGET:
            self._add_field(annotation, index, is_hidden=is_hidden)
            return
        if kind in _SKIPPED_ANNOTATIONS:
            return
        if kind == raw.FPDF_ANNOT_FILEATTACHMENT:
            file = raw.FPDFAnnot_GetFileAttachment(annotation)
            self._losses.files += [file] if file else []
        text = _annotation_text(annotation, "Contents")
        box = self._box(annotation)
        is_typed = kind == raw.FPDF_ANNOT_FREETEXT
        is_wanted = kind in _DRAWN_ANNOTATIONS and not is_hidden and not (is_typed and text)
        drawn = self._drawn_text(annotation, index) if is_wanted else ""
        if is_typed:
            text = text or drawn
            self._typed += [[(text, box)]] if text else []
            self._losses.n_unread += not text
        else:
            self._losses.n_unread += kind in _MEDIA_ANNOTATIONS
            author = _annotation_text(annotation, "T")
            comment = f"{text} ({author})" if text and author else text
            is_struck = kind == raw.FPDF_ANNOT_STRIKEOUT
            what = ""
            if kind in _DRAWN_ANNOTATIONS:
                what = "stamp" if kind == raw.FPDF_ANNOT_STAMP else "watermark"
                comment = comment or ("" if drawn else _annotation_text(annotation, "Name"))
                comment = comment if drawn in comment else ": ".join(filter(None, (comment, drawn)))
            elif kind in _MARKING_ANNOTATIONS and (comment or is_struck):
                marked = one_line(self._marked(annotation), _SHOWN_CHARS)
                what = f"{'struck out' if is_struck else 'on'} '{marked}'" if marked else ""
            comment = ": ".join(filter(None, (what, comment)))
            self._comments += [[(comment, box)]] if comment else []
        if is_hidden and text:
            self._losses.hidden.append(text)

    def _drawn_text(self, annotation: Any, index: int) -> str:
        """Return the text of an annotation's drawing.

        PDFium tells texts of pages only: make it the only thing on one.
        """
        if not raw.FPDFAnnot_GetObjectCount(annotation):
            return ""
        self._n_drawings += 1
        if self._n_drawings > _MOST_DRAWINGS:
            self._losses.n_unread += 1
            return ""
        text = ""
        with (
            contextlib.suppress(pypdfium2.PdfiumError),
            contextlib.closing(pypdfium2.PdfDocument.new()) as copy,
        ):
            copy.import_pages(self._page.pdf, [self._number])
            page = copy[0]
            for at in reversed(range(raw.FPDFPage_CountObjects(page))):
                piece = raw.FPDFPage_GetObject(page, at)
                raw.FPDFPage_RemoveObject(page, piece)
                raw.FPDFPageObj_Destroy(piece)
            for at in reversed(range(raw.FPDFPage_GetAnnotCount(page))):
                if at != index:
                    raw.FPDFPage_RemoveAnnot(page, at)
            raw.FPDFPage_GenerateContent(page)
            raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
            page.close()
            text = copy[0].get_textpage().get_text_range()
        return " ".join(clean_text(text).split())

    def _marked(self, annotation: Any) -> str:
        words, quad = list[str](), raw.FS_QUADPOINTSF()
        for index in range(raw.FPDFAnnot_CountAttachmentPoints(annotation)):
            if raw.FPDFAnnot_GetAttachmentPoints(annotation, index, quad):
                across, up = (
                    (quad.x1, quad.x2, quad.x3, quad.x4),
                    (quad.y1, quad.y2, quad.y3, quad.y4),
                )
                left, bottom, right, top = min(across), min(up), max(across), max(up)
                words.append(self._textpage().get_text_bounded(left, bottom, right, top))
                if raw.FPDFAnnot_GetSubtype(annotation) == raw.FPDF_ANNOT_STRIKEOUT:
                    self.struck.append(list(map(complex, across, up)))
        return " ".join(clean_text(" ".join(words)).split())

    def _add_field(self, annotation: Any, index: int, *, is_hidden: bool) -> None:
        kind = raw.FPDFAnnot_GetFormFieldType(self._form, annotation) if self._form else -1
        if kind < 0:  # it belongs to no form, as after pages of several files were joined
            name, label, value = (_annotation_text(annotation, key) for key in ("T", "TU", "V"))
        else:
            name = self._field_text(raw.FPDFAnnot_GetFormFieldName, annotation)
            label = self._field_text(raw.FPDFAnnot_GetFormFieldAlternateName, annotation)
            value = self._value(annotation, kind)
        if kind == raw.FPDF_FORMFIELD_SIGNATURE and not is_hidden:
            value = ": ".join(filter(None, (value, self._drawn_text(annotation, index))))
        is_text = kind == raw.FPDF_FORMFIELD_TEXTFIELD
        flags = raw.FPDFAnnot_GetFormFieldFlags(self._form, annotation) if is_text else 0
        if value and (is_hidden or flags & raw.FPDF_FORMFLAG_TEXT_PASSWORD):
            self._losses.n_unshown += 1
        elif value:
            shown = one_line(label or name, _SHOWN_CHARS) or "field"
            pieces = self._fields.setdefault((name, shown), [(f"{shown}:", None)])
            is_new = all(value != known for known, _ in pieces[1:])
            pieces += [(value, self._box(annotation))] if is_new else []

    def _value(self, annotation: Any, kind: int) -> str:
        form = self._form
        if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
            mark = "[x]" if raw.FPDFAnnot_IsChecked(form, annotation) else "[ ]"
            if raw.FPDFAnnot_GetFormControlCount(form, annotation) < 2:
                return mark
            return f"{mark} {self._field_text(raw.FPDFAnnot_GetFormFieldExportValue, annotation)}"
        if kind == raw.FPDF_FORMFIELD_SIGNATURE:
            return "signed" if raw.FPDFAnnot_HasKey(annotation, b"V") else ""
        chosen = [
            utf16(raw.FPDFAnnot_GetOptionLabel, form, annotation, index)
            for index in range(raw.FPDFAnnot_GetOptionCount(form, annotation))
            if raw.FPDFAnnot_IsOptionSelected(form, annotation, index)
        ]
        return ", ".join(chosen) or self._field_text(raw.FPDFAnnot_GetFormFieldValue, annotation)

    def _box(self, annotation: Any) -> PageBox | None:
        rect = raw.FS_RECTF()
        is_placed = raw.FPDFAnnot_GetRect(annotation, rect)
        bounds = rect.left, rect.bottom, rect.right, rect.top
        return PageFrame.of(self._page).box(*bounds) if is_placed else None

    def _field_text(self, function: Any, annotation: Any) -> str:
        return utf16(function, self._form, annotation)


_HIDDEN_FLAGS = raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW
_SKIPPED_ANNOTATIONS = (raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_LINK)
_DRAWN_ANNOTATIONS = (raw.FPDF_ANNOT_STAMP, raw.FPDF_ANNOT_WATERMARK, raw.FPDF_ANNOT_FREETEXT)
_MOST_DRAWINGS = 50  # of a page, that are read: each is a page of its own for PDFium
_MARKING_ANNOTATIONS = (
    raw.FPDF_ANNOT_HIGHLIGHT,
    raw.FPDF_ANNOT_UNDERLINE,
    raw.FPDF_ANNOT_SQUIGGLY,
    raw.FPDF_ANNOT_STRIKEOUT,
)
_MEDIA_ANNOTATIONS = (
    raw.FPDF_ANNOT_SOUND,
    raw.FPDF_ANNOT_MOVIE,
    raw.FPDF_ANNOT_SCREEN,
    raw.FPDF_ANNOT_THREED,
    raw.FPDF_ANNOT_RICHMEDIA,
)
_SHOWN_CHARS = 200
_MOST_FILE_BYTES = 64 * 1024 * 1024


def _annotation_text(annotation: Any, key: str) -> str:
    return utf16(raw.FPDFAnnot_GetStringValue, annotation, key.encode())
