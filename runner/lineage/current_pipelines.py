"""The pipelines of recorded items as they are now: found, and bound only where that is needed."""

from __future__ import annotations

import json

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import PipelineError
from paddock.runner.core.rule_sources import are_unchanged, is_decided_alone
from paddock.runner.core.traces.world import World
from paddock.runner.ledger.entries import RunRow
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.reasons import Why
from paddock.runner.settings import Settings

from .pipeline_now import PipelineNow
from .recorded_items import RecordedItem


@dataclass(frozen=True, slots=True)
class CurrentPipelines:
    """The pipelines of one ledger's items; none is looked at twice."""

    _world: World
    _settings: Settings
    _bound: dict[str, PipelineNow] = field(default_factory=dict, init=False)
    """By file and inputs."""
    _are_unchanged: dict[str, bool] = field(default_factory=dict, init=False)
    """By run: whether its rules are made of the same now."""

    async def of(self, item: RecordedItem) -> PipelineNow:
        """Return an item's pipeline as it is now, with the inputs of the item's run.

        1. Its file was deleted, or the ledger does not know which it was.
        2. It need not be bound, since the item's rule is made of the same as in its run.
        3. It is bound, once for each file and inputs.
        4. It is invalid.
        """
        name = item.owner.file
        file = self._world.index.base / name
        if not name or not file.exists():  # 1
            return PipelineNow(self._world, fault=Why.PIPELINE_GONE(name))
        run = RunStore(self._world.ledger).run(item.run)
        if run is not None and await self._is_rule_unchanged(item, run):  # 2
            return PipelineNow(self._world)
        recorded = json.loads(run.given) if run is not None and run.given else {}
        id_ = canonical_json([name, recorded])
        if id_ not in self._bound:
            from .bound_pipeline import bound_now  # 60 modules that few need

            try:
                self._bound[id_] = bound_now(file, recorded, self._world, self._settings)  # 3
            except PipelineError as error:
                fault = Why.PIPELINE_INVALID(error.faults[0].message)
                self._bound[id_] = PipelineNow(self._world, fault=fault)  # 4
        return self._bound[id_]

    async def _is_rule_unchanged(self, item: RecordedItem, run: RunRow) -> bool:
        """Return whether nothing changed of a rule that alone decides on an item."""
        entry, sources = item.entry, json.loads(run.summary or "{}").get("rules")
        if not sources or entry is None or entry.run != run.run or item.source is None:
            return False
        if not is_decided_alone(sources, item.owner.step, entry):
            return False
        if run.run not in self._are_unchanged:
            are_same = await are_unchanged(sources, self._world, self._settings)
            self._are_unchanged[run.run] = are_same
        return self._are_unchanged[run.run]
