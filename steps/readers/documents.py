"""Read one document's text, whatever its kind; say in one sentence why it cannot be read."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from paddock.steps.places import refusal, shown
from paddock.steps.step import StepError

from . import encodings, html_text, pdf_text
from .kinds import HEAD_BYTES, MEDIA_TYPES, Kind, NotADocument, is_parsed, kind_of
from .pages import joined

_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_MAX_TITLE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Document:
    """A document's text, page by page."""

    pages: tuple[str, ...]
    title: str
    media_type: str
    notes: tuple[str, ...] = ()
    """What a person should know about the reading, one sentence each."""

    @property
    def text(self) -> str:
        """The whole text."""
        return joined(self.pages)

    @property
    def is_empty(self) -> bool:
        """Whether nothing but white space is in it."""
        return not any(page.strip() for page in self.pages)


async def load(
    path: Path,
    *,
    kind: Kind | None = None,
    encoding: str = "auto",
    max_bytes: int,
) -> Document:
    """Read a document, in a thread where that pays."""
    if is_slow(path, kind):
        return await asyncio.to_thread(
            read, path, kind=kind, encoding=encoding, max_bytes=max_bytes
        )
    return read(path, kind=kind, encoding=encoding, max_bytes=max_bytes)


def refuse_empty(document: Document, path: Path) -> None:
    """Raise for a document without text.

    Raises:
        StepError: nothing is in it.
    """
    if document.is_empty:
        raise StepError(f"'{shown(path.name)}' is empty.")


def read(
    path: Path, *, kind: Kind | None = None, encoding: str = "auto", max_bytes: int
) -> Document:
    """Read a document; `kind` None finds it out by content and name.

    Raises:
        StepError: with the reason.
    """
    name = f"'{shown(path.name)}'"
    try:
        size_bytes = _size_of_file(path, name)
        if size_bytes > max_bytes:
            raise StepError(
                f"{name} has {size_bytes:,} bytes, and `max_bytes` allows {max_bytes:,}.",
                remedy="Raise `max_bytes` to read it.",
            )
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            found = kind or kind_of(path, head)
            if found == "pdf":
                return _pdf(path, name)
            data = head + file.read()
    except OSError as error:
        raise refusal(f"{name} cannot be read", error) from error
    except NotADocument as error:
        raise StepError(f"{name} is {error}.") from error
    return _text(data, found, encoding, path, name, is_named=kind is not None)


def is_slow(path: Path, kind: Kind | None) -> bool:
    """Tell whether reading may take long enough to be worth a thread (0.1 ms by itself)."""
    if kind in ("pdf", "html") or (kind is None and is_parsed(path)):
        return True
    try:
        return path.stat().st_size > 256 * 1024
    except OSError:
        return False


def _size_of_file(path: Path, name: str) -> int:
    """Give the size of a regular file; a pipe would make us wait for ever."""
    facts = path.stat()
    if stat.S_ISDIR(facts.st_mode):
        raise StepError(f"{name} is a folder, not a document.")
    if not stat.S_ISREG(facts.st_mode):
        raise StepError(f"{name} is a device or a pipe, not a document.")
    return facts.st_size


def _pdf(path: Path, name: str) -> Document:
    try:
        found = pdf_text.read(path)
    except pdf_text.UnreadablePdf as error:
        raise StepError(f"{name} {error}.") from error
    if found.pictures and not any(found.pages):
        raise StepError(
            f"{name} has no text layer: its {_pages(len(found.pages))} only show pictures. "
            f"Reading scans (OCR) is not in this version."
        )
    notes: tuple[str, ...] = ()
    if found.pictures:
        numbers = ", ".join(str(number) for number in found.pictures)
        notes = (f"{name}: no text layer on {_pages(len(found.pictures))} of it ({numbers}).",)
    return Document(found.pages, found.title or path.stem, MEDIA_TYPES["pdf"], notes)


def _text(
    data: bytes, kind: Kind, encoding: str, path: Path, name: str, *, is_named: bool
) -> Document:
    named = html_text.charset(data) if kind == "html" and encoding == "auto" else ""
    decoded = _decoded(data, encoding, named, name)
    notes = list(_damage(decoded, name))
    text, title = decoded.text, ""
    if kind == "html":
        text, title = _html(text, name)
    elif kind == "md":
        heading = _HEADING.search(text)
        title = heading[1][:_MAX_TITLE_CHARACTERS] if heading else ""
    elif kind == "json" and (fault := _json_fault(text)):
        if is_named:
            raise StepError(f"{name} is no valid JSON: {fault}.")
        notes.append(f"{name} is no valid JSON ({fault}); it is read as plain text.")
        kind = "txt"
    return Document((text,), title or path.stem, MEDIA_TYPES[kind], tuple(notes))


def _html(text: str, name: str) -> tuple[str, str]:
    try:
        return html_text.read(text)
    except html_text.UnreadableHtml as error:
        remedy = "Set `type: txt` to read it as plain text."
        raise StepError(f"{name} cannot be read as HTML: {error}.", remedy=remedy) from error


def _decoded(data: bytes, encoding: str, named: str, name: str) -> encodings.Decoded:
    """Decode by the author's word, else by the page's own, else by what the bytes tell."""
    if named and encodings.is_known(named):
        try:
            return encodings.decode(data, named)
        except encodings.NotText:
            pass  # pages often lie about themselves; the bytes decide
    try:
        return encodings.decode(data, encoding)
    except encodings.NotText as error:
        if encoding == "auto":
            raise StepError(f"{name} is not text: {error}.") from error
        remedy = "Correct `encoding`, or leave it out."
        raise StepError(f"{name} cannot be read as {encoding}: {error}.", remedy=remedy) from error


def _damage(decoded: encodings.Decoded, name: str) -> tuple[str, ...]:
    if not decoded.n_damaged:
        return ()
    return (f"{name}: {decoded.n_damaged} damaged bytes of its UTF-8 are read as U+FFFD.",)


def _json_fault(text: str) -> str:
    if not text.strip():
        return ""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    except ValueError:
        return "it has a number of thousands of digits"
    except RecursionError:
        return "it is nested too deeply"
    return ""


def _pages(n: int) -> str:
    return "1 page" if n == 1 else f"{n} pages"
