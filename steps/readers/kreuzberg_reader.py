"""Old Office files and Rich Text, by the library `kreuzberg`.

The only module that knows it. It is given bytes, never a path, and only kinds for which it opens no
other file, starts no program and asks no server: no pictures, for which it looks for Tesseract.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from datetime import date
from functools import partial
from html import unescape
from typing import BinaryIO

from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import escaped, lowered, raised

from .document_kinds import MEDIA_TYPES
from .office import import_library
from .reader import Document, ReadRequest, Unreadable

_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_ESCAPED = re.compile(r"(?:\\[!-/:-@\[-{}~]|--|&#\d+;)+|(?<!\[)\^")
_UNTOLD = (
    "hidden, deleted or struck text, comments, footnotes, margins, text boxes, pictures and "
    "automatic numbers may be missing or stand as plain text"
)
_UNTOLD_OF = {
    **dict.fromkeys(("xls", "xlsb"), "raised and lowered characters, formats of days, "),
    "ppt": "raised and lowered characters, ",
    "doc": "raised and lowered characters, rows of tables, hyphens that keep words together, ",
}
_RTF_LOSSES = {
    "hidden text": re.compile(rb"\\v(?![a-z0-9])"),
    "deletion": re.compile(rb"\\deleted(?![a-z0-9])"),
    "comment": re.compile(rb"\\annotation(?![a-z])"),
    "picture": re.compile(rb"\\pict(?![a-z])"),
    "raised or lowered text": re.compile(rb"\\(?:up|dn)[1-9]"),
}
"""What the library leaves out or reads as text, and by what it is known."""
_RTF_ENCODINGS = {
    **{b"mac": "mac_roman", b"pc": "cp437", b"pca": "cp850", b"77": "mac_roman", b"128": "cp932"},
    **{b"129": "cp949", b"130": "johab", b"134": "gbk", b"136": "cp950", b"161": "cp1253"},
    **{b"162": "cp1254", b"163": "cp1258", b"177": "cp1255", b"178": "cp1256", b"186": "cp1257"},
    **{b"204": "cp1251", b"222": "cp874", b"238": "cp1250", b"254": "cp437", b"255": "cp850"},
}
"""By the character set of a document or font."""
_RTF_TOKEN = re.compile(
    rb"\\[\\{}]|([{}])|\\(deff|f|fcharset|uc|u)(-?\d{1,9}) ?|((?:\\'[0-9a-fA-F]{2})+)|"
    rb"(\\[~_])|((?:\\\*\s*)?\\footnote(?![a-z]) ?)|(\\(?:pard?|chftn)(?![a-z]) ?)"
)
_RTF_SIGN = re.compile(rb"[\r\n]*(?:\\'[0-9a-fA-F]{2}|[^\\{}])")
_RTF_RAISED = re.compile(
    rb"\\su(per|b)(?:\s?\\(?!nosupersub|chftn)[a-z]+-?\d*|{\\\*[^{}]*})*(?:\s|(?<=}))([^\\{}]+)"
)
_RAISED = re.compile("([\ue0f0\ue0f1])([^\ue0f2]*)\ue0f2")  # our own signs; the library has none
_ERRORS = {"Div0": "#DIV/0!", "NA": "#N/A", "Name": "#NAME?"}
_CELL = re.compile(
    r"(?<=\| )(?:\\?#ERR: (\w+)|(1899|1900)-(\d\d)-(\d\d) (\d\d)(:\d\d:\d\d)|"
    r"(\d{4}-\d\d-\d\d) 00:00:00)(?= \|)"
)
"""Cells as the library writes them: errors, times and durations, days."""
_RULE = re.compile(r"(?:\| --- ?)+")
_PAGE_STARTS = {"ppt": r"(?m)^-----$", "xls": r"(?m)^#(?=# )", "xlsb": r"(?m)^#(?=# )"}


def _read(kind: str, file: BinaryIO, request: ReadRequest) -> Document:
    data = file.read()
    kreuzberg = import_library("kreuzberg", f"of the kind `{kind}`", "formats")
    written = "plain" if kind == "doc" else "markdown"  # in which its paragraphs run together
    config = kreuzberg.ExtractionConfig(
        use_cache=False, enable_quality_processing=False, output_format=written
    )
    request.check()
    notes = [f": read by kreuzberg, without places: {_UNTOLD_OF.get(kind, '')}{_UNTOLD}"]
    try:
        if kind == "rtf":
            counts = ((len(lost.findall(data)), what) for what, lost in _RTF_LOSSES.items())
            if losses := ", ".join(counted(n, what) for n, what in counts if n):
                notes.append(f": not read, or read as plain text: {losses}")
            data = _rtf_in_unicode(data)
            signs = {b"per": -7952, b"b": -7951}
            data = _RTF_RAISED.sub(lambda m: b"\\u%d?%b\\u-7950?" % (signs[m[1]], m[2]), data)
        found = kreuzberg.extract_bytes_sync(data, MEDIA_TYPES[kind], config=config)
        text = _CELL.sub(_cell, found.content) if kind in ("xls", "xlsb") else found.content
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of its Rust code is no Exception
        words = " ".join(str(error).split())[:120]
        raise Unreadable(
            f"is damaged, protected by a password, or not of the kind `{kind}` ({words})",
            "Open it in a program for such documents, and save it again or as PDF.",
        ) from error
    if kind == "doc":
        pages = [escaped(text)]
    else:  # own signs of its Markdown stay, its backslashes go
        pieces = _CODE.split(text)
        pieces[::2] = (_ESCAPED.sub(lambda m: _own_text(m[0]), part) for part in pieces[::2])
        text = _RAISED.sub(_raised, "".join(pieces))
        text = _without_empty_cells(text) if kind in ("xls", "xlsb") else text
        pages = re.split(_PAGE_STARTS.get(kind, r"\Z"), text)
    why_empty = "has no text that kreuzberg reads: pictures alone, or it is protected by a password"
    texts = tuple(filter(None, map(str.strip, pages)))
    n_slides = found.metadata.get("slide_count") or 0
    if kind == "ppt" and n_slides > len(texts):
        notes.append(f": its {n_slides} slides are not told apart, and their notes stand behind")
    return Document(texts, "", MEDIA_TYPES[kind], tuple(notes), why_empty)


def _rtf_in_unicode(data: bytes) -> bytes:
    """Return Rich Text as the library reads it whole.

    1. Letters are Unicode where a font has an encoding of its own: the library reads all of them in
       that of the document.
    2. So are the blank and the hyphen where no line ends.
    3. Footnotes, which it leaves out, stand in brackets where they are cited.
    """
    heading = re.match(rb"{\\rtf\d*\s*\\(mac|pca?)\b", data)
    default = _RTF_ENCODINGS[heading[1]] if heading else ""
    encodings = dict[bytes, str]()
    groups = [(b"", 1)]  # the font, and by how many signs others follow each of Unicode
    notes = list[int]()  # the depths of footnotes
    parts = list[bytes]()
    start = 0
    while found := _RTF_TOKEN.search(data, start):
        parts.append(data[start : found.start()])
        start, shown = found.end(), found[0]
        brace, word, number, codes, sign, note, mark = found.groups()
        font, n_others = groups[-1]
        if brace == b"{":
            groups.append(groups[-1])
        elif brace and len(groups) > 1:
            if notes[-1:] == [len(groups)]:
                notes.pop()
                shown = b")}"  # 3
            groups.pop()
        elif note:
            notes.append(len(groups))
            shown = b" (footnote: "
        elif mark and notes:
            shown = b" "
        elif sign:
            shown = (b"\\u160" if sign == b"\\~" else b"\\u8209") + (b"?" * n_others or b" ")  # 2
        elif word in (b"f", b"deff"):
            groups[-1] = (number, n_others)
        elif word == b"uc":
            groups[-1] = (font, min(int(number), 4))
        elif word == b"fcharset":
            encodings[font] = _RTF_ENCODINGS.get(number, default)
        elif word == b"u":
            for _ in range(n_others):
                other = _RTF_SIGN.match(data, start)
                start = other.end() if other else start
            shown = found[0].rstrip() + (b"?" * n_others or b" ")  # as the library skips them
        elif codes and (encoding := encodings.get(font, default)):  # 1
            narrow = bytes.fromhex(codes.replace(b"\\'", b"").decode())
            for own in (narrow, narrow + data[start : start + 1]):  # its last sign has two bytes
                with suppress(UnicodeDecodeError):
                    wide = own.decode(encoding).encode("utf-16-le")
                    units = struct.unpack(f"<{len(wide) // 2}h", wide)
                    end = b"?" * n_others or b" "
                    shown = b"".join(b"\\u%d%b" % (unit, end) for unit in units)
                    start += len(own) - len(narrow)
                    break
        parts.append(shown)
    return b"".join((*parts, data[start:]))


def _own_text(written: str) -> str:
    r"""Return what the library has escaped; a bar of a table's cell stays as it is.

    >>> print(_own_text(r"\~\~"), _own_text(r"\<\!--"), _own_text(r"\|"), _own_text("&#43;"))
    \~~ \<!-- \| +
    """
    return escaped(unescape(re.sub(r"\\([^|])", r"\1", written)))


def _cell(found: re.Match[str]) -> str:
    """Return what a cell shows; a time of the first year is one of the day, or a duration."""
    error, year, month, day, hour, rest, whole_day = found.groups()
    if error:
        return _ERRORS.get(error, f"#{error.upper()}!")
    if year is None or (year, hour + rest) == ("1900", "00:00:00"):
        return whole_day or f"{year}-{month}-{day}"
    days = (date(int(year), int(month), int(day)) - date(1899, 12, 31)).days
    return f"{(days + (days > 59)) * 24 + int(hour):02}{rest}"  # of a 29 February that was none


def _without_empty_cells(text: str) -> str:
    lines = [""]
    for line in text.split("\n"):
        cells = line.rstrip("| ") if line.startswith("|") else line
        if _RULE.fullmatch(cells):
            lines += [f"|{' --- |' * (lines[-1].count('|') - 1)}"] if lines[-1] else []
        elif cells or not line:  # a bar that is a cell's own has a backslash before it
            lines.append(cells if cells == line else f"{cells}{'|' * cells.endswith(chr(92))} |")
    return "\n".join(lines)


def _raised(found: re.Match[str]) -> str:
    text, start, end = found.string, found.start(), found.end()
    mark = raised if found[1] == "\ue0f0" else lowered
    return mark(found[2], text[max(0, start - 9) : start], text[end : end + 9])


read_doc, read_xls, read_ppt, read_xlsb, read_rtf = (
    partial(_read, kind) for kind in ("doc", "xls", "ppt", "xlsb", "rtf")
)
