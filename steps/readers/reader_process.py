"""Read documents, each with the reader of its kind; and the process that does so within limits.

Run as a module, it reads one document after the other, within limits on memory and CPU. Requests
come on standard input, answers go to standard output, both as frames. It ends when its input ends,
when it was idle for `IDLE_S`, or when `reader_pool` kills it.

In the run's own process only small texts are read (`read_small`). Imports no step, so that a reader
process starts quickly. Whatever cannot be read raises `Unreadable` with the reason, or the system's
OSError.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from time import monotonic, process_time
from typing import Any, BinaryIO

from paddock.engine.system import no_links
from paddock.engine.system.frames import PipeClosed, pack_frame, read_frame, send_frame, take_pipes
from paddock.engine.system.os_errors import is_transient
from paddock.engine.system.records import Struct, asdict, replace
from paddock.pipelines.text_cells import SourceText

from . import reader, text_files
from .document_kinds import (
    AFTER_PLUGINS,
    HEAD_BYTES,
    MEDIA_TYPES,
    MODULES,
    UnknownKind,
    kind_by_name,
    kind_of,
)
from .reader import MOST_UNPACKED_BYTES, BrokenReader, Document, PartCheck, ReadsFile, Unreadable

SMALL_BYTES = 256 * 1024
"""A text of this size takes at most 0.1 s and 10 MB (measured with odd encodings and deep JSON)."""
_SMALL_KINDS = text_files.TEXT_KINDS - {"html"}
READY, PROGRESS, RESULT, FAILURE = "ready", "progress", "result", "failure"
IDLE_S = 30.0
OUT_OF_MEMORY = "memory"
"""The reason of a failure when memory runs out."""
_PROGRESS_EVERY_S = 1.0
_SLACK_BYTES = 256 * 1024**2
"""Memory for stacks and reserves of libraries."""
_RESERVE_BYTES = 4 * 1024**2
_TITLE_CHARS = 1_000
_MOST_DEPTH = 3  # of documents within documents; each may hold hundreds
_MOST_CELL_CHARS = 8_000_000  # of two thousand full pages


class ReadOptions(Struct, frozen=True):
    kind: str | None = None
    """None finds it out by content and name."""
    encoding: str = "auto"
    ocr: bool = True
    check: PartCheck = lambda n_characters=0, n_unpacked_bytes=0: None
    """Called before each page or part: the time that one may take begins again."""
    depth: int = 0
    """How many documents this one lies in, and itself."""
    name: str = ""

    def within(self, kind: str, file: BinaryIO, name: str = "") -> Document:
        """Read a document that is no plain text itself, or any that lies within this one."""
        if kind in text_files.TEXT_KINDS:
            data = file.read()
            found = text_files.read_text_file(data, kind, declared=("",))
            return _with_inner(found, kind, data, self)
        if kind not in MODULES:
            raise Unreadable(f"is of a kind that nothing reads: `{kind}`")
        if self.depth >= _MOST_DEPTH and kind != "image":
            raise Unreadable("lies within too many others")
        read: ReadsFile = getattr(_reader_module(kind), f"read_{kind}")
        return read(file, replace(self, depth=self.depth + 1, name=name))


@contextmanager
def _reading_errors() -> Iterator[None]:
    """Convert an unknown kind and deep nesting to Unreadable."""
    try:
        yield
    except UnknownKind as error:
        raise Unreadable(f"is {error}", error.remedy) from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply to be read") from error


def read_document(path: Path, options: ReadOptions, max_bytes: int) -> Document:
    with _opened(path) as file, _reading_errors():
        _check_size(file, max_bytes)
        return _checked_length(_read_by_kind(path, file, options), max_bytes)


def read_document_bytes(data: bytes, options: ReadOptions, max_bytes: int) -> Document:
    """Read a document of a known kind that is no file, such as a page that was fetched."""
    with _reading_errors():
        kind = options.kind or "txt"
        if kind in text_files.TEXT_KINDS:
            document = text_files.read_text_file(data, kind, options.encoding)
            document = _with_inner(document, kind, data, options)
        else:
            document = options.within(kind, BytesIO(data))
        return _checked_length(document, max_bytes)


def read_small(path: Path, options: ReadOptions, max_bytes: int) -> Document | None:
    """Read a plain text that takes next to no time and memory; None: it is another document."""
    kind = options.kind
    if (kind or kind_by_name(path) or _plugin_for(path)) not in ("", *_SMALL_KINDS):
        return None
    with _opened(path) as file:
        if _check_size(file, max_bytes) > SMALL_BYTES:
            return None
        data = file.read(SMALL_BYTES + 1)
    if not data or len(data) > SMALL_BYTES:
        return _empty_document(path, kind) if not data else None
    with _reading_errors():
        kind = options.kind or kind_of(path, data[:HEAD_BYTES])
    if kind not in _SMALL_KINDS:
        return None
    if options.encoding == "auto":
        try:
            data.decode()
        except UnicodeDecodeError:
            return None  # an encoding is found out by a model of languages
    is_named = options.kind is not None
    document = text_files.read_text_file(data, kind, options.encoding, is_named=is_named)
    return None if document.files else document  # which may take any time and memory


def draw_page(path: Path, number: int, most_side_px: int, max_bytes: int) -> bytes:
    """Return a page of a PDF, or a picture of an image file, as a PNG within limits."""
    with _opened_kind(path, max_bytes) as (kind, file):
        if kind == "pdf":
            pdfium = importlib.import_module(".pdfium", __package__)
            return png_bytes(pdfium.draw_pdf_page(file, number, most_side_px))
        if kind == "image":
            return png_bytes(_reader_module(kind).draw_picture(file, number, most_side_px))
    raise Unreadable("has no pages that can be shown: it is not a PDF or a picture")


@contextmanager
def _opened_kind(path: Path, max_bytes: int) -> Iterator[tuple[str, BinaryIO]]:
    with _opened(path) as file:
        _check_size(file, max_bytes)
        head = file.read(HEAD_BYTES)
        file.seek(0)
        with _reading_errors():
            kind = kind_of(path, head)
        yield kind, file


def png_bytes(pixels: Any) -> bytes:
    """Return an array of height x width x 3 bytes, blue first, as a PNG file."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels[:, :, ::-1])  # 0: no filter
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", size), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = no_links.open_file(path)
    except no_links.NotRegularFile as error:
        raise Unreadable(f"is {error.what}, not a document") from error
    with file:
        yield file


def _check_size(file: BinaryIO, max_bytes: int) -> int:
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes > max_bytes:
        raise Unreadable(
            f"has {size_bytes:,} bytes, and `max_bytes` allows {max_bytes:,}",
            "Raise `max_bytes` to read it.",
        )
    return size_bytes


def _checked_length(document: Document, max_bytes: int) -> Document:
    """Refuse more text than a text file may have: a small archive or PDF can hold gigabytes."""
    n_characters = sum(map(len, document.pages))
    if n_characters > max_bytes:
        raise _too_long(f"{n_characters:,}", max_bytes)
    return document


def _too_long(n_characters: str, max_bytes: int) -> Unreadable:
    return Unreadable(
        f"has {n_characters} characters of text, and `max_bytes` allows {max_bytes:,}",
        "Raise `max_bytes` to read it.",
    )


def _read_by_kind(path: Path, file: BinaryIO, options: ReadOptions) -> Document:
    plugin = options.kind or _plugin_for(path)
    own = MEDIA_TYPES.keys() - AFTER_PLUGINS.intersection(reader.plugin_kinds())
    if plugin and plugin not in own:
        with tempfile.TemporaryDirectory(prefix="paddock-read-") as folder:
            own_path = Path(folder, path.name)  # plug-ins open paths, and get that of an open file
            own_path.symlink_to(f"/dev/fd/{file.fileno()}")
            own_reader = reader.load_reader(plugin)
            try:
                document = own_reader().read(own_path)
            except (Unreadable, OSError, MemoryError):
                raise
            except Exception as error:  # a plug-in may raise anything; its name is in the message
                why = f"{type(error).__name__}: {error}"
                is_missing = isinstance(error, ModuleNotFoundError)
                raise BrokenReader(plugin, why, is_missing=is_missing) from error
            if not isinstance(document, Document):
                raise BrokenReader(plugin, "it does not return a `Document`")
            return replace(document, media_type=document.media_type or own_reader.media_type)
    head = file.read(HEAD_BYTES)
    if not head:  # which is no PDF, nor anything else
        return _empty_document(path, options.kind)
    kind = options.kind or kind_of(path, head)
    if kind in text_files.TEXT_KINDS:
        is_named = options.kind is not None
        data = head + file.read()
        document = text_files.read_text_file(data, kind, options.encoding, is_named=is_named)
        return _with_inner(document, kind, data, options)
    file.seek(0)
    return options.within(kind, file, path.name)


def _with_inner(document: Document, kind: str, data: bytes, options: ReadOptions) -> Document:
    """Add what the files in an e-invoice say, and the pictures that a page holds itself."""
    has_pictures = kind == "html" and b"data:image/" in data
    if not document.files and not has_pictures:
        return document
    inner_documents = importlib.import_module(".inner_documents", __package__)
    if has_pictures:
        pictures = inner_documents.InnerPictures(options)
        text = "\n\n".join(filter(None, (document.text, pictures.of_page(data))))
        return replace(document, pages=(text,), notes=(*document.notes, *pictures.notes()))
    inner = inner_documents.InnerDocuments(
        replace(options, depth=options.depth + 1),
        "embedded file",
        list(document.pages),
        [""] * len(document.pages),
        list(document.notes),
        list(document.invoices),
    )
    inner.add_embedded(document.files)
    return inner.document("", kind)  # type: ignore[no-any-return]  # as of each module by name


def _empty_document(path: Path, kind: str | None) -> Document:
    named = kind_by_name(path)
    by_name = MEDIA_TYPES["txt" if named in ("", "image") else named]
    return Document(("",), "", MEDIA_TYPES.get(kind or "", by_name))


def _plugin_for(path: Path) -> str:
    """Return the plug-in for a file; most built-in readers go first."""
    if kind_by_name(path) not in {"", *AFTER_PLUGINS} or not reader.plugin_kinds():
        return ""
    for name in reader.plugin_kinds():
        with contextlib.suppress(BrokenReader):  # those that cannot be imported are skipped
            if path.suffix.lower() in reader.load_reader(name).suffixes:
                return name
    return ""


def _reader_module(kind: str) -> Any:
    """Return the module of a kind other than plain text; its function is `read_` and the kind."""
    return importlib.import_module(f".{MODULES[kind]}", __package__)


# --- the process


def _frame(event: str, meta: Mapping[str, Any], data: bytes = b"") -> bytes:
    return pack_frame({"event": event, **meta}, data, errors="surrogatepass")


def main(memory_bytes: int) -> None:
    requests, answers = take_pipes()  # libraries and plug-ins print to nowhere
    # Limit memory; the system ends this process first when memory runs out.
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # macOS ignores it
        most = memory_bytes + _SLACK_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    send_frame(answers, _frame(READY, {"pid": os.getpid()}))
    with contextlib.suppress(PipeClosed):
        while select.select([requests], [], [], IDLE_S)[0]:
            _answer(answers, *read_frame(requests))


def _answer(answers: BinaryIO, request: Mapping[str, Any], data: bytes) -> None:
    reserve: bytearray | None = bytearray(_RESERVE_BYTES)  # to report that memory ran out
    # Limit the CPU time of one document: a last resort if the run is stopped
    seconds = request["cpu_s"]
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = hard if seconds is None else int(process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
    try:
        answer = _carried_out(answers, request, data)
    except MemoryError:
        reserve = None
        answer = _frame(FAILURE, {"why": OUT_OF_MEMORY})
    del reserve
    send_frame(answers, answer)


def _carried_out(answers: BinaryIO, request: Mapping[str, Any], data: bytes) -> bytes:
    """Do what a request asks for; return the frame with its result, or with why there is none."""
    last, n_read, n_unpacked = monotonic(), 0, 0

    def check(n_characters: int = 0, n_unpacked_bytes: int = 0) -> None:
        nonlocal last, n_read, n_unpacked
        n_read += n_characters
        if n_unpacked + n_unpacked_bytes > MOST_UNPACKED_BYTES:  # archives in archives have more
            most = f"{MOST_UNPACKED_BYTES // 1024**2} MiB"
            raise Unreadable(f"would unpack to over {most}, with what was unpacked before it")
        n_unpacked += n_unpacked_bytes
        if n_read > request["max_bytes"]:  # parts that a small archive repeats take hours
            raise _too_long(f"{n_read:,} or more", request["max_bytes"])
        if monotonic() - last > _PROGRESS_EVERY_S:
            last = monotonic()
            send_frame(answers, _frame(PROGRESS, {}))

    try:
        match request["do"]:
            case "read":
                wishes = request["kind"], request["encoding"], request["ocr"], check
                options, most_bytes = ReadOptions(*wishes), request["max_bytes"]
                if request["path"] is None:
                    return document_frame(read_document_bytes(data, options, most_bytes))
                return document_frame(read_document(Path(request["path"]), options, most_bytes))
            case "draw":
                path, most_px = Path(request["path"]), request["most_side_px"]
                page = draw_page(path, request["page"], most_px, request["max_bytes"])
                return _frame(RESULT, {}, page)
            case "locate":
                sources = list[SourceText]()
                at = 0
                for source in request["sources"]:
                    n_bytes = source["text"]
                    text = data[at : at + n_bytes].decode("utf-8", "surrogatepass")
                    sources.append(SourceText(**{**source, "text": text}))
                    at += n_bytes
                evidence = importlib.import_module("paddock.pipelines.checking.evidence")
                answer, schema = request["answer"], request["schema"]
                only, language = request["only"], request["language"]
                found = evidence.locate(answer, schema, sources, only, language)
                return _frame(RESULT, {}, json.dumps(found).encode())
            case "table":
                work = importlib.import_module("paddock.steps.tables.table_work")
                return _frame(RESULT, *work.carry_out(request, data, check))
            case other:
                return _frame(FAILURE, {"errno": 0, "why": f"nothing is called {other}"})
    except (Unreadable, OSError) as error:
        behind: BaseException | None = error  # libraries call damaged what a disk cannot read
        while behind is not None and not is_transient(behind):
            behind = behind.__cause__ or behind.__context__
        if isinstance(system := behind or error, OSError):
            head = {"errno": system.errno or 0, "why": system.strerror or str(system)}
            return _frame(FAILURE, {**head, "file": str(system.filename or "")})
        is_missing = isinstance(error, BrokenReader) and error.is_missing
        head = {"why": str(error), "remedy": getattr(error, "remedy", ""), "is_missing": is_missing}
        return _frame(FAILURE, head)


def document_frame(document: Document) -> bytes:
    """Return a document as it is sent; `DocumentRequest.answer` reads it."""
    pages = [page.encode("utf-8", "surrogatepass") for page in document.pages]
    # A frame has its limit, and the text is enough.
    has_room = sum(map(len, document.cells)) <= _MOST_CELL_CHARS
    title, cells = document.title[:_TITLE_CHARS], document.cells if has_room else ()
    meta = asdict(replace(document, pages=(), title=title, cells=cells))
    return _frame(RESULT, {**meta, "sizes": [len(page) for page in pages]}, b"".join(pages))


if __name__ == "__main__":
    main(int(sys.argv[1]))
