"""What is in the way of an output: a file where a folder has to be, or a folder at its own path.

An output that no longer applies gives way where it may be removed, as it would be replaced at the
same path. All else stays: the item waits, and each run looks again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system import no_links
from paddock.engine.system.files import TEMPORARY_SUFFIX, remove_stale_files
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.output_conditions import OURS, condition_of
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.paths import nearest_existing, os_errors_refused

from ..failures import OutputTaken
from ..traces.verdicts import Case, ItemVerdict
from .outdated_outputs import OutdatedFinder, listed_names

if TYPE_CHECKING:
    from ..expected_paths import ExpectedPaths
    from ..run_context import RunContext
    from ..traces.block_work import BlockWork
    from ..traces.scopes import ItemKey

MOST_FILES = 10_000
"""A folder with more stays."""


class PathObstacles:
    def __init__(self, context: RunContext, items: tuple[ItemKey, ...]) -> None:
        """`items`: those around the item that writes, outermost first, and itself."""
        self._context, self._index, self._items = context, context.index, items
        self._there: Path | None = None
        self._files: Sequence[Path] = ()

    async def reason_to_wait(self, stored: str) -> Reason | None:
        """Return why what is in the way of a path stays; None: nothing is, or it gives way.

        1. A link, or a file that is not ours, or that a person edited.
        2. What an item keeps, also one that has the path in this run, or another pipeline.
        3. A path that names more than its item, and thus another report with another value.
        4. What no longer applies, where nothing asks to remove it: not the item's own output,
           neither under its former name.
        """
        index, owners = self._index, self._context.owners
        self._there, self._files, links = await asyncio.to_thread(
            _in_the_way, index.absolute(stored)
        )
        if links or len(self._files) > MOST_FILES:
            return Why.IN_THE_WAY(stored, index.stored(str((*links, self._there)[0])))
        for path in map(index.stored, self._files):
            rows = [row for row in index.rows_at(path) if row.size is not None]
            conditions = {condition_of(index, row.scope, path) for row in rows}
            if conditions.isdisjoint(OURS):  # 1
                return Why.IN_THE_WAY(stored, path)
            owner = await owners.owner_of(self._context.judge, path, self._items)  # 2
            pipeline = index.owners.other_owner(path)
            if name := pipeline or (owner and owner[1]):
                return Why.IN_THE_WAY_OF_ITEM(stored, path, name)
            for row in rows:
                finder = OutdatedFinder(self._context, {})
                if not finder.is_of_item_alone(row):  # 3
                    return Why.IN_THE_WAY(stored, path)
                is_asked = self._context.options.prune
                if not (is_asked or owners.gives_way(self._context.judge, row, self._items)):
                    return Why.IN_THE_WAY_OUTDATED(stored, path)  # 4
        return None

    async def remove(self, stored: str) -> None:
        """Remove what is in the way of a path, and gives way.

        Raises:
            OutputTaken: it stays (`reason_to_wait`).
            StepError: the system refuses it.
        """
        if (why := await self.reason_to_wait(stored)) is not None:
            raise OutputTaken(why)
        names = listed_names(map(self._index.stored, self._files))
        with os_errors_refused(f"what is in the way of '{stored}' cannot be removed: {names}"):
            await asyncio.to_thread(_remove, self._there, self._files)
        if self._files:
            self._context.stats.count_removed(len(self._files))
            self._context.stats.note(f"removed, since '{stored}' takes its place: {names}")


async def wait_for_obstacles(
    context: RunContext,
    work: BlockWork,
    scope: Scope,
    expected: Iterable[ExpectedPaths],
    around: tuple[ItemKey, ...],
) -> None:
    """Block the items with something in the way of a path that they are expected to write."""
    items = {item.key: item for item in work.items}
    for known in expected:
        for key, path in (
            known.texts.items() if known.effect.is_claimed and known.effect.is_path else ()
        ):
            if items[key].verdict.is_work and not is_free(path):
                if str(known.effect.value.render(items[key].scope_in(work.block, scope))).endswith(
                    "/"
                ):
                    continue  # it names a folder, which the step refuses
                obstacles = PathObstacles(context, (*around, (work.scope_id, key)))
                if why := await obstacles.reason_to_wait(context.index.stored(path)):
                    items[key].verdict = ItemVerdict(ItemState.BLOCKED, (why,), Case.WAITS)


def is_free(path: str) -> bool:
    """Return whether a file can be made without a new folder, as nearly all."""
    return os.path.isdir(os.path.dirname(path)) and not os.path.isdir(path)  # noqa: PTH112, PTH120


def _in_the_way(path: str) -> tuple[Path | None, Sequence[Path], Sequence[Path]]:
    """Return what is in the way of a file, the files in it, if it is a folder, and links. Blocking.

    Not much more than `MOST_FILES`.
    """
    there, files, links = nearest_existing(Path(path)), list[Path](), list[Path]()
    if there.is_symlink():
        return there, (), (there,)
    if not there.is_dir():
        return there, (there,), ()
    if str(there) != path:  # folders are made
        return None, (), ()
    for at, folders, names in os.walk(there):
        links += (folder for folder in (Path(at, name) for name in folders) if folder.is_symlink())
        for name in sorted(names):
            if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
                continue  # what a killed run was about to rename
            file = Path(at, name)
            (links if file.is_symlink() else files).append(file)
        if links or len(files) > MOST_FILES:
            break
    return there, files, links


def _remove(there: Path | None, files: Sequence[Path]) -> None:
    for file in files:
        no_links.remove(file)
    if there is not None and there not in files:
        for folder, _, _ in [*os.walk(there, topdown=False)]:
            remove_stale_files(Path(folder), waits=True)
            no_links.remove_empty_folder(Path(folder))
