"""Pool of reader processes: no document can crash the run.

A process is started when it is first needed, reads one document after the other, and is killed and
replaced if a document takes too much time or memory: only that document fails. `process_guard`
starts each, so that none outlives Paddock, with the environment of commands and without the run's
files. The time limit of a document excludes its time in the queue.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from paddock.engine.system.frames import (
    FrameHead,
    FramePipes,
    FrameTooLarge,
    PipeClosed,
    pack_frame,
)
from paddock.engine.system.hardware import psutil_module, read_cpu, read_memory
from paddock.engine.system.processes import (
    GuardedPipes,
    exit_status_text,
    python_command,
    python_environ,
)
from paddock.engine.system.records import Struct, asdict, record_from, replace
from paddock.engine.system.text import canonical_json
from paddock.pipelines.text_cells import SourceText
from paddock.steps.base import ReaderRequest

from .reader import Document, Unreadable
from .reader_process import FAILURE, OUT_OF_MEMORY, PROGRESS

MOST_PROCESSES = 4
_MIB = 1024**2
_USUAL_BYTES = 1024 * _MIB  # OCR takes 700 MB; with enough memory each process gets twice this
_LEAST_BYTES = 256 * _MIB
_START_S = 60.0
_MOST_PROGRESS_PARTS = 30
"""The limit of a document, in time limits of a page: an hour by default."""
_OWN_SHARE = 0.9  # of the limit, that a reader has computed: the rest is the machine's
BUSY = 4.0  # limits of time, after which a busy machine is not waited for
_CPU_SHARE = 4.0  # OCR works with two threads; this limit is for a run that has been stopped
_MOST_BYTES_A_CHARACTER = 4
_MOST_BYTES_A_PIXEL = 4
_SMALL_CHARS = 10_000
_MOST_META_BYTES = 16 * _MIB


class ReaderLimits(Struct, frozen=True):
    timeout_s: float = 120.0
    """For each page or part; 0: no limit."""
    memory_bytes: int | None = None
    """None: by the memory of this machine or container."""


R = TypeVar("R")


class DocumentRequest(Struct, frozen=True):
    path: Path | None
    kind: str | None
    encoding: str
    ocr: bool
    max_bytes: int
    data: bytes = b""

    def frame(self) -> tuple[dict[str, Any], bytes]:
        path = None if self.path is None else self.path.absolute()  # the reader's folder is "/"
        head = asdict(replace(self, path=path))
        return {"do": "read", **head, "data": None}, self.data

    @property
    def most_answer_bytes(self) -> int:
        return _MOST_BYTES_A_CHARACTER * self.max_bytes

    def answer(self, meta: Mapping[str, Any], data: memoryview) -> Document:
        if min(meta["sizes"], default=0) < 0 or sum(meta["sizes"]) != len(data):
            raise ValueError("the pages are not the text")
        pages = [
            str(data[end - size : end], "utf-8", "surrogatepass")
            for size, end in zip(meta["sizes"], accumulate(meta["sizes"]), strict=True)
        ]
        return record_from(Document, {**meta, "pages": pages})


class PageRequest(Struct, frozen=True):
    path: Path
    page: int
    most_side_px: int
    max_bytes: int

    def frame(self) -> tuple[dict[str, Any], bytes]:
        return {"do": "draw", **asdict(replace(self, path=self.path.absolute()))}, b""

    @property
    def most_answer_bytes(self) -> int:
        return _MOST_BYTES_A_PIXEL * (self.most_side_px + 1) ** 2 + _MIB

    def answer(self, meta: Mapping[str, Any], data: memoryview) -> bytes:
        return bytes(data)


class EvidenceRequest(Struct, frozen=True):
    """Where the values of an answer are in the texts that it was made of."""

    value: Any
    schema: Any
    only: tuple[str, ...]
    sources: tuple[SourceText, ...]
    language: str = ""
    """That of the sources; empty: it is recognised where it decides."""

    @property
    def is_small(self) -> bool:
        """Whether it is not worth a process."""
        n_chars = sum(len(source.text) for source in self.sources)
        return n_chars <= _SMALL_CHARS and len(canonical_json(self.value)) <= _SMALL_CHARS

    def result(self) -> Any:
        from paddock.pipelines.checking.evidence import locate  # 30 ms; documents need none

        return locate(self.value, self.schema, self.sources, self.only, self.language)

    def frame(self) -> tuple[dict[str, Any], bytes]:
        texts = [source.text.encode("utf-8", "surrogatepass") for source in self.sources]
        sources = [
            {**asdict(source), "text": len(text)}
            for source, text in zip(self.sources, texts, strict=True)
        ]
        head = {
            "do": "locate",
            "answer": self.value,
            "schema": self.schema,
            "only": list(self.only),
            "language": self.language,
            "sources": sources,
        }
        return head, b"".join(texts)

    @property
    def most_answer_bytes(self) -> int:
        return _MOST_META_BYTES

    def answer(self, meta: Mapping[str, Any], data: memoryview) -> Any:
        return json.loads(bytes(data))


class ReadAbandoned(Exception):
    """Nothing waits for this document any more."""


class MissingDocument(Unreadable):
    """This machine lacks a package that a plug-in needs, which is no part of the item's hash."""

    kind = "missing"


class SystemRefusedDocument(Unreadable):
    """The operating system ended a reader that was within its limits; a retry may succeed."""

    kind = "io"


def processes_for(total_bytes: int, n_cores: int, wanted_bytes: int | None) -> tuple[int, int]:
    """Return how many processes read at once, and the memory of each: half of all at most.

    >>> gib = 1024**3
    >>> [(n, each // 2**20) for n, each in (processes_for(t * gib, 8, None) for t in (1, 2, 4, 16))]
    [(1, 512), (1, 1024), (2, 1024), (4, 2048)]
    """
    budget = total_bytes // 2
    n = max(1, min(MOST_PROCESSES, max(2, n_cores), budget // (wanted_bytes or _USUAL_BYTES)))
    return n, wanted_bytes or max(_LEAST_BYTES, min(2 * _USUAL_BYTES, budget // n))


class ReaderPool:
    """The reader processes of one run. Any thread may use it; `close` ends them."""

    def __init__(self, limits: ReaderLimits | None = None) -> None:
        self._limits = limits or ReaderLimits()
        self._idle: list[_ReaderProcess] = []
        self._lock = Lock()
        self._is_closed = Event()

    def submit(
        self,
        request: ReaderRequest[R],
        is_unwanted: Event | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> Future[R]:
        """Read a document once a process is free; `begun` is called then.

        The future raises Unreadable with the reason, OSError where the system refuses,
        ReadAbandoned once `is_unwanted` is set.
        """
        return self._threads.submit(self._read, request, is_unwanted or Event(), begun)

    n_elsewhere = 0
    """How many documents are read on other machines at once."""

    def bounds(self, is_unwanted: Event) -> DocumentLimits:
        """Return the limits of a document; it is abandoned once nothing waits for it."""
        return DocumentLimits(
            self._limits.timeout_s or math.inf,
            self._shares[1],
            lambda: is_unwanted.is_set() or self._is_closed.is_set(),
        )

    def close(self) -> None:
        self._is_closed.set()
        if "_threads" in self.__dict__:
            self._threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.end()

    @cached_property
    def _shares(self) -> tuple[int, int]:
        total, n_cores = read_memory().total_bytes, read_cpu().n_usable
        return processes_for(total, n_cores, self._limits.memory_bytes)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._shares[0], thread_name_prefix="paddock-reader")

    def _read(self, request: ReaderRequest[R], is_unwanted: Event, begun: Callable[[], None]) -> R:
        begun()
        bounds = self.bounds(is_unwanted)
        with self._lock:
            used = self._idle.pop() if self._idle else None
        if used is not None:
            with contextlib.suppress(_ReaderEnded):  # an earlier document may be the reason
                return self._read_by(used, request, bounds)
        try:
            return self._read_by(_ReaderProcess(bounds), request, bounds)
        except _ReaderEnded as error:
            raise bounds.ended(error.code) from None

    def _read_by(
        self, reader: _ReaderProcess, request: ReaderRequest[R], bounds: DocumentLimits
    ) -> R:
        is_well = False
        try:
            found = reader.read(request, bounds)
            is_well = True
        finally:
            with self._lock:
                is_kept = is_well and not self._is_closed.is_set()
                if is_kept:
                    self._idle.append(reader)
            if not is_kept:
                reader.end()
        if isinstance(found, OSError | Unreadable):
            raise found
        return found


class ReaderTime(NamedTuple):
    wall_s: float
    cpu_s: float
    """That its reader has had."""


class DocumentLimits(Struct, frozen=True):
    """Limits of one document, and whether it is still wanted."""

    timeout_s: float
    memory_bytes: int
    is_unwanted: Callable[[], bool]

    @property
    def total_s(self) -> float:
        return self.timeout_s * _MOST_PROGRESS_PARTS

    def check(self, begun: ReaderTime, now: ReaderTime, *, is_part: bool) -> None:
        """Raise Unreadable if a document, or a part of it, has had its time.

        1. It is too slow if its reader has had the time of a processor as well.
        2. Otherwise the machine is: the reader goes on for some time, and the next run tries again.
        """
        limit_s = self.timeout_s if is_part else self.total_s
        wall_s, cpu_s = now.wall_s - begun.wall_s, now.cpu_s - begun.cpu_s
        if wall_s > limit_s and cpu_s >= _OWN_SHARE * limit_s:  # 1
            raise self.too_slow(is_part=is_part)
        if wall_s > BUSY * limit_s:  # 2
            raise SystemRefusedDocument(
                f"is not read: the machine is too busy, its reader had {cpu_s:,.0f} s of a "
                f"processor in {wall_s:,.0f} s",
                "Run fewer programs, or raise PADDOCK_READ_TIMEOUT.",
            )

    def too_slow(self, *, is_part: bool) -> Unreadable:
        if is_part:
            why = f"takes more than {self.timeout_s:,g} s for one of its pages or parts"
        else:
            why = f"takes more than {self.total_s:,g} s"
        return Unreadable(f"is not read: it {why}", "Raise PADDOCK_READ_TIMEOUT to read it.")

    def too_large(self) -> Unreadable:
        return Unreadable(
            f"is not read: it needs more than {self.memory_bytes // _MIB:,} MiB of memory",
            "Raise PADDOCK_READ_MEMORY to read it.",
        )

    def ended(self, code: int | None) -> Unreadable:
        if code is None:
            return self.too_large()
        if code == -signal.SIGKILL:
            return SystemRefusedDocument(
                "is not read: the system ended its reader, as it does where memory runs out",
                "Free memory, or set PADDOCK_READ_MEMORY lower.",
            )
        if code == -signal.SIGXCPU:
            return self.too_slow(is_part=False)
        if code < 0:
            room = f"{self.memory_bytes // _MIB:,} MiB"
            return Unreadable(
                f"is not read: it is damaged, or needs more than {room} of memory; its reader was "
                f"{exit_status_text(code)}",
                "Save it in another program, or raise PADDOCK_READ_MEMORY.",
            )
        return Unreadable(f"is not read: its reader ended with code {code}")


class _ReaderEnded(Exception):
    """The process ended by itself with this code; None: out of memory."""

    def __init__(self, code: int | None) -> None:
        self.code = code


class _ReaderProcess:
    def __init__(self, bounds: DocumentLimits) -> None:
        module = f"{__package__}.reader_process"
        command = python_command("-m", module, str(bounds.memory_bytes))
        self._pipes = GuardedPipes(command, environ=python_environ(os.environ))
        self._frames = FramePipes(self._pipes.stdin, self._pipes.stdout)
        self._watched: Any = None
        try:
            started = replace(bounds, timeout_s=_START_S)  # a page's time is not that of Python
            ready, _ = self._frame(b"", started, self._time())
            with contextlib.suppress(psutil_module().Error):
                self._watched = psutil_module().Process(int(ready["pid"]))
        except BaseException as error:
            self.end()
            if isinstance(error, _ReaderEnded | Unreadable):
                why = "is not read: no process to read it can be started"
                raise SystemRefusedDocument(why, "Free memory, or run fewer programs.") from error
            raise

    def read(self, request: ReaderRequest[R], bounds: DocumentLimits) -> R | OSError | Unreadable:
        """Read one document, or return why it cannot be read.

        Raises:
            Unreadable: it took too much time or memory; the process must be ended.
            _ReaderEnded: the process has ended.
            ReadAbandoned: nothing waits for it.
        """
        head, data_sent = request.frame()
        head["memory_bytes"] = bounds.memory_bytes
        head["cpu_s"] = None if math.isinf(bounds.total_s) else bounds.total_s * _CPU_SHARE
        sent = pack_frame(head, data_sent, errors="surrogatepass")
        begun = self._time()
        meta, data = self._frame(sent, bounds, begun, request.most_answer_bytes)
        while meta["event"] == PROGRESS:
            meta, data = self._frame(b"", bounds, begun, request.most_answer_bytes)
        if meta["event"] == FAILURE and meta["why"] == OUT_OF_MEMORY:
            raise _ReaderEnded(None)
        return outcome(request, meta, data)

    def _frame(
        self, sent: bytes, bounds: DocumentLimits, begun: ReaderTime, max_bytes: int = 0
    ) -> tuple[FrameHead, memoryview]:
        part = self._time()

        def check() -> None:
            if bounds.is_unwanted():
                raise ReadAbandoned
            now = self._time()
            bounds.check(part, now, is_part=True)
            bounds.check(begun, now, is_part=False)
            if self._used_bytes() > bounds.memory_bytes:
                raise bounds.too_large()

        try:
            return self._frames.ask(sent, check, max_bytes)
        except FrameTooLarge:
            raise bounds.too_large() from None
        except PipeClosed:
            code, most_bytes = self._pipes.wait()
            # A library in C++ aborts where memory is short, and grows too fast to be seen at it.
            is_too_large = code < 0 and code != -signal.SIGKILL and most_bytes > bounds.memory_bytes
            raise _ReaderEnded(None if is_too_large else code) from None

    def _time(self) -> ReaderTime:
        cpu_s = monotonic()  # where it cannot be asked: as if it computed all the time
        with contextlib.suppress(psutil_module().Error):
            cpu_s = cpu_s if self._watched is None else sum(self._watched.cpu_times()[:2])
        return ReaderTime(monotonic(), cpu_s)

    def _used_bytes(self) -> int:
        with contextlib.suppress(psutil_module().Error):
            return 0 if self._watched is None else int(self._watched.memory_info().rss)
        return 0

    def end(self) -> None:
        with contextlib.suppress(psutil_module().Error):
            if self._watched is not None:
                self._watched.kill()  # so that the guard sees its end, and leaves no zombie
        self._pipes.end()


def outcome(
    request: ReaderRequest[R], meta: Mapping[str, Any], data: memoryview
) -> R | OSError | Unreadable:
    """Return the result of a reader process's last frame, or why there is none."""
    if meta["event"] != FAILURE:
        return request.answer(meta, data)
    if "errno" in meta:
        return OSError(meta["errno"], meta["why"], meta.get("file") or None)
    return (MissingDocument if meta["is_missing"] else Unreadable)(meta["why"], meta["remedy"])
