"""Documents that are text: plain text, Markdown, CSV and JSON, from bytes; HTML by `html`.

An XML that is an electronic invoice is read by `e_invoice`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from paddock.engine.system.records import replace

from . import text_encoding
from .document_kinds import MEDIA_TYPES, MODULES
from .reader import Document, Unreadable

if TYPE_CHECKING:
    from .style_sheets import CssSheet

TEXT_KINDS = frozenset(kind for kind, module in MODULES.items() if module == "text_files")
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_MAX_TITLE_CHARACTERS = 200


def read_text_file(
    data: bytes,
    kind: str,
    encoding: str = "auto",
    *,
    declared: str | tuple[str, ...] = "",
    is_named: bool = False,
    styles: CssSheet | None = None,
) -> Document:
    """Read it; `is_named`: the author has set its kind; `styles`: style sheets besides a page's.

    `encoding` is the author's, `declared` what comes with the text, such as a mail's charset: a
    tuple for a text within a document, with what that declares of others behind it.

    Raises:
        Unreadable: it is not text, or not of that kind.
    """
    own, *around = (declared,) if isinstance(declared, str) else declared
    own = own or text_encoding.declared_encoding(data, is_html=kind == "html")
    declared = own if isinstance(declared, str) else (own, *around)
    try:
        decoded = text_encoding.decode_text(data, encoding, declared)
    except text_encoding.UnclearEncoding as error:
        raise Unreadable(f"cannot be read: {error}", error.remedy) from error
    except text_encoding.NotText as error:
        if encoding == "auto":
            raise Unreadable(f"is not text: {error}") from error
        remedy = "Correct `encoding`, or leave it out."
        raise Unreadable(f"cannot be read as {encoding}: {error}", remedy) from error
    notes = list(decoded.notes)
    text, title = decoded.text, ""
    if kind == "html":
        from .html import html_to_markdown

        page = html_to_markdown(text, styles)
        text, title = page.text, page.title
        notes += page.notes
    elif kind == "md":
        title = first_heading(text)
    elif kind == "json" and (fault := _json_fault(text)):
        if is_named:
            raise Unreadable(f"is not valid JSON: {fault}")
        notes.append(f"is not valid JSON ({fault}); it is read as plain text")
        kind = "txt"
    elif kind == "txt" and not is_named and text.lstrip().startswith("<"):
        from .e_invoice import read_e_invoices

        found = read_e_invoices(text)
        notes += found.notes
        if found.pages:
            return replace(found, media_type=MEDIA_TYPES[kind], notes=tuple(notes))
    return Document((text,), title, MEDIA_TYPES[kind], tuple(notes))


def first_heading(text: str) -> str:
    heading = _HEADING.search(text)
    return heading[1].rstrip(" \t#")[:_MAX_TITLE_CHARACTERS] if heading else ""


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
