"""Where the review page is served: by `paddock review` and `console`, and within other services.

Each start of these two has its own token. Its browser is handed a ticket in a file that
only its owner can read: a command line is in the process list, which every user sees. The port is
the folder's own where it is free, so that a page that stayed open goes on after a restart.
`paddock up` and `paddock serve` show the page behind their API keys, and behind a token in a file
that only its owner can read. They open the ledgers of their folders when they are first needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import secrets
import socket
import tempfile
import webbrowser
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from paddock.engine.api.server import PortTaken, listen, serving
from paddock.engine.settings import ServiceSettings
from paddock.engine.system import files
from paddock.engine.system.records import Struct
from paddock.engine.system.tasks import StopRequested, run_unless_stopped
from paddock.pipelines.model import Pipeline, StepNode
from paddock.runner.daemon.prefect_auth import stored_secret
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.own_state import has_folder_identity
from paddock.runner.ledger.reviews.review_store import note_decided
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.progress.drain import stop_on_signals
from paddock.runner.render.html_page import render
from paddock.runner.settings import STATE_FOLDER
from paddock.steps.param_types import PipelineFile
from paddock.steps.registry import facts_of

from .decisions import LedgerReviews
from .page import ReviewPage
from .page_access import PAGE_PATH, TICKET_S, PageAccess, Ticket

HOST = "127.0.0.1"
_FIRST_PORT, _N_PORTS = 21_000, 10_000  # below the ports that systems give to clients
_TOKEN_BYTES = 24
REMEDY = "`paddock review` printed it when it started last."
_HANDOVER_PREFIX = "paddock-review-"


class ReviewPageOptions(Struct, frozen=True):
    by: str
    """The person who decides."""
    port: int | None = None
    """None: the folder's own, or any free one."""
    opens_browser: bool = True
    remedy: str = REMEDY
    """A sentence that says where the token is."""
    start: str = PAGE_PATH
    """The path that a browser opens."""
    is_shown: Callable[[Review], bool] = lambda review: True
    extra_routes: Callable[[PageAccess], Sequence[BaseRoute]] = lambda access: ()
    """Returns the routes of other pages behind the same access."""
    tell: Callable[[str, str], None] = print
    """Called with the address and the token that it asks for, once it answers."""


async def serve_pages(
    all_reviews: Callable[[], Sequence[LedgerReviews]],
    folder: Path,
    options: ReviewPageOptions,
    close: Callable[[], None] = lambda: None,
) -> int:
    """Serve the pages until a signal; return how many decisions were made there and stand.

    `folder` decides the port; `close` is called at the end, in the thread of the ledgers.

    Raises:
        PortTaken, CannotListen: nothing was served.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    access = PageAccess(token, options.by, options.remedy)
    page = ReviewPage(all_reviews, access, options.is_shown)
    listener = _listen(folder, options.port)
    address = f"http://{HOST}:{listener.getsockname()[1]}{options.start}"
    routes = [*page.routes(), *options.extra_routes(access)]
    try:
        async with serving(Starlette(routes=routes), listener, ServiceSettings()):
            stop = asyncio.Event()
            # Raised as an exception, a signal could be lost in the answer to a request.
            with stop_on_signals(stop), contextlib.suppress(asyncio.CancelledError, StopRequested):
                await run_unless_stopped(_shown(address, token, access, options), stop)
    finally:
        listener.close()
        await page.close(close)
    return len(page.decided_here)


async def _shown(address: str, token: str, access: PageAccess, options: ReviewPageOptions) -> None:
    options.tell(address, token)
    if options.opens_browser:
        # With a private file that posts a ticket; where there can be none, the address was printed
        ticket = access.new_ticket()
        with contextlib.suppress(OSError):
            file = await asyncio.to_thread(_handover_file, address, ticket)
            try:
                with contextlib.suppress(Exception):  # without a screen the address is all
                    await asyncio.to_thread(webbrowser.open, file.as_uri())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICKET_S):
                        await ticket.is_used.wait()
            finally:
                file.unlink(missing_ok=True)
    await asyncio.Event().wait()


def _handover_file(address: str, ticket: Ticket) -> Path:
    """Write the file for the browser.

    It is not in a hidden folder or in `/tmp`: browsers that are Snap or Flatpak packages read
    neither.
    """
    home = Path.home()
    folder = home if os.access(home, os.W_OK) else None
    handle, name = tempfile.mkstemp(".html", _HANDOVER_PREFIX, folder)  # 0600
    with os.fdopen(handle, "w") as page:
        page.write(render("handover.html", address=address, ticket=ticket.value))
    return Path(name)


def token_file(state_dir: Path) -> Path:
    return state_dir / "review.token"


@asynccontextmanager
async def mounted_page(
    all_reviews: FolderReviews,
    state_dir: Path,
    *,
    keys: Path | None,
    is_open: bool,
    needs_key: bool = False,
) -> AsyncIterator[ReviewPage]:
    """Yield the page for another service's routes; close it and the ledgers at the end.

    Args:
        all_reviews: of the folders that the service shows.
        state_dir: where the token's file is; it is made at the first start.
        keys: the service's file of API keys; the name of a key is the reviewer's.
        is_open: other machines reach the service.
        needs_key: the owner's token does not open the page.

    Raises:
        InvalidKeyFile: the keys cannot be used.
    """
    token, remedy = await asyncio.to_thread(_kept_token, token_file(state_dir))
    if needs_key:
        access = PageAccess(None, "", "It needs an API key.", keys=keys, is_open=is_open)
    else:
        access = PageAccess(token, user_name(), remedy, keys=keys, is_open=is_open)
    page = ReviewPage(all_reviews, access)
    try:
        yield page
    finally:
        await page.close(all_reviews.close)


def _kept_token(file: Path) -> tuple[str, str]:
    """Return the token and where it is; a useless one if it cannot be kept."""
    try:
        return stored_secret(file), f"It is in {file}."
    except OSError as error:
        why = error.strerror or error
        return secrets.token_urlsafe(_TOKEN_BYTES), f"It cannot be kept in {file}: {why}."


def user_name() -> str:
    """Return the name of this process's user; its number where the system knows no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without an entry
        return str(os.getuid())


def _listen(folder: Path, port: int | None) -> socket.socket:
    if port is not None:
        return listen(HOST, port)
    own = _FIRST_PORT + zlib.crc32(str(folder.resolve()).encode()) % _N_PORTS
    try:
        return listen(HOST, own)
    except PortTaken:
        return listen(HOST, 0)


def shown_folder(folder: Path, common: str | None) -> str:
    """Return what tells a folder from others, which have `common`; nothing of one alone."""
    if common is None:
        return ""
    return folder.name if str(folder) == common else os.path.relpath(folder, common)


def asks_people(pipeline: Pipeline) -> bool:
    """Return whether a pipeline, or one that it calls, may ask for a review."""
    steps = (node for node in pipeline.nodes() if isinstance(node, StepNode))
    return any(
        step.review is not None or bool(facts_of(step.uses).param(PipelineFile)) for step in steps
    )


class FolderReviews:
    """The reviews of folders of pipelines. All methods block, and one thread calls them.

    A folder whose ledger does not exist yet has none. One whose ledger file was replaced is opened
    again: a decision must not go into a file that was deleted.
    """

    def __init__(
        self,
        folders: Callable[[], Iterable[Path]],
        url: str = "",
        on_decided: Callable[[Ledger], object] = note_decided,
    ) -> None:
        """`folders` returns the folders at each call; `url`: of PostgreSQL, empty for files.

        `on_decided` is called after each decision.
        """
        self._folders = folders
        self._on_decided = on_decided
        self._url = url
        self._open: dict[Path, tuple[LedgerReviews, tuple[int, int] | None]] = {}
        """With device and inode of the ledger's file."""

    def __call__(self) -> list[LedgerReviews]:
        """Return the reviews of each folder that has a ledger.

        Raises:
            LedgerError: one cannot be opened, and there is no other.
        """
        folders = sorted({folder.resolve() for folder in self._folders()})
        for gone in self._open.keys() - set(folders):
            self._close(gone)
        of_folders: list[LedgerReviews | None] = []
        faults: list[LedgerError] = []
        common = os.path.commonpath(folders) if len(folders) > 1 else None
        for folder in folders:
            try:
                reviews = self._reviews_of(folder)
            except LedgerError as error:  # the other folders' questions can be answered
                faults.append(error)
                continue
            if reviews is not None:
                reviews.shown_folder = shown_folder(folder, common)
            of_folders.append(reviews)
        if faults and not any(of_folders):
            raise faults[0]
        return [reviews for reviews in of_folders if reviews is not None]

    def close(self) -> None:
        for folder in list(self._open):
            self._close(folder)

    def _reviews_of(self, folder: Path) -> LedgerReviews | None:
        ledger = Ledger(folder / STATE_FOLDER, url=self._url)
        file = None if self._url else files.identity_of_path(ledger.file)
        if known := self._open.get(folder):
            if known[1] == file:
                return known[0]
            self._close(folder)
        if not (has_folder_identity(ledger.folder) if self._url else file):
            return None
        reviews = LedgerReviews(ledger.__enter__(), self._on_decided)
        self._open[folder] = reviews, file
        return reviews

    def _close(self, folder: Path) -> None:
        self._open.pop(folder)[0].ledger.__exit__(None, None, None)
