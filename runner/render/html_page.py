"""HTML page: frame, styles, tables, cells and durations.

One file without scripts that loads nothing, in light and dark colours, which drawings share.
Contrast is at least 4.5 for text and 3 for lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from paddock.runner.bind.protected_files import PAGE_START
from paddock.runner.progress.report import MADE_STATES

# Resolved, because an editable install is a tree of links that lacks the data files.
WEB_FOLDER = Path(__file__).resolve().parent / "web"
COLOUR_CSS = (WEB_FOLDER / "colours.css").read_text("utf-8").strip()


# Nothing is loaded or run, even if an escape of document names or replies fails.
_CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
PAGE_CSS = (WEB_FOLDER / "page.css").read_text("utf-8").strip()
_LONG_HEAD_CHARS = 24  # as many as the longest head of words has; names of variants have more
_PAGE = Template((WEB_FOLDER / "page.html").read_text("utf-8"))


def html_page(title: str, parts: Iterable[str]) -> str:
    """Return a page with these parts, which must be escaped already."""
    return PAGE_START + _PAGE.substitute(
        policy=_CONTENT_POLICY,
        title=visible_marks(escape(title)),
        colours=COLOUR_CSS,
        css=PAGE_CSS,
        body=visible_marks("\n".join(parts)),
    )


_DIRECTION_MARK = re.compile("(<[^>]*>)|[\u202a-\u202e\u2066-\u2069]")


def visible_marks(html: str) -> str:
    r"""Return HTML in which marks that turn the writing's direction are seen, but for attributes.

    >>> visible_marks("<b>a\u202etxt.exe</b>")
    '<b>a\\u202etxt.exe</b>'
    """
    return _DIRECTION_MARK.sub(lambda found: found[1] or f"\\u{ord(found[0]):04x}", html)


def html_table(
    name: str, heads: Sequence[str], rows: Iterable[Iterable[str]], *, note: str = ""
) -> str:
    """Return a table of rows of cells; on a telephone each row is a list with the heads' names.

    `#` marks heads of numbers.
    """
    cells = "".join(map(_head_cell, heads))
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    body = "\n".join(f"<tr>{''.join(_named_cells(heads, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table>{caption}<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _head_cell(head: str) -> str:
    if head.startswith("#"):
        return f'<th scope="col" class="n">{escape(head[1:])}</th>'
    kind = ' class="name"' * (len(head) > _LONG_HEAD_CHARS)  # may be in several lines
    return f'<th scope="col"{kind}>{escape(head)}</th>'


def _named_cells(heads: Sequence[str], row: Iterable[str]) -> Iterable[str]:
    for head, cell in zip(heads, row, strict=True):
        yield cell.replace("<td", f'<td data-head="{escape(head.removeprefix("#"))}"', 1)


def html_cell(text: str, kind: str = "") -> str:
    """Return a cell; `kind` is its CSS class."""
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<td{attribute}>{escape(text)}</td>"


def action_html(label: str, address: str, *, fields: str = "", why_not: str = "") -> str:
    """Return a button that changes something, or a dead one with the reason.

    `fields` are HTML that goes before the button in its form.
    """
    if why_not:
        off = f'<button type="button" disabled>{escape(label)}</button>'
        return f'<p>{off} <span class="soft">{escape(why_not)}</span></p>'
    on = f"<button>{escape(label)}</button>"
    return f'<form method="post" action="{escape(address)}">{fields}{on}</form>'


def hidden_field(name: str, value: str) -> str:
    """Return a field of a form that no one sees."""
    return f'<input type="hidden" name="{name}" value="{escape(value)}">'


def facts_html(facts: Iterable[tuple[str, str]]) -> str:
    """Return a list of names, each with what it is as HTML."""
    shown = (f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return f'<dl class="facts">{"".join(shown)}</dl>'


def error_html(text: str) -> str:
    """Return a box with an error; a line of a file has the marks below it in their place."""
    if " | " in text and "^" in text:
        shown = f'<pre tabindex="0" role="region" aria-label="Fault">{escape(text)}</pre>'
    else:
        shown = f"<p>{escape(text)}</p>"
    return f'<div class="error">{shown}</div>'


def number_cell(value: float | None) -> str:
    """Return a cell with a number, empty for none and 0."""
    return f'<td class="n">{f"{value:,.0f}" if value else ""}</td>'


def state_html(state: str) -> str:
    """Return what became of an item; one that was done also with what it was before."""
    words = f"done ({state})" if state in MADE_STATES else state
    return f'<span class="s-{escape(state)}">{escape(words)}</span>'
