"""Sources of documents that are no folder, such as a mailbox: each is copied into a folder.

What lists, watches, reads, files and deletes documents knows folders alone. A `Source` says what it
has and hands it over; a `Mirror` keeps the folder:

- A version of a document is fetched once. Its index, a hidden file of the folder, says which.
- A copy stays when its document is gone from the source: who takes a mail out of a mailbox files
  it. Deleting the copy deletes the document. Of a listing that is whole, such as a bucket's, the
  copy goes with its document.
- A source that does not answer lacks nothing.
"""

from __future__ import annotations

import errno
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from itertools import chain, count
from pathlib import Path, PurePath, PurePosixPath

from pydantic import Field

from paddock.engine.system import no_links
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.files import read_json_object, write_atomically, write_json_atomically
from paddock.engine.system.records import Struct, asdict, field, record_from
from paddock.engine.system.text import counted, listed
from paddock.pipelines.quantities import SizeBytes
from paddock.steps.base import Params
from paddock.steps.paths import numbered_name
from paddock.steps.readers.document_kinds import HEAD_BYTES, is_page_instead
from paddock.steps.run_end import FolderAtEnd

_INDEX, _LOCK = ".source.json", ".source.lock"
_LOCK_S = 600.0  # another run may fetch thousands
_BATCH_BYTES, _BATCH = 8 * 1024**2, 100
_NAMED = 3
MOST_FAILURES = 3  # of a batch: then the source is away
_NOT_IN_NAMES = '\\:*?"<>|'  # Windows has none of them


class SourceAway(Exception):
    """It does not answer; the message says why, behind its name."""


class SourceRefused(Exception):
    """It answers, and does not do what is asked; the message says why, behind its name."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


class Whole(Enum):
    """How it is known that an answer has all bytes of a document."""

    LENGTH = "length"
    """The place states how many it has, with the answer or in its listing."""
    END = "end"
    """The protocol marks the end: the last chunk, a literal of IMAP, the end of a file."""
    DIGEST = "digest"
    """The place states a digest of the bytes."""


class Had(Struct, frozen=True):
    """All bytes of a document."""

    content: bytes
    whole_by: Whole


class Left(Struct, frozen=True):
    """A document that did not come, or of which it is not known whether all of it came.

    It is named in a note, and the next run asks for it again; no other document waits for it.
    """

    why: str
    size_bytes: int = 0
    """Its size is this one at least: it is asked for again once it may have so many."""


class Gone(Struct, frozen=True):
    """The place says that it has the document no more: of this one, or by a list of all it has."""


Answer = Had | Left | Gone
"""What a source says of a document that is asked for. There is no fourth answer."""


class SourceDocument(Struct):
    identity: str
    name: str
    """Its path there; then that of its copy, another one where that is taken."""
    size_bytes: int
    """0: it is not known before it is fetched, or it is empty."""
    marker: str
    """Which document it is, where the source gives all of them other identities."""
    is_here: bool = False
    """It was fetched; else it is too large, has no room, or a run was cut off."""
    is_done: bool = False
    """The source knows it."""
    is_changed: bool = False
    """Its copy is of an earlier version."""


class SourceListing(Struct, frozen=True):
    cursor: str
    """From where the next listing goes on."""
    documents: Sequence[SourceDocument]
    is_renumbered: bool = False
    """The source gave other identities to all, and these documents are all that there are."""
    is_whole: bool = False
    """A document that is not among these was deleted."""


class Source(ABC):
    """What a source can do while it is open; each call raises `SourceAway` or `SourceRefused`.

    The defaults are those of one that is listed again and again, and learns of nothing.
    """

    is_web = False
    """Whether a page of an error may come in place of a document."""

    def __init__(self) -> None:
        self._n_listings, self._is_cut = 0, threading.Event()

    @abstractmethod
    def listing(self, cursor: str) -> SourceListing:
        """Return what came since an earlier listing; empty: all."""

    @abstractmethod
    def contents(self, identities: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        """Yield what becomes of each. Those of which nothing is said are asked for singly."""

    def mark_done(self, identities: Sequence[str]) -> int:
        """Mark or move documents whose outputs are recorded; return how many were so already."""
        return 0

    def cursor(self) -> str:
        """Return what is another one once a document may have come."""
        self._n_listings += 1
        return str(self._n_listings)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the source says that something changed."""
        self._is_cut.wait(seconds)

    def cut(self) -> None:
        """End a call that waits."""
        self._is_cut.set()


def fetch_one_by_one(
    identities: Sequence[str], fetch: Callable[[str], Answer]
) -> Iterator[tuple[str, Answer]]:
    """Yield the answer of each by a call that raises `SourceAway` or `SourceRefused`.

    What is refused of one document is no failure of the source.
    """
    n_failures = 0
    for identity in identities:
        try:
            yield identity, fetch(identity)
        except SourceRefused as error:
            yield identity, Left(f"{error}")
        except SourceAway as error:
            n_failures += 1
            yield identity, Left(f"{error}")
            if n_failures == MOST_FAILURES:
                raise


class SourceParams(Params):
    """Parameters of a source, whose documents `files.scan` copies into its folder."""

    max_bytes: SizeBytes = Field(
        default=64 * 1024**2, description="Larger documents are not fetched, with a note."
    )
    keeps: SizeBytes = Field(
        default=10 * 1024**3, description="How much its copies may have; others wait, with a note."
    )

    @property
    def name(self) -> str:
        """For people."""
        return str(getattr(self, "url", ""))

    @property
    def is_marked(self) -> bool:
        """Whether the source learns what is done."""
        return False

    async def credential(self, folder: Path) -> str:
        """Return what opens it besides; a command of it starts in the folder."""
        return ""

    def opened(self, credential: str) -> AbstractContextManager[Source]:
        """Raises `SourceAway` or `SourceRefused`."""
        raise NotImplementedError


class _Index(Struct):
    cursor: str = ""
    copies: dict[str, SourceDocument] = field(default_factory=dict)
    """By identity."""
    former: list[SourceDocument] = field(default_factory=list)
    """Those that had gone when all got other identities."""

    def all(self) -> Iterator[SourceDocument]:
        return chain(self.copies.values(), self.former)


class _LeftOut(Struct):
    too_large: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """With why."""


class Mirror(Struct, frozen=True):
    folder: Path
    params: SourceParams
    credential: str

    def fetch(self) -> list[str]:
        """Copy what is new; return a note on what is left out.

        Raises:
            SourceAway, SourceRefused: nothing is lost.
            OSError: a copy cannot be written.
        """
        with self._index() as index, self.params.opened(self.credential) as source:
            listing = source.listing(index.cursor)
            self._note(index, listing)
            self._write(index)  # what is noted is fetched later, whatever happens now
            room, most = self.params.keeps, self.params.max_bytes
            due, left = list[SourceDocument](), _LeftOut()
            for copy in index.all():
                if copy.is_here and not copy.is_changed and (self.folder / copy.name).exists():
                    room -= copy.size_bytes
            for copy in index.copies.values():
                if copy.is_here and not copy.is_changed:
                    continue
                if copy.size_bytes > min(most, room):
                    left.too_large.append(copy.name)
                else:
                    room -= copy.size_bytes
                    due.append(copy)
            for batch in _batches(due):
                room = self._fetch_batch(index, source, batch, room, left)
        names = (document.name for document in listing.documents)
        whys = {
            "": left.failed,
            f"larger than `max_bytes` ({most:,}), or than what `keeps` ({self.params.keeps:,}) "
            "leaves free: ": left.too_large,
            "its path leads out of the folder: ": [
                name for name in names if {"", ".", ".."} & {*name.removesuffix("/").split("/")}
            ],
        }
        return [
            f"{counted(len(those), 'document')} of {self.params.name} not fetched: {why}"
            f"{listed(those, _NAMED)}."
            for why, those in whys.items()
            if those
        ]

    def finish(self, at_end: FolderAtEnd) -> list[str]:
        """Mark in the source which copies are done, each once."""
        try:
            return self._mark_done(at_end.done)
        except (SourceAway, SourceRefused, OSError) as error:
            return [f"{self.params.name} is not told what is done, {error}. The next run does it."]

    def _mark_done(self, names: Collection[str]) -> list[str]:
        n_before = 0
        with self._index() as index:
            here = (copy for copy in index.copies.values() if copy.is_here and not copy.is_done)
            due = [copy for copy in here if copy.name in names]
            if not due:
                return []
            with self.params.opened(self.credential) as source:
                for batch in _batches(due):
                    n_before += source.mark_done([copy.identity for copy in batch])
                    for copy in batch:
                        copy.is_done = True
                    self._write(index)
        what = (
            f"{counted(n_before, 'document')} of {self.params.name} marked or moved by another one "
        )
        return [f"{what}before: does another machine work on it?"] if n_before else []

    def _note(self, index: _Index, listing: SourceListing) -> None:
        """Add what is new; where all have other identities, known copies get these."""
        by_marker = dict[str, list[SourceDocument]]()
        if listing.is_renumbered:  # an identity may stand for another document now
            for copy in index.all():
                by_marker.setdefault(copy.marker, []).append(copy)
        places = _places(index.all())
        index.copies = {} if listing.is_renumbered else index.copies
        for document in listing.documents:
            if (known := index.copies.get(document.identity)) is not None:
                if known.marker != document.marker:
                    known.marker, known.size_bytes = document.marker, document.size_bytes
                    known.is_changed, known.is_done = known.is_here, False
                continue
            if same := by_marker.get(document.marker):
                same[0].identity = document.identity
                index.copies[document.identity] = same.pop(0)
                continue
            if (name := copy_name(document.name)) is None:
                continue
            document.name = next(_free_names(name, places))
            places.update(_places([document]))
            index.copies[document.identity] = document
        if listing.is_renumbered:
            index.former = [*chain(*by_marker.values())]
        if listing.is_whole:
            for identity in index.copies.keys() - {each.identity for each in listing.documents}:
                if self._has(gone := index.copies.pop(identity)):
                    self._path(gone).unlink()
        index.cursor = listing.cursor

    def _fetch_batch(
        self, index: _Index, source: Source, batch: list[SourceDocument], room: int, left: _LeftOut
    ) -> int:
        """Return how many bytes other copies may have."""
        most, failed = self.params.max_bytes, list[str]()
        for copy in batch:  # a killed run may have written it
            copy.is_here = copy.is_changed or (copy.size_bytes > 0 and self._has(copy))
        due = (copy for copy in batch if copy.is_changed or not copy.is_here)
        missing = {copy.identity: copy for copy in due}
        try:
            for identity, answer in _answers(source, [*missing]):
                if identity not in missing:  # a server may answer what it likes
                    continue
                copy = missing.pop(identity)
                if isinstance(answer, Gone):
                    if not copy.is_here:
                        del index.copies[identity]
                    continue
                if source.is_web and isinstance(answer, Had):
                    is_page = is_page_instead(PurePath(copy.name), answer.content[:HEAD_BYTES])
                    answer = Left("it is a web page now") if is_page else answer
                if isinstance(answer, Left):
                    failed.append(identity)
                    left.failed.append(f"'{copy.name}' ({answer.why.rstrip('.')})")
                    copy.size_bytes = max(copy.size_bytes, answer.size_bytes)
                    continue
                was_sized = copy.size_bytes > 0
                copy.size_bytes = len(answer.content)
                if copy.size_bytes > (most if was_sized else min(most, room)):
                    left.too_large.append(copy.name)
                    continue
                self._write_copy(index, copy, answer.content)
                copy.is_here, copy.is_changed = True, False
                room -= 0 if was_sized else copy.size_bytes
        except SourceAway:
            failed = [*missing, *failed]
            raise
        finally:
            for identity in failed:  # the next run begins with others
                index.copies[identity] = index.copies.pop(identity)
            self._write(index)
        return room

    def _write_copy(self, index: _Index, copy: SourceDocument, content: bytes) -> None:
        if not copy.is_changed and (path := self._path(copy)).exists():
            # Another's, or our own of which a lost index knew
            names = _free_names(copy.name, _places(index.all()))
            while path.exists() and not (path.is_file() and path.read_bytes() == content):
                copy.name = next(names)
                path = self._path(copy)
        write_atomically(self._path(copy), content)

    def _has(self, copy: SourceDocument) -> bool:
        path = self._path(copy)
        return path.is_file() and path.stat().st_size == copy.size_bytes

    def _path(self, copy: SourceDocument) -> Path:
        """Return where a copy is, by no link that leads out of the folder."""
        path = no_links.resolve(str(self.folder / copy.name), [self.folder])
        if not path.is_relative_to(self.folder):
            raise OSError(errno.ELOOP, f"'{copy.name}' leads out of the folder")
        return path

    @contextmanager
    def _index(self) -> Iterator[_Index]:
        try:
            with lock_now(self.folder / _LOCK, wait_s=_LOCK_S):
                index = _Index()
                with suppress(ValueError):  # damaged: copies that are there are not fetched again
                    written = record_from(_Index, read_json_object(self.folder / _INDEX))
                    # Anyone may have written it: names lead nowhere else
                    is_ours = all(copy_name(copy.name) == copy.name for copy in written.all())
                    index = written if is_ours else index
                yield index
        except LockTaken:
            raise SourceAway("another run copies it") from None

    def _write(self, index: _Index) -> None:
        write_json_atomically(self.folder / _INDEX, asdict(index), is_durable=True)


def _answers(source: Source, identities: Sequence[str]) -> Iterator[tuple[str, Answer]]:
    """Yield an answer for each document: those that get none among others are asked for singly."""
    silent = dict.fromkeys(identities)
    for at_once in (True, False):
        for batch in [identities] if at_once else [[each] for each in silent]:
            try:
                for identity, answer in source.contents(batch):
                    silent.pop(identity, None)
                    yield identity, answer
            except SourceRefused as error:
                if not at_once:
                    silent.pop(batch[0], None)
                    yield batch[0], Left(f"{error}")
    for identity in silent:
        yield identity, Left("nothing came of it")


def copy_name(path: str) -> str | None:
    """Return a document's path in its source as that of its copy; None: it is hidden or no file."""
    if any(not part or part.startswith(".") for part in path.split("/")):
        return None
    shown = "".join(c if c.isprintable() and c not in _NOT_IN_NAMES else "_" for c in path)
    return "/".join(numbered_name(part, "") for part in shown.split("/"))


def _places(copies: Iterable[SourceDocument]) -> dict[str, bool]:
    """Return the paths of copies and of the folders that they lie in; whether it is a copy's."""
    places = dict[str, bool]()
    for copy in copies:
        places.update(dict.fromkeys(map(str, [*PurePosixPath(copy.name).parents][:-1]), False))
        places[copy.name] = True
    return places


def _free_names(name: str, places: Mapping[str, bool]) -> Iterator[str]:
    """Yield names like this one that can lie in one folder with what is there."""

    def numbered(part: str) -> Iterator[str]:
        return chain([part], (numbered_name(part, f"-{n}") for n in count(2)))

    *folders, last = name.split("/")
    above = ""
    for part in folders:
        above += next(n for n in numbered(part) if not places.get(above + n)) + "/"
    yield from (above + n for n in numbered(last) if above + n not in places)


def _batches(copies: Iterable[SourceDocument]) -> Iterator[list[SourceDocument]]:
    batch, n_bytes = list[SourceDocument](), 0
    for copy in copies:
        batch.append(copy)
        n_bytes += copy.size_bytes
        if len(batch) == _BATCH or n_bytes > _BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch
