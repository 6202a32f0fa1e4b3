"""Static files of a page: headers that let it load nothing but its own, and the routes.

Pages are plain files without a build step: the status page here, the review page of the runner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

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


def page_route(path: str, file: Path, *, before: str = "") -> BaseRoute:
    """Return the route of one file of a page; `before` is text that goes in front of it."""

    async def endpoint(request: Request) -> Response:
        content = before.encode() + await asyncio.to_thread(file.read_bytes)
        headers = {**PAGE_HEADERS, "Content-Type": _MEDIA_TYPES[file.suffix]}
        return Response(content, headers=headers)

    return Route(path, endpoint, name=file.name)
