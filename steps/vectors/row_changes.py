"""Rows of a vector store: their digests, and which rows one commit must write and drop.

A row belongs to an owner (an item) and a step, and has an index there. Its digest covers
everything but the vector, which follows from the text. The combined digests of an owner's rows show
whether all of them are there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from paddock.engine.system.records import Struct, field
from paddock.steps.base import ItemName, VectorRow
from paddock.steps.item_rows import RowSum

_DIGEST_BYTES = 16
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
TABLE_COLUMNS = (
    *("id", "owner", "step", "item", "source", "index", "page", "page_end", "headings", "text"),
    *("print", "made", "vector", "score", "_text"),
)
"""Names that a store's own columns cannot have."""
_MOST_LISTED_ROWS = 500
"""Above this, dropped rows are not listed one by one."""


class HashedRow(Struct, frozen=True):
    id: str
    print: str
    row: VectorRow


class RowsToKeep(Struct, frozen=True):
    """All rows of a step for an item, which replace its earlier ones."""

    owner: str
    step: str
    item: str
    source: str
    rows: tuple[HashedRow, ...]

    @classmethod
    def of(cls, owner: str, item: ItemName, rows: Sequence[VectorRow]) -> RowsToKeep:
        source = item.source or item.key
        hashed: list[HashedRow] = []
        for row in rows:
            parts = [owner, item.step, item.key, row.source or source, row.index, row.text]
            parts += [row.page, row.page_end, list(row.headings), row.made]
            parts += [dict(sorted(row.columns.items()))] if row.columns else []
            text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
            hashed.append(HashedRow(f"{owner}:{item.step}:{row.index}", digest.hex(), row))
        return cls(owner, item.step, item.key, source, tuple(hashed))


class KnownRow(Struct, frozen=True):
    owner: str
    step: str
    index: int
    print: str


class RowsToDrop(Struct, frozen=True):
    owner: str
    step: str | None = None
    above: int | None = None
    """Only those whose index is larger."""
    indexes: tuple[int, ...] = ()
    """Only these; empty for all."""


class RowChanges(Struct):
    """One commit: rows to write by id, and rows to drop."""

    put: list[tuple[RowsToKeep, HashedRow]] = field(default_factory=list)
    drop: list[RowsToDrop] = field(default_factory=list)
    has_old: bool = False
    sums: dict[str, RowSum] = field(default_factory=dict)


def row_owner(item: ItemName, store: Path, home: Path) -> str:
    """Return the owner of an item's rows, the same in every run.

    A store next to its pipeline moves with it; in a store elsewhere the pipeline's path separates
    pipelines of the same name.
    """
    place = "" if store.is_relative_to(home) else str(home)
    return hashlib.sha256(f"{place}\n{item.owner or item.key}".encode()).hexdigest()[:32]


def row_changes(targets: Iterable[RowsToKeep], known: Iterable[KnownRow]) -> RowChanges:
    """Compare rows to keep with stored ones; `known` has all rows of these owners."""
    found: dict[str, dict[tuple[str, int], str]] = {}
    for row in known:
        found.setdefault(row.owner, {})[row.step, row.index] = row.print
    made = RowChanges()
    for target in targets:
        here = found.setdefault(target.owner, {})
        kept_rows = {kept.row.index: kept for kept in target.rows}
        gone = [i for step, i in here if step == target.step and i not in kept_rows]
        for index, kept in kept_rows.items():
            old = here.get((target.step, index))
            if old != kept.print:
                made.put.append((target, kept))
                made.has_old = made.has_old or old is not None
            here[target.step, index] = kept.print
        made.drop += _rows_to_drop(target, gone, kept_rows)
        for index in gone:
            del here[target.step, index]
        made.sums[target.owner] = RowSum.of(here.values())
    return made


def _rows_to_drop(
    target: RowsToKeep, gone: Sequence[int], kept_rows: Mapping[int, HashedRow]
) -> Iterable[RowsToDrop]:
    if not gone:
        return
    if not kept_rows:
        yield RowsToDrop(target.owner, target.step)
        return
    most = max(kept_rows)
    between = [index for index in gone if index < most]
    if len(between) < len(gone):
        yield RowsToDrop(target.owner, target.step, above=most)
    for first in range(0, len(between), _MOST_LISTED_ROWS):
        yield RowsToDrop(
            target.owner, target.step, indexes=tuple(between[first : first + _MOST_LISTED_ROWS])
        )
