"""Archives of Office as the libraries can read them: macros, templates, Strict, damaged parts.

The libraries read the transitional kinds and stop at a part that is missing or broken. Another
archive is opened as a copy: Strict names become transitional ones, the main part has the type of a
plain document, XML ends where it breaks, and what refers to a part that is not there is left out.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeVar

from paddock.engine.system.text import counted

from .office import WORD_DOCUMENT, bomb_of, import_library

L = TypeVar("L")

_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/(\w+)")
_MAIN_TYPE = re.compile(
    rb"application/vnd\.(?:ms-|openxmlformats-officedocument\.)(word|powerpoint|presentation)"
    rb"[\w.]*\.main\+xml"
)
_LIBRARY_TYPES = {b"word": b"wordprocessingml.document", b"other": b"presentationml.presentation"}
_REFERENCES = ("sldId", "sldMasterId", "headerReference", "footerReference")
"""Elements without which a document is read, when the part that they name is not there."""
_RELATION_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_CORE_PROPERTIES = "/metadata/core-properties"
_WORKBOOK_STYLES = "xl/styles.xml"
_PIECE_BYTES = 1024 * 1024
_MOST_NAMED = 3


@contextmanager
def load_archive(
    load: Callable[[BinaryIO], L],
    file: BinaryIO,
    archive: zipfile.ZipFile,
    streamed: tuple[str, ...] = (),
) -> Iterator[tuple[L, BinaryIO, tuple[str, ...]]]:
    """Yield what a library makes of a file, the file that it has read, and notes.

    `streamed` are name prefixes of parts that are never read whole.
    """
    loaded: L | None = None
    if not _is_strict(archive):
        try:
            file.seek(0)
            loaded = load(file)
        except (MemoryError, RecursionError):
            raise
        except Exception as error:  # many ways; what the copy fails of is damage
            if bomb_of(error):
                raise
    if loaded is not None:
        yield loaded, file, ()
        return
    with tempfile.TemporaryFile() as written:
        copy = _Copy(archive, streamed, written)
        written.seek(0)
        yield load(written), written, copy.notes()


def _is_strict(archive: zipfile.ZipFile) -> bool:
    with suppress(KeyError, zipfile.BadZipFile, zlib.error):
        return bool(_STRICT.search(archive.read("_rels/.rels")))
    return False


class _Copy:
    def __init__(self, archive: zipfile.ZipFile, streamed: tuple[str, ...], file: BinaryIO) -> None:
        self._etree = import_library("lxml.etree", WORD_DOCUMENT)
        self._lost = dict[str, None]()
        self._archive = archive
        mended: dict[str, bytes] = {}
        for name in archive.namelist():
            if name.endswith((".xml", ".rels")) and not name.startswith(streamed):
                mended.update(self._mended(name))
        gone = {name for name, data in mended.items() if not data}
        self._present = {name for name in archive.namelist() if name not in gone}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
            dropped = dict[str, set[str]]()
            """By the name of a part, the relations whose parts are not there."""
            for name in sorted(self._present, key=lambda name: not name.endswith(".rels")):
                with out.open(name, "w", force_zip64=True) as part:
                    if name.endswith(".rels"):
                        part.write(self._relations(name, mended.get(name), dropped))
                    elif dropped.get(name):
                        part.write(self._without(name, mended.get(name), dropped[name]))
                    elif name == _WORKBOOK_STYLES:
                        part.write(self._number_formats(mended.get(name)))
                    else:
                        pieces = [mended[name]] if name in mended else self._pieces(name)
                        for piece in _transitional(pieces):
                            part.write(piece)

    def notes(self) -> tuple[str, ...]:
        if not self._lost:
            return ()
        names = list(self._lost)
        what = counted(len(names), "part is", "parts are")
        ellipsis = ", …" if len(names) > _MOST_NAMED else ""
        return (
            f": {what} missing or damaged ({', '.join(names[:_MOST_NAMED])}{ellipsis}); "
            f"what is there is read",
        )

    def _pieces(self, name: str) -> Iterator[bytes]:
        """Yield a part as far as it can be unpacked."""
        try:
            with self._archive.open(name) as part:
                part._expected_crc = None  # type: ignore[attr-defined]  # a wrong sum loses nothing
                while piece := part.read(_PIECE_BYTES):
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
            self._lost[name] = None

    def _mended(self, name: str) -> dict[str, bytes]:
        """Return a broken part of XML as far as it can be read; nothing for one that is whole."""
        data = b"".join(self._pieces(name))
        try:
            self._etree.fromstring(data, self._parser())
        except self._etree.XMLSyntaxError as error:
            if bomb_of(error):
                raise
            self._lost[name] = None
            with suppress(self._etree.XMLSyntaxError):
                tree = self._etree.fromstring(data, self._parser(recover=True))
                return {name: self._etree.tostring(tree) if tree is not None else b""}
            return {name: b""}
        return {}

    def _parser(self, **options: Any) -> Any:
        return self._etree.XMLParser(resolve_entities=False, no_network=True, **options)

    def _tree(self, name: str, data: bytes | None) -> Any:
        pieces = self._pieces(name) if data is None else [data]
        return self._etree.fromstring(b"".join(_transitional(pieces)), self._parser())

    def _relations(self, name: str, data: bytes | None, dropped: dict[str, set[str]]) -> bytes:
        """Return a part of relations without those to parts that are not there."""
        tree = self._tree(name, data)
        folder = posixpath.dirname(posixpath.dirname(name))
        source = posixpath.join(folder, posixpath.basename(name).removesuffix(".rels"))
        seen = set[str]()
        for relation in list(tree):
            kind = relation.get("Type", "")
            path = posixpath.join("/", folder, relation.get("Target", "").partition("#")[0])
            target = posixpath.normpath(path)[1:]
            is_double = kind.endswith(_CORE_PROPERTIES) and kind in seen
            seen.add(kind)
            if relation.get("TargetMode") != "External" and (
                target not in self._present or is_double
            ):
                self._lost.update({} if is_double else {target: None})
                dropped.setdefault(source, set()).add(relation.get("Id", ""))
                tree.remove(relation)
        return bytes(self._etree.tostring(tree))

    def _without(self, name: str, data: bytes | None, dropped: set[str]) -> bytes:
        tree = self._tree(name, data)
        for element in tree.xpath("//*[@*]"):
            if element.get(_RELATION_ID) in dropped and element.tag.endswith(_REFERENCES):
                element.getparent().remove(element)
        return bytes(self._etree.tostring(tree))

    def _number_formats(self, data: bytes | None) -> bytes:
        """Return a workbook's styles with nothing in them but what tells a number from a date.

        One odd font, fill or style stops the library; this package reads them by itself.
        """
        tree = self._tree(_WORKBOOK_STYLES, data)
        kept = ("numFmts", "cellXfs")
        for element in list(tree):
            if not str(element.tag).endswith(kept):
                tree.remove(element)
        for style in tree.iterfind("{*}cellXfs/*"):
            number = style.get("numFmtId", "0")
            style.clear()
            style.set("numFmtId", number)
        return bytes(self._etree.tostring(tree))


def _transitional(pieces: Iterator[bytes] | list[bytes]) -> Iterator[bytes]:
    """Yield pieces of XML with transitional names; a name lies within one tag."""
    rest = b""
    for piece in pieces:
        done, end, rest = (rest + piece).rpartition(b">")
        yield _renamed(done + end)
    yield _renamed(rest)


def _renamed(data: bytes) -> bytes:
    data = _STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/\2", data)
    return _MAIN_TYPE.sub(
        lambda found: (
            b"application/vnd.openxmlformats-officedocument."
            + _LIBRARY_TYPES[found[1] if found[1] == b"word" else b"other"]
            + b".main+xml"
        ),
        data,
    )
