"""Documents that are text: plain text, Markdown, HTML, CSV and JSON, from bytes.

HTML becomes Markdown: headings, lists, tables and links stay, scripts and styles go. The only
module that knows BeautifulSoup and markdownify.
"""

from __future__ import annotations

import json
import re
from typing import Any

from . import text_encoding
from .reader import MEDIA_TYPES, Document, Unreadable

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE)
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*>")  # XHTML; BeautifulSoup would take it for XML
_SKIPPED_TAGS = ("script", "style", "noscript", "template", "iframe", "svg", "head")
_HEAD_BYTES = 4096
# What pages call by the name of a subset (source: the WHATWG Encoding Standard).
_CHARSET_ALIASES = {
    **dict.fromkeys(("gb2312", "gbk", "x-gbk"), "gb18030"),
    **dict.fromkeys(("iso-8859-1", "latin1", "ascii", "us-ascii"), "cp1252"),
    **{"shift_jis": "cp932", "shift-jis": "cp932", "big5": "big5hkscs", "euc-kr": "cp949"},
    # A page whose ASCII can be read to find this is not UTF-16.
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),
}
_MAX_TAGS = 1_000_000  # opening and closing ones; each takes 600 bytes and 0.1 ms
_MAX_DEPTH = 200  # markdownify goes down by recursion; Python's stack ends near 1,000 calls


def html_charset(data: bytes) -> str:
    """Return the declared encoding of a page, or an empty text."""
    found = _CHARSET.search(data[:_HEAD_BYTES])
    name = found[1].decode("ascii").lower() if found else ""
    return _CHARSET_ALIASES.get(name, name)


def html_to_markdown(html: str) -> tuple[str, str]:
    """Return the page's text as Markdown, and its title.

    Raises:
        Unreadable: its markup cannot be parsed.
    """
    if html.count("<") > _MAX_TAGS:
        raise _unreadable_html(f"it has more than {_MAX_TAGS:,} tags, which is the maximum")
    soup = _parsed_html(_DECLARATION.sub("", html))
    title = _html_title(soup)
    for element in soup.find_all(_SKIPPED_TAGS):
        element.decompose()
    text = soup.get_text("\n") if _is_deep(soup) else _markdown(soup)
    lines = (line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), title


def _parsed_html(html: str) -> Any:
    import bs4

    try:
        return bs4.BeautifulSoup(html, "html.parser")
    except bs4.exceptions.ParserRejectedMarkup as error:
        raise _unreadable_html("its markup cannot be parsed") from error


def _unreadable_html(why: str) -> Unreadable:
    remedy = "Set `type: txt` to read it as plain text."
    return Unreadable(f"cannot be read as HTML: {why}", remedy)


def _html_title(soup: Any) -> str:
    element = soup.title or soup.h1
    return " ".join(element.get_text().split()) if element else ""


def _is_deep(soup: Any) -> bool:
    """Return whether elements are nested deeper than in real pages."""
    level = [soup]
    for _ in range(_MAX_DEPTH):
        level = [child for element in level for child in element.find_all(recursive=False)]
        if not level:
            return False
    return True


def _markdown(soup: Any) -> str:
    from markdownify import MarkdownConverter

    converter = MarkdownConverter(
        heading_style="ATX",
        bullets="-",
        strip=["img"],
        escape_misc=False,
        escape_asterisks=False,
        escape_underscores=False,
    )
    return str(converter.convert_soup(soup))


TEXT_KINDS = frozenset(("txt", "md", "html", "csv", "json"))
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_MAX_TITLE_CHARACTERS = 200


def read_text_file(
    data: bytes, kind: str, encoding: str = "auto", *, is_named: bool = False
) -> Document:
    """Read it; `is_named`: the author has set its kind.

    Raises:
        Unreadable: it is not text, or not of that kind.
    """
    named = html_charset(data) if kind == "html" and encoding == "auto" else ""
    decoded = _decoded(data, encoding, named)
    notes = list(_damage_notes(decoded))
    text, title = decoded.text, ""
    if kind == "html":
        text, title = html_to_markdown(text)
    elif kind == "md":
        heading = _HEADING.search(text)
        title = heading[1].rstrip(" \t#")[:_MAX_TITLE_CHARACTERS] if heading else ""
    elif kind == "json" and (fault := _json_fault(text)):
        if is_named:
            raise Unreadable(f"is not valid JSON: {fault}")
        notes.append(f"is not valid JSON ({fault}); it is read as plain text")
        kind = "txt"
    return Document((text,), title, MEDIA_TYPES[kind], tuple(notes))


def _decoded(data: bytes, encoding: str, named: str) -> text_encoding.Decoded:
    """Decode by the author's encoding, else the declared one, else a detected one."""
    if named and text_encoding.is_known_encoding(named):
        try:
            return text_encoding.decode_text(data, named)
        except text_encoding.NotText:
            pass  # the declaration is often wrong: detect it
    try:
        return text_encoding.decode_text(data, encoding)
    except text_encoding.NotText as error:
        if encoding == "auto":
            raise Unreadable(f"is not text: {error}") from error
        remedy = "Correct `encoding`, or leave it out."
        raise Unreadable(f"cannot be read as {encoding}: {error}", remedy) from error


def _damage_notes(decoded: text_encoding.Decoded) -> tuple[str, ...]:
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
