"""Documents within others: attached files, members of archives, and pictures of text.

What a document holds is read as pages behind its own, or noted with the reason. Pictures are read
by OCR where it is on, or else counted.
"""

from __future__ import annotations

import binascii
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from html import unescape
from io import BytesIO
from itertools import compress, repeat
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import counted
from paddock.pipelines.e_invoices import EInvoice, InvoiceDisagreement
from paddock.pipelines.text_cells import pack_cells, unpack_cells

from . import ocr, reader, text_files
from .document_kinds import HEAD_BYTES, MEDIA_TYPES, UnknownKind, kind_within
from .e_invoice_checks import check_page, own_page, page_disagreements
from .reader import Document, EmbeddedFile, ReadRequest, Unreadable, after_name

_DATA_URI = re.compile(rb"data:image/[\w.+-]+;base64,([\w+/=%\s]{200,})", re.ASCII)
_SHOWN = re.compile(
    rb"""\b(?:src|href)\s*=\s*["']([^"'<>]+\.(?:png|jpe?g|gif|tiff?|bmp|webp|svg))["']""", re.I
)
_DRAWING = re.compile(rb"<(?:\w+:)?svg\b")  # words, and no text that OCR is needed for
_LEAST_CHARS = 3  # a drawing may look like a letter
_OF_INVOICES = {MEDIA_TYPES["pdf"]: "page", MEDIA_TYPES["txt"]: "xml"}  # and what is a witness
_MARGINS = ("/header", "/footer", "/footnotes", "/endnotes", "/comments", "/notesSlide")
MOST_ATTACHED = 100
_MOST_NAMED = 5  # of what is within and has the same note
_MOST_NOTES = 100  # of one document: a mailbox has thousands
_MOST_PICTURES = 200  # are read: 15 minutes of a processor


def _read_within(name: str, media_type: str, data: bytes, request: ReadRequest) -> Document:
    """Return it under its name, without empty pages; without a media type it is not read.

    It has as many `cells` as pages.
    """
    try:
        kind = kind_within(name, media_type, data[:HEAD_BYTES])
        document = request.within(kind, BytesIO(data), name)
    except (UnknownKind, Unreadable) as error:
        why = f"it {error}" if isinstance(error, Unreadable) else str(error)
        return Document((), notes=(f"is not read: {why}",))
    is_kept = [bool(page.strip()) for page in document.pages]
    pages = list(compress(document.pages, is_kept))
    title = f"# {name}\n\n"
    pages[:1] = [title + page for page in pages[:1]]
    cells = list(compress(document.cells or repeat(""), is_kept))
    cells[:1] = [pack_cells(unpack_cells(packed, len(title))) for packed in cells[:1]]
    invoices: list[EInvoice] = [
        {**invoice, "page": sum(is_kept[: invoice["page"]])} for invoice in document.invoices
    ]
    of_pages = {"pages": tuple(pages), "cells": tuple(cells), "invoices": tuple(invoices)}
    return replace(document, **of_pages)


class InnerDocuments(Struct):
    """The pages of a document that holds others: each of these behind what was there before it."""

    request: ReadRequest
    what: str = "attachment"
    pages: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    invoices: list[EInvoice] = field(default_factory=list)
    printed: list[tuple[int, list[str]]] = field(default_factory=list)
    """PDFs that have no e-invoice within: their first pages, their texts."""
    n_of_invoices: int = 0
    """Documents that are an e-invoice, or the page of one."""
    _named: dict[str, list[str]] = field(default_factory=dict)
    """Notes of what is within, and the names of what has the same."""

    def add(self, name: str, media_type: str, data: bytes) -> bool:
        """Read a document; return whether something reads it."""
        found = _read_within(name, media_type, data, self.request)
        if found.media_type == MEDIA_TYPES["pdf"] and not found.invoices:
            shown = [page.removeprefix(f"# {name}\n\n") for page in found.pages]
            self.printed.append((len(self.pages) + 1, shown))
        witness = _OF_INVOICES.get(found.media_type)
        self.n_of_invoices += any(witness in invoice["witnesses"] for invoice in found.invoices)
        n_before = len(self.pages)
        for invoice in found.invoices:
            places: list[InvoiceDisagreement] = [
                {**place, "page": place["page"] and place["page"] + n_before}
                for place in invoice["disagreements"]
            ]
            page = invoice["page"] + n_before
            self.invoices.append({**invoice, "page": page, "disagreements": places})
        self.pages += found.pages
        self.cells += found.cells
        for note in found.notes:
            self._note(name, note)
        return bool(found.media_type)

    def add_embedded(self, files: Sequence[EmbeddedFile]) -> None:
        if len(files) > MOST_ATTACHED:
            self.notes.append(f": only the first {MOST_ATTACHED} embedded files are read")
        for file in files[:MOST_ATTACHED]:
            try:
                data = binascii.a2b_base64("".join(file.base64.split()), strict_mode=True)
            except ValueError as error:  # also of signs that are not ASCII
                self.leave_out(file.name, f"its base64 is damaged ({error})")
                continue
            self.request.check(n_unpacked_bytes=len(data))
            if data:
                self.add(file.name, file.media_type, data)
            else:
                self.leave_out(file.name, "it is empty")

    def leave_out(self, name: str, why: str) -> None:
        self._note(name, f"is not read: {why}")

    def _note(self, name: str, note: str) -> None:
        names = self._named.setdefault(note, [])
        names.append(name)
        if len(names) <= _MOST_NAMED:
            self.notes.append(f": {self.what} '{name}'{after_name(note)}")

    def compare_invoices(self, start: int = 0, n_printed: int = 0) -> None:
        """Compare the e-invoices from `start` on with the page of each, a PDF beside it."""
        beside = self.printed[n_printed:]
        for index, invoice in enumerate(self.invoices[start:], start):
            is_open = beside and "page" not in invoice["witnesses"]
            if is_open and (at := own_page(invoice, [pages for _, pages in beside])) is not None:
                self.n_of_invoices += 1
                self.compare_page(index, *beside[at])
        del self.printed[n_printed:]

    def compare_page(self, index: int, first: int, pages: Sequence[str]) -> None:
        """Compare an e-invoice with the pages that show it, from number `first`."""
        own = self.pages[self.invoices[index]["page"] - 1]
        self.invoices[index] = check_page(self.invoices[index], own, pages, first)
        self.notes += page_disagreements(self.invoices[index])

    def document(self, title: str, kind: str, why_empty: str = "is empty") -> Document:
        n_times = Counter(self.notes)
        notes = [note for note in self.notes if n_times[note] <= _MOST_NAMED]
        notes += [f"{note} ({n} times)" for note, n in n_times.items() if n > _MOST_NAMED]
        for names in self._named.values():
            if n_more := max(0, len(names) - _MOST_NAMED):
                others = counted(n_more, f"more {self.what}")
                notes.append(f": what is said of {self.what} '{names[0]}' holds for {others}")
        if n_more := max(0, len(notes) - _MOST_NOTES):
            notes[_MOST_NOTES:] = [f": {counted(n_more, 'more note')} of it, left out here"]
        found = tuple(self.pages), title, MEDIA_TYPES[kind], tuple(notes), why_empty
        return Document(*found, tuple(self.cells), tuple(self.invoices))


class InnerPictures:
    def __init__(self, request: ReadRequest) -> None:
        self._request = request
        self._sees = request.ocr and reader.is_installed("ocr")
        self._known: set[bytes] = set()
        self._n_read = self._n_unread = 0
        self._problems: dict[str, int] = {}
        self._left_out = dict[str, None]()

    def of_part(self, part: Any) -> str:
        """Return the text of what a part of an Office document shows, also in margins and notes."""
        own = [relation for relation in part.rels.values() if not relation.is_external]
        margins = [r.target_part for r in own if r.reltype.endswith(_MARGINS)]
        within = (r for shown in (part, *margins) for r in shown.rels.values())
        images = (r for r in within if r.reltype.endswith("/image") and not r.is_external)
        shown = (image.target_part for image in images)
        return self.text(p.blob for p in shown if "svg" not in p.content_type)  # beside its picture

    def of_page(self, html: bytes, parts: Callable[[str], bytes] = lambda _: b"") -> str:
        """Return the text of what a page has within itself, as `data:` addresses.

        `parts` returns what else it shows by a relative address; nothing for one that is not there.
        """

        def pictures() -> Iterator[bytes]:
            for found in _DATA_URI.finditer(html):
                with suppress(binascii.Error):  # so it is shown nowhere
                    yield binascii.a2b_base64(unquote_to_bytes(found[1]))
            for found in _SHOWN.finditer(html):
                yield parts(unquote(unescape(found[1].decode("utf-8", "replace"))))

        return self.text(pictures())

    def text(self, pictures: Iterable[bytes]) -> str:
        return "\n\n".join(f"Picture:\n{text}" for data in pictures if (text := self._text(data)))

    @property
    def why_empty(self) -> str:
        note = next(self.notes(), "")
        return f"has no text{note}" if note else "is empty"

    def notes(self) -> Iterator[str]:
        if self._n_read:
            yield f": {counted(self._n_read, 'picture')} in it read by OCR"
        if self._n_unread:
            how = (
                "and `ocr` is off"
                if not self._request.ocr
                else (
                    f"since only {_MOST_PICTURES} are"
                    if self._sees
                    else "which the extra 'paddock-llm[ocr]' reads"
                )
            )
            yield f": {counted(self._n_unread, 'picture')} in it not read, {how}"
        for problem, n in self._problems.items():
            yield f": {counted(n, 'picture')} in it not read: each {problem}"
        yield from (f": of a picture in it{note}" for note in self._left_out)

    def _text(self, data: bytes) -> str:
        digest, is_drawing = sha256(data).digest(), bool(_DRAWING.search(data[:1_000]))
        if digest in self._known or not (is_drawing or ocr.may_have_text(data)):
            return ""
        self._known.add(digest)
        if not (is_drawing or self._sees) or len(self._known) > _MOST_PICTURES:
            self._n_unread += 1
            return ""
        self._request.check()
        try:
            if is_drawing:
                return text_files.read_text_file(data, "html").text.strip()
            found = self._request.within("image", BytesIO(data))
        except Unreadable as error:
            problem = f"{error}. {error.remedy}".rstrip(". ")
            self._problems[problem] = self._problems.get(problem, 0) + 1
            return ""
        text = found.text.strip()
        self._left_out |= dict.fromkeys(found.notes[1:])  # behind that OCR has read it
        is_text = sum(map(str.isalnum, text)) >= _LEAST_CHARS
        self._n_read += is_text
        return text if is_text else ""
