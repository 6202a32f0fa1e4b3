"""The world as a run finds it: files, folders, stores, outputs, labels, decisions of people.

`prepare` looks at all that some traces need, at once; what is asked then waits for nothing, and
each file, folder and store is read once in a run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddock.engine.system.files import content_stamp, sha256_of
from paddock.engine.system.tasks import in_left_thread
from paddock.engine.system.text import canonical_json
from paddock.pipelines.label_choices import LabelList
from paddock.runner.bind.text_vectors import Matrix
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.base import Roots, StepError
from paddock.steps.files.scan import FilesScanParams, scan_folder
from paddock.steps.vectors.open_stores import OpenStores

from .decided_examples import StepDecisions
from .dependencies import Dependencies, FileRead, FolderListed, RowsKept, StoreSearched, Trace
from .fingerprints import part_digest
from .run_reviews import RunReviews


@dataclass(frozen=True, slots=True)
class LabelVectors:
    """Labels that are new to a list, each with its vector."""

    labels: Sequence[str]
    model: str
    """Identity of the model that made the vectors."""
    rows: Matrix


@dataclass(frozen=True, slots=True)
class World:
    """What can be asked now."""

    index: OutputIndex
    stores: OpenStores
    lists: Mapping[str, LabelList] = field(default_factory=dict)
    """The lists of labels that are known before any item of a block, by name."""
    label_vectors: Mapping[str, LabelVectors] = field(default_factory=dict)
    """What is known of the new labels of lists of which items were offered the nearest ones."""
    reviews: RunReviews | None = None
    _files: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    """Each file's stamp and sha256."""
    _listings: dict[tuple[str, str], str] = field(default_factory=dict)
    """Digests of what folders have now, by folder and parameters of the scan."""

    @classmethod
    def of(cls, index: OutputIndex, stores: OpenStores | None = None) -> World:
        return cls(index, stores or OpenStores(Path(index.absolute(""))))

    # --- recording what an item reads

    def file(self, path: str) -> FileRead:
        """Return a file that a step is about to read; it is hashed once, unless it changes."""
        size, mtime_ns, ctime_ns, inode = stamp = _stamp_of(path)
        known = self._files.get(path)
        if known is None or known[0] != stamp:
            known = self._files[path] = stamp, sha256_of(Path(path))
        return FileRead(self.index.stored(path), size, mtime_ns, known[1], ctime_ns, inode)

    def digest(self, path: str) -> str:
        """Return the sha256 of a file."""
        return self.file(path).sha256

    def note_listing(
        self,
        reads: Dependencies,
        params: FilesScanParams,
        files: Sequence[Mapping[str, Any]] | None,
        roots: Roots,
        owned: frozenset[Path],
    ) -> None:
        """Add a folder that was listed for one item. Blocking.

        Without `files` it is listed again, without the `owned` files: a step's `returns` may leave
        out what its items depend on.
        """
        folder = str(roots.resolve(params.root))
        given = canonical_json(params.model_dump(mode="json", exclude={"root"}))
        listed = FolderListed(self.index.stored(folder))
        before = reads.get(listed.name)
        others = before.listings if isinstance(before, FolderListed) else ()
        if files is None:
            seen = _listing_digest(folder, given, roots, owned)
        else:
            seen = _digest_of((file["relpath"], file["sha256"]) for file in files)
        listings = (*(row for row in others if row[0] != given), (given, seen))
        reads[listed.name] = replace(listed, listings=listings)

    # --- answering dependencies

    async def prepare(self, traces: Iterable[Trace], roots: Roots) -> None:
        """Read the files, folders and stores that these items depend on."""
        dependencies = [dep for trace in traces for dep in trace.dependencies]
        stores = {dep.path for dep in dependencies if isinstance(dep, StoreSearched)}
        stores |= {dep.store for dep in dependencies if isinstance(dep, RowsKept)}
        folders = [dep for dep in dependencies if isinstance(dep, FolderListed)]
        scans = {(dep.folder, given) for dep in folders for given, _ in dep.listings}
        unread = scans - self._listings.keys()
        owned = self.index.owned(roots.base) if unread else frozenset()  # the loop's tasks add

        def read_files_and_folders() -> None:
            for dep in dependencies:
                if isinstance(dep, FileRead):
                    self.has(dep)  # keeps the digest
            for folder, given in unread:
                place = self.index.absolute(folder)
                self._listings[folder, given] = _listing_digest(place, given, roots, owned)

        if dependencies:
            await in_left_thread(read_files_and_folders)
            await self.stores.look(Path(self.index.absolute(path)) for path in sorted(stores))

    def is_there(self, stored: str) -> bool:
        return os.path.lexists(self.index.absolute(stored))

    def has(self, read: FileRead) -> bool:
        """Return whether a file is as it was read."""
        path = self.index.absolute(read.path)
        try:
            stamp = _stamp_of(path)
            if stamp == (read.size, read.mtime_ns, read.ctime_ns, read.inode):
                return True
            return stamp[0] == read.size and self.digest(path) == read.sha256
        except OSError:
            return False

    def listing(self, folder: str, given: str) -> str | None:
        """Return the digest of what a folder has now; after `prepare`."""
        return self._listings.get((folder, given))

    def store_content(self, stored: str) -> str:
        return self.stores.content(Path(self.index.absolute(stored)))

    def rows(self, stored: str, owner: str) -> str:
        """Return the number and digest of an owner's rows in a store."""
        return self.stores.holds(Path(self.index.absolute(stored)), owner)

    def of_output(self, scope: str, stored: str) -> Reason | None:
        """Return what became of an output."""
        condition = self.index.condition(scope, stored)
        if condition in ("missing", "interrupted"):
            return Why.OUTPUT_LOST(stored)
        return Why.OUTPUT_EDITED(stored) if condition == "edited" else None

    def of_kept(self, stored: str, ours: str) -> Reason | None:
        """Return what became of an edited file in whose place `ours` would have been written."""
        path = Path(self.index.absolute(stored))
        try:
            there = sha256_of(path)  # not `digest`: this run may write it
        except OSError:
            return Why.OUTPUT_LOST(stored)
        if there == ours:
            return None
        is_edited = there not in self.index.known_sha256(path)
        return (Why.OUTPUT_EDITED if is_edited else Why.OUTPUT_NO_LONGER_EDITED)(stored)

    def decisions(self, file: str, step: str) -> StepDecisions:
        """Return what people decided about a step's answers."""
        known = {} if self.reviews is None else self.reviews.decisions
        return known.get((file, step), StepDecisions())


def _stamp_of(path: str) -> tuple[int, int, int, int]:
    return content_stamp(os.stat(path))  # noqa: PTH116 - 10,000 times in a run


def _listing_digest(folder: str, given: str, roots: Roots, owned: frozenset[Path]) -> str:
    """Return the digest of a folder's listing; empty where it cannot be listed. Blocking."""
    try:
        params = FilesScanParams.model_validate({**json.loads(given), "root": folder})
        files, _, _ = scan_folder(params, Path(folder), roots.allowed, owned)
    except (OSError, ValueError, StepError):
        return ""
    return _digest_of((file.relpath, file.sha256) for file in files)


def _digest_of(files: Iterable[tuple[str, str | None]]) -> str:
    return part_digest(sorted(files))
