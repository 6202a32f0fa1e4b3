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
from .text_encoding import NotText, decode_text

_FOLD = re.compile(rb"\r?\n[ \t]")
_CARD_START = re.compile(rb"^(?=BEGIN:VCARD)", re.IGNORECASE | re.MULTILINE)
_VERSION_2_1 = re.compile(rb"^VERSION:[ \t]*2\.1", re.IGNORECASE | re.MULTILINE)
_QUOTED_PRINTABLE = re.compile(
    rb"^([^:\r\n]*;[ \t]*(?:ENCODING=)?QUOTED-PRINTABLE(?:;[^:\r\n]*)?:)"
    rb"((?:[^\r\n]*=\r?\n)*[^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_IN_CHARSET = re.compile(
    rb"^([^:\r\n]*;[ \t]*CHARSET=[^:\r\n]*:)([^\r\n]*[\x80-\xff][^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_IN_BASE64 = re.compile(
    rb"^[^:\r\n]{0,500};[ \t]*(?:ENCODING=)?B(?:ASE64)?(?:;[^:\r\n]{0,500})?:[^\r\n]*"
    rb"(?:\r?\n[ \t]*[A-Za-z0-9+/]+={0,2}[ \t]*(?=\r?\n))+",
    re.IGNORECASE | re.MULTILINE,
)
_CHARSET = re.compile(rb"CHARSET=\"?([\w-]+)", re.IGNORECASE)
_WRITTEN = re.compile(rb";[ \t]*(?:(?:ENCODING=)?QUOTED-PRINTABLE|CHARSET=[^;:]*)", re.IGNORECASE)
_DATA_ADDRESS = re.compile(r"data:([\w.+/-]*)[^,]*?(;base64)?,(.*)", re.DOTALL | re.IGNORECASE)
_DATA = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+/]{200,}={0,2}")
_USED = ("ENCODING", "CHARSET", "VALUE")
"""Parameters that say how a value is written, which is decoded."""
_HEAD = re.compile(r"([\w.-]+)((?:[ \t]*;(?:\"[^\"]*\"|[^\":])*)):")
_PARAMETER = re.compile(r";[ \t]*(?:([\w-]+)[ \t]*=)?((?:\"[^\"]*\"|[^\";])*)")
_NAMES = {
    **dict.fromkeys(("7BIT", "8BIT", "QUOTED-PRINTABLE", "BASE64", "B"), "ENCODING"),
    **dict.fromkeys(("INLINE", "URL", "CONTENT-ID", "CID"), "VALUE"),
}
"""Of parameters that vCard 2.1 writes without one; all others are a `TYPE`."""


def _read(kind: str, file: BinaryIO, request: ReadRequest) -> Document:
    data = _QUOTED_PRINTABLE.sub(_decoded, file.read())
    data = _IN_BASE64.sub(lambda found: b"".join(found[0].split(b"\n")).replace(b"\r", b""), data)
    cards = [
        _FOLD.sub(b" " if _VERSION_2_1.search(card) else b"", card)  # in 2.1 the blank is text
        for card in _CARD_START.split(data)
    ]
    data = _IN_CHARSET.sub(_decoded, b"".join(cards))
    text = text_files.read_text_file(data, "txt")
    lines = list[str]()
    inner = InnerDocuments(request, pages=[""], cells=[""], notes=list(text.notes))
    title = ""
    for line in text.text.splitlines():
        request.check()
        try:
            name, parameters, value = Contentline(_as_in_3_0(line)).parts()  # type: ignore[no-untyped-call]
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
            is_read = bool(content) and inner.add(str(named), media_type, content)
            if not content:
                inner.leave_out(str(named), "its base64 is damaged")
            value = f"{named} ({len(content):,} bytes){'' if is_read else ', not read'}"
        elif str(parameters.get("FMTTYPE", "")).lower() == "text/html":
            value = text_files.read_text_file(value.encode(), "html", "utf-8").text
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
    """Return a line whose value was in quoted-printable or a charset in UTF-8, breaks escaped."""
    charset = _CHARSET.search(found[1])
    is_quoted = _QUOTED_PRINTABLE.match(found[0])
    value = quopri.decodestring(found[2]) if is_quoted else found[2]
    try:
        text = decode_text(value, declared=(charset[1].decode() if charset else "utf-8",)).text
    except NotText:
        text = value.decode("latin-1")
    named = _WRITTEN.sub(b"", found[1])
    return named + "\\n".join(text.splitlines()).encode()


def _as_in_3_0(line: str) -> str:
    """Return a line with each parameter once and named, as versions behind 2.1 have them.

    >>> _as_in_3_0("TEL;WORK;VOICE:030"), _as_in_3_0("TEL;type=CELL;type=pref:030")
    ('TEL;TYPE=WORK,VOICE:030', 'TEL;TYPE=CELL,pref:030')
    """
    head = _HEAD.match(line)
    if head is None:
        return line
    values = dict[str, list[str]]()
    for name, value in _PARAMETER.findall(head[2]):
        if value := value.strip():
            name = name.upper() or _NAMES.get(value.upper(), "TYPE")
            values.setdefault(name, []).append(value)
    written = "".join(f";{name}={','.join(held)}" for name, held in values.items())
    return f"{head[1]}{written}:{line[head.end() :]}"


def _embedded(parameters: Mapping[str, Any], value: str) -> tuple[str, bytes] | None:
    """Return media type and content of what a property holds itself; of damaged base64 nothing."""
    media_type = str(parameters.get("FMTTYPE") or parameters.get("MEDIATYPE") or "")
    found = _DATA_ADDRESS.fullmatch(value)
    if found and not found[2]:
        return found[1], unquote_to_bytes(found[3])
    is_named = str(parameters.get("ENCODING", "")).upper() in ("B", "BASE64")
    if not (found or is_named or _DATA.fullmatch(value)):
        return None
    written = unquote_to_bytes(found[3]) if found else "".join(value.split()).encode()
    with suppress(binascii.Error):
        return found[1] if found else media_type, binascii.a2b_base64(written)
    return media_type, b""


def _shown(name: str, value: str) -> str:
    """Return a day or moment as ISO 8601 writes it, by what the standard has for a property."""
    if TypesFactory().types_map.get(name, "text") not in ("date-time", "date", "date-time-list"):
        return value
    days = re.sub(r"\b(\d{4})(\d\d)(\d\d)(?!\d)", r"\1-\2-\3", value.replace(",", ", "))
    return re.sub(r"(?<=\d)T(\d\d)(\d\d)(\d\d)", r" \1:\2:\3", days)


read_ics, read_vcf = (partial(_read, kind) for kind in ("ics", "vcf"))
