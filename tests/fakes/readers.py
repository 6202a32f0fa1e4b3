"""Documents read in the test's own process, or by processes that serve more than one run."""

import importlib
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Event, Lock
from typing import Any, ClassVar

import pytest

from paddock.engine.system.processes import python_environ
from paddock.steps.readers import documents, reader_process
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_pool import DocumentRequest, ReaderLimits, ReaderPool
from paddock.steps.tables.table_files import TableRequest


class KeptReaders(ReaderPool):
    """The readers of a run; the next run of this process takes over those that are well.

    A start takes a tenth of a second of a processor, that of one for tables six tenths.
    """

    kept: ClassVar[list[tuple[object, Any]]] = []
    """Each with the limits and the environment in which it was started."""
    turn: ClassVar[Lock] = Lock()

    def __init__(self, limits: ReaderLimits | None = None) -> None:
        super().__init__(limits)
        self._kind = (self._limits, python_environ(os.environ), os.geteuid())
        with self.turn:
            self._idle = [reader for kind, reader in self.kept if kind == self._kind]
            self.kept[:] = [pair for pair in self.kept if pair[0] != self._kind]

    def close(self) -> None:
        self._is_closed.set()
        if "_threads" in self.__dict__:
            self._threads.shutdown(wait=True, cancel_futures=True)
        with self.turn:
            self.kept.extend((self._kind, reader) for reader in self._idle)
            self._idle = [reader for _, reader in self.kept[:-2]]
            del self.kept[:-2]
        super().close()


def keep_readers() -> None:
    """Have runs of this process keep their readers for the next one."""
    for name in ("runner.core.session", "steps.readers.documents"):
        importlib.import_module(f"paddock.{name}").ReaderPool = KeptReaders  # type: ignore[attr-defined]


def end_readers() -> None:
    """End what was kept."""
    while KeptReaders.kept:
        KeptReaders.kept.pop()[1].end()


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


def has_readers(monkeypatch: pytest.MonkeyPatch, *versions: str) -> None:
    """Have these readers of documents installed, as parts of rules name them."""
    monkeypatch.setattr("paddock.steps.readers.reader.reader_versions", lambda: versions)
