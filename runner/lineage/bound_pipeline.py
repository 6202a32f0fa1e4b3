"""A bound pipeline that is compared with what a recorded item was made by, for `paddock why`.

What changed since is what `verify` compares, all of it: the item's trace with what is known without
the steps before it. What is not known then counts as it was: what other steps give, models on other
servers, secrets. For the steps before it a plan is made, once for each pipeline and inputs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.request import ModelFacts, ModelSpec
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import ordered_json
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.api import plan_async
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundNode, BoundPlan
from paddock.runner.bind.item_paths import find_in_plans
from paddock.runner.bind.plan_walks import all_plans, node_ids
from paddock.runner.bind.specs import whole_spec
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.item_judge import all_differences
from paddock.runner.core.traces.dependencies import ChosenLabels, Trace, dependencies_of
from paddock.runner.core.traces.parts import PLACE_IN_LIST, ModelPart, OuterValue, Part, parts_of
from paddock.runner.core.traces.past_items import PastItems
from paddock.runner.core.traces.scopes import PipelineScopes
from paddock.runner.core.traces.world import World
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.settings import Settings

from .change_wording import NO_LONGER_APPLIES, dependency_changes, rule_changes
from .path_lineage import LineageChange
from .recorded_items import ItemOutput, RecordedItem, WrittenPath


def bound_now(
    file: Path, recorded: Mapping[str, Any], world: World, settings: Settings
) -> RecordedPipeline:
    """Bind a pipeline with the inputs of an earlier run that it still has.

    `recorded`: as a run's `given`. Inputs that are secret, or frames, are hidden there.

    Raises:
        PipelineError: it is invalid.
    """
    plan, models = read_plan(file), settings.default_models
    inputs, values = plan.pipeline.inputs, recorded.get("inputs", {})
    values = {name: values[name] for name in values.keys() & inputs.keys()}
    hidden = [name for name in recorded.get("hidden", ()) if name in inputs]
    bound = bind(plan, values, cwd=file.parent, default_models=models, later=hidden)
    has_pools = any(plan.pools for plan in all_plans(bound))
    is_elsewhere, ledger = has_pools or bool(settings.pool_urls), world.ledger
    index = OutputIndex(ledger, world.index.base, ledger.scopes_of(file.name))
    facts = RunModels(_unknown_facts) if is_elsewhere else world.models
    own = World(index, world.stores, world.tables, facts)
    return RecordedPipeline(own, bound, settings, values, hidden, is_elsewhere)


class RecordedPipeline(Struct):
    """A pipeline that is bound with the inputs of an item's run."""

    world: World
    """As the pipeline's file sees it."""
    bound: BoundPlan
    settings: Settings
    given: Mapping[str, Any]
    hidden: Collection[str]
    """Inputs that the run had, and whose values no ledger has."""
    is_elsewhere: bool
    """Whether models of it are on other servers, which are not asked about the past."""
    _plan: asyncio.Task[PlanReport] | None = None

    @property
    def can_be_planned(self) -> bool:
        return not (self.is_elsewhere or self.hidden)

    def notes(self, item: RecordedItem) -> Iterable[Reason]:
        node = self._node_of(item)
        if self.is_elsewhere and find_in_plans(self.bound, item.owner.step) is not None:
            yield Why.MODELS_ELSEWHERE()
        if node is not None and not self.can_be_planned and self.bound.before(node.id):
            yield Why.BEFORE_UNCHECKED()

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange] | Reason:
        """Return the changes of an item, or why its rule cannot be compared."""
        owner, index = item.owner, self.world.index
        found = find_in_plans(self.bound, owner.step)
        if found is None:
            return Why.PIPELINE_LACKS(owner.step)
        plan, node = found
        then, now = item.spec, whole_spec(node)
        if item.entry is None:
            is_other = then and ordered_json(then) != ordered_json(now)
            return [*rule_changes([Why.STEP()] if is_other else (), node.id, then, now)]
        trace = Trace(owner.scope_id, item.entry, PastItems(index.ledger, owner.scope_id, node))
        scopes = PipelineScopes(index, owner.file, owner.prefix, owner.folders, owner.file)
        try:
            of_rule, of_dependencies = await all_differences(
                trace, self.world, plan, node, scopes, partial(self._is_unknown, plan)
            )
        except PipelineError as error:
            return Why.PIPELINE_INVALID(error.faults[0].message)
        except EngineError as error:  # all but the models is compared
            world = replace(self.world, models=RunModels(_unknown_facts))
            others = await replace(self, world=world, is_elsewhere=True).changes(item, subject)
            unusable = LineageChange(Why.MODEL_UNUSABLE(str(error)))
            return others if isinstance(others, Reason) else [unusable, *others]
        changed = rule_changes(of_rule, node.id, then, now)
        return [*changed, *dependency_changes(of_dependencies, subject, self.world.is_there)]

    def _is_unknown(self, plan: BoundPlan, part: Part) -> bool:
        """Return whether a part of an item of a plan is not known without the steps before it.

        1. Its place in a list.
        2. The digest of a model on another server.
        3. What a step gives.
        4. An input that was hidden, or that an inner pipeline is given during a run.
        5. A table that is given as a file, which only a plan reads.
        """
        if part == PLACE_IN_LIST:  # 1
            return True
        if isinstance(part, ModelPart):  # 2
            return self.is_elsewhere
        root = part.root if isinstance(part, OuterValue) else ""
        if root != "inputs":  # 3
            return root == "steps"
        name = f"{part.name}.".split(".")[1]
        if plan.inputs.get(name) is None:  # 4
            return True
        return plan.input_types.get(name) == "rows" and isinstance(plan.inputs[name], str)  # 5

    async def changes_by_plan(
        self, output: ItemOutput, explained: Collection[str], *, has_changed: bool
    ) -> list[LineageChange]:
        """Return the changes that only a plan shows; it is made when one of these needs it.

        1. Why the output no longer applies, or for which item a run writes it over.
        2. Which nodes before it have work to do, but for `explained` steps.
        3. Where nothing has changed, and more decides on the item than was compared: why a run
           would do it again, or the one around it. Lost outputs are left out. `has_changed`: more
           is known of the item.
        """
        item, node = output.item, self._node_of(output.item)
        changes = list[Reason]()
        if node is None or not self.can_be_planned:
            return []
        try:
            is_elsewhere = self._is_decided_elsewhere(item)
            if output.is_current and (is_elsewhere or not self.bound.is_alone(node)):  # 1
                changes += _end_of(output.written, await self._planned())
            for before in self.bound.before(node.id):  # 2
                if before.id not in explained:
                    work = _work_of(before.id, await self._planned(), explained)
                    changes += [Why.BEHIND(before.id, work)] if work else []
            if not (changes or has_changed) and is_elsewhere:  # 3
                own = (item.owner.step, item.key), (node.id, (*item.owner.outer, item.key)[0])
                for again in (await self._planned()).items:
                    is_stale = again.state in (ItemState.CHANGED, ItemState.STALE)
                    is_lost = any(reason.is_loss for reason in again.reasons)
                    if (again.step, again.key) in own and is_stale and not is_lost:
                        changes += again.reasons
        except PipelineError as error:
            changes = [Why.BEHIND_UNKNOWN(error.faults[0].message)]
        except (EngineError, LedgerError, OSError) as error:
            changes = [Why.BEHIND_UNKNOWN(str(error))]
        return [*map(LineageChange, changes)]

    def _is_decided_elsewhere(self, item: RecordedItem) -> bool:
        """Return whether its list decides on an item, or labels, or what is not known."""
        found = find_in_plans(self.bound, item.owner.step)
        if item.entry is None or found is None:
            return False
        if item.source is None or dependencies_of(item.entry, ChosenLabels):
            return True
        return any(self._is_unknown(found[0], p) for p in parts_of(json.loads(item.entry.parts)))

    def _planned(self) -> asyncio.Task[PlanReport]:
        """Return the plan of the pipeline, made once for all items."""
        if self._plan is None:
            plan = plan_async(self.bound.file, self.given, settings=self.settings)
            self._plan = asyncio.create_task(plan)
        return self._plan

    def _node_of(self, item: RecordedItem) -> BoundNode | None:
        step = f"{item.owner.step}."
        within = ((node, f"{id_}.") for node in self.bound.nodes for id_ in node_ids([node]))
        return next((node for node, prefix in within if step.startswith(prefix)), None)


async def _unknown_facts(spec: ModelSpec) -> ModelFacts:
    """Return facts that say nothing: servers elsewhere are not asked about the past."""
    return ModelFacts(spec.ref, "", "", 0, "", spec.role, 0, 0)


def _end_of(written: WrittenPath, planned: PlanReport) -> list[Reason]:
    """Return why a path no longer applies, and the items for which a run writes it over."""
    if written.n_rows is None:
        why = {**planned.outdated, **planned.removed}.get(written.path)
    else:
        why = planned.outdated_rows.get((written.path, written.scope_id, written.key))
    ends = [] if why is None else [NO_LONGER_APPLIES.get(why, Why.OUTDATED)()]
    for item in planned.items:
        replaced = (r.about[0] for r in item.reasons if r.why is Why.OUTPUT_REPLACED)
        ends += [Why.WRITTEN_OVER(item.key) for path in replaced if path == written.path]
    return ends


def _work_of(
    node: str, planned: PlanReport, explained: Collection[str]
) -> tuple[str | Reason, ...]:
    """Return the work of a node, but for `explained` steps; none: a step only waits for others."""
    states = (*WORK, ItemState.DELETED)
    items = [
        item
        for item in planned.items
        if item.state in states
        and f"{item.step}.".startswith(f"{node}.")
        and item.step not in explained
    ]
    if len(items) == 1 and items[0].is_step:
        reasons = items[0].reasons
        is_waiting = any(reason.why is Why.READS_UNDONE for reason in reasons)
        return () if is_waiting else reasons or (items[0].state,)
    return tuple(f"{item.key} ({item.state})" for item in items)
