"""Read one document's text, whatever its kind; say in one sentence why it cannot be read."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, Literal

from paddock.steps.places import refusal, shown
from paddock.steps.step import Readers, StepError
from paddock.steps.time_limits import not_counted

from . import archive, ocr, plugins, reading
from .reader import Document, Unreadable
from .reader_pool import Missing, ReaderPool, Request, SystemRefused

_MOST_PAGE_BYTES = 64 * 1024 * 1024

__all__ = ["Document", "installed", "load", "page_text", "read", "refuse_empty"]


async def load(
    path: Path,
    *,
    readers: Readers | None,
    kind: str | None = None,
    encoding: str = "auto",
    max_bytes: int,
    ocr: bool = True,
) -> Document:
    """Read a document: small texts here, all others in a process of `readers`.

    `readers` None starts a process for this document alone.

    Raises:
        StepError: with the reason.
    """
    name = f"'{shown(path.name)}'"
    try:
        small = reading.read_small(path, reading.Wishes(kind, encoding, ocr), max_bytes)
        request = Request(path, kind, encoding, ocr, max_bytes)
        found = small or await _in_process(request, readers)
    except (OSError, Unreadable) as error:
        raise _in_words(name, error) from error
    return _named(found, path, name)


async def page_text(html: str, readers: Readers | None) -> str:
    """Return what a reader sees of a page that was fetched, as Markdown.

    Raises:
        StepError: with the reason.
    """
    data = html.encode("utf-8", "replace")
    request = Request(None, "html", "utf-8", False, _MOST_PAGE_BYTES, data)
    try:
        return (await _in_process(request, readers)).text
    except (OSError, Unreadable) as error:
        raise _in_words("the page", error) from error


def read(path: Path, *, max_bytes: int) -> Document:
    """Read a document in a process of its own, and wait for it.

    Raises:
        StepError: with the reason.
    """
    with closing(ReaderPool()) as readers:
        return wait_for(readers.submit(Request(path, None, "auto", True, max_bytes)), path)


def wait_for(job: Future[Document], path: Path) -> Document:
    """Wait for a document that is being read.

    Raises:
        StepError: with the reason.
    """
    name = f"'{shown(path.name)}'"
    try:
        return _named(job.result(), path, name)
    except (OSError, Unreadable) as error:
        raise _in_words(name, error) from error


def installed() -> tuple[str, ...]:
    """Name what else than this version decides a text: extras, plug-ins and their versions."""
    extras = {"documents": archive.is_installed(), "ocr": ocr.is_installed()}
    return (*(name for name, is_there in extras.items() if is_there), *plugins.versions())


def refuse_empty(document: Document, path: Path) -> None:
    """Raise for a document without text.

    Raises:
        StepError: nothing is in it.
    """
    if document.is_empty:
        raise StepError(f"'{shown(path.name)}' {document.why_empty}.")


async def _in_process(request: Request, readers: Readers | None) -> Document:
    """Wait for a process that is free, then for the document; only the latter takes its time."""
    if readers is None:
        own = ReaderPool()
        try:
            return await _in_process(request, own)
        finally:
            await asyncio.to_thread(own.close)
    loop, is_begun, is_unwanted = asyncio.get_running_loop(), asyncio.Event(), Event()

    def begun() -> None:
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(is_begun.set)

    ended: asyncio.Future[Document] = asyncio.wrap_future(
        readers.submit(request, is_unwanted, begun)
    )
    start = asyncio.ensure_future(is_begun.wait())
    try:
        with not_counted():
            waited: set[asyncio.Future[Any]] = {start, ended}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return await ended
    finally:
        is_unwanted.set()  # a thread cannot be cancelled: it kills the process, and ends
        start.cancel()
        ended.cancel()


def _named(found: Document, path: Path, name: str) -> Document:
    """Put the document's name before what is said of it."""
    notes = tuple(f"{name}{note if note[:1] == ':' else f' {note}'}." for note in found.notes)
    return replace(found, title=found.title or path.stem, notes=notes)


def _in_words(name: str, error: OSError | Unreadable) -> StepError:
    if isinstance(error, OSError):
        return refusal(f"{name} cannot be read", error)
    # An extra that is missing is a part of the item's hash (`installed`); what a plug-in lacks is
    # not, so the item must not be given up. What a document takes is the same at the next try.
    kind: Literal["missing", "io", "other"] = "other"
    if isinstance(error, Missing):
        kind = "missing"
    elif isinstance(error, SystemRefused):
        kind = "io"
    return StepError(f"{name} {error}.", remedy=error.remedy, kind=kind)
