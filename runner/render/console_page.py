"""Frame of the console's pages: navigation, style, colour switch, headers of HTTP.

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

from .html_page import COLOUR_CSS, PAGE_CSS, web_file

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
    "": "text/html; charset=utf-8",
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


def style_and_script(path: str, name: str = "console") -> list[BaseRoute]:
    """Return the routes of a page's style and script, with those of reports and of navigation."""
    styles = ["console.css"] if name == "console" else ["console.css", f"{name}.css"]
    return [
        text_route(
            f"{path}.css", lambda: "\n".join([COLOUR_CSS, PAGE_CSS, *map(web_file, styles)])
        ),
        text_route(f"{path}.js", lambda: web_file("colours.js") + web_file(f"{name}.js")),
    ]


def text_route(path: str, text: Callable[[], str]) -> Route:
    headers = {**PAGE_HEADERS, "Content-Type": _MEDIA_TYPES[Path(path).suffix]}

    async def endpoint(request: Request) -> Response:
        return Response(await asyncio.to_thread(text), headers=headers)

    return Route(path, endpoint)
