"""The pipelines of recorded items as they are now: found, and bound only where that is needed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from paddock.engine.system.records import field, record
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import PipelineError
from paddock.runner.core.rule_sources import are_unchanged, is_decided_alone
from paddock.runner.core.traces.preparation import dependency_differences
from paddock.runner.core.traces.world import World
from paddock.runner.ledger.entries import RunRow
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.settings import Settings

from .change_wording import dependency_wording
from .path_lineage import LineageChange
from .recorded_items import RecordedItem

if TYPE_CHECKING:
    from .bound_pipeline import RecordedPipeline


@record(frozen=True, slots=True)
class CurrentPipelines:
    _world: World
    _settings: Settings
    _bound: dict[str, RecordedPipeline | Reason] = field(default_factory=dict, init=False)
    """By file and inputs."""
    _are_unchanged: dict[str, bool] = field(default_factory=dict, init=False)
    """By run: whether its rules are made of the same now."""

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        """Return the changes of an item's rule and dependencies; `subject` names it.

        Where the rule is as it was, or cannot be compared, only dependencies are that need no rule.
        """
        pipeline = await self.of(item)
        if pipeline is None or isinstance(pipeline, Reason):
            fault, world = pipeline, self._world
        else:
            found, world = await pipeline.changes(item, subject), pipeline.world
            if not isinstance(found, Reason):
                return found
            fault = found
        changes = [] if fault is None else [LineageChange(fault)]
        if item.entry is not None:
            reasons = await dependency_differences(item.owner.scope_id, item.entry, world)
            changes += dependency_wording(reasons, subject, world.is_there)
        return changes

    async def of(self, item: RecordedItem) -> RecordedPipeline | Reason | None:
        """Return an item's pipeline as it is now, with the inputs of the item's run.

        1. Why it cannot be bound: its file was deleted, or the ledger does not know which it was.
        2. None: it need not be bound, since the item's rule is made of the same as in its run.
        3. It is bound, once for each file and inputs.
        4. Why it cannot be bound: it is invalid.
        """
        name = item.owner.file
        file = self._world.index.base / name
        if not name or not file.exists():  # 1
            return Why.PIPELINE_GONE(name)
        run = RunStore(self._world.ledger).run(item.run)
        if run is not None and await self._is_rule_unchanged(item, run):  # 2
            return None
        recorded = json.loads(run.given) if run is not None and run.given else {}
        id_ = canonical_json([name, recorded])
        if id_ not in self._bound:
            from .bound_pipeline import bound_now  # 60 modules that few need

            try:
                self._bound[id_] = bound_now(file, recorded, self._world, self._settings)  # 3
            except PipelineError as error:
                self._bound[id_] = Why.PIPELINE_INVALID(error.faults[0].message)  # 4
        return self._bound[id_]

    async def _is_rule_unchanged(self, item: RecordedItem, run: RunRow) -> bool:
        entry, sources = item.entry, json.loads(run.summary or "{}").get("rules")
        if not sources or entry is None or entry.run != run.run or item.source is None:
            return False
        if not is_decided_alone(sources, item.owner.step, entry):
            return False
        if run.run not in self._are_unchanged:
            are_same = await are_unchanged(sources, self._world, self._settings)
            self._are_unchanged[run.run] = are_same
        return self._are_unchanged[run.run]
