"""Where the console is served: by `paddock console` and `review` until Ctrl-C, and within `up`.

Imports the HTTP application, so only commands that serve import it. `paddock serve` has the routes
beside those of models (`http_serving`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute

from paddock.engine.system.records import replace
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.review.page_access import PageAccess
from paddock.runner.review.page_server import FolderReviews, ReviewPageOptions, serve_pages
from paddock.runner.settings import Settings

from .console_actions import ConsoleSources
from .console_run_pages import RunPages
from .web_console import SIGN_IN, WebConsole

if TYPE_CHECKING:
    from paddock.runner.schedule.up import Up

_QUEUE_S = 20.0  # another program may have locked its file
_REMEDY = "`paddock console` printed it when it started last."


def pages_of_up(
    folders: Sequence[Path], settings: Settings, flags: Mapping[str, object]
) -> Callable[[PageAccess, Up], Sequence[BaseRoute]]:
    """Return what makes the console's routes for `paddock up`; called before that has begun.

    Runs that are started on the pages have the environment of now: `up` sets the address of a
    Prefect server of its own.
    """
    sources = ConsoleSources(lambda: folders, settings, flags=flags)

    def pages(access: PageAccess, up: Up) -> Sequence[BaseRoute]:
        loop = asyncio.get_running_loop()

        def pause(file: Path, trigger: str, is_paused: bool) -> bool:
            change = up.pause(file.resolve(), trigger, is_paused=is_paused)
            return asyncio.run_coroutine_threadsafe(change, loop).result(_QUEUE_S)

        return _routes_behind(replace(sources, up_status=up.status, pause=pause), access)

    return pages


async def serve_console(
    folder: Path,
    settings: Settings,
    reviews: LedgerReviews | None,
    options: Mapping[str, Any],
    flags: Mapping[str, object] | None = None,
) -> int:
    """Serve console and review page until cancelled; return how many decisions were made there.

    `reviews`: only these, and the review page first; None: of all ledgers below the folder.
    `options` are those of `ReviewPageOptions`, `flags` the command line's settings for runs.
    """
    sources = ConsoleSources(lambda: [folder], settings, flags=flags or {})
    found = RunPages(sources.folders)  # it looks for ledgers every 15 s
    every = FolderReviews(lambda: [place.folder for place in found.places()], settings.ledger_url)
    page_options = replace(
        ReviewPageOptions(**options), extra_routes=partial(_routes_behind, sources)
    )
    if reviews is not None:
        return await serve_pages(lambda: (reviews,), reviews.ledger.folder, page_options)
    page_options = replace(page_options, start=SIGN_IN, remedy=_REMEDY)
    return await serve_pages(every, folder, page_options, every.close)


def _routes_behind(sources: ConsoleSources, access: PageAccess) -> Sequence[BaseRoute]:
    return WebConsole(access, sources).routes()
