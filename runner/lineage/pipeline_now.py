"""The pipeline of a recorded item as it is now, and what a plan says of the steps before it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.system.text import listed
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan_async
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, node_ids
from paddock.runner.core import model_pools
from paddock.runner.core.model_digests import ModelDigests
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.reasons import Outdated, Reason, Why
from paddock.runner.progress.report import PlanItem, PlanReport
from paddock.runner.settings import Settings

from .path_lineage import LineageChange
from .recorded_items import RecordedItem

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec

_MAX_NAMES = 3
_OUTDATED_NOW = {
    Outdated.SKIPPED: Why.OUTDATED_SKIPPED,
    Outdated.LEFT_OUT: Why.OUTDATED_LEFT_OUT,
    Outdated.GONE: Why.OUTDATED_GONE,
}


@dataclass(frozen=True)
class PipelineNow:
    """A pipeline as it is now, with the inputs of an item's run that it still has."""

    bound: BoundPlan
    settings: Settings
    given: Mapping[str, Any]
    hidden: Sequence[str]
    """Names of the inputs that are secret, or frames, and so not recorded."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether models of it are on other servers, which are not asked about the past."""
        return bool(self.bound.pools or self.settings.pool_urls)

    @property
    def can_be_planned(self) -> bool:
        return not (self.is_elsewhere or self.hidden)

    @property
    def model_digests(self) -> ModelDigests:
        kind = _UnaskedModels if self.is_elsewhere else ModelDigests
        return kind(model_pools.LookupPool(self.settings).facts)

    @cached_property
    def planned(self) -> PlanReport | Reason:
        """What a run would do; a reason: why that is not known."""
        pool = model_pools.LookupPool(self.settings)
        plan = plan_async(self.bound.file, self.given, settings=self.settings, pool=pool)
        try:
            return asyncio.run(plan)
        except PipelineError as error:
            return Why.BEHIND_UNKNOWN(error.faults[0].message)
        except (EngineError, LedgerError, OSError) as error:
            return Why.BEHIND_UNKNOWN(str(error))

    def upstream(self, step: str) -> list[BoundNode]:
        """Return the blocks and steps before a step or block that have entries, in order."""
        found: set[str] = set()
        waiting = [self.top_level_name(step)]
        while waiting:
            new = self.bound.edges.get(waiting.pop(), frozenset()) - found
            found |= new
            waiting += new
        nodes = (node for node in self.bound.nodes if node.id in found)
        return [n for n in nodes if isinstance(n, BoundBlock) or n.has_trace or n.inner is not None]

    def top_level_name(self, step: str) -> str:
        """Return the top-level step or block that a step is, or is within."""
        for node in self.bound.nodes:
            within = (node.id, *(node_ids(node.body) if isinstance(node, BoundBlock) else ()))
            if any(step == node_id or step.startswith(f"{node_id}.") for node_id in within):
                return node.id
        return step

    def behind(self, step: str, explained: Collection[str]) -> list[LineageChange]:
        """Return the nodes before a step with work to do, except `explained` ones."""
        names = [node.id for node in self.upstream(step) if node.id not in explained]
        if not names:
            return []
        if isinstance(self.planned, Reason):
            return [LineageChange(self.planned)]
        work = [item for item in self.planned.items if item.state in (*WORK, ItemState.DELETED)]
        found = ((n, [i for i in work if f"{i.step}.".startswith(f"{n}.")]) for n in names)
        return [
            LineageChange(Why.BEHIND(name, words))
            for name, items in found
            if (words := _work_text(items))
        ]

    def own_changes(self, item: RecordedItem) -> list[LineageChange]:
        """Return why an item, or the one around it, would be done again."""
        if isinstance(self.planned, Reason):
            return [LineageChange(self.planned)]
        owner = item.owner
        top = self.top_level_name(owner.step), (*owner.outer, item.key)[0]
        return [
            LineageChange(Why.RECORDED(planned.why))
            for planned in self.planned.items
            if (planned.step, planned.key) in (top, (owner.step, item.key))
            and planned.state in (ItemState.CHANGED, ItemState.STALE)
            and planned.why is not None
            and not any(reason.is_loss for reason in planned.reasons)
        ]

    def outdated(self, item: RecordedItem) -> Reason | None:
        """Return why an output no longer applies by a plan, where the pipeline may say so."""
        name = self.top_level_name(item.owner.step)
        node = next((node for node in self.bound.nodes if node.id == name), None)
        if node is None or not self.can_be_planned:
            return None
        is_always_done = node.if_ is None and not self.upstream(name)
        if is_always_done and not (isinstance(node, BoundBlock) and node.where):
            return None
        if isinstance(self.planned, Reason) or item.path not in self.planned.outdated:
            return None
        return _OUTDATED_NOW.get(self.planned.outdated[item.path], Why.OUTDATED)()


class _UnaskedModels(ModelDigests):
    """Knows nothing of models, since servers elsewhere are not asked about the past."""

    async def of(self, spec: ModelSpec) -> str:
        return ""

    async def default_context(self, spec: ModelSpec) -> int | None:
        return None


def _work_text(items: Sequence[PlanItem]) -> str | None:
    """Return the work to do; None: there is none, or a step only waits for others."""
    if len(items) == 1 and items[0].key == items[0].step.rpartition(".")[2]:
        is_waiting = any(reason.why is Why.READS_UNDONE for reason in items[0].reasons)
        return None if is_waiting else items[0].why or items[0].state
    return listed([f"{item.key} ({item.state})" for item in items], _MAX_NAMES) if items else None
