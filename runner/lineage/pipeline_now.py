"""The pipeline of a recorded item as it is now, by which `paddock why` says what changed since.

Where it is not bound, only what the item depended on is compared; `bound_pipeline` has the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.core.traces.preparation import dependency_differences
from paddock.runner.core.traces.world import World
from paddock.runner.progress.reasons import Reason

from .change_wording import dependency_wording
from .path_lineage import LineageChange
from .recorded_items import ItemOutput, RecordedItem


@dataclass(slots=True)
class PipelineNow:
    """The pipeline of an item as it is now; this one is not bound."""

    world: World
    fault: Reason | None = field(default=None, kw_only=True)
    """Why it cannot be used; None: it can, or its rules are as they were."""

    def notes(self, item: RecordedItem) -> Iterable[Reason]:
        """Return what is not known of an item."""
        return ()

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        """Return what changed of an item's rule, and of what it depended on.

        `subject` names the item.
        """
        changes = [] if self.fault is None else [LineageChange(self.fault)]
        if item.entry is not None:
            world = self.world
            reasons = await dependency_differences(item.owner.scope_id, item.entry, world)
            changes += dependency_wording(reasons, subject, world.is_there)
        return changes

    async def changes_by_plan(
        self, output: ItemOutput, explained: Collection[str], *, has_changed: bool
    ) -> list[LineageChange]:
        """Return what a plan says of an output, and of what comes before its item.

        `explained` are steps of which all is said. `has_changed`: so it is of the item.
        """
        return []
