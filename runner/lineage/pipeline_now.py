"""The pipeline of a recorded item as it is now, by which `paddock why` says what changed since.

What changed since is what `verify` compares, all of it: the item's trace with what is known without
the steps before it. What is not known then counts as it was: what other steps give, models on other
servers, secrets. For the steps before it a plan is made, once for each pipeline and inputs.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.system.text import ordered_json
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.api import plan_async
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundNode, BoundPlan, node_ids
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.specs import canonical_spec, find_in_plans
from paddock.runner.core.calls import model_pools
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.item_judge import Judge
from paddock.runner.core.reviews.run_reviews import RunReviews
from paddock.runner.core.run_options import RunOptions
from paddock.runner.core.traces.dependencies import ChosenLabels, Trace, World, dependencies_of
from paddock.runner.core.traces.parts import (
    KEYED,
    PLACE_IN_LIST,
    ModelPart,
    OuterValue,
    RulePart,
    part_of,
)
from paddock.runner.core.traces.past_items import PastItems
from paddock.runner.core.traces.scopes import PipelineScopes
from paddock.runner.core.traces.verify import ItemNow, differences
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.reasons import Outdated, Reason, Why
from paddock.runner.progress.report import PlanItem, PlanReport
from paddock.runner.settings import Settings

from .dependency_changes import lineage_changes
from .path_lineage import LineageChange
from .recorded_items import RecordedItem

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec

MAX_DIFFERENCE_LINES = 40
_OUTDATED_NOW = {
    Outdated.SKIPPED: Why.OUTDATED_SKIPPED,
    Outdated.EXCLUDED: Why.OUTDATED_EXCLUDED,
    Outdated.GONE: Why.OUTDATED_GONE,
}


class PipelineNow:
    """A pipeline as it is now, with the inputs of an item's run that it still has."""

    def __init__(
        self, world: World, settings: Settings, file: Path, recorded: Mapping[str, Any]
    ) -> None:
        """`world`: as this pipeline's file sees it; `recorded`: as a run's `given`.

        Inputs that are secret, or frames, are hidden there.

        Raises:
            PipelineError: it is invalid.
        """
        self._world, self._settings, plan = world, settings, read_plan(file)
        self._known_plan: PlanReport | Reason | None = None
        inputs, given = plan.pipeline.inputs, recorded.get("inputs", {})
        self._hidden: Sequence[str] = recorded.get("hidden", [])
        self._given = {name: given[name] for name in given.keys() & inputs.keys()}
        secret = {n: [] if inputs[n].type == "rows" else "" for n in self._hidden if n in inputs}
        values, models = {**self._given, **secret}, settings.default_models
        self._bound = bind(plan, values, cwd=file.parent, default_models=models)
        tables = (n for n, kind in self._bound.input_types.items() if kind == "rows")
        self._tables = {f"inputs.{n}" for n in tables if isinstance(self._bound.inputs[n], str)}
        """Parts of inputs whose files are only read by a plan."""
        self._is_elsewhere = bool(self._bound.pools or settings.pool_urls)
        """Whether models of it are on other servers, which are not asked about the past."""
        self._can_be_planned = not (self._is_elsewhere or self._hidden)

    async def _planned(self) -> PlanReport | Reason:
        """Return what a run would do; a reason: why that is not known."""
        if self._known_plan is None:
            file, pool = self._bound.file, model_pools.LookupPool(self._settings)
            plan = plan_async(file, self._given, settings=self._settings, pool=pool)
            try:
                self._known_plan = await plan
            except PipelineError as error:
                self._known_plan = Why.BEHIND_UNKNOWN(error.faults[0].message)
            except (EngineError, LedgerError, OSError) as error:
                self._known_plan = Why.BEHIND_UNKNOWN(str(error))
        return self._known_plan

    def notes(self, item: RecordedItem) -> Iterator[Reason]:
        """Yield what is not known of an item's output."""
        step, node = item.owner.step, self._node_of(item)
        if self._is_elsewhere and find_in_plans(self._bound, step) is not None:
            yield Why.MODELS_ELSEWHERE()
        if node is not None and not self._can_be_planned and self._bound.before(node.id):
            yield Why.BEFORE_UNCHECKED()

    async def outdated(self, item: RecordedItem) -> Reason | None:
        """Return why an output no longer applies by a plan, where the pipeline may say so."""
        node = self._node_of(item)
        if node is None or not self._can_be_planned or self._bound.is_alone(node):
            return None
        planned = await self._planned()
        if isinstance(planned, Reason) or item.path not in planned.outdated:
            return None
        return _OUTDATED_NOW.get(planned.outdated[item.path], Why.OUTDATED)()

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        """Return what changed of an item's rule, and of what it depended on but for files."""
        found = find_in_plans(self._bound, item.owner.step)
        if found is None:
            return [LineageChange(Why.PIPELINE_LACKS(item.owner.step))]
        try:
            reasons = await self._differences(item, *found)
        except PipelineError as error:
            return [LineageChange(Why.PIPELINE_INVALID(error.faults[0].message))]
        except EngineError as error:
            return [LineageChange(Why.MODEL_UNUSABLE(str(error)))]
        then, now = item.spec, json.loads(canonical_spec(found[1]))
        if item.entry is None and then and ordered_json(then) != ordered_json(now):
            reasons = [Why.STEP()]
        lines = tuple(_spec_difference(then, now)) if then else ()
        return lineage_changes(reasons, self._world.index, subject, lines)

    async def _differences(
        self, item: RecordedItem, plan: BoundPlan, node: BoundNode
    ) -> list[Reason]:
        """Verify an item's trace; what is not known without the steps before counts as it was."""
        entry, scope_id, world = item.entry, item.owner.scope, self._world
        if entry is None:
            return []
        ledger = world.index.ledger
        if self._is_elsewhere:
            unasked = _UnaskedModels(model_pools.LookupPool(self._settings).facts)
            world = replace(world, models=unasked)
        scopes = PipelineScopes.of(plan, world.index)
        judge = Judge(world, RunReviews(ledger, plan), plan, RunOptions(), scopes)
        trace = Trace(scope_id, entry, PastItems(ledger, scope_id, node))
        seen = Scope.of(plan.inputs, moment=plan.moment)
        world = await judge.world_of([node], seen, [trace])
        before, parts = json.loads(entry.parts), await judge.parts.of(node)
        unknown = self._unknown_parts(before, parts, plan)
        now = ItemNow("", json.dumps(parts), older=judge.parts.older)
        return differences(trace, now, world, unknown)

    def _unknown_parts(
        self, before: Mapping[str, str], now: Mapping[str, str], plan: BoundPlan
    ) -> Set[str]:
        """Return the parts of an item that are not known now.

        1. Those that the steps before it decide.
        2. What it is, and what it read then: such a part is not known of a step or block alone.
        3. What was made of a secret then.
        4. The digest of a model on another server.
        5. An input that was hidden, or that an inner pipeline is given during a run.
        """
        inputs = plan.inputs
        hidden = {f"inputs.{n}" for n in inputs if n in self._hidden or inputs[n] is None}
        unknown = {name for name in {**before, **now} if self._is_of_steps_before(name)}  # 1
        for name in {**before, **now}:
            part, is_known = part_of(name), name in now
            if (
                (not is_known and not isinstance(part, RulePart))  # 2
                or (not is_known and before[name].startswith(KEYED))  # 3
                or (isinstance(part, ModelPart) and self._is_elsewhere)  # 4
            ):
                unknown.add(name)
        return unknown | hidden  # 5

    def _is_of_steps_before(self, part: str) -> bool:
        """Return whether a part is what a step gives, an input's table, or a place in a list."""
        value = part_of(part)
        is_given = isinstance(value, OuterValue) and value.root == "steps"
        return is_given or value == PLACE_IN_LIST or part in self._tables

    async def changes_before(
        self, item: RecordedItem, explained: Collection[str], *, has_changes: bool
    ) -> list[LineageChange]:
        """Return which nodes before an item have work to do, but for `explained` ones.

        If nothing changed so far: why a run would do the item again, or the one around it.
        """
        owner, node = item.owner, self._node_of(item)
        if node is None or not self._can_be_planned:
            return []
        names = [n.id for n in self._bound.before(node.id) if n.id not in explained]
        is_asked = False  # whether only a plan may tell that the item would be done again
        if item.entry is not None and not has_changes:
            is_of_list = item.document is None or bool(dependencies_of(item.entry, ChosenLabels))
            is_asked = is_of_list or any(
                map(self._is_of_steps_before, json.loads(item.entry.parts))
            )
        if not names and not is_asked:
            return []
        planned = await self._planned()
        if isinstance(planned, Reason):
            return [LineageChange(planned)]
        work = [i for i in planned.items if i.state in (*WORK, ItemState.DELETED)]
        found = ((name, _work_text(name, work)) for name in names)
        before = [LineageChange(Why.BEHIND(name, words)) for name, words in found if words]
        if before or not is_asked:
            return before
        top = node.id, (*owner.outer, item.key)[0]
        return [
            LineageChange(Why.RECORDED(done_again.why))
            for done_again in planned.items
            if (done_again.step, done_again.key) in (top, (owner.step, item.key))
            and done_again.state in (ItemState.CHANGED, ItemState.STALE)
            and done_again.why is not None
            and not any(reason.is_loss for reason in done_again.reasons)
        ]

    def _node_of(self, item: RecordedItem) -> BoundNode | None:
        """Return the top-level step or block that an item's is, or is within, if it is there."""
        step = f"{item.owner.step}."
        within = ((node, f"{id_}.") for node in self._bound.nodes for id_ in node_ids([node]))
        return next((node for node, prefix in within if step.startswith(prefix)), None)


class _UnaskedModels(RunModels):
    """Knows nothing of models, since servers elsewhere are not asked about the past."""

    async def of(self, spec: ModelSpec) -> str:
        return ""

    async def default_context(self, spec: ModelSpec) -> int | None:
        return None


def _work_text(node: str, work: Sequence[PlanItem]) -> str | tuple[str, ...]:
    """Return the work of a node; empty: there is none, or a step only waits for others."""
    items = [item for item in work if f"{item.step}.".startswith(f"{node}.")]
    if len(items) == 1 and items[0].key == items[0].step.rpartition(".")[2]:
        is_waiting = any(reason.why is Why.READS_UNDONE for reason in items[0].reasons)
        return "" if is_waiting else items[0].why or items[0].state
    return tuple(f"{item.key} ({item.state})" for item in items)


# --- the difference of two specs, as lines


def _spec_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    found = difflib.unified_diff(_spec_lines(before), _spec_lines(now), lineterm="", n=0)
    lines = [line for line in found if not line.startswith(("---", "+++", "@@"))]
    yield from lines[:MAX_DIFFERENCE_LINES]
    if len(lines) > MAX_DIFFERENCE_LINES:
        yield f"… {len(lines) - MAX_DIFFERENCE_LINES} more lines"


def _spec_lines(spec: Mapping[str, Any]) -> list[str]:
    """Return a spec as lines, one for each line of a text, for a readable diff."""
    lines: list[str] = []
    for kind in ("blocks", "steps"):
        for name, step in sorted(spec.get(kind, {}).items()):
            given = ((f, v if isinstance(v, Mapping) else {f: v}) for f, v in step.items())
            fields = [pair for f, pairs in given if step[f] is not None for pair in pairs.items()]
            for field, value in sorted(fields):
                is_text = isinstance(value, str)
                texts = value.splitlines() if is_text else [json.dumps(value, ensure_ascii=False)]
                lines += [f"{name}.{field}: {text}" for text in texts]
    return lines
