"""Read one document's text, whatever its kind; say in one sentence why it cannot be read."""

from __future__ import annotations

import asyncio
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import BinaryIO, Literal

from paddock.steps.places import refusal, shown
from paddock.steps.step import StepError

from . import archive, plain, plugins
from . import ocr as ocr_
from .kinds import HEAD_BYTES, MEDIA_TYPES, NotADocument, is_parsed, kind_of, named_type
from .reader import Abandoned, Document, ReadsFile, Unreadable

_MOST_AT_ONCE = 4  # documents that are parsed; each may need some hundred MB
_SLOW_FROM_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to read. Implements `paddock.steps.readers.reader.Wish`."""

    kind: str | None = None
    """None finds it out by content and name."""
    encoding: str = "auto"
    ocr: bool = True
    is_unwanted: Event = field(default_factory=Event)

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Abandoned: nobody waits for this document any more.
        """
        if self.is_unwanted.is_set():
            raise Abandoned

    def within(self, kind: str, file: BinaryIO) -> Document:
        """Read a document of another kind that lies within this one.

        Raises:
            Unreadable: it cannot be read; the reason says why.
        """
        return _reader_of(kind)(file, self)


async def load(
    path: Path,
    *,
    kind: str | None = None,
    encoding: str = "auto",
    max_bytes: int,
    ocr: bool = True,
) -> Document:
    """Read a document, in a thread where that pays.

    Raises:
        StepError: with the reason.
    """
    wishes = Wishes(kind, encoding, ocr)
    work = partial(_read, path, wishes, max_bytes)
    if not is_slow(path, kind):
        return work()
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads(), work)
    except asyncio.CancelledError:
        wishes.is_unwanted.set()  # a thread cannot be cancelled; it ends at its next page
        raise


def read(
    path: Path, *, kind: str | None = None, encoding: str = "auto", max_bytes: int, ocr: bool = True
) -> Document:
    """Read a document; `kind` None finds it out by content and name.

    Raises:
        StepError: with the reason.
    """
    return _read(path, Wishes(kind, encoding, ocr), max_bytes)


def installed() -> tuple[str, ...]:
    """Name what else than this version decides a text: extras, plug-ins and their versions."""
    extras = {"documents": archive.is_installed(), "ocr": ocr_.is_installed()}
    return (*(name for name, is_there in extras.items() if is_there), *plugins.versions())


def refuse_empty(document: Document, path: Path) -> None:
    """Raise for a document without text.

    Raises:
        StepError: nothing is in it.
    """
    if document.is_empty:
        raise StepError(f"'{shown(path.name)}' {document.why_empty}.")


def is_slow(path: Path, kind: str | None) -> bool:
    """Tell whether reading may take long enough to be worth a thread (0.1 ms by itself)."""
    if kind not in (None, *plain.KINDS) or (kind is None and is_parsed(path)):
        return True
    if kind is None and _plugin(path):
        return True
    try:
        return path.stat().st_size > _SLOW_FROM_BYTES
    except OSError:
        return False


@cache
def _threads() -> ThreadPoolExecutor:
    """Give threads of our own: a scan of 500 pages must not keep the others' files waiting."""
    return ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="paddock-reader")


def _read(path: Path, wishes: Wishes, max_bytes: int) -> Document:
    """Read a document and put its name before what is said of it."""
    name = f"'{shown(path.name)}'"
    try:
        size_bytes = _size_of_file(path, name)
        if size_bytes > max_bytes:
            raise StepError(
                f"{name} has {size_bytes:,} bytes, and `max_bytes` allows {max_bytes:,}.",
                remedy="Raise `max_bytes` to read it.",
            )
        found = _by_kind(path, wishes)
    except OSError as error:
        raise refusal(f"{name} cannot be read", error) from error
    except NotADocument as error:
        raise StepError(f"{name} is {error}.", remedy=error.remedy) from error
    except Unreadable as error:
        # An extra that is missing is a part of the item's hash (`installed`); what a plug-in
        # lacks is not, so the item must not be given up.
        lacks = isinstance(error, plugins.BrokenReader) and error.is_missing
        kind: Literal["missing", "other"] = "missing" if lacks else "other"
        raise StepError(f"{name} {error}.", remedy=error.remedy, kind=kind) from error
    notes = tuple(f"{name}{note if note[:1] == ':' else f' {note}'}." for note in found.notes)
    return replace(found, title=found.title or path.stem, notes=notes)


def _by_kind(path: Path, wishes: Wishes) -> Document:
    plugin = wishes.kind or _plugin(path)
    if plugin and plugin not in MEDIA_TYPES:
        return _by_plugin(path, plugin)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if not head:  # which is no PDF, nor anything else
            return Document(("",), "", MEDIA_TYPES.get(wishes.kind or "", named_type(path)))
        kind = wishes.kind or kind_of(path, head)
        if kind in plain.KINDS:
            is_named = wishes.kind is not None
            return plain.read(head + file.read(), kind, wishes.encoding, is_named=is_named)
        file.seek(0)
        return _reader_of(kind)(file, wishes)


def _plugin(path: Path) -> str:
    """Tell which plug-in reads a file; what we read ourselves is ours."""
    suffix = path.suffix.lower()
    if is_parsed(path) or suffix in plain.SUFFIXES or not plugins.names():
        return ""
    return plugins.by_suffix(suffix)


def _by_plugin(path: Path, name: str) -> Document:
    """Let a plug-in read; what it gives is looked at, for it is not ours."""
    kind = plugins.load(name)
    try:
        document = kind().read(path)
    except (Unreadable, OSError):
        raise
    except Exception as error:  # a plug-in may raise anything; it is told with its name
        why = f"{type(error).__name__}: {error}"
        is_missing = isinstance(error, ModuleNotFoundError)
        raise plugins.BrokenReader(name, why, is_missing=is_missing) from error
    if not isinstance(document, Document):
        raise plugins.BrokenReader(name, "it gives no `Document`")
    return replace(document, media_type=document.media_type or kind.media_type)


def _reader_of(kind: str) -> ReadsFile:
    """Give what reads a kind that is not plain text; its library is imported when it reads.

    Raises:
        Unreadable: nothing reads it.
    """
    match kind:
        case "pdf":
            from .pdf import read
        case "docx":
            from .docx_text import read
        case "pptx":
            from .pptx_text import read
        case "xlsx":
            from .xlsx_text import read
        case "eml":
            from .eml_text import read
        case "epub":
            from .epub_text import read
        case "image":
            from .image_text import read
        case _:
            raise Unreadable(f"is of a kind that nothing reads: `{kind}`")
    return read


def _size_of_file(path: Path, name: str) -> int:
    """Give the size of a regular file; a pipe would make us wait for ever."""
    facts = path.stat()
    if stat.S_ISDIR(facts.st_mode):
        raise StepError(f"{name} is a folder, not a document.")
    if not stat.S_ISREG(facts.st_mode):
        raise StepError(f"{name} is a device or a pipe, not a document.")
    return facts.st_size
