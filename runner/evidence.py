"""What an item read and wrote, as marks in its entry, and whether the disk still agrees.

A mark is of a file that was read, of a folder that was listed within the item, of a file that an
item within it wrote, of rows that it keeps in a vector store, of a store that it searched, of a
file that it brought away, or of one that it did not write over. Knows no step but the one that
lists folders.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.steps.stores.opened import OpenStores

from .freshness import KEPT_NO_MORE, LOST_FILE, LOST_ROWS, canonical, is_loss, part
from .ledger.entries import Entry
from .ledger.outputs import Index, sha256_of

if TYPE_CHECKING:
    from paddock.steps.files_scan import FilesScanParams
    from paddock.steps.roots import Roots

SCAN = "files.scan"
LISTED, WRITTEN, ROWS, STORE, AWAY = "listed", "written", "rows", "store", "away"
HELD = "held"
"""What the marks begin with that are not of a file that was read."""


def is_of_a_file(mark: Sequence[Any]) -> bool:
    """Tell whether a mark is of a file that was read."""
    return bool(mark) and mark[0] not in (LISTED, WRITTEN, ROWS, STORE, AWAY, HELD)


def held_mark(stored: str, sha256: str) -> dict[str, list[Any]]:
    """Mark a file that is kept as somebody left it, where this digest would have been written."""
    return {f"{HELD} {stored}": [HELD, stored, sha256]}


def held_paths(reads: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the stored paths of the files that are marked as held."""
    return [mark[1] for mark in reads.values() if mark[0] == HELD]


def written_within(scope: str, key: str, paths: Iterable[str]) -> dict[str, list[Any]]:
    """Mark what an item within another one wrote."""
    return {path: [WRITTEN, scope, key] for path in paths}


def of_items_within(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """Give what items within an item wrote: (scope, key, path)."""
    if entry.reads is not None and f'["{WRITTEN}"' in entry.reads:
        for path, mark in json.loads(entry.reads).items():
            if mark[0] == WRITTEN:
                yield mark[1], mark[2], path


def marks_of(entry: Entry, scope: str) -> dict[str, list[Any]]:
    """Give what an entry depends on, for the item around it."""
    reads: dict[str, list[Any]] = json.loads(entry.reads) if entry.reads else {}
    outputs = json.loads(entry.outputs) if entry.outputs else ()
    return reads | written_within(scope, entry.key, outputs)


class Evidence:
    """Marks files and folders, and compares them; reads each file once."""

    def __init__(self, index: Index, stores: OpenStores | None = None) -> None:
        self._index = index
        self._stores = stores or OpenStores(Path(index.absolute("")))
        self._digests: dict[str, str] = {}
        self._listings: dict[str, str] = {}
        """Digests of folders as they are listed now."""

    def digest(self, path: str) -> str:
        """Give the sha256 of a file, read once in a run."""
        if path not in self._digests:
            self._digests[path] = sha256_of(Path(path))
        return self._digests[path]

    def mark(self, path: str) -> list[Any]:
        """Give size, mtime_ns and sha256 of a file that a step is about to read."""
        stat = os.stat(path)  # noqa: PTH116 - 10,000 times in a run
        return [stat.st_size, stat.st_mtime_ns, self.digest(path)]

    def note_listing(
        self,
        reads: dict[str, list[Any]],
        params: FilesScanParams,
        files: Sequence[Mapping[str, Any]] | None,
        roots: Roots,
        owned: frozenset[Path] = frozenset(),
    ) -> None:
        """Add the mark of a folder that was listed for one item. Blocking.

        Without `files` it is listed anew, but for what is `owned`: what a step `returns` may leave
        out what its items depend on.
        """
        name = f"{self._index.stored(str(roots.resolve(params.root)))}/"
        given = canonical(params.model_dump(mode="json", exclude={"root"}))
        before = reads.get(name, [LISTED])
        listings = before[1:] if before[0] == LISTED else []
        if files is None:
            seen = _listed(str(roots.resolve(params.root)), given, roots, owned)
        else:
            seen = _digest_of((file["relpath"], file["sha256"]) for file in files)
        reads[name] = [LISTED, *(one for one in listings if one[0] != given), [given, seen]]

    # --- comparing

    async def look(self, entries: Iterable[Entry], roots: Roots) -> None:
        """List the folders that these items listed, and look at the stores that they know.

        `difference` then need not.
        """
        entries = list(entries)
        stores = {path for entry in entries for path in _stores_of(entry)}
        await self._stores.look(Path(self._index.absolute(path)) for path in sorted(stores))
        wanted = {key: one for entry in entries for key, one in _listings(entry)}
        wanted = {key: one for key, one in wanted.items() if key not in self._listings}
        if wanted:
            owned = self._index.owned()  # here, since the loop's tasks add to it
            await asyncio.to_thread(self._list_all, wanted, roots, owned)

    def _list_all(
        self, wanted: Mapping[str, tuple[str, str]], roots: Roots, owned: frozenset[Path]
    ) -> None:
        for key, (folder, given) in wanted.items():
            self._listings[key] = _listed(self._index.absolute(folder), given, roots, owned)

    def difference(self, scope: str, entry: Entry, edited: list[str]) -> str | None:
        """Say what of what an item wrote and read has changed; None when all is as it was.

        What it read goes before what it made and is lost: that can be made again without a call.
        Outputs that are as somebody else left them are put into `edited`, and are no difference.
        """
        loss = None
        for path in json.loads(entry.outputs) if entry.outputs else ():
            loss = loss or self._of_output(scope, path, edited)
        for path, mark in json.loads(entry.reads).items() if entry.reads else ():
            reason = self._of_mark(path, mark, edited)
            if reason is not None and not is_loss(reason):
                return reason
            loss = loss or reason
        return loss

    def released(self, entry: Entry) -> str | None:
        """Say why a file that an item was not allowed to write over can be written now."""
        if entry.reads is None or f'["{HELD}"' not in entry.reads:
            return None
        marks = (mark for mark in json.loads(entry.reads).values() if mark[0] == HELD)
        reasons = (self._of_held(path, ours, []) for _, path, ours in marks)
        return next((reason for reason in reasons if reason is not None), None)

    def is_as_read(self, scope: str, entry: Entry) -> bool:
        """Tell whether all that an item read is as it was; what it made may be lost."""
        difference = self.difference(scope, entry, [])
        return difference is None or is_loss(difference)

    def agrees(self, path: str, mark: Sequence[Any]) -> bool:
        """Tell whether what a mark is of is as it was; `look` at its entry comes before."""
        return self._of_mark(path, mark, []) is None

    def _of_output(self, scope: str, path: str, edited: list[str]) -> str | None:
        condition = self._index.condition(scope, path)
        if condition == "missing":
            return f"{LOST_FILE}{path}"
        if condition == "edited":
            edited.append(path)
        return None

    def _of_held(self, path: str, ours: str, edited: list[str]) -> str | None:
        """Say of a file that was kept as somebody had left it why it can be written now."""
        absolute = Path(self._index.absolute(path))
        try:
            there = sha256_of(absolute)  # not `digest`: this run may write it
        except OSError:
            return f"{LOST_FILE}{path}"
        if there == ours:
            return None
        if there in self._index.known_sha256(absolute):
            return f"{KEPT_NO_MORE}{path}"
        edited.append(path)
        return None

    def _of_mark(self, path: str, mark: Sequence[Any], edited: list[str]) -> str | None:
        if mark[0] == WRITTEN:
            return self._of_output(mark[1], path, edited)
        if mark[0] == HELD:
            return self._of_held(mark[1], mark[2], edited)
        if mark[0] == LISTED:
            folder = path.removesuffix("/")
            same = all(self._listings.get(_key(folder, given)) == was for given, was in mark[1:])
            return None if same else f"folder changed: {folder}"
        if mark[0] == ROWS:
            held = self._stores.holds(Path(self._index.absolute(mark[1])), mark[2])
            return None if held == mark[3] else f"{LOST_ROWS}{mark[1]}"
        if mark[0] == STORE:
            content = self._stores.content(Path(self._index.absolute(path)))
            return None if content == mark[1] else f"store changed: {path}"
        if mark[0] == AWAY:
            is_there = os.path.lexists(self._index.absolute(path))
            return f"there again: {path}" if is_there else None
        return None if self._is_as_read(path, mark) else f"file changed: {path}"

    def _is_as_read(self, stored: str, mark: Sequence[Any]) -> bool:
        path = self._index.absolute(stored)
        try:
            stat = os.stat(path)  # noqa: PTH116 - 10,000 times in a run
            if [stat.st_size, stat.st_mtime_ns] == list(mark[:2]):
                return True
            return bool(stat.st_size == mark[0] and self.digest(path) == mark[2])
        except OSError:
            return False


def _listings(entry: Entry) -> Iterator[tuple[str, tuple[str, str]]]:
    """Give the folders that an item listed, and how."""
    if entry.reads is None or f'["{LISTED}"' not in entry.reads:
        return
    for path, mark in json.loads(entry.reads).items():
        if mark[0] == LISTED:
            folder = path.removesuffix("/")
            yield from ((_key(folder, given), (folder, given)) for given, _ in mark[1:])


def _stores_of(entry: Entry) -> Iterator[str]:
    """Give the stores in which an item has rows, or that it searched."""
    reads = entry.reads
    if reads is None or (f'["{ROWS}"' not in reads and f'["{STORE}"' not in reads):
        return
    for path, mark in json.loads(reads).items():
        if mark[0] in (ROWS, STORE):
            yield mark[1] if mark[0] == ROWS else path


def _key(folder: str, given: str) -> str:
    return f"{folder}\n{given}"


def _listed(folder: str, given: str, roots: Roots, owned: frozenset[Path]) -> str:
    """Give the digest of a folder's listing; empty where it cannot be listed. Blocking."""
    from paddock.steps.files_scan import FilesScanParams, scan
    from paddock.steps.step import StepError

    try:
        params = FilesScanParams.model_validate({**json.loads(given), "root": folder})
        files, _ = scan(params, Path(folder), roots.allowed, owned)
    except (OSError, ValueError, StepError):
        return ""
    return _digest_of((file.relpath, file.sha256) for file in files)


def _digest_of(files: Iterable[tuple[str, str | None]]) -> str:
    return part(sorted(files))
