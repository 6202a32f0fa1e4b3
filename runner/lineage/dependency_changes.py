"""What changed of what an item depended on, where its rule is as it was.

No pipeline has to be bound for that; `pipeline_now` compares items of which it has to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from paddock.runner.core.rule_sources import Sources
from paddock.runner.core.traces.dependencies import (
    ChosenLabels,
    FolderListed,
    NarrowedLabels,
    Trace,
    UsedExamples,
    World,
    dependencies_of,
)
from paddock.runner.core.traces.parts import PLACE_IN_LIST, OuterValue, part_of
from paddock.runner.core.traces.past_items import PastItems
from paddock.runner.core.traces.verify import ItemNow, differences
from paddock.runner.ledger.output_index import OutputIndex
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


def is_covered(item: RecordedItem, sources: Sources) -> bool:
    """Return whether an item has no part that is neither of its rule nor of its document."""
    entry = item.entry
    if entry is None or item.document is None or item.owner.step not in sources["alone"]:
        return False
    if dependencies_of(entry, ChosenLabels, NarrowedLabels, UsedExamples, FolderListed):
        return False
    parts = [*map(part_of, json.loads(entry.parts))]
    roots = {part.root for part in parts if isinstance(part, OuterValue)}
    return PLACE_IN_LIST not in parts and roots <= {"inputs"}


async def changes_by_same_rule(
    item: RecordedItem, world: World, subject: str
) -> list[LineageChange]:
    """Return what changed of what an item depended on, but for files."""
    entry, scope, roots = item.entry, item.owner.scope, Roots(item.base, ())
    assert entry is not None
    trace = Trace(scope, entry, PastItems(world.index.ledger, scope, None))
    now = ItemNow(entry.hash, entry.parts)
    prepared = await world.prepare([trace], {entry.key: entry.hash}, roots, {})
    return lineage_changes(differences(trace, now, prepared, ()), world.index, subject)


def lineage_changes(
    reasons: Iterable[Reason], index: OutputIndex, subject: str, lines: tuple[str, ...] = ()
) -> list[LineageChange]:
    """Return why an item is not as it was, as changes since its output was made.

    `lines` are the difference of its spec; `subject` names it in sentences.
    """
    changes: list[LineageChange] = []
    for reason in reasons:
        if reason.why in _SURROUNDINGS:
            (path,) = reason.about
            changed, gone = _SURROUNDINGS[reason.why]
            is_there = Path(index.absolute(str(path))).is_dir()
            changes.append(LineageChange((changed if is_there else gone)(subject, path)))
        elif not reason.is_loss and reason.why not in (Why.FILE, Why.FILE_GONE):
            changes.append(LineageChange(reason, lines))
            lines = ()
    return changes
