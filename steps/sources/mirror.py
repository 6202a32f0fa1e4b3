"""Sources of documents that are no folder, such as a mailbox: each is copied into a folder.

What lists, watches, reads, files and deletes documents knows folders alone. A `Source` says what it
has and hands it over; a `Mirror` keeps the folder:

- A version of a document is fetched once. Its index, in the pipelines' state folder, says which.
- A file of the folder is a copy if it has the digest of what was fetched. Its name, its size and
  what the source calls it say what to ask for, never which document it is.
- A copy stays when its document is gone from the source: who takes a mail out of a mailbox files
  it. Deleting the copy deletes the document. Of a listing that is whole, such as a bucket's, the
  copy goes with its document.
- A source that does not answer lacks nothing. Another address is another source.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from itertools import chain, count
from pathlib import Path, PurePath, PurePosixPath
from typing import ClassVar

from pydantic import Field

from paddock.engine.system import no_links
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.files import read_json_object, sha256_of, write_atomically
from paddock.engine.system.records import Struct, field, known_record
from paddock.engine.system.text import counted, listed
from paddock.pipelines.quantities import SizeBytes
from paddock.steps.base import Params
from paddock.steps.paths import numbered_name
from paddock.steps.readers.document_kinds import HEAD_BYTES, is_page_instead
from paddock.steps.run_end import FolderAtEnd

from .place_states import PlaceStates, read_state, write_state

_OLD_INDEX, _LOCK = ".source.json", ".source.lock"
_LOCK_S = 600.0  # another run may fetch thousands
_BATCH_BYTES, _BATCH = 8 * 1024**2, 100
_WRITES = 50  # of an index, which is one of 50 MB for 140,000 mails, while all of it is fetched
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
    """Of which version it is; another one is fetched again."""
    is_here: bool = False
    """It was fetched; else it is too large, has no room, or a run was cut off."""
    is_done: bool = False
    """The source knows it."""
    is_changed: bool = False
    """Its copy is of an earlier version."""
    sha256: str = ""
    """Of its copy; empty: it has none, or an index of an earlier version of Paddock had none."""
    intended: str = ""
    """Of what is about to be written: a killed run may have done it."""
    is_alone: bool = False
    """The source broke off when it was asked for with others."""

    def is_of(self, digest: str) -> bool:
        """Return whether a file of this digest is its copy."""
        return digest != "" and digest in (self.sha256, self.intended)

    @property
    def without_digest(self) -> str:
        """What is known of it where its digest is not."""
        return f"{self.marker} {self.size_bytes}"


class SourceListing(Struct, frozen=True):
    cursor: str
    """From where the next listing goes on."""
    documents: Sequence[SourceDocument]
    is_renumbered: bool = False
    """The source gave other identities to all, and these documents are all that there are. Which
    is which their contents say."""
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


class SourceParams(Params):
    """Parameters of a source, whose documents `files.scan` copies into its folder."""

    max_bytes: SizeBytes = Field(
        default=64 * 1024**2, description="Larger documents are not fetched, with a note."
    )
    keeps: SizeBytes = Field(
        default=10 * 1024**3, description="How much its copies may have; others wait, with a note."
    )

    kind: ClassVar[str] = ""
    is_mail: ClassVar[bool] = False
    """Whether a document that moves, here or there, stays the same by its content, whatever its
    name: names are made of numbers."""

    @property
    def address(self) -> str:
        """What is another one for another place: scheme, host, port, user, folder; no secret."""
        raise NotImplementedError

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
    folder: str = ""
    """Of the copies, as seen from the pipelines' folder."""
    copies: dict[str, SourceDocument] = field(default_factory=dict)
    """By identity."""
    former: dict[str, SourceDocument] = field(default_factory=dict)
    """Copies by their names of which no identity is known: a document of the same content is
    this one. So are those of before all got other identities."""

    def all(self) -> Iterator[SourceDocument]:
        return chain(self.copies.values(), self.former.values())

    def defer(self, identities: Iterable[str]) -> None:
        """Have the next run begin with others."""
        for identity in identities:
            self.copies[identity] = self.copies.pop(identity)


class _OldIndex(Struct):
    """The index of earlier versions of Paddock, a hidden file beside the copies."""

    cursor: str = ""
    copies: dict[str, SourceDocument] = field(default_factory=dict)
    former: list[SourceDocument] = field(default_factory=list)


class _Fetch(Struct):
    """What a call of `fetch` has to do, and what it leaves out."""

    index: _Index
    is_changed: bool = False
    """The index is another one than that on the disk."""
    room: int = 0
    """How many bytes of documents of unknown size may come."""
    fetched: list[tuple[SourceDocument, bytes]] = field(default_factory=list)
    """What is not written yet: the index is, before each time that copies are."""
    n_bytes: int = 0
    """Of these."""
    former: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Names of copies without an identity by their digest, or what an earlier version knew."""
    too_large: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """With why."""
    edited: list[str] = field(default_factory=list)
    """Copies that a person changed, of which the source has another version, or none."""
    away: str = ""
    """Why the source broke off before all was fetched."""


class Mirror(Struct, frozen=True):
    folder: Path
    params: SourceParams
    credential: str
    states: PlaceStates

    def fetch(self) -> list[str]:
        """Copy what is new; return a note on what is left out: the next call asks for it again.

        Raises:
            SourceAway, SourceRefused: nothing is lost.
            OSError: a copy cannot be written.
        """
        with self._index() as index, self.params.opened(self.credential) as source:
            fetch = _Fetch(index)
            for copy in index.copies.values():  # a killed run may have written it
                if copy.intended and self._digest(copy) == copy.intended:
                    _take_over(copy, copy.intended)
                    fetch.is_changed = True
            listing = source.listing(index.cursor)
            self._note(fetch, listing)
            due = self._due(fetch)
            try:
                for batch in _batches(due):
                    self._fetch_batch(fetch, source, batch)
            except SourceAway as error:
                fetch.away = f"{error}"
            finally:
                self._write_copies(fetch)
                if due:
                    self._write(index)
        name, most = self.params.name, self.params.max_bytes
        whys = {
            "not fetched: ": fetch.failed,
            f"not fetched: larger than `max_bytes` ({most:,}), or than what `keeps` "
            f"({self.params.keeps:,}) leaves free: ": fetch.too_large,
            "not fetched: its path leads out of the folder: ": [
                document.name
                for document in listing.documents
                if {"", ".", ".."} & {*document.name.removesuffix("/").split("/")}
            ],
            "changed or gone there, and edited here, where that is kept: ": fetch.edited,
        }
        away = f"{name} is away, {fetch.away}. Its documents of before stand; the next run goes on."
        return [
            *([away] if fetch.away else []),
            *(
                f"{counted(len(those), 'document')} of {name} {why}{listed(those, _NAMED)}."
                for why, those in whys.items()
                if those
            ),
        ]

    def finish(self, at_end: FolderAtEnd) -> list[str]:
        """Mark in the source which copies are done, each once."""
        try:
            return self._mark_done(at_end.done)
        except (SourceAway, SourceRefused, OSError) as error:
            return [f"{self.params.name} is not told what is done, {error}. The next run does it."]

    def _mark_done(self, names: Collection[str]) -> list[str]:
        n_before, refusals = 0, list[SourceRefused]()
        with self._index() as index:
            here = (copy for copy in index.copies.values() if copy.is_here and not copy.is_done)
            waiting = [*_batches(copy for copy in here if copy.name in names)][::-1]
            if not waiting:
                return []
            with self.params.opened(self.credential) as source:
                try:
                    while waiting and len(refusals) < MOST_FAILURES:
                        batch = waiting.pop()
                        identities = [copy.identity for copy in batch]
                        try:
                            n_before += source.mark_done(identities)
                        except SourceRefused as error:
                            index.defer(identities)
                            if len(batch) > 1:  # each of them alone
                                waiting += [[copy] for copy in reversed(batch)]
                            else:
                                refusals.append(error)
                            continue
                        for copy in batch:
                            copy.is_done = True
                        if len(batch) > 1:
                            self._write(index)
                finally:
                    self._write(index)
        if refusals:
            raise refusals[0]
        what = (
            f"{counted(n_before, 'document')} of {self.params.name} marked or moved by another one "
        )
        return [f"{what}before: does another machine work on it?"] if n_before else []

    def _note(self, fetch: _Fetch, listing: SourceListing) -> None:
        """Add what is new; where all have other identities, contents tell which are known."""
        index = fetch.index
        is_other = fetch.is_changed or listing.cursor != index.cursor
        if listing.is_renumbered:
            known = index.all() if self.params.is_mail else ()
            index.former = {copy.name: copy for copy in known if copy.is_here}
            index.copies = {}
        places = _places(index.all())
        for document in listing.documents:
            copy = index.copies.get(document.identity)
            if copy is not None and copy.marker == document.marker:
                continue
            if copy is not None and not self.params.is_mail:
                copy.marker, copy.size_bytes = document.marker, document.size_bytes
                copy.is_changed, copy.is_done, is_other = copy.is_here, False, True
                continue
            if copy is not None and copy.is_here:  # a restored server has another mail there
                index.former[copy.name] = copy
            if (name := copy_name(document.name)) is None:
                continue
            document.name = next(_free_names(name, places))
            places.update(_places([document]))
            index.copies[document.identity], is_other = document, True
        if listing.is_whole:
            for identity in index.copies.keys() - {each.identity for each in listing.documents}:
                copy, is_other = index.copies.pop(identity), True
                if copy.is_here and (there := self._digest(copy)) is not None:
                    if copy.is_of(there):
                        self._release(copy.name)
                        self._path(copy).unlink()
                    else:
                        fetch.edited.append(copy.name)
        index.cursor = listing.cursor
        if is_other:
            self._write(index)  # what is noted is fetched later, whatever happens now
        for copy in index.former.values():
            fetch.former[copy.sha256 or copy.without_digest].append(copy.name)

    def _due(self, fetch: _Fetch) -> list[SourceDocument]:
        """Return what is fetched now."""
        room, most, due = self.params.keeps, self.params.max_bytes, list[SourceDocument]()
        for copy in fetch.index.all():
            if copy.is_here and not copy.is_changed and (self.folder / copy.name).exists():
                room -= copy.size_bytes
        known = {copy.without_digest for copy in fetch.index.former.values()}
        for copy in fetch.index.copies.values():
            if copy.is_here and not copy.is_changed:
                continue
            is_known = copy.without_digest in known  # it is hardly another one
            if copy.size_bytes > (most if is_known else min(most, room)):
                fetch.too_large.append(copy.name)
            else:
                room -= 0 if is_known else copy.size_bytes
                due.append(copy)
        fetch.room = room
        return due

    def _fetch_batch(self, fetch: _Fetch, source: Source, batch: list[SourceDocument]) -> None:
        index, most = fetch.index, self.params.max_bytes
        failed, missing = list[str](), {copy.identity: copy for copy in batch}
        most_unwritten = max(_BATCH, len(index.copies) // _WRITES)
        try:
            for identity, answer in _answers(source, [*missing]):
                if identity not in missing:  # a server may answer what it likes
                    continue
                copy = missing.pop(identity)
                copy.is_alone = False
                if isinstance(answer, Gone):
                    if not copy.is_here:
                        del index.copies[identity]
                    continue
                if source.is_web and isinstance(answer, Had):
                    is_page = is_page_instead(PurePath(copy.name), answer.content[:HEAD_BYTES])
                    answer = Left("it is a web page now") if is_page else answer
                if isinstance(answer, Left):
                    failed.append(identity)
                    fetch.failed.append(f"'{copy.name}' ({answer.why.rstrip('.')})")
                    copy.size_bytes = max(copy.size_bytes, answer.size_bytes)
                    continue
                was_sized, copy.size_bytes = copy.size_bytes > 0, len(answer.content)
                copy.intended = hashlib.sha256(answer.content).hexdigest()
                if names := fetch.former[copy.intended] or fetch.former[copy.without_digest]:
                    former = index.former.pop(names.pop())
                    copy.name, copy.is_done = former.name, former.is_done
                    _take_over(copy, copy.intended)
                elif copy.size_bytes > (most if was_sized else min(most, fetch.room)):
                    fetch.too_large.append(copy.name)
                else:
                    fetch.room -= 0 if was_sized else copy.size_bytes
                    fetch.fetched.append((copy, answer.content))
                    fetch.n_bytes += copy.size_bytes
                    if fetch.n_bytes > _BATCH_BYTES or len(fetch.fetched) >= most_unwritten:
                        self._write_copies(fetch)
        except SourceAway:
            for copy in missing.values():
                copy.is_alone = True
            failed = [*missing, *failed]
            raise
        finally:
            index.defer(failed)

    def _write_copies(self, fetch: _Fetch) -> None:
        """Write what was fetched, once the index has where, and with which digests."""
        if not fetch.fetched:
            return
        index, due = fetch.index, [*fetch.fetched]
        fetch.fetched.clear()
        fetch.n_bytes = 0
        for copy, _ in due:
            names = None
            while (there := self._digest(copy)) not in (None, copy.intended):
                if copy.is_changed and there == copy.sha256:
                    self._release(copy.name)
                    break
                if names is None:  # another's, or a copy that a person edited
                    names = _free_names(copy.name, _places(index.all()))
                    if copy.is_changed:
                        fetch.edited.append(copy.name)
                copy.name = next(names)
        self._write(index)
        for copy, content in due:
            try:
                if self._digest(copy) != copy.intended:
                    write_atomically(self._path(copy), content)
            except (NotADirectoryError, FileExistsError):
                fetch.failed.append(f"'{copy.name}' (a part of its path is a file here)")
            else:
                _take_over(copy, copy.intended)

    def _digest(self, copy: SourceDocument) -> str | None:
        """Return that of a copy's file, empty where it cannot be read; None: there is none."""
        return _digest_at(self._path(copy))

    def _standing(self, index: _Index) -> Iterator[str]:
        """Yield the names of copies that lie in the folder as they were fetched."""
        copies = index.copies.values()
        return (copy.name for copy in copies if copy.is_of(self._digest(copy) or ""))

    def _release(self, name: str) -> None:
        """Have other places fetch again what they have in a copy of this name, which goes."""
        for file in self.states.of_folder(self.folder):
            if file == self._file or (index := read_state(file, _Index)) is None:
                continue
            if same := [copy for copy in index.copies.values() if copy.name == name]:
                for copy in same:
                    copy.is_here = copy.is_changed = False
                write_state(file, index)

    def _path(self, copy: SourceDocument) -> Path:
        """Return where a copy is, by no link that leads out of the folder."""
        path = no_links.resolve(str(self.folder / copy.name), [self.folder])
        if not path.is_relative_to(self.folder):
            raise OSError(errno.ELOOP, f"'{copy.name}' leads out of the folder")
        return path

    # --- the index

    @contextmanager
    def _index(self) -> Iterator[_Index]:
        try:
            lock, known = self.folder / _LOCK, self.states.of_folder(self.folder)
            is_another = not lock.exists()
            with lock_now(lock, wait_s=_LOCK_S):
                if is_another and known == self.states.of_folder(self.folder):
                    for file in known:  # of a folder that was removed: all is fetched again
                        if next(self._standing(read_state(file, _Index) or _Index()), None) is None:
                            file.unlink()
                index = read_state(self._file, _Index)
                if index is None and self._file not in known:
                    index = self._taken_over()
                yield self._first_index() if index is None else index
        except LockTaken:
            raise SourceAway("another run copies it") from None

    @property
    def _file(self) -> Path:
        return self.states.file(self.params.kind, self.params.address, self.folder)

    def _write(self, index: _Index) -> None:
        index.folder = self.states.relative(self.folder)
        write_state(self._file, index)

    def _first_index(self) -> _Index:
        """Return what is known of a place that has no index for this folder.

        1. What is known of the place for a folder that this one was, or is a copy of.
        2. Of mails, the copies that other places have here, and all that lie here: a server may
           have taken over from another one.
        """
        of = self.params
        for file in self.states.elsewhere(of.kind, of.address, self.folder):  # 1
            if (index := read_state(file, _Index)) is None:
                continue
            stand = {*self._standing(index)}
            if stand and not (self.states.absolute(index.folder) / _LOCK).exists():
                self._write(index)
                file.unlink()  # a folder of that name is another one then
                return index
            if stand:
                known = {i: copy for i, copy in index.copies.items() if copy.name in stand}
                return _Index(copies=known)
        former = dict[str, SourceDocument]()
        if of.is_mail:  # 2
            for file in self.states.of_folder(self.folder):
                index = read_state(file, _Index) if file.name.startswith(of.kind) else None
                if index is not None:
                    former |= {copy.name: copy for copy in index.all() if copy.is_here}
            for path in self.folder.glob("*.eml"):
                if path.name not in former and (digest := _digest_at(path)):
                    size = path.stat().st_size
                    found = SourceDocument("", path.name, size, "", is_here=True, sha256=digest)
                    former[path.name] = found
        return _Index(former=former)

    def _taken_over(self) -> _Index | None:
        """Return what an earlier version knew, with the digests of what lies here now."""
        old = known_record(_OldIndex, read_json_object(self.folder / _OLD_INDEX))
        # Anyone may have written it: names lead nowhere else
        if old is None or not (copies := [*old.copies.values(), *old.former]):
            return None
        if any(copy_name(copy.name) != copy.name for copy in copies):
            return None
        for copy in copies:
            path = self._path(copy)
            if copy.is_here and path.is_file() and path.stat().st_size == copy.size_bytes:
                copy.sha256 = _digest_at(path) or ""
        former = {copy.name: copy for copy in old.former if copy.is_here and self.params.is_mail}
        self._write(index := _Index(old.cursor, "", old.copies, former))
        (self.folder / _OLD_INDEX).unlink()
        return index


def _take_over(copy: SourceDocument, digest: str) -> None:
    """Note that a copy is here."""
    copy.sha256, copy.intended = digest, ""
    copy.is_here, copy.is_changed = True, False


def _digest_at(path: Path) -> str | None:
    """Return the digest of a file, empty where it cannot be read; None: there is nothing."""
    try:
        return sha256_of(path, follows_links=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return ""


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
        is_full = len(batch) == _BATCH or n_bytes + copy.size_bytes > _BATCH_BYTES
        if batch and (is_full or copy.is_alone or batch[0].is_alone):
            yield batch
            batch, n_bytes = [], 0
        batch.append(copy)
        n_bytes += copy.size_bytes
    if batch:
        yield batch
