"""Sources of documents that are no folder, such as a mailbox: each is copied into a folder.

What lists, watches, reads, files and deletes documents knows folders alone. A `Source` says what it
has and hands it over; a `Mirror` keeps the folder:

- A document is fetched once. Its index, a hidden file of the folder, says what was fetched.
- A copy stays when its document is gone from the source: who takes a mail out of a mailbox files
  it. Deleting the copy deletes the document.
- A source that does not answer lacks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.files import read_json_object, write_atomically, write_json_atomically
from paddock.engine.system.records import asdict, field, record, record_from
from paddock.engine.system.text import counted, free_name, listed

_INDEX, _LOCK = ".source.json", ".source.lock"
_LOCK_S = 600.0  # another run may fetch thousands
_BATCH_BYTES, _BATCH = 8 * 1024**2, 100
_NAMED = 3


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


class _State(StrEnum):
    LEFT = "left"
    """Not fetched: too large, no room, or cut off."""
    HERE = "here"
    DONE = "done"
    """The source knows that it is done."""


@record(slots=True)
class _MirroredDocument:
    name: str
    size_bytes: int
    marker: str
    state: _State = _State.LEFT


@record(slots=True)
class _Index:
    cursor: str = ""
    copies: dict[str, _MirroredDocument] = field(default_factory=dict)
    """By identity."""


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
                for copy in index.copies.values()
                if copy.state is not _State.LEFT and (self.folder / copy.name).exists()
            )
            large, without_room, due = list[str](), list[str](), list[str]()
            for identity, copy in index.copies.items():
                if copy.state is not _State.LEFT:
                    continue
                if copy.size_bytes > self.max_bytes:
                    large.append(copy.name)
                elif copy.size_bytes > room:
                    without_room.append(copy.name)
                else:
                    room -= copy.size_bytes
                    due.append(identity)
            for batch in _batches(index, due):
                self._fetch_batch(index, source, batch)
        return [
            f"{counted(len(names), 'mail')} of {self.name} not fetched, {why}: "
            f"{listed(names, _NAMED)}."
            for names, why in (
                (large, f"larger than `max_bytes` ({self.max_bytes:,})"),
                (without_room, f"since all copies may have `keeps` ({self.keeps_bytes:,} bytes)"),
            )
            if names
        ]

    def finish(self, names: Collection[str]) -> list[str]:
        """Mark in the source which copies are done, each once; return notes.

        Raises:
            SourceAway, SourceRefused: the next run tells the rest.
        """
        n_before = 0
        with self._index() as index:
            here = ((i, copy) for i, copy in index.copies.items() if copy.state is _State.HERE)
            due = [identity for identity, copy in here if copy.name in names]
            if not due:
                return []
            with self.source() as source:
                for batch in _batches(index, due):
                    n_before += source.mark_done(batch)
                    for identity in batch:
                        index.copies[identity].state = _State.DONE
                    self._write(index)
        what = f"{counted(n_before, 'mail')} of {self.name} marked or moved by another one before"
        return [f"{what}: does another machine work on it?"] if n_before else []

    def _note(self, index: _Index, listing: SourceListing) -> None:
        """Add what is new; where all have other identities, known copies get these."""
        known, by_marker = index.copies, dict[str, list[str]]()
        if listing.is_renumbered:  # an identity may stand for another document now
            known = {f"former {identity}": copy for identity, copy in known.items()}
            for identity, copy in known.items():
                by_marker.setdefault(copy.marker, []).append(identity)
        taken = {copy.name for copy in known.values()}
        for document in listing.documents:
            if document.identity in known:
                continue
            if same := by_marker.get(document.marker):
                known[document.identity] = known.pop(same.pop(0))
                continue
            path = self.folder / document.name
            size = document.size_bytes
            is_taken = path.exists() and path.stat().st_size != size  # else a killed run wrote it
            name = free_name(document.name, taken | ({document.name} if is_taken else set()))
            taken.add(name)
            known[document.identity] = _MirroredDocument(name, size, document.marker)
        index.copies, index.cursor = known, listing.cursor

    def _fetch_batch(self, index: _Index, source: Source, batch: Sequence[str]) -> None:
        missing = list[str]()
        for identity in batch:
            copy = index.copies[identity]
            path = self.folder / copy.name
            if path.exists() and path.stat().st_size == copy.size_bytes:
                copy.state = _State.HERE
            else:
                missing.append(identity)
        for identity, content in source.contents(missing) if missing else ():
            copy = index.copies[identity]
            write_atomically(self.folder / copy.name, content)
            copy.state = _State.HERE
        for identity in missing:
            if index.copies[identity].state is _State.LEFT:  # gone meanwhile
                del index.copies[identity]
        self._write(index)

    @contextmanager
    def _index(self) -> Iterator[_Index]:
        try:
            with lock_now(self.folder / _LOCK, wait_s=_LOCK_S):
                index = _Index()
                with suppress(ValueError):  # damaged: copies that are there are not fetched again
                    index = record_from(_Index, read_json_object(self.folder / _INDEX))
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
