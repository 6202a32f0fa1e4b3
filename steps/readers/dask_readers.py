"""Readers at Dask workers: a document goes there as bytes, and its text comes back as bytes.

A worker calls `read_at_worker`, which has the document read by a reader process there, within the
limits of this run. No folder and no database is shared. Dask unpickles what its peers send: who
takes part in the cluster runs code as this user (`parse_dask_scheduler`). What comes back is
checked as the answer of a reader process here is.

Only workers that read with the same as this machine (`reads_with`) read; others say so, and get no
more documents. One whose worker is lost, hangs or answers anything else is tried at another worker,
then here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Condition, Event, Thread
from time import monotonic
from typing import Any, TypeVar

from paddock.engine.errors import EngineError
from paddock.engine.system import no_links
from paddock.engine.system.distribution import own_version
from paddock.engine.system.frames import PipeClosed, pack_frame, read_frame
from paddock.engine.system.text import one_line
from paddock.steps.base import ReaderRequest

from .reader import Document, Unreadable, ocr_models_folder, reader_versions
from .reader_pool import (
    BUSY,
    MOST_PROCESSES,
    DocumentLimits,
    DocumentRequest,
    ReadAbandoned,
    ReaderLimits,
    ReaderPool,
    outcome,
)
from .reader_process import FAILURE, document_frame

R = TypeVar("R")

MOST_SENT_BYTES = 64 * 1024**2
_MOST_AT_ONCE = 128
_MOST_WORKERS_TRIED = 2
_MOST_FAILURES = 3  # one after the other, of a worker
_LOOK_S, _POLL_S, _LEAVE_S = 1.0, 0.1, 2.0
_SILENT_S = 20.0  # workers report to the scheduler every 0.5 s, hundreds of them every 2 to 5 s
_CONNECT_S, _ANSWER_S, _AGAIN_S = 10.0, 20.0, 30.0
_GRACE_S = 60.0  # to import Paddock, to start a reader process, and for the way
_SHOWN_CHARS = 200
_LOST = "it is lost, or hangs"
_OTHER_READERS = "other readers"
"""Event of a worker that reads with something else, besides those of a reader's frames."""
_LIBRARIES = (
    "beautifulsoup4", "kreuzberg", "lxml", "markdownify", "numpy", "olefile", "onnxruntime",
    "opencv-python", "opencv-python-headless", "pi-heif", "pillow", "py3langid",
    "pyclipper", "pypdfium2", "python-docx", "python-pptx", "rapidocr", "shapely",
)  # fmt: skip


# --- at the worker


def read_at_worker(sent: bytes) -> bytes:
    """Read a document that came as a frame; return the frame of its text, or of why it has none.

    It raises nothing that a document causes: Dask's log would show the document.
    """
    head, data = read_frame(BytesIO(sent))
    if head["reads_with"] != reads_with():
        return pack_frame({"event": _OTHER_READERS, "reads_with": reads_with()})
    readers = _readers(ReaderLimits(head["timeout_s"], head["memory_bytes"]))
    worker = import_module("distributed").get_worker()
    task, abandoned = worker.get_current_task(), Event()
    scratch = worker.local_directory  # Dask clears it after a worker that was killed
    with TemporaryDirectory(prefix="paddock-read-", dir=scratch) as folder:
        path = Path(folder).resolve() / Path(head["path"]).name
        path.write_bytes(data)
        wishes = head["kind"], head["encoding"], head["ocr"], head["max_bytes"]
        try:
            job = readers.submit(DocumentRequest(path, *wishes), abandoned)
            while not job.done():
                known = worker.state.tasks.get(task)
                if known is None or known.state != "executing":
                    abandoned.set()  # by a run that has ended; else it would hold the place
                with contextlib.suppress(TimeoutError):
                    job.exception(_POLL_S)
            return document_frame(job.result())
        except ReadAbandoned:
            return b""
        except Unreadable as error:
            why = {"why": str(error), "remedy": error.remedy, "is_missing": error.kind != "other"}
            return pack_frame({"event": FAILURE, **why}, errors="surrogatepass")


@cache
def _readers(limits: ReaderLimits) -> ReaderPool:
    """Return the pool of a worker, which lives as long as it; idle processes end by themselves."""
    return ReaderPool(limits)


@cache
def reads_with() -> dict[str, str]:
    """Return what decides a document's text: versions of readers and libraries, models of OCR."""
    found = {"paddock": own_version(), "python": platform.python_version()}
    found["readers"] = ", ".join(reader_versions())
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    for what, folder in ("source", Path(__file__).parent), ("models of OCR", ocr_models_folder()):
        files = sorted(filter(Path.is_file, folder.glob("*")))
        digests = [(file.name, sha256(file.read_bytes()).hexdigest()) for file in files]
        found[what] = sha256(repr(digests).encode()).hexdigest()[:12]
    return found


# --- here


class MustReadElsewhere(Exception):
    """A document has to be read elsewhere; the text says why."""


class OtherReaders(MustReadElsewhere):
    """The worker reads with something else than this machine."""


class _ReadingWorker:
    def __init__(self, address: str, n_slots: int) -> None:
        self.address, self.n_slots = address, n_slots
        self.n_used = self.n_failed = 0
        self.last_seen, self.heard_at = 0.0, monotonic()
        """When the scheduler heard of it, by the scheduler's clock; and when that was news here."""

    @property
    def is_heard(self) -> bool:
        return monotonic() - self.heard_at < _SILENT_S


class DaskReaders:
    """Implements `paddock.steps.base.DocumentReaders`: files at workers, all else by `here`.

    Any thread may use it. A thread of its own, begun with the first document, connects, and looks
    which workers there are and are alive.
    """

    def __init__(self, address: str, here: ReaderPool, note: Callable[[str], None]) -> None:
        """`note` reports which workers are not used; any thread calls it.

        Raises:
            EngineError: the extra is not installed.
        """
        if find_spec("distributed") is None:
            raise EngineError(
                f"reading at '{address}' needs the extra 'dask', which is not installed. "
                "Install it: pip install 'paddock-llm[dask]', or unset PADDOCK_READERS."
            )
        self._address, self._here, self._note = address, here, note
        self._noted = set[str]()
        self._closing, self._is_known = Event(), Event()
        self._changed = Condition()
        self._client: Any = None  # most of Dask's methods have no types
        self._workers: dict[str, _ReadingWorker] = {}
        self._watch: Thread | None = None
        self._begun_at = 0.0
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="paddock-dask")

    @property
    def n_elsewhere(self) -> int:
        self._begin()
        with self._changed:
            return sum(worker.n_slots for worker in self._workers.values() if worker.is_heard)

    def submit(
        self,
        request: ReaderRequest[R],
        is_unwanted: Event | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> Future[R]:
        if not isinstance(request, DocumentRequest) or request.path is None:
            return self._here.submit(request, is_unwanted, begun)
        self._begin()
        wishes = request, request.path, is_unwanted or Event(), begun
        return self._threads.submit(self._read, *wishes)

    def close(self) -> None:
        self._closing.set()
        self._here.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._watch is not None:
            self._watch.join(_LEAVE_S)  # a scheduler that hangs holds it longer

    def _read(
        self, request: DocumentRequest, path: Path, is_unwanted: Event, begun: Callable[[], None]
    ) -> Document:
        """Read a document: 1. at a worker, 2. at another one, 3. here."""
        bounds, tried = self._here.bounds(is_unwanted), list[str]()
        with contextlib.suppress(OSError):  # of the file itself; read here it has its reason
            size_bytes = path.lstat().st_size
            is_sent = 0 < size_bytes <= min(MOST_SENT_BYTES, request.max_bytes)
            while is_sent and len(tried) < _MOST_WORKERS_TRIED:
                worker = self._free_worker(tried, bounds)
                if worker is None:
                    break
                begun()
                try:
                    found = self._read_at(worker, request, path, bounds)
                except MustReadElsewhere as error:
                    worker.n_failed += 1
                    if is_other := isinstance(error, OtherReaders):
                        what = f"is not used: {error}"
                    else:
                        tried.append(worker.address)
                        what = f"failed: {error}"
                    if is_other or worker.n_failed >= _MOST_FAILURES:
                        worker.n_slots = 0  # one that fails at once would have most room
                    self._note_once(f"The reader at {worker.address} {what}.")
                else:
                    worker.n_failed = 0
                    return found
                finally:
                    with self._changed:
                        worker.n_used -= 1
                        self._changed.notify()
        return self._here.submit(request, is_unwanted, begun).result()

    def _free_worker(self, tried: Sequence[str], bounds: DocumentLimits) -> _ReadingWorker | None:
        """Wait for the worker with most room and take a place there; None: there is no worker."""
        while not bounds.is_unwanted():
            if not self._is_known.wait(_POLL_S):
                if monotonic() - self._begun_at > _ANSWER_S:  # Dask's own limit may not hold
                    what = f"the readers at {self._address} do not answer"
                    self._note_once(f"Documents are read here: {what}.")
                    return None
                continue
            with self._changed:
                every = self._workers.values()
                usable = [worker for worker in every if worker.n_slots and worker.is_heard]
                usable = [worker for worker in usable if worker.address not in tried]
                if not usable:
                    return None
                worker = min(usable, key=lambda worker: worker.n_used / worker.n_slots)
                if worker.n_used < worker.n_slots:
                    worker.n_used += 1
                    return worker
                self._changed.wait(_LOOK_S)
        raise ReadAbandoned

    def _read_at(
        self, worker: _ReadingWorker, request: DocumentRequest, path: Path, bounds: DocumentLimits
    ) -> Document:
        with no_links.open_file(path) as file:
            data = file.read(MOST_SENT_BYTES)
        head = {**request.frame()[0], "path": path.name, "memory_bytes": bounds.memory_bytes}
        head["reads_with"] = reads_with()
        head["timeout_s"] = 0.0 if math.isinf(bounds.timeout_s) else bounds.timeout_s
        sent = pack_frame(head, data, errors="surrogatepass")
        try:
            where = {"workers": [worker.address], "allow_other_workers": False}
            job = self._client.submit(read_at_worker, sent, pure=False, retries=0, **where)
            try:
                self._wait_for(job, worker, bounds)
                return checked_answer(request, job.result(timeout=_GRACE_S))
            finally:
                job.release()
        except (MustReadElsewhere, ReadAbandoned, Unreadable):
            raise
        except CancelledError as error:  # the client is cut off
            raise MustReadElsewhere(_LOST) from error
        except ImportError as error:  # where Paddock is not installed
            raise OtherReaders(_shown(error)) from error
        except Exception as error:  # what the worker, or Dask's client where it is cut off, raises
            raise MustReadElsewhere(_shown(error)) from error

    def _wait_for(self, job: Any, worker: _ReadingWorker, bounds: DocumentLimits) -> None:
        ends, is_done = monotonic() + BUSY * bounds.total_s + _GRACE_S, Event()
        job.add_done_callback(lambda _: is_done.set())
        while not is_done.wait(_POLL_S) and not bounds.is_unwanted():
            is_there = worker.is_heard and self._workers.get(worker.address) is worker
            if not is_there or monotonic() > ends:
                raise MustReadElsewhere(_LOST)
        if bounds.is_unwanted():
            raise ReadAbandoned

    def _begin(self) -> None:
        with self._changed:
            if self._watch is None:
                self._begun_at = monotonic()
                self._watch = Thread(target=self._watch_workers, name="paddock-dask", daemon=True)
                self._watch.start()

    def _watch_workers(self) -> None:
        pause_s = 0.0
        while not self._closing.wait(pause_s):
            try:
                if self._client is None or self._client.status == "closed":
                    self._client, self._workers = _connected(self._address), {}
                seen = self._client.scheduler_info(n_workers=-1).get("workers", {})
                pause_s = _LOOK_S
            except Exception as error:  # Dask's client raises of many kinds
                what = f"the readers at {self._address} cannot be asked ({_shown(error)})"
                self._note_once(f"Documents are read here: {what}.")
                seen, pause_s = {}, _AGAIN_S
            with self._changed:
                self._workers = {
                    address: self._workers.get(address)
                    or _ReadingWorker(address, min(int(shown["nthreads"]), MOST_PROCESSES))
                    for address, shown in seen.items()
                }
                for address, worker in self._workers.items():
                    if seen[address]["last_seen"] != worker.last_seen:
                        worker.last_seen, worker.heard_at = seen[address]["last_seen"], monotonic()
                self._changed.notify_all()
            self._is_known.set()
        with contextlib.suppress(Exception):  # whatever became of the scheduler
            self._client.close(timeout=_LEAVE_S)

    def _note_once(self, text: str) -> None:
        if text not in self._noted and not self._closing.is_set():
            self._noted.add(text)
            self._note(text)


def _connected(address: str) -> Any:
    reads_with()  # so that it is known to all threads
    # Documents travel in the graph. What became of the cluster, notes of the run say.
    import_module("dask").config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})
    wishes: dict[str, Any] = {"set_as_default": False, "direct_to_workers": False}
    distributed = import_module("distributed")  # which sets levels of its own
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed.Client(address, timeout=_CONNECT_S, **wishes)


def checked_answer(request: DocumentRequest, sent: object) -> Document:
    """Return the document that a worker sent.

    Raises:
        Unreadable: the worker's reason why it cannot be read.
        MustReadElsewhere: it sent anything else.
    """
    try:
        meta, data = read_frame(BytesIO(sent if isinstance(sent, bytes) else b""))
        if meta["event"] == _OTHER_READERS:
            here, there = reads_with(), dict(meta["reads_with"])
            differing = [name for name in {**here, **there} if here.get(name) != there.get(name)]
            what = "{} is {} there, {} here".format
            why = (what(n, there.get(n, "none"), here.get(n, "none")) for n in differing)
            found: object = OtherReaders(one_line("; ".join(why), _SHOWN_CHARS))
        else:
            found = outcome(request, meta, memoryview(data)[: request.most_answer_bytes])
    except (PipeClosed, ValueError, TypeError, LookupError, AttributeError) as error:
        raise MustReadElsewhere("it sends no answer of a reader") from error
    if isinstance(found, Document):
        return found
    if isinstance(found, OtherReaders) or type(found) is Unreadable:
        raise found
    raise MustReadElsewhere(_shown(found))


def _shown(error: object) -> str:
    return one_line(f"{type(error).__name__}: {error}".rstrip("."), _SHOWN_CHARS)
