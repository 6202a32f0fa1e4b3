"""`paddock review`: serve the review page on this machine until Ctrl-C.

Each start has its own token. The port is the folder's own where it is free, so that a page that
stayed open goes on after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import webbrowser
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette

from paddock.engine.api.server import PortTaken, listen, serving
from paddock.engine.settings import ServiceSettings
from paddock.runner.ledger.reviews import Review

from .decisions import ReviewDesk
from .page import ReviewPage
from .page_access import PAGE_PATH, PageAccess

HOST = "127.0.0.1"
_FIRST_PORT, _N_PORTS = 21_000, 10_000  # below the ports that systems give to clients
_TOKEN_BYTES = 24
REMEDY = "Open the address that `paddock review` printed last."


@dataclass(frozen=True)
class ReviewPageOptions:
    """How `paddock review` shows its page."""

    by: str
    """The person who decides."""
    port: int | None = None
    """None: the folder's own, or any free one."""
    opens_browser: bool = True
    is_shown: Callable[[Review], bool] = lambda review: True
    tell: Callable[[str], None] = print
    """Called with the address, once it answers."""


async def serve_review(desk: ReviewDesk, options: ReviewPageOptions) -> int:
    """Serve the page until cancelled; return how many decisions were made on it.

    Raises:
        PortTaken, CannotListen: nothing was served.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    page = ReviewPage(lambda: (desk,), PageAccess(token, options.by, REMEDY), options.is_shown)
    listener = _listen(desk.ledger.folder, options.port)
    address = f"http://{HOST}:{listener.getsockname()[1]}{PAGE_PATH}?token={token}"
    try:
        async with serving(Starlette(routes=page.routes()), listener, ServiceSettings()):
            options.tell(address)
            if options.opens_browser:
                await asyncio.to_thread(_open_browser, address)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
    finally:
        listener.close()
        await page.close()
    return page.n_decided


def _listen(folder: Path, port: int | None) -> socket.socket:
    if port is not None:
        return listen(HOST, port)
    own = _FIRST_PORT + zlib.crc32(str(folder.resolve()).encode()) % _N_PORTS
    try:
        return listen(HOST, own)
    except PortTaken:
        return listen(HOST, 0)


def _open_browser(address: str) -> None:
    with contextlib.suppress(Exception):  # the address was printed; without a screen that is all
        webbrowser.open(address)
