"""HTML to Markdown: headings, lists, tables and links stay, scripts and styles go.

The only module that knows BeautifulSoup and markdownify.
"""

from __future__ import annotations

import re
from typing import Any

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE)
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*>")  # XHTML; BeautifulSoup would take it for XML
_UNREAD = ("script", "style", "noscript", "template", "iframe", "svg", "head")
_HEAD_BYTES = 4096
# What pages call by the name of a subset (source: the WHATWG Encoding Standard).
_MEANT = {
    **dict.fromkeys(("gb2312", "gbk", "x-gbk"), "gb18030"),
    **dict.fromkeys(("iso-8859-1", "latin1", "ascii", "us-ascii"), "cp1252"),
    **{"shift_jis": "cp932", "shift-jis": "cp932", "big5": "big5hkscs", "euc-kr": "cp949"},
    # A page whose ASCII can be read to find this is not UTF-16.
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),
}
_MAX_TAGS = 1_000_000  # opening and closing ones; each takes 600 bytes and 0.1 ms
_MAX_DEPTH = 200  # markdownify goes down by recursion; Python's stack ends near 1,000 calls


class UnreadableHtml(ValueError):
    """Markup that no parser takes; the message says why."""


def charset(data: bytes) -> str:
    """Give the encoding that the page names, or an empty text."""
    found = _CHARSET.search(data[:_HEAD_BYTES])
    name = found[1].decode("ascii").lower() if found else ""
    return _MEANT.get(name, name)


def read(html: str) -> tuple[str, str]:
    """Give the page's text as Markdown, and its title.

    Raises:
        UnreadableHtml: with the reason.
    """
    if html.count("<") > _MAX_TAGS:
        raise UnreadableHtml(f"it has more than {_MAX_TAGS:,} tags, which are not read at once")
    soup = _soup(_DECLARATION.sub("", html))
    title = _title(soup)
    for element in soup.find_all(_UNREAD):
        element.decompose()
    text = soup.get_text("\n") if _is_deep(soup) else _markdown(soup)
    lines = (line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), title


def _soup(html: str) -> Any:
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    try:
        return BeautifulSoup(html, "html.parser")
    except ParserRejectedMarkup as error:
        raise UnreadableHtml("its markup is broken beyond what a parser takes") from error


def _title(soup: Any) -> str:
    element = soup.title or soup.h1
    return " ".join(element.get_text().split()) if element else ""


def _is_deep(soup: Any) -> bool:
    """Tell whether elements are nested deeper than a page written by someone ever is."""
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
