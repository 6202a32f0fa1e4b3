"""EPUB documents to Markdown: each file of the reading order is a page; standard library only."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO
from urllib.parse import unquote
from xml.etree import ElementTree

from paddock.engine.system.text import listed

from . import html_styles, text_files
from .document_kinds import MEDIA_TYPES
from .inner_documents import InnerPictures
from .office import damage_errors, open_archive
from .reader import Document, ReadRequest, Unreadable, after_name
from .style_sheets import MOST_STYLE_CHARS, CssSheet

_EBOOK = "an e-book"
_CONTAINER = "META-INF/container.xml"
_PROTECTION = "META-INF/encryption.xml"
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Font obfuscation; the text is not protected."""
_MOST_XML_BYTES = 16 * 1024 * 1024
_LISTS = re.compile(rb"<nav\b.*?(?:</nav\s*>|\Z)", re.IGNORECASE | re.DOTALL)


def read_epub(file: BinaryIO, request: ReadRequest) -> Document:
    with open_archive(file, _EBOOK) as book, damage_errors(_EBOOK):
        if _PROTECTION in book.namelist():
            root = _epub_xml(book, _PROTECTION)
            methods = root.iterfind(".//{*}EncryptedData/{*}EncryptionMethod")
            if any(method.get("Algorithm", "") not in _FONT_OBFUSCATION for method in methods):
                raise Unreadable("has DRM and cannot be read")
        if _CONTAINER not in book.namelist():
            raise Unreadable(f"is damaged or not {_EBOOK}: it has no {_CONTAINER}")
        root_file = _epub_xml(book, _CONTAINER).find(".//{*}rootfile")
        if root_file is None or not root_file.get("full-path"):
            raise Unreadable(f"is damaged: its {_CONTAINER} names no contents")
        folder = posixpath.dirname(root_file.get("full-path", ""))
        package = _epub_xml(book, root_file.get("full-path", ""))
        pages: list[str] = []
        notes: list[str] = []
        names, pictures = set(book.namelist()), InnerPictures(request)
        sheets = (entry for entry in book.infolist() if entry.filename.lower().endswith(".css"))
        styles = html_styles.sheet_beside(
            book.open(sheet).read(MOST_STYLE_CHARS + 1) for sheet in sheets
        )
        for item, is_chapter in _reading_order(package, notes):
            request.check(len(pages[-1]) if pages else 0)
            name = unquote(item.get("href", ""))
            path = posixpath.normpath(posixpath.join(folder, name))
            try:
                chapter = _chapter(book, path, styles, is_contents=_is_contents(item))
            except Unreadable:
                if is_chapter:
                    raise
                notes.append(f": part '{name}' of its reading order is not read")
                continue
            notes += [f": part '{name}'{after_name(note)}" for note in chapter.notes]

            def shown(address: str, folder: str = posixpath.dirname(path)) -> bytes:
                part = posixpath.normpath(posixpath.join(folder, address))
                return book.read(part) if part in names else b""

            seen = pictures.of_page(book.read(path), shown)
            if text := "\n\n".join(filter(None, (chapter.text.strip(), seen))):
                pages.append(text)
    title = " ".join((package.findtext(".//{*}metadata/{*}title") or "").split())
    notes += pictures.notes()
    return Document(tuple(pages), title, MEDIA_TYPES["epub"], tuple(notes), pictures.why_empty)


def _reading_order(
    package: ElementTree.Element, notes: list[str]
) -> Iterator[tuple[ElementTree.Element, bool]]:
    """Yield the files in reading order; note what of it cannot be read, and what is not in it.

    With each, whether it is a chapter: not a drawing, the table of contents or a fallback.
    """
    parts = {item.get("id", ""): item for item in package.iterfind(".//{*}manifest/{*}item")}
    unread = {name for name, item in parts.items() if _is_text(item)}
    for reference in package.iterfind(".//{*}spine/{*}itemref"):
        name = _page_of(parts, reference.get("idref", ""))
        if name in parts and _is_page(parts[name]):
            unread.discard(name)
            is_itself = name == reference.get("idref") and _is_text(parts[name])
            yield parts[name], is_itself and "html" in parts[name].get("media-type", "")
        else:
            notes.append(f": part '{_href(parts, name)}' of its reading order is not read")
    if unread:
        names = [_href(parts, name) for name in parts if name in unread]
        notes.append(f": parts outside its reading order are not read ({listed(names)})")


def _page_of(parts: Mapping[str, ElementTree.Element], name: str) -> str:
    """Return the name of a part, or of what is shown for it where it is no page."""
    seen = set[str]()
    while name in parts and name not in seen and not _is_page(parts[name]):
        seen.add(name)
        name = parts[name].get("fallback", name)
    return name


def _is_page(item: ElementTree.Element) -> bool:
    return any(kind in item.get("media-type", "") for kind in ("html", "svg"))


def _is_text(item: ElementTree.Element) -> bool:
    return _is_page(item) and not _is_contents(item)


def _href(parts: Mapping[str, ElementTree.Element], name: str) -> str:
    return parts[name].get("href", "") if name in parts else name


def _is_contents(item: ElementTree.Element) -> bool:
    return "nav" in item.get("properties", "").split()


def _chapter(
    book: zipfile.ZipFile, name: str, styles: CssSheet | None, *, is_contents: bool
) -> Document:
    """Read a part; of the table of contents what is not in its lists."""
    if name not in book.namelist():
        raise Unreadable(f"is damaged: its part '{name}' is missing")
    try:
        data = book.read(name)
        data = _LISTS.sub(b"", data) if is_contents else data
        return text_files.read_text_file(data, "html", styles=styles)
    except Unreadable as error:
        raise Unreadable(f"is damaged: its part '{name}' {error}") from error


def _epub_xml(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > _MOST_XML_BYTES:
        raise Unreadable(f"is damaged: its '{name}' is far too large")
    return ElementTree.fromstring(book.read(name))
