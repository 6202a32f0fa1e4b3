"""Calendars (RFC 5545) and contacts (vCard 2.1 to 4.0) as lines, each a property with its value.

Lines are unfolded and values decoded; a component such as an event is a paragraph. What is within
one, such as a photograph or an attached file, is read as an attachment of a mail is.
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from icalendar.parser import Contentline
from icalendar.prop import TypesFactory

from . import text_files
from .inner_documents import InnerDocuments
from .reader import Document, ReadRequest

_FOLD = re.compile(rb"\r?\n[ \t]")
_QUOTED_PRINTABLE = re.compile(
    rb"^([^:\r\n]*;(?:ENCODING=)?QUOTED-PRINTABLE(?:;[^:\r\n]*)?:)((?:[^\r\n]*=\r?\n)*[^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_CHARSET = re.compile(rb"CHARSET=\"?([\w-]+)", re.IGNORECASE)
_WRITTEN = re.compile(rb";(?:(?:ENCODING=)?QUOTED-PRINTABLE|CHARSET=[^;:]*)", re.IGNORECASE)
_DATA_ADDRESS = re.compile(r"data:([\w.+/-]*)[^,]*?(;base64)?,(.*)", re.DOTALL | re.IGNORECASE)
_USED = ("ENCODING", "CHARSET", "VALUE")
"""Parameters that say how a value is written, which is decoded."""


def _read(kind: str, file: BinaryIO, request: ReadRequest) -> Document:
    data = _QUOTED_PRINTABLE.sub(_decoded, file.read())
    text = text_files.read_text_file(_FOLD.sub(b"", data), "txt")
    lines = list[str]()
    inner = InnerDocuments(request, pages=[""], cells=[""], notes=list(text.notes))
    title = ""
    for line in text.text.splitlines():
        request.check()
        try:
            name, parameters, value = Contentline(line).parts()  # type: ignore[no-untyped-call]
        except ValueError:  # no property: kept as it stands
            lines.append(line)
            continue
        name = name.upper()
        if name in ("BEGIN", "END"):
            lines += ["", value.upper()] if name == "BEGIN" else [""]
            continue
        if embedded := _embedded(parameters, value):
            media_type, content = embedded
            named = parameters.get("FILENAME") or parameters.get("X-FILENAME") or name.lower()
            is_read = inner.add(str(named), media_type, content)
            value = f"{named} ({len(content):,} bytes){'' if is_read else ', not read'}"
        title = title or (value if name in ("SUMMARY", "FN") else "")
        written = [
            part
            for key, held in parameters.items()
            if key.upper() not in _USED
            for part in [f"{key}={held if isinstance(held, str) else ','.join(held)}"]
        ]
        about = f" ({'; '.join(written)})" if written else ""
        lines.append(f"{name}{about}: {_shown(name, value)}")
    inner.pages[0] = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return inner.document(title, kind)


def _decoded(found: re.Match[bytes]) -> bytes:
    """Return a line whose value was quoted-printable in UTF-8, with its breaks escaped."""
    charset = _CHARSET.search(found[1])
    value = quopri.decodestring(found[2])
    try:
        text = value.decode(charset[1].decode() if charset else "utf-8")
    except (UnicodeDecodeError, LookupError):
        text = value.decode("latin-1")
    named = _WRITTEN.sub(b"", found[1])
    return named + "\\n".join(text.splitlines()).encode()


def _embedded(parameters: Mapping[str, Any], value: str) -> tuple[str, bytes] | None:
    """Return media type and content of what a property holds itself."""
    with suppress(binascii.Error):
        if found := _DATA_ADDRESS.fullmatch(value):
            content = unquote_to_bytes(found[3])
            return found[1], binascii.a2b_base64(content) if found[2] else content
        if str(parameters.get("ENCODING", "")).upper() in ("B", "BASE64"):
            media_type = str(parameters.get("FMTTYPE", ""))
            return media_type, binascii.a2b_base64("".join(value.split()))
    return None


def _shown(name: str, value: str) -> str:
    """Return a day or moment as ISO 8601 writes it, by what the standard has for a property."""
    if TypesFactory().types_map.get(name, "text") not in ("date-time", "date", "date-time-list"):
        return value
    days = re.sub(r"\b(\d{4})(\d\d)(\d\d)(?!\d)", r"\1-\2-\3", value.replace(",", ", "))
    return re.sub(r"(?<=\d)T(\d\d)(\d\d)(\d\d)", r" \1:\2:\3", days)


read_ics, read_vcf = (partial(_read, kind) for kind in ("ics", "vcf"))
