"""The container of an OpenDocument file: an archive, or one file of XML."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import BinaryIO
from xml.etree.ElementTree import Element, fromstring

from .office import TINY_POINTS, Look, open_archive
from .reader import Unreadable

_MOST_STYLES = 20  # that are based on one another
_POINTS = re.compile(r"(\d+(?:\.\d+)?)pt")
OPEN_DOCUMENT = "an OpenDocument file"
OBJECTS = ("object", "object-ole", "plugin", "applet", "floating-frame")


class OpenDocument:
    def __init__(self, file: BinaryIO, what: str = OPEN_DOCUMENT) -> None:
        """Open it; `what` names the kind in errors.

        Raises:
            Unreadable: it is none, or is protected.
        """
        self.held = dict[str, Callable[[], bytes]]()
        """What gives the bytes of its pictures and objects, by their names."""
        parts = [file.read()]
        if parts[0].startswith(b"PK"):
            archive = open_archive(file, what)
            self.held = {name: partial(archive.read, name) for name in archive.namelist()}
            members = ("META-INF/manifest.xml", "styles.xml", "content.xml")
            parts = [self.held[name]() for name in members if name in self.held]
            if any(b"encryption-data" in part for part in parts[:1]):
                raise Unreadable("is protected by a password", "Save it without a password.")
            if "content.xml" not in self.held:
                raise Unreadable(f"is damaged or not {what}")
        self.roots = [fromstring(part) for part in parts]
        """The last one has the document itself, those before it styles."""
        if self.roots[-1].find("{*}body") is None:
            raise Unreadable(f"is damaged or not {what}: it has no body")
        self.styles = {
            attributes(style).get("name", ""): style
            for root in self.roots
            for kind in ("styles", "automatic-styles")
            for style in root.iterfind(f"{{*}}{kind}/*")
        }
        self.look = cache(self._look_of)
        """What a style means for a text, by its name."""
        for binary in self.roots[-1].iterfind(".//{*}binary"):
            self.held[f"#{binary.get('id')}"] = partial(_unpacked, binary.text or "")

    def properties(self, name: str) -> dict[str, str]:
        found = dict[str, str]()
        for _ in range(_MOST_STYLES):
            if not name or (style := self.styles.get(name)) is None:
                break
            own = attributes(style)
            for part in style:
                own |= attributes(part)
            name, found = own.get("parent-style-name", ""), own | found
        return found

    def _look_of(self, name: str) -> Look:
        has = self.properties(name)
        position = has.get("text-position", "").partition("%")[0].strip("0 ")
        rise = 0 if not position else -1 if position.startswith(("sub", "-")) else 1
        is_struck = has.get("text-line-through-style", "none") != "none"
        points = _POINTS.fullmatch(has.get("font-size", ""))
        is_tiny = points is not None and float(points[1]) <= TINY_POINTS
        is_hidden = {has.get("display"), has.get("visibility")} & {"none", "false", "hidden"}
        return Look(rise, is_struck, bool(is_hidden) or is_tiny)

    def picture(self, image: Element) -> bytes:
        """Return what an element shows: a part, or what it has within itself."""
        name = attributes(image).get("href", "").removeprefix("./")
        return self.held[name]() if name in self.held else _unpacked("".join(image.itertext()))

    def margins(self, *, has_own_fields: bool) -> Iterator[Element]:
        """Yield what is on each page: headers, footers, drawings of masters, without their places.

        `has_own_fields`: those that have fields are what the program puts there by itself.
        """
        masters = (m for root in self.roots for m in root.iterfind(".//{*}master-page"))
        for part in (part for master in masters for part in master):
            is_place = "class" in attributes(part) or name_of(part) in ("notes", "forms")
            fields = {name_of(e) for e in part.iter()} & {"sheet-name", "page-number"}
            if not is_place and not (has_own_fields and fields):
                yield part
        yield from self.roots[-1].iterfind(".//{*}footer-decl")


def _unpacked(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except ValueError:
        return b""


def name_of(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attributes(element: Element) -> dict[str, str]:
    return {name.rpartition("}")[2]: value for name, value in element.items()}
