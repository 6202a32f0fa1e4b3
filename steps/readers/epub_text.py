"""Electronic books to Markdown: each file of the reading order is a page. Standard library only."""

from __future__ import annotations

import posixpath
import zipfile
from typing import BinaryIO
from urllib.parse import unquote
from xml.etree import ElementTree

from . import archive, plain
from .kinds import MEDIA_TYPES
from .reader import Document, Unreadable, Wish

_WHAT = "an electronic book"
_CONTAINER = "META-INF/container.xml"
_PROTECTION = "META-INF/encryption.xml"
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""What some books do to their fonts; it protects no text."""
_MOST_XML_BYTES = 16 * 1024 * 1024


def read(file: BinaryIO, wish: Wish) -> Document:
    """Read it.

    Raises:
        Unreadable: it is damaged, protected or no electronic book.
    """
    with archive.opened(file, _WHAT) as book:
        try:
            _refuse_protected(book)
            folder, package = _package(book)
            pages: list[str] = []
            for name in _reading_order(package):
                wish.check()
                text = _chapter(book, posixpath.normpath(posixpath.join(folder, name)))
                if text:
                    pages.append(text)
        except (Unreadable, MemoryError, RecursionError):
            raise
        except Exception as error:  # archives and XML break in hundreds of ways
            raise archive.damaged(_WHAT, error) from error
    title = package.findtext(".//{*}metadata/{*}title") or ""
    return Document(tuple(pages), " ".join(title.split()), MEDIA_TYPES["epub"])


def _refuse_protected(book: zipfile.ZipFile) -> None:
    if _PROTECTION not in book.namelist():
        return
    methods = [
        method.get("Algorithm", "")
        for method in _xml(book, _PROTECTION).iterfind(".//{*}EncryptedData/{*}EncryptionMethod")
    ]
    if any(method not in _FONTS for method in methods):
        raise Unreadable("is protected against copying (DRM), and cannot be read")


def _package(book: zipfile.ZipFile) -> tuple[str, ElementTree.Element]:
    """Find the list of the book's parts, and the folder that its names start from."""
    if _CONTAINER not in book.namelist():
        raise Unreadable(f"is damaged or not {_WHAT}: it has no {_CONTAINER}")
    root = _xml(book, _CONTAINER).find(".//{*}rootfile")
    path = root.get("full-path", "") if root is not None else ""
    if not path:
        raise Unreadable(f"is damaged: its {_CONTAINER} names no contents")
    return posixpath.dirname(path), _xml(book, path)


def _reading_order(package: ElementTree.Element) -> list[str]:
    """Name the files in the order in which they are read, the list of contents left out."""
    parts = {
        item.get("id", ""): item
        for item in package.iterfind(".//{*}manifest/{*}item")
        if "html" in item.get("media-type", "") and "nav" not in item.get("properties", "").split()
    }
    order = [one.get("idref", "") for one in package.iterfind(".//{*}spine/{*}itemref")]
    return [unquote(parts[name].get("href", "")) for name in order if name in parts]


def _chapter(book: zipfile.ZipFile, name: str) -> str:
    if name not in book.namelist():
        raise Unreadable(f"is damaged: its part '{name}' is missing")
    try:
        return plain.read(book.read(name), "html").text.strip()
    except Unreadable as error:
        raise Unreadable(f"is damaged: its part '{name}' {error}") from error


def _xml(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """Parse one of the small files that describe the book."""
    if book.getinfo(name).file_size > _MOST_XML_BYTES:
        raise Unreadable(f"is damaged: its '{name}' is far too large")
    return ElementTree.fromstring(book.read(name))
