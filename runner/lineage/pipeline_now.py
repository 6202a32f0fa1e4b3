"""The pipeline of a recorded item as it is now, by which `paddock why` says what changed since.

It is bound only where that is needed (`CurrentPipelines.of`). What changed since is what `verify`
compares, all of it: the item's trace with what is known without the steps before it. What is not
known then counts as it was: what other steps give, models on other servers, secrets. For the steps
before it a plan is made, once for each pipeline and inputs.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.api import plan_async
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundNode, BoundPlan
from paddock.runner.bind.plan_walks import node_ids
from paddock.runner.bind.specs import find_in_plans, spec_data
from paddock.runner.core.calls import model_pools
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.item_judge import changed_since
from paddock.runner.core.rule_sources import are_unchanged, decide_alone
from paddock.runner.core.traces.dependencies import ChosenLabels, dependencies_of
from paddock.runner.core.traces.parts import PLACE_IN_LIST, ModelPart, OuterValue, part_of
from paddock.runner.core.traces.preparation import changed_dependencies
from paddock.runner.core.traces.world import World
from paddock.runner.ledger.entries import LedgerError, RunRow
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.progress.report import PlanReport
from paddock.runner.settings import Settings

from .changes_since import no_longer_applies, worded_changes
from .path_lineage import LineageChange
from .recorded_items import RecordedItem

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec

MAX_DIFFERENCE_LINES = 40


class CurrentPipelines:
    """Finds the pipeline of each recorded item as it is now; looks at nothing twice."""

    def __init__(self, world: World, settings: Settings) -> None:
        self._world, self._settings = world, settings
        self._bound: dict[str, PipelineNow] = {}
        """By file and inputs."""
        self._are_unchanged: dict[str, bool] = {}
        """By run: whether its rules are made of the same now."""

    async def of(self, item: RecordedItem) -> PipelineNow:
        """Return an item's pipeline as it is now, with the inputs of the item's run.

        1. It cannot be bound: its file was deleted, or the ledger does not know which it was.
        2. It need not be: the item's rule is made of the same as in the run that did it.
        3. It is bound, once for each file and inputs.
        4. It cannot be bound, since it is invalid.
        """
        world, name, file = self._world, item.owner.file, item.base / item.owner.file
        if not name or not file.exists():  # 1
            return PipelineNow(world, Why.PIPELINE_GONE(name))
        ledger = world.index.ledger
        run = RunStore(ledger).run(item.run)
        if run is not None and await self._is_rule_unchanged(item, run):  # 2
            return PipelineNow(world)
        recorded = json.loads(run.given) if run is not None and run.given else {}
        id_ = canonical_json([name, recorded])
        if id_ not in self._bound:
            index = OutputIndex(ledger, world.index.base, ledger.scopes_of(name))
            own = World(index, world.stores, world.models)
            try:
                self._bound[id_] = BoundPipeline(own, self._settings, file, recorded)  # 3
            except PipelineError as error:
                invalid = Why.PIPELINE_INVALID(error.faults[0].message)
                self._bound[id_] = PipelineNow(world, invalid)  # 4
        return self._bound[id_]

    async def _is_rule_unchanged(self, item: RecordedItem, run: RunRow) -> bool:
        """Return whether nothing changed of a rule that alone decides on an item."""
        entry, sources = item.entry, json.loads(run.summary or "{}").get("rules")
        if not sources or entry is None or entry.run != run.run or item.document is None:
            return False
        if not decide_alone(sources, item.owner.step, entry):
            return False
        if run.run not in self._are_unchanged:
            are_same = await are_unchanged(sources, self._world, self._settings)
            self._are_unchanged[run.run] = are_same
        return self._are_unchanged[run.run]


class PipelineNow:
    """A pipeline as it is now, which is not bound: that is not needed, or cannot be (`reason`).

    Without a bound pipeline only what an item depended on is compared, and no plan is made.
    """

    def __init__(self, world: World, reason: Reason | None = None) -> None:
        self._world, self._reason = world, reason

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        """Return what changed of an item's rule, and of what it depended on."""
        reasons = [] if self._reason is None else [self._reason]
        if item.entry is not None:
            reasons += await changed_dependencies(item.owner.scope_id, item.entry, self._world)
        return worded_changes(reasons, self._world.index, subject)

    def notes(self, item: RecordedItem) -> Iterable[Reason]:
        """Return what is not known of an item's output."""
        return ()

    async def why_no_longer_applies(self, item: RecordedItem) -> list[LineageChange]:
        """Return why an item's output no longer applies by a plan."""
        return []

    async def changes_before(
        self, item: RecordedItem, explained: Collection[str]
    ) -> list[LineageChange]:
        """Return which nodes before an item have work to do by a plan, but for `explained` ones."""
        return []

    async def changes_by_plan(self, item: RecordedItem) -> list[LineageChange]:
        """Return why a run would do an item again, or the one around it."""
        return []


class BoundPipeline(PipelineNow):
    """A pipeline that was bound now, with the inputs of an item's run that it still has."""

    def __init__(
        self, world: World, settings: Settings, file: Path, recorded: Mapping[str, Any]
    ) -> None:
        """`world`: as this pipeline's file sees it; `recorded`: as a run's `given`.

        Inputs that are secret, or frames, are hidden there.

        Raises:
            PipelineError: it is invalid.
        """
        super().__init__(world)
        self._settings, plan = settings, read_plan(file)
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
        if self._is_elsewhere:
            unasked = _UnaskedModels(model_pools.LookupPool(settings).facts)
            self._world = replace(world, models=unasked)

    def notes(self, item: RecordedItem) -> Iterator[Reason]:
        step, node = item.owner.step, self._node_of(item)
        if self._is_elsewhere and find_in_plans(self._bound, step) is not None:
            yield Why.MODELS_ELSEWHERE()
        if node is not None and not self._can_be_planned and self._bound.before(node.id):
            yield Why.BEFORE_UNCHECKED()

    async def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        step, entry, world = item.owner.step, item.entry, self._world
        found = find_in_plans(self._bound, step)
        if found is None:
            return await PipelineNow(world, Why.PIPELINE_LACKS(step)).changes(item, subject)
        (plan, node), reasons = found, list[Reason]()
        try:
            if entry is not None:
                scope_id, is_unknown = item.owner.scope_id, partial(self._is_unknown, plan)
                reasons = await changed_since(scope_id, entry, world, plan, node, is_unknown)
        except (PipelineError, EngineError) as error:
            why = Why.MODEL_UNUSABLE(str(error))
            if isinstance(error, PipelineError):
                why = Why.PIPELINE_INVALID(error.faults[0].message)
            return await PipelineNow(world, why).changes(item, subject)
        then, now = item.spec, spec_data(node)
        if entry is None and then and ordered_json(then) != ordered_json(now):
            reasons = [Why.STEP()]
        lines = tuple(_spec_difference(then, now)) if then else ()
        return worded_changes(reasons, world.index, subject, lines)

    def _is_unknown(self, plan: BoundPlan, part: str) -> bool:
        """Return whether a part of a plan's item is not known now.

        1. What the steps before it decide.
        2. The digest of a model on another server.
        3. An input that was hidden, or that an inner pipeline is given during a run.
        """
        if self._is_of_steps_before(part):  # 1
            return True
        if isinstance(part_of(part), ModelPart):  # 2
            return self._is_elsewhere
        inputs = plan.inputs
        return part in {
            f"inputs.{n}" for n in inputs if n in self._hidden or inputs[n] is None
        }  # 3

    def _is_of_steps_before(self, part: str) -> bool:
        """Return whether a part is what a step gives, an input's table, or a place in a list."""
        value = part_of(part)
        is_given = isinstance(value, OuterValue) and value.root == "steps"
        return is_given or value == PLACE_IN_LIST or part in self._tables

    # --- by a plan

    async def why_no_longer_applies(self, item: RecordedItem) -> list[LineageChange]:
        node = self._node_of(item)
        if node is None or not self._can_be_planned or self._bound.is_alone(node):
            return []
        planned = await self._planned()
        if isinstance(planned, Reason) or item.path not in planned.outdated:
            return []
        return [no_longer_applies(planned.outdated[item.path])]

    async def changes_before(
        self, item: RecordedItem, explained: Collection[str]
    ) -> list[LineageChange]:
        node = self._node_of(item)
        before = () if node is None else self._bound.before(node.id)
        names = [n.id for n in before if n.id not in explained]
        if not names or not self._can_be_planned:
            return []
        planned = await self._planned()
        if isinstance(planned, Reason):
            return [LineageChange(planned)]
        work = [(name, _work_of(name, planned)) for name in names]
        return [LineageChange(Why.BEHIND(name, words)) for name, words in work if words]

    async def changes_by_plan(self, item: RecordedItem) -> list[LineageChange]:
        """Return why a run would do an item again, or the one around it.

        1. No plan is needed, since `changes` has compared all that decides on it: nothing.
        2. Its list decides, or labels, or what the steps before give: what a plan says of it. Lost
           outputs are left out.
        """
        entry, node = item.entry, self._node_of(item)
        if entry is None or node is None or not self._can_be_planned:  # 1
            return []
        is_of_list = item.document is None or bool(dependencies_of(entry, ChosenLabels))
        if not is_of_list and not any(map(self._is_of_steps_before, json.loads(entry.parts))):
            return []
        planned = await self._planned()  # 2
        if isinstance(planned, Reason):
            return [LineageChange(planned)]
        outermost = node.id, (*item.owner.outer, item.key)[0]
        return [
            LineageChange(Why.RECORDED(again.why))
            for again in planned.items
            if (again.step, again.key) in (outermost, (item.owner.step, item.key))
            and again.state in (ItemState.CHANGED, ItemState.STALE)
            and again.why is not None
            and not any(reason.is_loss for reason in again.reasons)
        ]

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


def _work_of(node: str, planned: PlanReport) -> tuple[str, ...]:
    """Return the work of a node in words; none: there is none, or a step only waits for others."""
    states = (*WORK, ItemState.DELETED)
    items = [item for item in planned.items if item.state in states
             and f"{item.step}.".startswith(f"{node}.")]  # fmt: skip
    if len(items) == 1 and items[0].key == items[0].step.rpartition(".")[2]:  # a step
        is_waiting = any(reason.why is Why.READS_UNDONE for reason in items[0].reasons)
        return () if is_waiting else (items[0].why or items[0].state,)
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
