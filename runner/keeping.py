"""What items keep in vector stores: marked in their entries, dropped when they no longer do.

An item's rows are as much its outputs as its files are: without them it is not fresh, and when
its document goes they go by the same policy. Knows no library of stores.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.steps.step import StepError
from paddock.steps.storage import ItemName
from paddock.steps.stores.opened import OpenStores

from .binding.bound import BoundPlan
from .body import names_of
from .evidence import ROWS
from .ledger.entries import Entry, StoredRow
from .ledger.origins import Origins
from .ledger.outputs import Index
from .scope import Scope
from .tally import Tally
from .tools import ItemOutputs, Toolbox

DONE = frozenset(("done", "skipped"))
"""States in which an item keeps what it kept this time, and nothing else."""


@dataclass(frozen=True, slots=True)
class Held:
    """What an item has in a store, as its entry says."""

    path: str
    """Of the store, as the ledger writes it."""
    owner: str
    scope: str
    key: str
    sum: str

    @property
    def n_rows(self) -> int:
        """Tell how many rows it has."""
        return int(self.sum.partition(":")[0] or 0)

    def mark(self) -> tuple[str, list[Any]]:
        """Give the mark for an entry."""
        return f"{self.path}#{self.owner}", [ROWS, self.path, self.owner, self.sum, self.scope,
                                             self.key]  # fmt: skip


def held_by(entry: Entry | None) -> Iterator[Held]:
    """Give what an item has in stores, and the items within it."""
    if entry is None or entry.reads is None or f'["{ROWS}"' not in entry.reads:
        return
    for mark in json.loads(entry.reads).values():
        if mark[0] == ROWS:
            _, path, owner, whole, scope, key = mark
            yield Held(path, owner, scope, key, whole)


def named(
    scope: Scope, step: str, record_scope: str, key: str, shown: str, index: Index
) -> ItemName:
    """Say whom a step works for; its file is that of the innermost loop variable that is one."""
    files = (one for one in reversed(scope.values()) if _is_file(one))
    file: Mapping[str, Any] = next(files, {})
    path = file.get("path")
    relpath = file.get("relpath")
    stored = index.stored(path) if isinstance(path, str) else ""
    source = relpath if isinstance(relpath, str) and relpath else stored
    return ItemName(step, shown or key, source, stored, f"{record_scope}\n{key}")


def _is_file(value: Any) -> bool:
    names = ("relpath", "path")
    return isinstance(value, Mapping) and any(isinstance(value.get(name), str) for name in names)


def keeping_of(toolbox: Toolbox) -> Keeping:
    """Give what keeps the stores of a run and its ledger together."""
    stores = toolbox.stores or OpenStores(toolbox.bound.roots.base)
    return Keeping(stores, toolbox.index, toolbox.tally)


def _held(row: StoredRow) -> Held:
    return Held(row.path, "", row.scope, row.key, row.sha256)


def rows(n_rows: int) -> str:
    """Say how many rows."""
    return "1 row" if n_rows == 1 else f"{n_rows:,} rows"


class Keeping:
    """Keeps stores and ledger together, for one run."""

    def __init__(self, stores: OpenStores, index: Index, tally: Tally) -> None:
        self._stores = stores
        self._index = index
        self._origins = Origins(index.ledger)
        self._tally = tally

    async def settle(
        self,
        scope: str,
        key: str,
        outputs: ItemOutputs,
        before: Entry | None,
        state: str,
    ) -> dict[str, list[Any]]:
        """Give the marks of what an item keeps now; what it kept before and no longer does goes.

        Raises:
            StepError: a store cannot be written.
        """
        name = ItemName(owner=f"{scope}\n{key}")
        old = {
            held.path: held for held in held_by(before) if (held.scope, held.key) == (scope, key)
        }
        now: dict[str, Held] = {}
        for path in outputs.kept:
            if state in DONE:
                await self._stores.keep_only(path, name)
            owner = self._stores.owner(name, path)
            held = Held(
                self._index.stored(path), owner, scope, key, self._stores.holds(path, owner)
            )
            now[held.path] = held
            self._origins.record_stored(
                StoredRow(scope, held.path, key, held.sum, held.n_rows), self._tally.run
            )
        for stored, held in now.items():
            if held.sum != (old[stored].sum if stored in old else ""):
                self._tally.wrote(self._index.absolute(stored))
        for stored in old.keys() - now.keys():
            if state in DONE:
                await self._drop([old[stored]])
            else:
                now[stored] = old[stored]
        return dict(held.mark() for held in now.values())

    async def forget(self, entries: Iterable[Entry]) -> tuple[dict[str, int], dict[str, str]]:
        """Drop what items have in stores; gives rows dropped, and why some were not, by store."""
        dropped: dict[str, int] = {}
        refused: dict[str, str] = {}
        by_path: dict[str, list[Held]] = {}
        for entry in entries:
            for held in held_by(entry):
                by_path.setdefault(held.path, []).append(held)
        for path, several in by_path.items():
            try:
                dropped[path] = await self._drop(several)
            except StepError as error:
                refused[path] = str(error)
        return dropped, refused

    async def clear(self, bound: BoundPlan, place: Mapping[str, str], *, is_alone: bool) -> None:
        """Drop what nobody accounts for, before a run on these folders begins.

        That is what blocks and steps kept that were renamed since; and, if no other machine is
        at work, what was written when a run was killed, before the ledger knew: its item is done
        again, if it is still there.

        Raises:
            StepError: a store cannot be written.
        """
        names = frozenset(names_of(bound.nodes))
        stored = await self._index.ledger.ask(self._all_of, bound.file.name, place)
        for path in sorted({row.path for _, _, row in stored}):
            here = [one for one in stored if one[2].path == path]
            n_rows = await self._drop([_held(row) for step, _, row in here if step not in names])
            if n_rows:
                self._tally.note(f"removed, since no step keeps them: {rows(n_rows)} of '{path}'")
            if is_alone:
                await self._drop([_held(row) for step, is_done, row in here if not is_done])

    def _all_of(self, file: str, place: Any) -> list[tuple[str, bool, StoredRow]]:
        return list(self._origins.stored_by(file, place))

    async def left_of(self, entries: Iterable[Entry]) -> list[str]:
        """Say in which stores rows of items are left, and how many."""
        several = [held for entry in entries for held in held_by(entry)]
        await self._stores.look({self._path(held) for held in several})
        left: dict[str, int] = {}
        for held in several:
            if self._stores.holds(self._path(held), held.owner):
                left[held.path] = left.get(held.path, 0) + held.n_rows
        return [f"{rows(n_rows)} of {path}" for path, n_rows in left.items()]

    def _path(self, held: Held) -> Path:
        return Path(self._index.absolute(held.path))

    async def _drop(self, several: Sequence[Held]) -> int:
        if not several:
            return 0
        path = self._path(several[0])
        names = [ItemName(owner=f"{held.scope}\n{held.key}") for held in several]
        n_rows = await self._stores.forget(path, names)
        for held in several:
            self._origins.drop_stored(StoredRow(held.scope, held.path, held.key, "", 0))
        return n_rows
