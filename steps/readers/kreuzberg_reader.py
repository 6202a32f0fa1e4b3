"""Old Office files, Rich Text, notebooks and markup languages, by the library `kreuzberg`.

The only module that knows it. It is given bytes, never a path, and only kinds for which it opens no
other file, starts no program and asks no server: no pictures, for which it looks for Tesseract.
"""

from __future__ import annotations

import re
from functools import partial
from html import unescape
from typing import BinaryIO

from paddock.pipelines.text_marks import escaped, lowered, raised

from . import reader, text_files
from .document_kinds import MEDIA_TYPES, NEEDS_FORMATS
from .office import import_library
from .reader import Document, ReadRequest, Unreadable

_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_ESCAPED = re.compile(r"(?:\\[!-/:-@\[-{}~]|--|&#\d+;)+|(?<!\[)\^")
_RTF_RAISED = re.compile(rb"\\su(per|b)(?:\s?\\(?!nosupersub|chftn)[a-z]+-?\d*)*\s([^\\{}]+)")
_RAISED = re.compile("([\ue0f0\ue0f1])([^\ue0f2]*)\ue0f2")  # our own signs; the library has none
_RULE = re.compile(r"(?:\| --- ?)+")
_PAGE_STARTS = {"ppt": r"(?m)^-----$", "xls": r"(?m)^#(?=# )", "xlsb": r"(?m)^#(?=# )"}


def _read(kind: str, file: BinaryIO, request: ReadRequest) -> Document:
    """Read it; markup that the library is missing for, or finds nothing in, is read as text."""
    data = file.read()
    as_text = None if kind in NEEDS_FORMATS else text_files.read_text_file(data, "txt")
    if as_text is not None and not reader.formats_is_installed():
        return as_text
    kreuzberg = import_library("kreuzberg", f"of the kind `{kind}`", "formats")
    written = "plain" if kind == "doc" else "markdown"  # in which its paragraphs run together
    config = kreuzberg.ExtractionConfig(
        use_cache=False, enable_quality_processing=False, output_format=written
    )
    request.check()
    try:
        data = data if as_text is None else as_text.text.encode("utf-8", "replace")
        if kind == "rtf":
            signs = {b"per": -7952, b"b": -7951}
            data = _RTF_RAISED.sub(lambda m: b"\\u%d?%b\\u-7950?" % (signs[m[1]], m[2]), data)
        text = kreuzberg.extract_bytes_sync(data, MEDIA_TYPES[kind], config=config).content
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of its Rust code is no Exception
        if as_text is not None:
            return as_text
        words = " ".join(str(error).split())[:120]
        raise Unreadable(
            f"is damaged, protected by a password, or not of the kind `{kind}` ({words})",
            "Open it in a program for such documents, and save it again or as PDF.",
        ) from error
    if as_text is not None and not text.strip():
        return as_text
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
    return Document(
        texts, "", MEDIA_TYPES[kind], (": read by kreuzberg, without places",), why_empty
    )


def _own_text(written: str) -> str:
    r"""Return what the library has escaped; a bar of a table's cell stays as it is.

    >>> print(_own_text(r"\~\~"), _own_text(r"\<\!--"), _own_text(r"\|"), _own_text("&#43;"))
    \~~ \<!-- \| +
    """
    return escaped(unescape(re.sub(r"\\([^|])", r"\1", written)))


def _without_empty_cells(text: str) -> str:
    """Return sheets without empty rows, and rows without empty cells at their end."""
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
read_ipynb, read_org, read_rst, read_tex = (
    partial(_read, kind) for kind in ("ipynb", "org", "rst", "tex")
)
