"""Documents read in the test's own process, where a test can look into the reader."""

import importlib
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from typing import Any

from paddock.steps.readers import documents, reader_process
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_pool import DocumentRequest, ReaderPool
from paddock.steps.tables.table_files import TableRequest


class HereReaders(ReaderPool):
    """A pool without processes: it reads at once."""

    def submit(
        self,
        request: Any,
        is_unwanted: Event | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> Future[Any]:
        found: Future[Any] = Future()
        try:
            if isinstance(request, TableRequest):
                head, data = request.frame()
                work = importlib.import_module("paddock.steps.tables.table_work")
                answer = work.carry_out({**head, "memory_bytes": 1 << 30}, data, lambda: None)
                found.set_result(request.answer(*answer))
                return found
            wishes = reader_process.ReadOptions(request.kind, request.encoding, request.ocr)
            if request.path is None:
                found.set_result(
                    reader_process.read_document_bytes(request.data, wishes, request.max_bytes)
                )
            else:
                found.set_result(
                    reader_process.read_document(request.path, wishes, request.max_bytes)
                )
        except (OSError, Unreadable) as error:
            found.set_exception(error)
        return found


def read_here(path: Path, *, max_bytes: int = 1 << 20, ocr: bool = True) -> Document:
    """Read a document with the words that a step gives to its failures."""
    request = DocumentRequest(path, None, "auto", ocr, max_bytes)
    return documents.wait_for_document(HereReaders().submit(request), path)
