"""What an item depended on besides its parts: marks in its entry.

Files read, folders listed, files and vector rows written, stores searched: each is a mark, and so
are files that were moved away or kept as a person edited them. All is pure but `DependencyIndex`,
which compares marks with the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.system.files import content_stamp, sha256_of
from paddock.engine.system.tasks import in_left_thread
from paddock.engine.system.text import canonical_json
from paddock.runner.bind.label_changes import LABELS, NEAREST
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.output_index import OutputIndex
from paddock.steps.base import Roots, StepError
from paddock.steps.files.scan import FilesScanParams, scan_folder
from paddock.steps.vectors.open_stores import OpenStores

from .decided_examples import EXAMPLES
from .edited_outputs import HELD, LOST_FILE, LOST_ROWS, is_loss, why_writable
from .fingerprints import part_digest

SCAN = "files.scan"


LISTED, WRITTEN, ROWS, STORE, AWAY = "listed", "written", "rows", "store", "away"
LIMITED = "limited"
"""First words of marks that are not of a file that was read."""


def is_file_mark(mark: Sequence[Any]) -> bool:
    return bool(mark) and mark[0] not in (
        LISTED,
        WRITTEN,
        ROWS,
        STORE,
        AWAY,
        HELD,
        LIMITED,
        LABELS,
        NEAREST,
        EXAMPLES,
    )


def limited_mark(step: str) -> dict[str, list[Any]]:
    """Mark a step for which the model's context was too small: a larger one changes its result."""
    return {f"{LIMITED} {step}": [LIMITED, step]}


def written_within(scope: str, key: str, paths: Iterable[str]) -> dict[str, list[Any]]:
    """Mark the outputs of a nested item."""
    return {path: [WRITTEN, scope, key] for path in paths}


def nested_outputs(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """Yield the outputs of nested items: (scope, key, path)."""
    for path, (_, scope, key) in entry.marks(WRITTEN).items():
        yield scope, key, path


def current_paths(entry: Entry) -> set[str]:
    """Return the stored paths that an item, and those within it, last wrote or kept."""
    marks = entry.marks(WRITTEN, HELD).items()
    within = (path if mark[0] == WRITTEN else mark[1] for path, mark in marks)
    return {*entry.output_paths, *within}


def entry_marks(entry: Entry, scope: str) -> dict[str, list[Any]]:
    """Return an entry's dependencies, for the item around it."""
    return entry.marks() | written_within(scope, entry.key, entry.output_paths)


class DependencyIndex:
    """Marks files and folders, and compares them; reads each file once."""

    def __init__(self, index: OutputIndex, stores: OpenStores | None = None) -> None:
        self._index = index
        self._stores = stores or OpenStores(Path(index.absolute("")))
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}
        """Each file's stamp and sha256."""
        self._listings: dict[str, str] = {}
        """Digests of folders' current listings."""

    def digest(self, path: str) -> str:
        """Return the sha256 of a file, read once in a run unless it changes meanwhile."""
        return self.mark(path)[2]  # type: ignore[no-any-return]

    def mark(self, path: str) -> list[Any]:
        """Return size, mtime, sha256, ctime and inode of a file that a step is about to read."""
        size, mtime_ns, ctime_ns, inode = stamp = _stamp_of(path)
        known = self._digests.get(path)
        if known is None or known[0] != stamp:
            known = self._digests[path] = stamp, sha256_of(Path(path))
        return [size, mtime_ns, known[1], ctime_ns, inode]

    def note_listing(
        self,
        reads: dict[str, list[Any]],
        params: FilesScanParams,
        files: Sequence[Mapping[str, Any]] | None,
        roots: Roots,
        owned: frozenset[Path],
    ) -> None:
        """Add the mark of a folder that was listed for one item. Blocking.

        Without `files` it is listed again, without the `owned` files: a step's `returns` may leave
        out what its items depend on.
        """
        name = f"{self._index.stored(str(roots.resolve(params.root)))}/"
        given = canonical_json(params.model_dump(mode="json", exclude={"root"}))
        before = reads.get(name, [LISTED])
        listings = before[1:] if before[0] == LISTED else []
        if files is None:
            seen = _listing_digest(str(roots.resolve(params.root)), given, roots, owned)
        else:
            seen = _digest_of((file["relpath"], file["sha256"]) for file in files)
        reads[name] = [LISTED, *(row for row in listings if row[0] != given), [given, seen]]

    # --- comparing

    async def look(self, entries: Iterable[Entry], roots: Roots) -> None:
        """Read the folders and stores that these items depend on.

        `difference` then need not.
        """
        entries = list(entries)

        def hash_changed() -> None:  # `digest` keeps what they are
            for path, mark in (pair for entry in entries for pair in entry.marks().items()):
                if is_file_mark(mark):
                    self._is_as_read(path, mark)

        await in_left_thread(hash_changed)
        marks = [mark for entry in entries for mark in entry.marks(ROWS, STORE).items()]
        stores = {mark[1] if mark[0] == ROWS else path for path, mark in marks}
        await self._stores.look(Path(self._index.absolute(path)) for path in sorted(stores))
        unread = {key: listing for entry in entries for key, listing in _listings_of(entry)}
        unread = {key: listing for key, listing in unread.items() if key not in self._listings}
        if unread:
            owned = self._index.owned(roots.base)  # here, since the loop's tasks add to it

            def list_folders() -> None:
                for key, (folder, given) in unread.items():
                    folder = self._index.absolute(folder)
                    self._listings[key] = _listing_digest(folder, given, roots, owned)

            await in_left_thread(list_folders)

    def difference(self, scope: str, entry: Entry, edited: list[str]) -> str | None:
        """Return what changed of an item's outputs and dependencies; None: nothing.

        A changed dependency comes before a lost output, which can be made again without a call.
        Edited outputs are added to `edited`, and are no difference.
        """
        loss = None
        for path in entry.output_paths:
            loss = loss or self._of_output(scope, path, edited)
        for path, mark in entry.marks().items():
            reason = self._of_mark(path, mark, edited)
            if reason is not None and not is_loss(reason):
                return reason
            loss = loss or reason
        return loss

    def released(self, entry: Entry) -> str | None:
        """Return why an edited file that blocked an item can be written now."""
        reasons = (
            why_writable(self._index, path, ours, [])
            for _, path, ours in entry.marks(HELD).values()
        )
        return next((reason for reason in reasons if reason is not None), None)

    def agrees(self, path: str, mark: Sequence[Any]) -> bool:
        """Return whether a mark's target is unchanged; call `look` for its entry first."""
        return self._of_mark(path, mark, []) is None

    def _of_output(self, scope: str, path: str, edited: list[str]) -> str | None:
        condition = self._index.condition(scope, path)
        if condition in ("missing", "interrupted"):
            return f"{LOST_FILE}{path}"
        if condition == "edited":
            edited.append(path)
        return None

    def _of_mark(self, path: str, mark: Sequence[Any], edited: list[str]) -> str | None:
        if mark[0] in (LIMITED, LABELS, NEAREST, EXAMPLES):
            return None
        if mark[0] == WRITTEN:
            return self._of_output(mark[1], path, edited)
        if mark[0] == HELD:
            return why_writable(self._index, mark[1], mark[2], edited)
        if mark[0] == LISTED:
            folder = path.removesuffix("/")
            known = (
                self._listings.get(_listing_key(folder, given)) == was for given, was in mark[1:]
            )
            return None if all(known) else f"folder changed: {folder}"
        if mark[0] == ROWS:
            held = self._stores.holds(Path(self._index.absolute(mark[1])), mark[2])
            return None if held == mark[3] else f"{LOST_ROWS}{mark[1]}"
        # What became of a store or file that was read, or was looked for
        if mark[0] == STORE:
            content = self._stores.content(Path(self._index.absolute(path)))
            return None if content == mark[1] else f"store changed: {path}"
        if mark[0] == AWAY:
            is_there = os.path.lexists(self._index.absolute(path))
            return f"there again: {path}" if is_there else None
        if self._is_as_read(path, mark):
            return None
        is_there = os.path.lexists(self._index.absolute(path))
        return f"file changed: {path}" if is_there else f"file is gone: {path}"

    def _is_as_read(self, stored: str, mark: Sequence[Any]) -> bool:
        path = self._index.absolute(stored)
        size, mtime_ns, sha256, ctime_ns, inode = mark
        try:
            stamp = _stamp_of(path)
            if stamp == (size, mtime_ns, ctime_ns, inode):
                return True
            return bool(stamp[0] == size and self.digest(path) == sha256)
        except OSError:
            return False


def _stamp_of(path: str) -> tuple[int, int, int, int]:
    return content_stamp(os.stat(path))  # noqa: PTH116 - 10,000 times in a run


def _listings_of(entry: Entry) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the folders that an item listed, with their scan parameters."""
    for path, mark in entry.marks(LISTED).items():
        folder = path.removesuffix("/")
        yield from ((_listing_key(folder, given), (folder, given)) for given, _ in mark[1:])


def _listing_key(folder: str, given: str) -> str:
    return f"{folder}\n{given}"


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
