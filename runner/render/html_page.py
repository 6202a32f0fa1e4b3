"""HTML pages by Jinja templates, all of whose values are escaped; the frame of offline pages.

A report is one file without scripts that loads nothing, in light and dark colours. Contrast is at
least 4.5 for text and 3 for lines. `web/macros.html` has what pages share.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.runner.progress.item_states import WORK

# Resolved, because an editable install is a tree of links that lacks the data files.
_WEB_FOLDER = Path(__file__).resolve().parent / "web"
COLOUR_CSS = (_WEB_FOLDER / "colours.css").read_text("utf-8").strip()
PAGE_CSS = (_WEB_FOLDER / "page.css").read_text("utf-8").strip()

_TEMPLATES = Environment(
    loader=FileSystemLoader(_WEB_FOLDER),
    autoescape=lambda name: not (name or "").endswith(".md"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals.update(MADE_STATES=WORK, zip=zip)
_TEMPLATES.filters.update(
    counted=counted,
    duration=units.duration,
    local_time=units.local_time,
    commas="{:,}".format,
    percent="{:.0%}".format,
    number=lambda value: f"{value:,.0f}" if value else "",
    took=lambda seconds: units.duration(seconds) if seconds >= 0.05 else "",  # of what was done
    query=lambda query, **changed: (
        "?"
        + urlencode([pair for pair in {**query, **changed}.items() if pair[1]], errors="replace")
    ),
)
_DIRECTION_MARK = re.compile("(<[^>]*>)|[\u202a-\u202e\u2066-\u2069]")


def render(template: str, **values: Any) -> Markup:
    r"""Return what a template makes of values; marks that turn the writing's direction are seen.

    >>> render("notes.html", notes=["<b>", "a\u202etxt.exe"])
    Markup('<p class="note">&lt;b&gt;</p>\n<p class="note">a\\u202etxt.exe</p>\n')
    """
    html = _TEMPLATES.get_template(template).render(values)
    return Markup(_DIRECTION_MARK.sub(lambda found: found[1] or f"\\u{ord(found[0]):04x}", html))


def render_text(template: str, **values: Any) -> str:
    """Return what a template makes of values: Markdown is not escaped, XML is."""
    return _TEMPLATES.get_template(template).render(values)


def web_file(name: str) -> str:
    return (_WEB_FOLDER / name).read_text("utf-8")


def html_page(title: str, template: str, **values: Any) -> str:
    styles = Markup(f"{COLOUR_CSS}\n{PAGE_CSS}")
    return render("offline.html", title=title, styles=styles, body=template, **values)
