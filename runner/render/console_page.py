"""What all pages of the console share: navigation, style, colour switch, headers of HTTP.

Pages are plain files or HTML that the server writes, without a build step. They load nothing from
elsewhere. Imports Starlette, so only what serves imports it; offline pages are `html_page`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .html_page import COLOUR_CSS, PAGE_CSS, WEB_FOLDER, render

PAGE_HEADERS: Mapping[str, str] = {
    # Only the page's own files and what it asks for; no frames. `blob:`: a picture that it loaded.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


CONSOLE_PAGES: Mapping[str, str] = {
    "Pipelines": "/ui/pipelines",
    "Runs": "/ui/runs",
    "Review": "/review",
    "Models": "/ui/models",
    "Requests": "/ui/requests",
    "Settings": "/ui/settings",
}
"""The pages of the console, in the order of its navigation, and their paths."""
CONSOLE_CSS = f"{COLOUR_CSS}\n{PAGE_CSS}\n{(WEB_FOLDER / 'console.css').read_text('utf-8')}"
"""The style of reports, and that of navigation and controls."""
COLOURS_JS = (WEB_FOLDER / "colours.js").read_text("utf-8")
"""What the button of the navigation does."""
_NAVIGATION_MARK = "<!-- navigation -->"


def console_files() -> list[BaseRoute]:
    """Return the routes of the style and the script of pages that the server writes."""
    return [
        text_route("/ui/console.css", lambda: CONSOLE_CSS),
        page_route("/ui/console.js", WEB_FOLDER / "console.js", before=COLOURS_JS),
    ]


def page_route(path: str, file: Path, *, before: str = "", current: str = "") -> Route:
    """Return the route of one file of a page.

    `before` is text that goes in front of it, `current` the page's name in the navigation.
    """

    def text() -> str:
        links = render("navigation.html", pages=CONSOLE_PAGES, current=current)
        return before + file.read_text("utf-8").replace(_NAVIGATION_MARK, links)

    return text_route(path, text, file.suffix)


def text_route(path: str, text: Callable[[], str], suffix: str = "") -> Route:
    """Return the route of a text, which a thread makes at each request."""
    headers = {**PAGE_HEADERS, "Content-Type": _MEDIA_TYPES[suffix or Path(path).suffix]}

    async def endpoint(request: Request) -> Response:
        return Response(await asyncio.to_thread(text), headers=headers)

    return Route(path, endpoint)
