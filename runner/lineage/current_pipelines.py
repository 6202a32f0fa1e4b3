"""The pipelines of recorded items as they are now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import PipelineError
from paddock.runner.core.traces.dependencies import NEED_A_RULE, Trace
from paddock.runner.core.traces.past_items import PastItems
from paddock.runner.core.traces.preparation import prepare
from paddock.runner.core.traces.world import World
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.settings import Settings
from paddock.steps.base import Roots

from .change_wording import dependency_changes
from .path_lineage import LineageChange
from .recorded_items import RecordedItem

if TYPE_CHECKING:
    from .bound_pipeline import RecordedPipeline


class CurrentPipelines(Struct, frozen=True):
    _world: World
    _settings: Settings
    _bound: dict[str, RecordedPipeline | Reason] = field(default_factory=dict)
    """By file and inputs."""

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        """Return the changes of an item's rule and dependencies; `subject` names it.

        Where the rule cannot be compared, only dependencies are that need no rule.
        """
        pipeline = self.of(item)
        if isinstance(pipeline, Reason):
            fault, world = pipeline, self._world
        else:
            found, world = await pipeline.changes(item, subject), pipeline.world
            if not isinstance(found, Reason):
                return found
            fault = found
        changes = [LineageChange(fault)]
        if item.entry is not None:
            reasons = await _changes_without_rule(item.owner.scope_id, item.entry, world)
            changes += dependency_changes(reasons, subject, world.is_there)
        return changes

    def of(self, item: RecordedItem) -> RecordedPipeline | Reason:
        """Return an item's pipeline as it is now, with the inputs of the item's run.

        1. Why it cannot be bound: its file was deleted, or the ledger does not know which it was.
        2. It is bound, once for each file and inputs.
        3. Why it cannot be bound: it is invalid.
        """
        name = item.owner.file
        file = self._world.index.base / name
        if not name or not file.exists():  # 1
            return Why.PIPELINE_GONE(name)
        run = RunStore(self._world.ledger).run(item.run)
        recorded = json.loads(run.given) if run is not None and run.given else {}
        id_ = canonical_json([name, recorded])
        if id_ not in self._bound:
            from .bound_pipeline import bound_now  # 60 modules that few need

            try:
                self._bound[id_] = bound_now(file, recorded, self._world, self._settings)  # 2
            except PipelineError as error:
                self._bound[id_] = Why.PIPELINE_INVALID(error.faults[0].message)  # 3
        return self._bound[id_]


async def _changes_without_rule(scope_id: str, entry: Entry, world: World) -> list[Reason]:
    trace = Trace(scope_id, entry, PastItems(world.ledger, scope_id, None))
    trace.dependencies = [d for d in trace.dependencies if not isinstance(d, NEED_A_RULE)]
    hashes, roots = {entry.key: entry.hash}, Roots(world.index.base, ())
    prepared = await prepare(world, [trace], hashes, roots, {})
    dependencies = (*trace.outputs, *trace.dependencies)
    reasons = (dependency.reason(prepared, trace) for dependency in dependencies)
    return [*filter(None, reasons)]
