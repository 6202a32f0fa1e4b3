"""Documents that are text in a file: plain, Markdown, HTML, CSV, JSON. Pure, from bytes."""

from __future__ import annotations

import json
import re

from . import encodings, html_text
from .kinds import MEDIA_TYPES
from .reader import Document, Unreadable

KINDS = frozenset(("txt", "md", "html", "csv", "json"))
_HTML = (".html", ".htm", ".xhtml")
_TEXTS = (".txt", ".text", ".md", ".markdown", ".mdown")
SUFFIXES = frozenset((*_TEXTS, *_HTML, ".csv", ".tsv", ".json"))
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_MAX_TITLE_CHARACTERS = 200


def read(data: bytes, kind: str, encoding: str = "auto", *, is_named: bool = False) -> Document:
    """Read it; `is_named`: the author has said which kind it is.

    Raises:
        Unreadable: it is not text, or not what the author says.
    """
    named = html_text.charset(data) if kind == "html" and encoding == "auto" else ""
    decoded = _decoded(data, encoding, named)
    notes = list(_damage(decoded))
    text, title = decoded.text, ""
    if kind == "html":
        text, title = _html(text)
    elif kind == "md":
        heading = _HEADING.search(text)
        title = heading[1].rstrip(" \t#")[:_MAX_TITLE_CHARACTERS] if heading else ""
    elif kind == "json" and (fault := _json_fault(text)):
        if is_named:
            raise Unreadable(f"is no valid JSON: {fault}")
        notes.append(f"is no valid JSON ({fault}); it is read as plain text")
        kind = "txt"
    return Document((text,), title, MEDIA_TYPES[kind], tuple(notes))


def _html(text: str) -> tuple[str, str]:
    try:
        return html_text.read(text)
    except html_text.UnreadableHtml as error:
        remedy = "Set `type: txt` to read it as plain text."
        raise Unreadable(f"cannot be read as HTML: {error}", remedy) from error


def _decoded(data: bytes, encoding: str, named: str) -> encodings.Decoded:
    """Decode by the author's word, else by the page's own, else by what the bytes tell."""
    if named and encodings.is_known(named):
        try:
            return encodings.decode(data, named)
        except encodings.NotText:
            pass  # pages often lie about themselves; the bytes decide
    try:
        return encodings.decode(data, encoding)
    except encodings.NotText as error:
        if encoding == "auto":
            raise Unreadable(f"is not text: {error}") from error
        remedy = "Correct `encoding`, or leave it out."
        raise Unreadable(f"cannot be read as {encoding}: {error}", remedy) from error


def _damage(decoded: encodings.Decoded) -> tuple[str, ...]:
    if not decoded.n_damaged:
        return ()
    return (f": {decoded.n_damaged} damaged bytes of its UTF-8 are read as U+FFFD",)


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
