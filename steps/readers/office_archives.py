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

from .office import (
    CONTENT_TYPES,
    PIECE_BYTES,
    RELATION_ID,
    WORD_DOCUMENT,
    bomb_of,
    damage_note,
    import_library,
)

L = TypeVar("L")

_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/(\w+)")
_MAIN_TYPE = re.compile(
    rb"application/vnd\.(?:ms-|openxmlformats-officedocument\.)(word|powerpoint|presentation)"
    rb"[\w.]*\.main\+xml"
)
_OFFICE_TYPE = b"application/vnd.openxmlformats-officedocument."
_SLIDES_TYPE = _OFFICE_TYPE + b"presentationml.presentation.main+xml"
_LIBRARY_TYPES = {
    b"word": _OFFICE_TYPE + b"wordprocessingml.document.main+xml",
    **dict.fromkeys((b"powerpoint", b"presentation"), _SLIDES_TYPE),
}
_PROLOG_BYTES = 64 * 1024  # of what may stand before a part's first element
_REFERENCES = ("sldId", "sldMasterId", "headerReference", "footerReference")
"""Elements without which a document is read, when the part that they name is not there."""
_CORE_PROPERTIES = "/metadata/core-properties"


@contextmanager
def load_archive(
    load: Callable[[BinaryIO], L], file: BinaryIO, archive: zipfile.ZipFile
) -> Iterator[tuple[L, BinaryIO, tuple[str, ...]]]:
    """Yield what a library makes of a file, the file that it has read, and notes."""
    try:
        is_strict = _STRICT.search(archive.read("_rels/.rels")) is not None
        markup = (name for name in archive.namelist() if name.endswith((".xml", ".rels")))
        is_odd = is_strict or any(_has_dtd(archive, name) for name in markup)
        file.seek(0)
        loaded = None if is_odd else load(file)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # many ways; what the copy fails of is damage
        if bomb_of(error):
            raise
        loaded = None
    if loaded is not None:
        yield loaded, file, ()
        return
    with tempfile.TemporaryFile() as written:
        notes = _ArchiveCopy(archive).write(written)
        written.seek(0)
        yield load(written), written, notes


class _ArchiveCopy:
    """An archive as the libraries can read it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._etree = import_library("lxml.etree", WORD_DOCUMENT)
        self._lost = dict[str, None]()
        names = archive.namelist()
        markup = [name for name in names if name.endswith((".xml", ".rels"))]
        self._parts = {name: self._markup(name) for name in markup}
        self._present = {name for name in names if self._parts.get(name, b"-")}

    def write(self, file: BinaryIO) -> tuple[str, ...]:
        """Write it, and return the note on what was lost."""
        parts = self._parts
        for name in [name for name in parts if name.endswith(".rels") and name in self._present]:
            self._drop_dead_relations(name)
        types = self._tree_of(parts.get(CONTENT_TYPES, b"<Types/>"))
        for entry in types:  # documents within have the type of a main part, which is read as XML
            ends = ("xml", "rels")
            if not (entry.get("PartName") or entry.get("Extension", "xml")).endswith(ends):
                entry.set("ContentType", "application/octet-stream")
        parts[CONTENT_TYPES] = self._etree.tostring(types)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
            for name in self._present:
                with out.open(name, "w", force_zip64=True) as part:
                    for piece in [parts[name]] if name in parts else self._pieces(name):
                        part.write(piece)
        return damage_note([*self._lost])

    def _pieces(self, name: str) -> Iterator[bytes]:
        """Yield a part as far as it can be unpacked."""
        try:
            with self._archive.open(name) as part:
                part._expected_crc = None  # type: ignore[attr-defined]  # a wrong sum loses nothing
                while piece := part.read(PIECE_BYTES):
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
            self._lost[name] = None

    def _tree_of(self, data: bytes, *, is_broken: bool = False) -> Any:
        options = {"resolve_entities": False, "no_network": True, "recover": is_broken}
        return self._etree.fromstring(data, self._etree.XMLParser(**options))

    def _markup(self, name: str) -> bytes:
        """Return a part of XML, a broken one as far as it can be read."""
        data, tree = _renamed(b"".join(self._pieces(name))), None
        try:
            if self._tree_of(data).getroottree().docinfo.internalDTD is None:
                return data
        except self._etree.XMLSyntaxError as error:
            if bomb_of(error):
                raise
        self._lost[name] = None
        with suppress(self._etree.XMLSyntaxError):
            tree = self._tree_of(data, is_broken=True)
        for entity in () if tree is None else list(tree.iter(self._etree.Entity)):
            before, parent = entity.getprevious(), entity.getparent()
            text = f"{entity.text}{entity.tail or ''}"  # as it stands there
            if before is None:
                parent.text = f"{parent.text or ''}{text}"
            else:
                before.tail = f"{before.tail or ''}{text}"
            parent.remove(entity)
        return b"" if tree is None else bytes(self._etree.tostring(tree))

    def _drop_dead_relations(self, name: str) -> None:
        """Drop relations to parts that are not there, and what refers to these."""
        relations = self._tree_of(self._parts[name])
        folder = posixpath.dirname(posixpath.dirname(name))
        dropped = set[str]()
        kinds = set[str]()
        for relation in list(relations):
            kind, target = relation.get("Type", ""), relation.get("Target", "").partition("#")[0]
            path = posixpath.normpath(posixpath.join("/", folder, target))[1:]
            is_missing = relation.get("TargetMode") != "External" and path not in self._present
            if is_missing or (kind.endswith(_CORE_PROPERTIES) and kind in kinds):
                self._lost.update({path: None} if is_missing else {})
                dropped.add(relation.get("Id", ""))
                relations.remove(relation)
            kinds.add(kind)
        self._parts[name] = self._etree.tostring(relations)
        source = posixpath.join(folder, posixpath.basename(name).removesuffix(".rels"))
        if dropped and self._parts.get(source):
            tree = self._tree_of(self._parts[source])
            for element in tree.xpath("//*[@*]"):
                if element.get(RELATION_ID) in dropped and element.tag.endswith(_REFERENCES):
                    element.getparent().remove(element)
            self._parts[source] = self._etree.tostring(tree)


def _has_dtd(archive: zipfile.ZipFile, name: str) -> bool:
    """Return whether a part declares entities, which the format forbids and libraries leave out."""
    with archive.open(name) as part:
        return b"<!DOCTYPE" in part.read(_PROLOG_BYTES).replace(b"\0", b"")


def _renamed(data: bytes) -> bytes:
    data = _STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/\2", data)
    return _MAIN_TYPE.sub(lambda found: _LIBRARY_TYPES[found[1]], data)
