"""The pipeline of a recorded item as it is now, by which `paddock why` says what changed since.

It is bound only where that is needed (`CurrentPipelines.of`). What changed since is what `verify`
compares, all of it: the item's trace with what is known without the steps before it. What is not
known then counts as it was: what other steps give, models on other servers, secrets. For the steps
before it a plan is made, once for each pipeline and inputs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.request import ModelFacts, ModelSpec
from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.api import plan_async
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundNode, BoundPlan
from paddock.runner.bind.item_paths import find_in_plans
from paddock.runner.bind.plan_walks import node_ids
from paddock.runner.bind.specs import spec_data
from paddock.runner.core.calls import model_pools
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.item_judge import all_differences
from paddock.runner.core.rule_sources import are_unchanged, is_decided_alone
from paddock.runner.core.traces.dependencies import ChosenLabels, Trace, dependencies_of
from paddock.runner.core.traces.parts import PLACE_IN_LIST, ModelPart, OuterValue, part_of
from paddock.runner.core.traces.past_items import PastItems
from paddock.runner.core.traces.preparation import dependency_differences
from paddock.runner.core.traces.scopes import PipelineScopes
from paddock.runner.core.traces.world import World
from paddock.runner.ledger.entries import LedgerError, RunRow
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.progress.report import PlanReport
from paddock.runner.settings import Settings

from .change_wording import NO_LONGER_APPLIES, dependency_wording, rule_wording
from .path_lineage import LineageChange
from .recorded_items import ItemOutput, RecordedItem


class CurrentPipelines:
    """Finds the pipeline of each recorded item as it is now; looks at nothing twice."""

    def __init__(self, world: World, settings: Settings) -> None:
        self._world, self._settings = world, settings
        self._bound: dict[str, BoundPipeline | Reason] = {}
        """By file and inputs."""
        self._are_unchanged: dict[str, bool] = {}
        """By run: whether its rules are made of the same now."""

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        """Return what changed of an item's rule, and of what it depended on.

        `subject` names the item. Without a bound pipeline only what it depended on is compared.
        """
        pipeline = await self.of(item)
        if isinstance(pipeline, BoundPipeline):
            found = await pipeline.changes(item, subject)
            if not isinstance(found, Reason):
                return found
            pipeline = found
        changes = [] if pipeline is None else [LineageChange(pipeline)]
        if item.entry is not None:
            world, scope_id = self._world, item.owner.scope_id
            reasons = await dependency_differences(scope_id, item.entry, world)
            changes += dependency_wording(reasons, world.index, subject)
        return changes

    async def of(self, item: RecordedItem) -> BoundPipeline | Reason | None:
        """Return an item's pipeline as it is now, with the inputs of the item's run.

        1. A reason: its file was deleted, or the ledger does not know which it was.
        2. None: it need not be bound, since the item's rule is made of the same as in its run.
        3. The pipeline, bound once for each file and inputs.
        4. A reason: it is invalid.
        """
        name, file = item.owner.file, item.base / item.owner.file
        if not name or not file.exists():  # 1
            return Why.PIPELINE_GONE(name)
        run = RunStore(self._world.index.ledger).run(item.run)
        if run is not None and await self._is_rule_unchanged(item, run):  # 2
            return None
        recorded = json.loads(run.given) if run is not None and run.given else {}
        id_ = canonical_json([name, recorded])
        if id_ not in self._bound:
            try:
                self._bound[id_] = bound_now(file, recorded, self._world, self._settings)  # 3
            except PipelineError as error:
                self._bound[id_] = Why.PIPELINE_INVALID(error.faults[0].message)  # 4
        return self._bound[id_]

    async def _is_rule_unchanged(self, item: RecordedItem, run: RunRow) -> bool:
        """Return whether nothing changed of a rule that alone decides on an item."""
        entry, sources = item.entry, json.loads(run.summary or "{}").get("rules")
        if not sources or entry is None or entry.run != run.run or item.document is None:
            return False
        if not is_decided_alone(sources, item.owner.step, entry):
            return False
        if run.run not in self._are_unchanged:
            are_same = await are_unchanged(sources, self._world, self._settings)
            self._are_unchanged[run.run] = are_same
        return self._are_unchanged[run.run]


def bound_now(
    file: Path, recorded: Mapping[str, Any], world: World, settings: Settings
) -> BoundPipeline:
    """Bind a pipeline with the inputs of an earlier run that it still has.

    `recorded`: as a run's `given`. Inputs that are secret, or frames, are hidden there.

    Raises:
        PipelineError: it is invalid.
    """
    plan = read_plan(file)
    inputs, given = plan.pipeline.inputs, recorded.get("inputs", {})
    given = {name: given[name] for name in given.keys() & inputs.keys()}
    hidden = [name for name in recorded.get("hidden", ()) if name in inputs]
    values = {**given, **{n: [] if inputs[n].type == "rows" else "" for n in hidden}}
    bound = bind(plan, values, cwd=file.parent, default_models=settings.default_models)
    is_elsewhere, ledger = bool(bound.pools or settings.pool_urls), world.index.ledger
    models = RunModels(_unknown_facts) if is_elsewhere else world.models
    index = OutputIndex(ledger, world.index.base, ledger.scopes_of(file.name))
    own = World(index, world.stores, models)
    return BoundPipeline(bound, own, settings, given, hidden, is_elsewhere)


@dataclass(slots=True)
class BoundPipeline:
    """A pipeline as it is now, with the inputs of an item's run."""

    bound: BoundPlan
    world: World
    """As its file sees it."""
    settings: Settings
    given: Mapping[str, Any]
    hidden: Collection[str]
    """Inputs that the run had, and whose values no ledger has."""
    is_elsewhere: bool
    """Whether models of it are on other servers, which are not asked about the past."""
    _known_plan: PlanReport | Reason | None = field(default=None, init=False)

    @property
    def can_be_planned(self) -> bool:
        return not (self.is_elsewhere or self.hidden)

    def notes(self, item: RecordedItem) -> Iterator[Reason]:
        """Yield what is not known of an item."""
        node = self._node_of(item)
        if self.is_elsewhere and find_in_plans(self.bound, item.owner.step) is not None:
            yield Why.MODELS_ELSEWHERE()
        if node is not None and not self.can_be_planned and self.bound.before(node.id):
            yield Why.BEFORE_UNCHECKED()

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange] | Reason:
        """Return what changed of an item's rule, and of what it depended on.

        A reason: the rule is gone, or cannot be used.
        """
        owner, index = item.owner, self.world.index
        found = find_in_plans(self.bound, owner.step)
        if found is None:
            return Why.PIPELINE_LACKS(owner.step)
        plan, node = found
        then, now = item.spec, spec_data(node)
        if item.entry is None:
            is_same = not then or ordered_json(then) == ordered_json(now)
            return [] if is_same else [*rule_wording([Why.STEP()], node.id, then, now)]
        trace = Trace(owner.scope_id, item.entry, PastItems(index.ledger, owner.scope_id, node))
        scopes = PipelineScopes(index, owner.file, owner.prefix, owner.folders)
        is_unknown = partial(self._is_unknown, plan)
        try:
            of_rule, of_dependencies = await all_differences(
                trace, self.world, plan, node, scopes, is_unknown
            )
        except PipelineError as error:
            return Why.PIPELINE_INVALID(error.faults[0].message)
        except EngineError as error:
            return Why.MODEL_UNUSABLE(str(error))
        changes = [*rule_wording(of_rule, node.id, then, now)]
        return [*changes, *dependency_wording(of_dependencies, index, subject)]

    def _is_unknown(self, plan: BoundPlan, part: str) -> bool:
        """Return whether a part of a plan's item is not known now.

        1. What the steps before it decide.
        2. The digest of a model on another server.
        3. An input that was hidden, or that an inner pipeline is given during a run.
        """
        if self._is_of_steps_before(part):  # 1
            return True
        if isinstance(part_of(part), ModelPart):  # 2
            return self.is_elsewhere
        root, _, name = part.partition(".")
        name = name.partition(".")[0]
        return root == "inputs" and (name in self.hidden or plan.inputs.get(name) is None)  # 3

    def _is_of_steps_before(self, part: str) -> bool:
        """Return whether a part is what a step gives, an input's table, or a place in a list."""
        value, inputs = part_of(part), self.bound.inputs
        if isinstance(value, OuterValue) and value.root == "inputs":
            name = value.name.removeprefix("inputs.")  # of a file that only a plan reads
            return self.bound.input_types.get(name) == "rows" and isinstance(inputs[name], str)
        is_given = isinstance(value, OuterValue) and value.root == "steps"
        return is_given or value == PLACE_IN_LIST

    async def changes_by_plan(
        self, output: ItemOutput, explained: Collection[str], *, has_changed: bool
    ) -> list[LineageChange]:
        """Return what a plan says of an output, and of what comes before its item.

        1. Nothing, where no plan can be made, or could say any of this.
        2. Why it no longer applies.
        3. Which nodes before it have work to do, but for `explained` steps.
        4. Where nothing else has changed, and more decides on the item than was compared: why a run
           would do it again, or the one around it. Lost outputs are left out.
        """
        item, node = output.item, self._node_of(output.item)
        if node is None or not self.can_be_planned:  # 1
            return []
        before = [n.id for n in self.bound.before(node.id) if n.id not in explained]
        may_not_apply = output.is_current and not self.bound.is_alone(node)
        is_open = not has_changed and self._is_decided_elsewhere(item)
        planned = await self._planned() if before or may_not_apply or is_open else None
        if planned is None or isinstance(planned, Reason):
            return [] if planned is None else [LineageChange(planned)]
        changes = list[LineageChange]()
        if may_not_apply and output.path in planned.outdated:  # 2
            why = NO_LONGER_APPLIES.get(planned.outdated[output.path], Why.OUTDATED)
            changes.append(LineageChange(why()))
        for name in before:  # 3
            if work := _work_of(name, planned, explained):
                changes.append(LineageChange(Why.BEHIND(name, work)))
        if changes or not is_open:
            return changes
        outermost = node.id, (*item.owner.outer, item.key)[0]
        return [  # 4
            LineageChange(reason)
            for again in planned.items
            if (again.step, again.key) in (outermost, (item.owner.step, item.key))
            and again.state in (ItemState.CHANGED, ItemState.STALE)
            and not any(reason.is_loss for reason in again.reasons)
            for reason in again.reasons
        ]

    def _is_decided_elsewhere(self, item: RecordedItem) -> bool:
        """Return whether its list decides on an item, or labels, or what the steps before give."""
        if item.entry is None:
            return False
        is_of_list = item.document is None or bool(dependencies_of(item.entry, ChosenLabels))
        return is_of_list or any(map(self._is_of_steps_before, json.loads(item.entry.parts)))

    async def _planned(self) -> PlanReport | Reason:
        """Return what a run would do; a reason: why that is not known."""
        if self._known_plan is None:
            file, pool = self.bound.file, model_pools.LookupPool(self.settings)
            plan = plan_async(file, self.given, settings=self.settings, pool=pool)
            try:
                self._known_plan = await plan
            except PipelineError as error:
                self._known_plan = Why.BEHIND_UNKNOWN(error.faults[0].message)
            except (EngineError, LedgerError, OSError) as error:
                self._known_plan = Why.BEHIND_UNKNOWN(str(error))
        return self._known_plan

    def _node_of(self, item: RecordedItem) -> BoundNode | None:
        """Return the top-level step or block that an item's is, or is within, if it is there."""
        step = f"{item.owner.step}."
        within = ((node, f"{id_}.") for node in self.bound.nodes for id_ in node_ids([node]))
        return next((node for node, prefix in within if step.startswith(prefix)), None)


async def _unknown_facts(spec: ModelSpec) -> ModelFacts:
    """Return facts that say nothing: servers elsewhere are not asked about the past."""
    return ModelFacts(spec.ref, "", "", 0, "", spec.role, 0, 0)


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
