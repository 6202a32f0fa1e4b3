"""The rule of a recorded item as it is now: what is asked of it, where no pipeline has to be bound.

`pipeline_now` has the answers of a pipeline that was bound for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from paddock.runner.core.dependencies import (
    ChosenLabels,
    FolderListed,
    NarrowedLabels,
    Trace,
    UsedExamples,
    World,
    dependencies_of,
)
from paddock.runner.core.parts import PLACE_IN_LIST, OuterValue, part_of
from paddock.runner.core.past_items import PastItems
from paddock.runner.core.rule_sources import Sources
from paddock.runner.core.verify import ItemNow, differences
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.base import Roots

from .path_lineage import LineageChange
from .recorded_items import RecordedItem

_SURROUNDINGS = {
    Why.FOLDER: (Why.LISTED_CHANGED, Why.LISTED_GONE),
    Why.STORE: (Why.SEARCHED_CHANGED, Why.SEARCHED_GONE),
    Why.ROWS_LOST: (Why.ROWS_CHANGED, Why.ROWS_GONE),
}
"""What a plan says of a folder or store → what is said here, where that is there and is gone."""


class RuleNow:
    """A rule of which nothing is known."""

    def __init__(self, world: World, *reasons: Reason) -> None:
        """`reasons`: why nothing is known of it."""
        self._world, self._index, self._reasons = world, world.index, reasons

    def notes(self, item: RecordedItem) -> Iterable[Reason]:
        """Return what is not known of an item's output."""
        return ()

    def outdated(self, item: RecordedItem) -> Reason | None:
        """Return why an output no longer applies by a plan, where the pipeline may say so."""
        return None

    def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        """Return what changed of an item's rule, and of what it depended on but for files."""
        return [*map(LineageChange, self._reasons)]

    def changes_before(
        self, item: RecordedItem, explained: Collection[str], *, has_changes: bool
    ) -> list[LineageChange]:
        """Return which nodes before an item have work to do, but for `explained` ones.

        If nothing changed so far: why a run would do the item again, or the one around it.
        """
        return []

    def _as_told(
        self, reasons: Iterable[Reason], subject: str, lines: tuple[str, ...] = ()
    ) -> list[LineageChange]:
        """Return an item's reasons as they are told of its output.

        `lines` are the difference of its spec; `subject` names it in sentences.
        """
        changes: list[LineageChange] = []
        for reason in reasons:
            if reason.why in _SURROUNDINGS:
                (path,) = reason.about
                changed, gone = _SURROUNDINGS[reason.why]
                is_there = Path(self._index.absolute(str(path))).is_dir()
                changes.append(LineageChange((changed if is_there else gone)(subject, path)))
            elif not reason.is_loss and reason.why not in (Why.FILE, Why.FILE_GONE):
                changes.append(LineageChange(reason, lines))
                lines = ()
        return changes


class UnchangedRule(RuleNow):
    """A rule that is made of the same as when the item was done: what it depended on is left."""

    @staticmethod
    def covers(item: RecordedItem, sources: Sources) -> bool:
        """Return whether an item has no part that is neither of its rule nor of its document."""
        entry = item.entry
        if entry is None or item.source is None or item.owner.step not in sources["alone"]:
            return False
        if dependencies_of(entry, ChosenLabels, NarrowedLabels, UsedExamples, FolderListed):
            return False
        parts = [*map(part_of, json.loads(entry.parts))]
        roots = {part.root for part in parts if isinstance(part, OuterValue)}
        return PLACE_IN_LIST not in parts and roots <= {"inputs"}

    def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        entry, scope, roots = item.entry, item.owner.scope, Roots(item.base, ())
        assert entry is not None
        trace = Trace(scope, entry, PastItems(self._index.ledger, scope, None))
        hashes, now = {entry.key: entry.hash}, ItemNow(entry.hash, entry.parts)
        world = asyncio.run(self._world.prepare([trace], hashes, roots, {}))
        return self._as_told(differences(trace, now, world, ()), subject)
