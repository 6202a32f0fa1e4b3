"""Documents that were moved away: where each lies now, and what it was when it was listed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from paddock.engine.system import no_links
from paddock.engine.system.records import Struct
from paddock.runner.ledger.filed_store import FiledRow, FiledStore, MoveRow
from paddock.steps.files.scan import file_at, modified_at

from ..run_records import read_lineage
from .block_items import is_file_value

if TYPE_CHECKING:
    from paddock.runner.ledger.entries import LineageRow
    from paddock.runner.ledger.output_index import OutputIndex

    from .block_work import ItemWork

Document = tuple[str, str]
"""Stored path and digest of a file."""


def document_of(item: ItemWork, index: OutputIndex) -> Document | None:
    """Return the document that an item is, or is a result of: as it was listed, not as it lies."""
    row = item.filed or item.was_filed
    return document_at(item.value, index) if row is None else (row.path, row.sha256)


def document_at(value: Any, index: OutputIndex) -> Document | None:
    is_document = is_file_value(value) and isinstance(value.get("path"), str)
    return (index.stored(value["path"]), value["sha256"]) if is_document else None


class DocumentPlaces(Struct, frozen=True):
    """Where does a document of these folders lie now, and what was it when it was listed?"""

    index: OutputIndex
    roots: Sequence[Path]
    """The folders in which they are listed."""

    def moves_from(self, paths: Collection[str]) -> Mapping[Document, MoveRow]:
        """Return the moves of files that lay at these paths, but for those only noted."""
        moves = FiledStore(self.index.ledger).moves_from(paths)
        return {at: move for at, move in moves.items() if not move.scope or self._is_made(move)}

    def _is_made(self, move: MoveRow) -> bool:
        """Return whether the document is where it was to go."""
        at = Path(self.index.absolute(move.target))
        document = file_at(at, at.name)
        return document is not None and document["sha256"] == move.sha256

    def is_there(self, row: FiledRow) -> bool:
        return bool(row.target) and os.path.lexists(self.index.absolute(row.target or ""))

    def find(self, row: FiledRow, relpath: str | None = None) -> Any:
        """Return a document as a scan finds it where it lies now; None: it does not."""
        relpath = relpath or self.relpath(row)
        if not row.target or relpath is None:
            return None
        return file_at(Path(self.index.absolute(row.target)), relpath)

    def as_listed(self, row: FiledRow, lineage: LineageRow | None = None) -> Any:
        """Return a document as it was listed; `lineage` has what a file that is gone does not."""
        relpath, source = self.relpath(row), read_lineage(lineage).source
        name = PurePosixPath(relpath or row.name)
        size, modified = (source.size, source.modified) if source else (0, "")
        if not modified:
            modified = modified_at(lineage.at if lineage else 0)
            if row.target and relpath is not None:
                with suppress(OSError):
                    facts = no_links.facts_of(Path(self.index.absolute(row.target)))
                    modified = modified_at(facts.st_mtime)
        return {
            "path": self.index.absolute(row.path), "relpath": relpath or row.name,
            "name": name.name, "stem": name.stem, "suffix": name.suffix, "size": size,
            "modified": modified, "sha256": row.sha256,
        }  # fmt: skip

    def relpath(self, row: FiledRow) -> str | None:
        """Return a document's path in the folder that it was listed in; None: in none of these."""
        path = Path(self.index.absolute(row.path))
        roots = (root for root in self.roots if path.is_relative_to(root))
        return next((path.relative_to(root).as_posix() for root in roots), None)

    def followed(self, rows: Iterable[FiledRow]) -> list[FiledRow]:
        """Return those that an item of another block has moved on, with where they lie now."""
        rows = [row for row in rows if row.target]
        moves, known, paths = dict[Document, MoveRow](), set[str](), {row.path for row in rows}
        while paths := paths - known:
            known |= paths
            found = self.moves_from(paths)
            moves, paths = {**moves, **found}, {m.target for m in found.values() if m.target}
        moved = list[FiledRow]()
        for row in rows:
            place, at = row.path, 0.0  # each later move took it from where the earlier one did
            while (m := moves.get((place, row.sha256))) and m.target and m.at > at:
                place, at = m.target, m.at
            if place not in (row.path, row.target):
                moved.append(row._replace(target=place))
        return moved

    def missing(self, targets: Iterable[str]) -> set[str]:
        """Return which stored paths are not there; their folders are listed: 100,000 may be."""
        missing = {*targets}
        for folder in {target.rpartition("/")[0] for target in missing}:
            with suppress(OSError):
                names = os.listdir(self.index.absolute(folder))  # noqa: PTH208
                missing.difference_update([f"{folder}/{n}" for n in names] if folder else names)
        return missing
