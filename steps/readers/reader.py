"""What reads one kind of document: the contract, for the built-in readers and for plug-ins alike.

A plug-in is a class registered under the entry-point group `paddock.readers`; the entry point's
name is the kind, which `files.read` takes as its `type`. Knows no step and no kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from .pages import joined


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
        return joined(self.pages)

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


class Wish(Protocol):
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

    def __call__(self, file: BinaryIO, wish: Wish) -> Document:
        """Read it.

        Raises:
            Unreadable: it cannot be read; the reason says why.
        """
        ...
