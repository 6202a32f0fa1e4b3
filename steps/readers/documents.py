"""Read documents for steps, in reader processes; what fails raises `StepError` with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from paddock.engine.system.records import replace
from paddock.engine.system.tasks import call_in, clock_stopped
from paddock.steps.base import DocumentReaders, ReaderRequest, StepError, StepLog
from paddock.steps.paths import os_refusal, printable

from .reader import Document, Unreadable, after_name
from .reader_pool import DocumentRequest, EvidenceRequest, PageRequest, ReaderPool
from .reader_process import ReadOptions, read_small

R = TypeVar("R")

_MOST_PAGE_BYTES = 64 * 1024 * 1024
MOST_SHOWN_BYTES = 1024**3
"""Of a document whose pages are drawn; `files.read` had its own limit when it read it."""


async def load_document(
    path: Path,
    options: ReadOptions,
    *,
    readers: DocumentReaders | None,
    log: StepLog,
    max_bytes: int,
) -> Document:
    """Read a document: small texts here, all others in a process of `readers`; log its notes.

    `readers` None starts a process for this document alone.
    """
    name = f"'{printable(path.name)}'"
    with reading_errors(name):
        small = read_small(path, options, max_bytes)
        request = DocumentRequest(path, options.kind, options.encoding, options.ocr, max_bytes)
        found = await in_reader_process(request, readers) if small is None else small
    return _logged(_with_document_name(found, name, path.stem), log)


async def render_page(
    path: Path, page: int, most_side_px: int, *, readers: DocumentReaders | None = None
) -> bytes:
    """Return a page of a PDF, from 1, or a picture of an image file as a PNG.

    Raises:
        StepError: it cannot be drawn.
    """
    request = PageRequest(path, page, most_side_px, MOST_SHOWN_BYTES)
    with reading_errors(f"'{printable(path.name)}'"):
        return await in_reader_process(request, readers)


async def locate_values(request: EvidenceRequest, *, readers: DocumentReaders | None = None) -> Any:
    """Return where the values of an answer are in its sources: of long ones by a reader process.

    Raises:
        StepError: it takes too much time or memory.
    """
    with reading_errors("`evidence`: the text"):
        if request.is_small:
            return await asyncio.to_thread(request.result)
        return await in_reader_process(request, readers)


def locate_values_now(request: EvidenceRequest, readers: ReaderPool | None = None) -> Any:
    """Return the same, and wait for it; any thread may.

    Raises:
        StepError: it takes too much time or memory.
    """
    with reading_errors("`evidence`: the text"), closing(ReaderPool()) as own:
        return request.result() if request.is_small else (readers or own).submit(request).result()


async def web_page_text(
    data: bytes, encoding: str, url: str, *, readers: DocumentReaders | None, log: StepLog
) -> str:
    """Return the text of a fetched page as Markdown; log its notes."""
    request = DocumentRequest(None, "html", encoding, False, _MOST_PAGE_BYTES, data)
    name = f"'{printable(url)}'"
    with reading_errors(name):
        found = await in_reader_process(request, readers)
    return _logged(_with_document_name(found, name, url), log).text


def read_document_file(path: Path, *, max_bytes: int) -> Document:
    with closing(ReaderPool()) as readers:
        return wait_for_document(
            readers.submit(DocumentRequest(path, None, "auto", True, max_bytes)), path
        )


def wait_for_document(job: Future[Document], path: Path) -> Document:
    name = f"'{printable(path.name)}'"
    with reading_errors(name):
        return _with_document_name(job.result(), name, path.stem)


async def in_reader_process(request: ReaderRequest[R], readers: DocumentReaders | None) -> R:
    """Wait for a free process, then for the document; only the latter counts for time limits."""
    if readers is None:
        own = ReaderPool()
        try:
            return await in_reader_process(request, own)
        finally:
            await asyncio.to_thread(own.close)
    loop, is_begun, is_unwanted = asyncio.get_running_loop(), asyncio.Event(), Event()
    ended: asyncio.Future[R] = asyncio.wrap_future(
        readers.submit(request, is_unwanted, lambda: call_in(loop, is_begun.set))
    )
    start = asyncio.ensure_future(is_begun.wait())
    try:
        with clock_stopped():
            waited: set[asyncio.Future[Any]] = {start, ended}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return await ended
    finally:
        is_unwanted.set()  # a thread cannot be cancelled: it kills the process and ends
        start.cancel()
        ended.cancel()


def _with_document_name(found: Document, name: str, title: str) -> Document:
    """Return the document with a title, and its name in its notes."""
    notes = tuple(f"{name}{after_name(note)}." for note in found.notes)
    return replace(found, title=found.title or title, notes=notes)


def _logged(document: Document, log: StepLog) -> Document:
    for note in document.notes:
        log.note(note)
    return document


@contextmanager
def reading_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise os_refusal(f"{name} cannot be read", error) from error
    except Unreadable as error:
        raise StepError(f"{name} {error}.", remedy=error.remedy, kind=error.kind) from error
