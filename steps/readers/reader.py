"""Contract of a document reader, for built-in readers and plug-ins.

A plug-in is a class registered under the entry-point group `paddock.readers`; the entry point's
name is the kind, which `files.read` takes as its `type`. It is imported when it is used. Reader
processes import this module, so it imports next to nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal, Protocol

from paddock.engine.system.records import Struct
from paddock.pipelines.e_invoices import EInvoice
from paddock.steps.plugins import (
    READER_GROUP,
    PluginImportError,
    lacking,
    load_plugin,
    package_of,
    plugins,
)

PAGE_BREAK = "\n\n"
"""Separates pages in a document's text; offsets into the text include it."""


_SHOWN_CHARS = 80


def join_pages(texts: Iterable[str]) -> str:
    return PAGE_BREAK.join(texts)


def after_name(note: str) -> str:
    """Return a note as it follows a document's name.

    >>> after_name("is old"), after_name(": read by OCR")
    (' is old', ': read by OCR')
    """
    return note if note.startswith(":") else f" {note}"


def text_sample(texts: Sequence[str]) -> str:
    """Return how long texts are, and their beginning."""
    n_chars = sum(map(len, texts))
    start = " ".join(" ".join(texts[:20])[:_SHOWN_CHARS].split())
    return f"{n_chars:,} characters: '{start}{'…' if n_chars > _SHOWN_CHARS else ''}'"


def hidden_text_note(what: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return the note that `what` hides these texts, which are read like all others.

    >>> hidden_text_note("the page", ["Pay  twice"])
    (": text that the page does not show is read as well (10 characters: 'Pay twice')",)
    """
    shown = f": text that {what} does not show is read as well ({text_sample(texts)})"
    return (shown,) if texts else ()


def page_offsets(pages: Sequence[str]) -> list[int]:
    lengths = [len(page) + len(PAGE_BREAK) for page in pages]
    return list(accumulate(lengths[:-1], initial=0)) if pages else []


class EmbeddedFile(Struct, frozen=True):
    name: str
    media_type: str
    """As it is said to be; empty: nothing says it."""
    base64: str


class Document(Struct, frozen=True):
    """A document's text by pages; without pages it is a single one."""

    pages: tuple[str, ...]
    title: str = ""
    """Empty: the file's name is used."""
    media_type: str = ""
    notes: tuple[str, ...] = ()
    """Notes for the report: sentences that follow the document's name."""
    why_empty: str = "is empty"
    """The message if it is empty; follows its name."""
    cells: tuple[str, ...] = ()
    """By page, where its text stands, as `text_cells.pack_cells` returns it."""
    invoices: tuple[EInvoice, ...] = ()
    files: tuple[EmbeddedFile, ...] = ()
    """Files within it that are not read yet: `InnerDocuments.add_embedded`."""

    @property
    def text(self) -> str:
        return join_pages(self.pages)

    @property
    def is_empty(self) -> bool:
        return not any(page.strip() for page in self.pages)


class Unreadable(ValueError):
    """A document that cannot be read; the message says why and follows its name.

    `remedy` is a whole sentence.
    """

    kind: ClassVar[Literal["missing", "io", "other"]] = "other"
    """Of the step's error. A document takes the same time and memory next time."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


class Reader(Protocol):
    """Reads one kind of document. Instantiated without arguments for each document."""

    suffixes: ClassVar[tuple[str, ...]]
    """Suffixes of such files, in lower case and with the dot."""
    media_type: ClassVar[str]
    version: ClassVar[int]
    """Part of the item's hash: a change makes earlier results stale."""

    def read(self, path: Path) -> Document:
        """Read it, in a separate process with limits on time and memory.

        That process has the environment of commands: no keys, no secrets of the run.

        Raises:
            Unreadable: it cannot be read.
            OSError: the system refuses.
        """


MOST_UNPACKED_BYTES = 512 * 1024 * 1024
"""Of a document, with all that lies within it; a bomb of 40 KB has gigabytes."""


class PartCheck(Protocol):
    def __call__(self, n_characters: int = 0, n_unpacked_bytes: int = 0) -> None:
        """Raise Unreadable where the document has more text, or unpacks to more, than it may."""


class ReadRequest(Protocol):
    """What a built-in reader may use."""

    @property
    def ocr(self) -> bool:
        """Whether to read pictures of text."""

    @property
    def check(self) -> PartCheck:
        """Report progress: the time limit applies to each page or part."""

    @property
    def name(self) -> str:
        """What the document is called; empty where nothing says it."""

    def within(self, kind: str, file: BinaryIO, name: str = "") -> Document:
        """Read an embedded document of another kind."""


ReadsFile = Callable[[BinaryIO, ReadRequest], Document]
"""A built-in reader; takes an open file, so that it can read attachments too."""


class BrokenReader(Unreadable):
    def __init__(self, name: str, why: str, *, is_missing: bool = False) -> None:
        self.package = reader_package(name)
        self.what = f"reader '{name}' of package '{self.package}' cannot be used: {why}"
        self.is_missing = is_missing
        super().__init__(f"cannot be read: {self.what}", f"Update or remove '{self.package}'.")


def plugin_kinds() -> tuple[str, ...]:
    return tuple(plugins(READER_GROUP))


def reader_package(name: str) -> str:
    """Return the package of a reader; empty for an unknown one."""
    points = plugins(READER_GROUP).get(name)
    return package_of(points[0]) if points else ""


@cache
def load_reader(name: str) -> type[Reader]:
    point = plugins(READER_GROUP)[name][0]
    try:
        kind = load_plugin(point)
    except PluginImportError as error:
        raise BrokenReader(name, str(error), is_missing=error.is_missing) from error
    fault = _reader_fault(kind)
    if fault:
        raise BrokenReader(name, f"{point.value} {fault}")
    return kind  # type: ignore[no-any-return]  # `_reader_fault` has looked at its shape


EXTRAS = {
    "documents": ("docx", "pptx"),
    "formats": ("kreuzberg", "olefile"),
    "ocr": ("rapidocr", "onnxruntime"),
}


def is_installed(extra: str) -> bool:
    """Return whether an extra is installed; imports nothing."""
    return all(find_spec(name) is not None for name in EXTRAS[extra])


def ocr_models_folder() -> Path:
    """Return where the models of the extra `ocr` lie, and where more can be put."""
    package = find_spec("rapidocr")
    folders = package.submodule_search_locations if package else None
    return Path(folders[0] if folders else "rapidocr", "models")


def added_ocr_models() -> tuple[Path, ...]:
    """Return the models of other scripts, such as `cyrillic_PP-OCRv5_rec_mobile.onnx`."""
    return tuple(sorted(ocr_models_folder().glob("*_PP-OCR*_rec*.onnx")))


def reader_versions() -> tuple[str, ...]:
    found = [*filter(is_installed, EXTRAS)]
    found += [f"ocr {model.stem}" for model in added_ocr_models()]
    for name in plugins(READER_GROUP):
        try:
            found.append(f"{name} {load_reader(name).version}")
        except BrokenReader:
            found.append(f"{name} broken")
    return tuple(found)


def _reader_fault(kind: object) -> str:
    if not inspect.isclass(kind):
        return "is not a class"
    suffixes = getattr(kind, "suffixes", None)
    if not isinstance(suffixes, tuple) or not all(
        isinstance(suffix, str) and suffix.startswith(".") and suffix == suffix.lower()
        for suffix in suffixes
    ):
        return "has no `suffixes` that is a tuple of texts such as '.odt'"
    return lacking(kind, ("media_type", "version"), ("read",))
