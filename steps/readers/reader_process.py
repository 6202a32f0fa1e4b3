"""The process in which documents are read, one after the other, within limits on memory and CPU.

Requests come on standard input, answers go to standard output. Both are frames: a letter, two
lengths, a JSON object and bytes. Never pickles: a document that takes over this process must not
reach the run's. It ends when its input ends, when it was idle for `IDLE_S`, or when `reader_pool`
kills it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, process_time
from typing import Any, BinaryIO

from . import reader_dispatch
from .reader import BrokenReader, Document, LineBox, PageBox, QuoteSpan, Unreadable

HEADER = struct.Struct(">cQQ")
"""Kind of frame, bytes of its JSON, bytes after it."""
REQUEST, READY, PROGRESS, RESULT, FAILURE = b"Q", b"R", b"P", b"D", b"F"
IDLE_S = 30.0
OUT_OF_MEMORY = "memory"
"""The reason of a failure when memory runs out."""
_PROGRESS_EVERY_S = 1.0
_SLACK_BYTES = 256 * 1024**2
"""Memory for stacks and reserves of libraries."""
_RESERVE_BYTES = 4 * 1024**2
_TITLE_CHARS = 1_000
_MOST_LINES = 100_000  # about 6 MB as JSON; a thousand scanned pages


def pack_frame(kind: bytes, meta: Mapping[str, Any], data: bytes = b"") -> bytes:
    head = json.dumps(meta).encode()
    return b"".join((HEADER.pack(kind, len(head), len(data)), head, data))


def main(memory_bytes: int) -> None:
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    # Libraries and plug-ins have no standard streams.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    _limit_memory(memory_bytes)
    _send_frame(answers, pack_frame(READY, {"pid": os.getpid(), "by": reader_dispatch.__name__}))
    while (request := _next_request(requests)) is not None:
        _answer(answers, *request)


def _limit_memory(memory_bytes: int) -> None:
    """Limit memory; the system ends this process first when memory runs out."""
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # macOS ignores it
        most = memory_bytes + _SLACK_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _limit_cpu(seconds: float | None) -> None:
    """Limit the CPU time of one document: a last resort if the run is stopped."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = hard if seconds is None else int(process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def _next_request(requests: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read one request; None: input ended, or the process was idle."""
    if not select.select([requests], [], [], IDLE_S)[0]:
        return None
    head = _read_exactly(requests, HEADER.size)
    if len(head) < HEADER.size:
        return None
    _, n_meta, n_data = HEADER.unpack(head)
    meta, data = _read_exactly(requests, n_meta), _read_exactly(requests, n_data)
    return json.loads(meta), data


def _read_exactly(file: BinaryIO, n: int) -> bytes:
    found = bytearray()
    while len(found) < n and (piece := file.read(min(n - len(found), 1024**2))):
        found += piece
    return bytes(found)


def _send_frame(answers: BinaryIO, data: bytes) -> None:
    answers.write(data)
    answers.flush()


def _answer(answers: BinaryIO, asked: Mapping[str, Any], data: bytes) -> None:
    reserve: bytearray | None = bytearray(_RESERVE_BYTES)  # to report that memory ran out
    _limit_cpu(asked["cpu_s"])
    try:
        answer = _carried_out(answers, asked, data)
    except MemoryError:
        reserve = None
        answer = pack_frame(FAILURE, {"why": OUT_OF_MEMORY})
    del reserve
    _send_frame(answers, answer)


def _carried_out(answers: BinaryIO, asked: Mapping[str, Any], data: bytes) -> bytes:
    """Do what a request asks for; return the frame with its result, or with why there is none."""
    last = monotonic()

    def check() -> None:
        nonlocal last
        if monotonic() - last > _PROGRESS_EVERY_S:
            last = monotonic()
            _send_frame(answers, pack_frame(PROGRESS, {}))

    try:
        match asked["do"]:
            case "read":
                return _document_frame(_read_document(asked, data, check))
            case "draw":
                return pack_frame(RESULT, {}, _drawn_page(asked))
            case "find":
                return pack_frame(RESULT, {"boxes": _found_boxes(asked, data, check)})
            case other:
                return pack_frame(FAILURE, {"errno": 0, "why": f"nothing is called {other}"})
    except Unreadable as error:
        is_missing = isinstance(error, BrokenReader) and error.is_missing
        told = {"why": str(error), "remedy": error.remedy, "is_missing": is_missing}
        return pack_frame(FAILURE, told)
    except OSError as error:
        return pack_frame(FAILURE, {"errno": error.errno or 0, "why": error.strerror or str(error)})


def _read_document(asked: Mapping[str, Any], data: bytes, check: Callable[[], None]) -> Document:
    wishes = reader_dispatch.ReadOptions(asked["kind"], asked["encoding"], asked["ocr"], check)
    if asked["path"] is None:
        return reader_dispatch.read_document_bytes(data, wishes, asked["max_bytes"])
    return reader_dispatch.read_document(Path(asked["path"]), wishes, asked["max_bytes"])


def _drawn_page(asked: Mapping[str, Any]) -> bytes:
    path, most_px = Path(asked["path"]), asked["most_side_px"]
    return reader_dispatch.draw_page(path, asked["page"], most_px, asked["max_bytes"])


def _found_boxes(
    asked: Mapping[str, Any], data: bytes, check: Callable[[], None]
) -> list[PageBox | None]:
    quotes = [QuoteSpan(*one) for one in json.loads(data)]
    return reader_dispatch.find_boxes(Path(asked["path"]), quotes, check, asked["max_bytes"])


def _bounded(boxes: tuple[tuple[LineBox, ...], ...]) -> tuple[tuple[LineBox, ...], ...]:
    """Return where lines stand, or nothing: a frame has its limit, and the text is enough."""
    return boxes if sum(map(len, boxes)) <= _MOST_LINES else ()


def _document_frame(document: Document) -> bytes:
    pages = [page.encode("utf-8", "surrogatepass") for page in document.pages]
    meta = {
        "sizes": [len(page) for page in pages],
        "title": document.title[:_TITLE_CHARS],
        "media_type": document.media_type,
        "notes": document.notes,
        "why_empty": document.why_empty,
        "line_boxes": _bounded(document.line_boxes),
    }
    return pack_frame(RESULT, meta, b"".join(pages))


if __name__ == "__main__":
    main(int(sys.argv[1]))
