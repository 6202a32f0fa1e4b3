"""Vector stores of a run, each opened once; and what a store holds, for the staleness check.

Knows no ledger. The staleness check reads the manifest next to a table wherever that will do, so
that it does not wait for the library.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddock.steps.base import (
    EmbedModel,
    ItemName,
    SearchHit,
    StepError,
    Vector,
    VectorRow,
    VectorStore,
)

from . import store_manifest
from .row_changes import RowsToKeep, RowSum, row_owner
from .store_manifest import StoreFormat, StoreManifest, refuse_other_model
from .store_writer import StoreWriter
from .where_filter import InvalidFilter, Where, sql_condition

_LONGEST_VECTOR = 65_536


@dataclass(frozen=True, slots=True)
class StoreHandle:
    """Implements `paddock.steps.base.VectorStore` for whoever opened a store with a model."""

    shelf: StoreWriter
    model: EmbedModel
    home: Path
    wanted: int | None = None
    """How many dimensions its vectors shall have, if that was said."""

    @property
    def path(self) -> Path:
        """Return the folder."""
        return self.shelf.path

    @property
    def dimensions(self) -> int | None:
        """Return how long each vector is; None as long as there is none."""
        return self.shelf.label.dimensions if self.shelf.label is not None else self.wanted

    @property
    def n_rows(self) -> int:
        """Return how many rows it holds."""
        return sum(one.n_rows for one in self.shelf.sums.values())

    async def known(self, item: ItemName, made: str = "") -> Mapping[str, Vector]:
        """Return the vectors that a step keeps for an item, by text."""
        owner = row_owner(item, self.path, self.home)
        if owner not in self.shelf.sums:
            return {}
        return await self.shelf.read(lambda table: table.vectors(owner, item.step, made))

    async def replace(self, item: ItemName, rows: Sequence[VectorRow]) -> int:
        """Let a step keep exactly these rows for an item.

        Raises:
            StepError: a vector has another length; the store cannot be written.
        """
        owner = row_owner(item, self.path, self.home)
        if not rows and owner not in self.shelf.sums:
            return 0
        label = StoreFormat(self.model, self._length(rows))
        wish = await asyncio.to_thread(RowsToKeep.of, owner, item, rows)
        return await self.shelf.replace(wish, label)

    async def nearest(self, vector: Vector, k: int, where: Where = None) -> list[SearchHit]:
        """Return the `k` rows whose vectors are the most alike, nearest first.

        Raises:
            StepError: `where` is no filter; the vector's length is another; it cannot be read.
        """
        rows_that = checked_condition(where)
        if not self.shelf.sums:
            return []
        refuse_other_model(self.path, _format_of(self.shelf), StoreFormat(self.model, len(vector)))
        return await self.shelf.read(lambda table: table.nearest(vector, k, rows_that))

    async def matching(self, text: str, k: int, where: Where = None) -> list[SearchHit]:
        """Return the `k` rows whose words match the best, best first.

        Raises:
            StepError: `where` is no filter; it cannot be read.
        """
        return await self.shelf.matching(text, k, checked_condition(where))

    def _length(self, rows: Sequence[VectorRow]) -> int:
        """Return the length that all the vectors have; 0 for no rows."""
        lengths = {len(row.vector) for row in rows} | ({self.wanted} if self.wanted else set())
        if len(lengths) > 1 or not lengths <= {*range(1, _LONGEST_VECTOR + 1)}:
            found = ", ".join(f"{one:,}" for one in sorted(lengths))
            raise StepError(f"vectors of {found} dimensions cannot be kept in one store.")
        return lengths.pop() if lengths else 0


class OpenStores:
    """Implements `paddock.steps.base.VectorStores`; one for a run, closed at its end."""

    def __init__(self, home: Path, note: Callable[[str], None] = lambda text: None) -> None:
        self._home = home
        self._note = note
        self._shelves: dict[Path, StoreWriter] = {}
        self._looked: dict[Path, tuple[str, StoreManifest]] = {}

    async def open(
        self,
        path: Path,
        dimensions: int | None,
        model: EmbedModel,
        *,
        is_new_allowed: bool = True,
    ) -> VectorStore:
        """Open the store in a folder; one that is not there is made when a row is kept in it.

        Raises:
            StepError: it is missing though it must be there, broken, of another model, or of
                other dimensions.
        """
        _refuse_non_store(path)
        shelf = await self._shelf(path)
        if shelf.label is not None:
            refuse_other_model(path, shelf.label, StoreFormat(model, dimensions or 0))
        elif not is_new_allowed:
            raise StepError(
                f"there is no store '{path}'.",
                remedy="Run what fills it (`embed` with `store`) first, or correct the path.",
                kind="io",
            )
        return StoreHandle(shelf, model, self._home, dimensions)

    async def _shelf(self, path: Path) -> StoreWriter:
        shelf = self._shelves.setdefault(path, StoreWriter(path))
        await shelf.open()
        return shelf

    # --- what stores hold

    async def look(self, paths: Iterable[Path]) -> None:
        """Learn what stores hold now, for `holds` and `content`; what cannot be read is nothing."""
        for path in paths:
            if path in self._shelves:
                with contextlib.suppress(StepError):  # whoever uses it will say so
                    await self._shelves[path].renew()
                continue
            state = store_manifest.table_state(path)
            if path in self._looked and self._looked[path][0] == state:
                continue
            self._looked.pop(path, None)
            found = await self._found(path) if state else None
            if found is not None:
                self._looked[path] = (state, found)

    async def _found(self, path: Path) -> StoreManifest | None:
        known = await asyncio.to_thread(store_manifest.read_manifest, path)
        if known is not None:
            return known
        shelf = StoreWriter(path)
        try:
            await shelf.open()
        except StepError:
            return None
        return shelf.catalogue()

    def holds(self, path: Path, owner: str) -> str:
        """Return what an item has in a store, as `RowSum.text`; empty for nothing."""
        if path in self._shelves:
            return self._shelves[path].sums.get(owner, RowSum()).text
        looked = self._looked.get(path)
        return looked[1].sums.get(owner, RowSum()).text if looked is not None else ""

    def content(self, path: Path) -> str:
        """Name what a store holds; empty where there is none."""
        if path in self._shelves:
            return self._shelves[path].content()
        looked = self._looked.get(path)
        return (
            store_manifest.content_digest(looked[1].label, looked[1].whole)
            if looked is not None
            else ""
        )

    def owner(self, item: ItemName, path: Path) -> str:
        """Name an item's rows in a store."""
        return row_owner(item, path, self._home)

    # --- what items no longer have

    async def keep_only(self, path: Path, item: ItemName) -> None:
        """Drop what an item had in a store by steps that no longer keep anything there."""
        shelf = await self._shelf(path)
        await shelf.keep_only(self.owner(item, path))

    async def forget(self, path: Path, items: Iterable[ItemName]) -> int:
        """Drop all that these items have in a store, and tell how many rows that were.

        Raises:
            StepError: it cannot be written.
        """
        if not store_manifest.is_store(path):
            return 0
        shelf = await self._shelf(path)
        return await shelf.drop([self.owner(item, path) for item in items])

    async def close(self) -> None:
        """Leave every store in good order."""
        for shelf in self._shelves.values():
            try:
                await shelf.close()
            except StepError as error:
                if shelf.has_written:  # who only read need not leave anything
                    self._note(f"{error}")


def checked_condition(where: Where) -> str:
    """Return the condition of a filter.

    Raises:
        StepError: it is none.
    """
    try:
        return sql_condition(where)
    except InvalidFilter as error:
        raise StepError(f"`where`: {error}.") from error


def _format_of(shelf: StoreWriter) -> StoreFormat:
    assert shelf.label is not None  # there are rows
    return shelf.label


def _refuse_non_store(path: Path) -> None:
    """Make sure that a store's folder is one, or can be made.

    Raises:
        StepError: something else is there.
    """
    if store_manifest.is_store(path) or not path.exists():
        return
    if not path.is_dir():
        raise StepError(f"'{path}' is a file; a store is a folder.", remedy="Name another path.")
    others = [one.name for one in path.iterdir() if not _is_store_file(one.name)]
    if others:
        raise StepError(
            f"the folder '{path}' holds other things ('{min(others)}') and no store.",
            remedy="Name a folder of its own for the store, such as 'index.lance'.",
        )


def _is_store_file(name: str) -> bool:
    """Return whether something may be left of a store whose table was never made, or removed."""
    return name.startswith((store_manifest.MANIFEST_NAME, store_manifest.LOCK_NAME))
