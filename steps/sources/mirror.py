"""Sources of documents that are no folder, such as a mailbox: each is copied into a folder.

What lists, watches, reads, files and deletes documents knows folders alone. A `Source` says what it
has and hands it over; a `Mirror` keeps the folder:

- A document is fetched once. Its index, a hidden file of the folder, says what was fetched.
- A copy stays when its document is gone from the source: who takes a mail out of a mailbox files
  it. Deleting the copy deletes the document.
- A source that does not answer lacks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import chain, count
from pathlib import Path
from typing import Protocol

from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.files import read_json_object, write_atomically, write_json_atomically
from paddock.engine.system.records import asdict, field, record, record_from
from paddock.engine.system.text import counted, listed
from paddock.steps.paths import numbered_name

_INDEX, _LOCK = ".source.json", ".source.lock"
_LOCK_S = 600.0  # another run may fetch thousands
_BATCH_BYTES, _BATCH = 8 * 1024**2, 100
_NAMED = 3
_NAME = re.compile(r"[\w() -]+\.eml", re.ASCII)


class SourceAway(Exception):
    """It does not answer; the message says why, behind its name."""


class SourceRefused(Exception):
    """It answers, and does not do what is asked; the message says why, behind its name."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


@record(frozen=True, slots=True)
class SourceDocument:
    identity: str
    name: str
    """Of its copy; another one where that is taken."""
    size_bytes: int
    marker: str
    """Which document it is, where the source gives all of them other identities."""


@record(frozen=True, slots=True)
class SourceListing:
    cursor: str
    """From where the next listing goes on."""
    documents: Sequence[SourceDocument]
    is_renumbered: bool = False
    """The source gave other identities to all, and these documents are all that there are."""


class Source(Protocol):
    """What a source can do while it is open; each call raises `SourceAway` or `SourceRefused`."""

    def listing(self, cursor: str) -> SourceListing:
        """Return what came since an earlier listing; empty: all."""

    def contents(self, identities: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the content of those that are still there."""

    def mark_done(self, identities: Sequence[str]) -> int:
        """Mark or move documents whose outputs are recorded; return how many were so already."""


@record(slots=True)
class _MirroredDocument:
    name: str
    size_bytes: int
    marker: str
    is_here: bool = False
    """It was fetched; else it is too large, has no room, or a run was cut off."""
    is_done: bool = False
    """The source knows it."""


@record(slots=True)
class _Index:
    cursor: str = ""
    copies: dict[str, _MirroredDocument] = field(default_factory=dict)
    """By identity."""
    former: list[_MirroredDocument] = field(default_factory=list)
    """Those that had gone when all got other identities."""

    def all(self) -> Iterator[_MirroredDocument]:
        return chain(self.copies.values(), self.former)


@record(frozen=True, slots=True)
class Mirror:
    folder: Path
    source: Callable[[], AbstractContextManager[Source]]
    """Opens it."""
    name: str
    """Of the source, for people."""
    max_bytes: int
    keeps_bytes: int
    """How much all copies may have."""

    def fetch(self) -> list[str]:
        """Copy what is new; return notes on what is left out.

        Raises:
            SourceAway, SourceRefused: nothing is lost.
            OSError: a copy cannot be written.
        """
        with self._index() as index, self.source() as source:
            listing = source.listing(index.cursor)
            self._note(index, listing)
            self._write(index)  # what is noted is fetched later, whatever happens now
            room = self.keeps_bytes - sum(
                copy.size_bytes
                for copy in index.all()
                if copy.is_here and (self.folder / copy.name).exists()
            )
            left, due = list[str](), list[str]()
            for identity, copy in index.copies.items():
                if copy.is_here:
                    continue
                if copy.size_bytes > min(self.max_bytes, room):
                    left.append(copy.name)
                else:
                    room -= copy.size_bytes
                    due.append(identity)
            for batch in _batches(index, due):
                self._fetch_batch(index, source, batch)
        what = f"{counted(len(left), 'mail')} of {self.name} not fetched: larger than `max_bytes`"
        what += f" ({self.max_bytes:,}), or than what `keeps` ({self.keeps_bytes:,}) leaves free: "
        return [f"{what}{listed(left, _NAMED)}."] if left else []

    def finish(self, names: Collection[str]) -> list[str]:
        """Mark in the source which copies are done, each once; return notes.

        Raises:
            SourceAway, SourceRefused: the next run tells the rest.
        """
        n_before = 0
        with self._index() as index:
            due = [
                identity
                for identity, copy in index.copies.items()
                if copy.is_here and not copy.is_done and copy.name in names
            ]
            with self.source() if due else nullcontext() as source:
                for batch in _batches(index, due):
                    n_before += source.mark_done(batch) if source is not None else 0
                    for identity in batch:
                        index.copies[identity].is_done = True
                    self._write(index)
        what = f"{counted(n_before, 'mail')} of {self.name} marked or moved by another one before"
        return [f"{what}: does another machine work on it?"] if n_before else []

    def _note(self, index: _Index, listing: SourceListing) -> None:
        """Add what is new; where all have other identities, known copies get these."""
        if listing.is_renumbered:  # an identity may stand for another document now
            index.former += index.copies.values()
            index.copies = {}
        by_marker = dict[str, list[_MirroredDocument]]()
        for copy in index.former if listing.is_renumbered else ():
            by_marker.setdefault(copy.marker, []).append(copy)
        known = index.copies
        taken = {copy.name for copy in index.all()}
        for document in listing.documents:
            if document.identity in known:
                continue
            if same := by_marker.get(document.marker):
                known[document.identity] = same.pop(0)
                continue
            name, size = document.name, document.size_bytes
            if (self.folder / name).exists() and not self._has(name, size):
                taken.add(name)  # by another file
            names = chain([name], (numbered_name(name, f"-{n}") for n in count(2)))
            name = next(free for free in names if free not in taken)
            taken.add(name)
            known[document.identity] = _MirroredDocument(name, size, document.marker)
        if listing.is_renumbered:
            index.former = [copy for copies in by_marker.values() for copy in copies]
        index.cursor = listing.cursor

    def _fetch_batch(self, index: _Index, source: Source, batch: Sequence[str]) -> None:
        for copy in map(index.copies.__getitem__, batch):
            copy.is_here = self._has(copy.name, copy.size_bytes)  # a killed run wrote it
        missing = [identity for identity in batch if not index.copies[identity].is_here]
        for identity, content in source.contents(missing):
            copy = index.copies[identity]
            write_atomically(self.folder / copy.name, content)
            copy.is_here = True
        for identity in missing:
            if not index.copies[identity].is_here:  # gone meanwhile
                del index.copies[identity]
        self._write(index)

    def _has(self, name: str, size_bytes: int) -> bool:
        path = self.folder / name
        return path.is_file() and path.stat().st_size == size_bytes

    @contextmanager
    def _index(self) -> Iterator[_Index]:
        try:
            with lock_now(self.folder / _LOCK, wait_s=_LOCK_S):
                index = _Index()
                with suppress(ValueError):  # damaged: copies that are there are not fetched again
                    written = record_from(_Index, read_json_object(self.folder / _INDEX))
                    # Anyone may have written it: names lead nowhere else
                    is_ours = all(_NAME.fullmatch(copy.name) for copy in written.all())
                    index = written if is_ours else index
                yield index
        except LockTaken:
            raise SourceAway("another run copies it") from None

    def _write(self, index: _Index) -> None:
        write_json_atomically(self.folder / _INDEX, asdict(index), is_durable=True)


def _batches(index: _Index, identities: Sequence[str]) -> Iterator[list[str]]:
    batch, n_bytes = list[str](), 0
    for identity in identities:
        batch.append(identity)
        n_bytes += index.copies[identity].size_bytes
        if len(batch) == _BATCH or n_bytes > _BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch
