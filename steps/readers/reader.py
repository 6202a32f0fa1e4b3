"""Contract of a document reader, for built-in readers and plug-ins, and the registry of plug-ins.

A plug-in is a class registered under the entry-point group `paddock.readers`; the entry point's
name is the kind, which `files.read` takes as its `type`. It is imported when it is used. Knows no
step and no kind; reader processes import it, so it imports next to nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

PAGE_BREAK = "\n\n"
"""Stands between two pages in a document's text; offsets into the text count it."""


def join_pages(texts: Iterable[str]) -> str:
    """Make one text of the pages' texts."""
    return PAGE_BREAK.join(texts)


def page_offsets(pages: Sequence[str]) -> list[int]:
    """Return each page's offset in the joined text."""
    lengths = [len(page) + len(PAGE_BREAK) for page in pages]
    return list(accumulate(lengths[:-1], initial=0)) if pages else []


@dataclass(frozen=True, slots=True)
class Document:
    """A document's text, page by page; what has no pages is one page."""

    pages: tuple[str, ...]
    title: str = ""
    """Empty: the file's name stands for it."""
    media_type: str = ""
    notes: tuple[str, ...] = ()
    """What a person should know about the reading: sentences that follow the document's name."""
    why_empty: str = "is empty"
    """What is said of it when nothing is in it; follows its name."""

    @property
    def text(self) -> str:
        """The whole text."""
        return join_pages(self.pages)

    @property
    def is_empty(self) -> bool:
        """Whether nothing but white space is in it."""
        return not any(page.strip() for page in self.pages)


class Unreadable(ValueError):
    """A document that cannot be read; the message says why and follows its name.

    `remedy` is a whole sentence: what to do about it.
    """

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


class Reader(Protocol):
    """Reads one kind of document. Made without arguments, once for each document."""

    suffixes: ClassVar[tuple[str, ...]]
    """The ends of such files' names, in lower case and with the dot."""
    media_type: ClassVar[str]
    version: ClassVar[int]
    """Part of the items' key: a higher one makes what was read before stale."""

    def read(self, path: Path) -> Document:
        """Read it, in a process of its own with bounds on time and memory.

        That process has the environment of commands: no keys, no secrets of the run.

        Raises:
            Unreadable: it cannot be read; the reason says why.
            OSError: the system refuses.
        """
        ...


class ReadRequest(Protocol):
    """What a reader may ask of its caller."""

    @property
    def ocr(self) -> bool:
        """Whether pictures of text are to be read."""
        ...

    @property
    def check(self) -> Callable[[], None]:
        """Report that a page or part is done: the time for the next one begins."""
        ...

    def within(self, kind: str, file: BinaryIO) -> Document:
        """Read a document of another kind that lies within this one.

        Raises:
            Unreadable: it cannot be read; the reason says why.
        """
        ...


class ReadsFile(Protocol):
    """A built-in reader: it takes an open file, so that what lies within a mail is read as well."""

    def __call__(self, file: BinaryIO, wish: ReadRequest) -> Document:
        """Read it.

        Raises:
            Unreadable: it cannot be read; the reason says why.
        """
        ...


READER_GROUP = "paddock.readers"


class BrokenReader(Unreadable):
    """An installed reader that cannot be used."""

    def __init__(self, name: str, why: str, *, is_missing: bool = False) -> None:
        self.package = reader_package(name)
        self.is_missing = is_missing
        """Whether a module that it imports is not installed."""
        super().__init__(
            f"cannot be read: reader '{name}' of package '{self.package}' cannot be used: {why}",
            f"Update or remove '{self.package}'.",
        )


@cache
def _reader_points() -> dict[str, EntryPoint]:
    """Collect the entry points by name; of two with one name the package first in order is it."""
    points = sorted(
        entry_points(group=READER_GROUP), key=lambda point: (point.name, _package_of_reader(point))
    )
    return {point.name: point for point in reversed(points)}


def plugin_kinds() -> tuple[str, ...]:
    """Return the kinds that plug-ins read, sorted; imports none of them."""
    return tuple(sorted(_reader_points()))


def reader_package(name: str) -> str:
    """Return which package brings a reader; empty for an unknown one."""
    point = _reader_points().get(name)
    return _package_of_reader(point) if point else ""


@cache
def load_reader(name: str) -> type[Reader]:
    """Import one reader.

    Raises:
        BrokenReader: with the package and the reason.
    """
    try:
        kind = _reader_points()[name].load()
    except (Exception, SystemExit) as error:  # an import may raise anything; it is told
        is_missing = isinstance(error, ModuleNotFoundError)
        why = f"{type(error).__name__}: {error}"
        raise BrokenReader(name, why, is_missing=is_missing) from error
    fault = _reader_fault(kind)
    if fault:
        raise BrokenReader(name, f"{_reader_points()[name].value} {fault}")
    return kind  # type: ignore[no-any-return]  # `_reader_fault` has looked at its shape


def plugin_for_suffix(suffix: str) -> str:
    """Return which plug-in reads files that end so; empty if none does.

    One that cannot be imported claims nothing.
    """
    for name in plugin_kinds():
        try:
            if suffix in load_reader(name).suffixes:
                return name
        except BrokenReader:
            continue
    return ""


def plugin_versions() -> tuple[str, ...]:
    """Name what is installed and in which version; a broken one counts as it stands."""
    found = []
    for name in plugin_kinds():
        try:
            found.append(f"{name} {load_reader(name).version}")
        except BrokenReader:
            found.append(f"{name} broken")
    return tuple(found)


def _package_of_reader(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


def _reader_fault(kind: object) -> str:
    """Return what keeps `kind` from being a reader, in words that follow its name."""
    if not inspect.isclass(kind):
        return "is not a class"
    suffixes = getattr(kind, "suffixes", None)
    if not isinstance(suffixes, tuple) or not all(
        isinstance(suffix, str) and suffix.startswith(".") and suffix == suffix.lower()
        for suffix in suffixes
    ):
        return "has no `suffixes` that is a tuple of texts such as '.odt'"
    missing = [word for word in ("media_type", "version") if not hasattr(kind, word)]
    missing += [] if callable(getattr(kind, "read", None)) else ["read"]
    return f"lacks {', '.join(f'`{word}`' for word in missing)}" if missing else ""
