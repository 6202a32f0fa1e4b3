"""The rule of a recorded item as it is now: what is asked of it, where no pipeline has to be bound.

`pipeline_now` has the answers of a pipeline that was bound for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.reasons import Reason, Why

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

    def __init__(self, index: OutputIndex, *reasons: Reason) -> None:
        """`reasons`: why nothing is known of it."""
        self._index, self._reasons = index, reasons

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

    def _changes(
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
