"""The pipeline of a recorded item as it is now, by which `paddock why` says what changed since.

What changed since is what `verify` compares, all of it: the item's trace with what is known without
the steps before it. What is not known then counts as it was: what other steps give, models on other
servers, secrets. For the steps before it a plan is made, once for each pipeline and inputs.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
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
from paddock.runner.core import model_pools
from paddock.runner.core.dependencies import ChosenLabels, Trace, World, dependencies_of
from paddock.runner.core.item_judge import Judge
from paddock.runner.core.parts import KEYED, PLACE_IN_LIST, ModelPart, OuterValue, RulePart, part_of
from paddock.runner.core.past_items import PastItems
from paddock.runner.core.run_models import RunModels
from paddock.runner.core.run_options import RunOptions
from paddock.runner.core.run_reviews import RunReviews
from paddock.runner.core.scopes import PipelineScopes
from paddock.runner.core.verify import ItemNow, differences
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.reasons import Outdated, Reason, Why
from paddock.runner.progress.report import PlanItem, PlanReport
from paddock.runner.settings import Settings

from .path_lineage import LineageChange
from .recorded_items import RecordedItem
from .rule_now import RuleNow

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec

MAX_DIFFERENCE_LINES = 40
_OUTDATED_NOW = {
    Outdated.SKIPPED: Why.OUTDATED_SKIPPED,
    Outdated.EXCLUDED: Why.OUTDATED_EXCLUDED,
    Outdated.GONE: Why.OUTDATED_GONE,
}


class PipelineNow(RuleNow):
    """A pipeline as it is now, with the inputs of an item's run that it still has."""

    def __init__(
        self, world: World, settings: Settings, file: Path, recorded: Mapping[str, Any]
    ) -> None:
        """`recorded`: as a run's `given`; inputs that are secret, or frames, are hidden there.

        Raises:
            PipelineError: it is invalid.
        """
        super().__init__(world)
        self._settings, plan = settings, read_plan(file)
        inputs, given = plan.pipeline.inputs, recorded.get("inputs", {})
        self._hidden: Sequence[str] = recorded.get("hidden", [])
        self._given = {name: given[name] for name in given.keys() & inputs.keys()}
        secret = {n: [] if inputs[n].type == "rows" else "" for n in self._hidden if n in inputs}
        values, models = {**self._given, **secret}, settings.default_models
        self._bound = bind(plan, values, cwd=file.parent, default_models=models)
        types, found = self._bound.input_types, self._bound.inputs
        self._tables = {
            f"inputs.{n}" for n in types if types[n] == "rows" and isinstance(found[n], str)
        }
        """Parts of inputs whose files are only read by a plan."""

    @property
    def _is_elsewhere(self) -> bool:
        """Whether models of it are on other servers, which are not asked about the past."""
        return bool(self._bound.pools or self._settings.pool_urls)

    @property
    def _can_be_planned(self) -> bool:
        return not (self._is_elsewhere or self._hidden)

    @cached_property
    def _planned(self) -> PlanReport | Reason:
        """What a run would do; a reason: why that is not known."""
        pool = model_pools.LookupPool(self._settings)
        plan = plan_async(self._bound.file, self._given, settings=self._settings, pool=pool)
        try:
            return asyncio.run(plan)
        except PipelineError as error:
            return Why.BEHIND_UNKNOWN(error.faults[0].message)
        except (EngineError, LedgerError, OSError) as error:
            return Why.BEHIND_UNKNOWN(str(error))

    def notes(self, item: RecordedItem) -> Iterator[Reason]:
        step, node = item.owner.step, self._node_of(item)
        if self._is_elsewhere and find_in_plans(self._bound, step) is not None:
            yield Why.MODELS_ELSEWHERE()
        if node is not None and not self._can_be_planned and self._bound.before(node.id):
            yield Why.BEFORE_UNCHECKED()

    def outdated(self, item: RecordedItem) -> Reason | None:
        node = self._node_of(item)
        if node is None or not self._can_be_planned or self._bound.is_alone(node):
            return None
        if isinstance(self._planned, Reason) or item.path not in self._planned.outdated:
            return None
        return _OUTDATED_NOW.get(self._planned.outdated[item.path], Why.OUTDATED)()

    def changes(self, item: RecordedItem, subject: str) -> list[LineageChange]:
        found = find_in_plans(self._bound, item.owner.step)
        if found is None:
            return [LineageChange(Why.PIPELINE_LACKS(item.owner.step))]
        try:
            reasons = asyncio.run(self._differences(item, *found))
        except PipelineError as error:
            return [LineageChange(Why.PIPELINE_INVALID(error.faults[0].message))]
        except EngineError as error:
            return [LineageChange(Why.MODEL_UNUSABLE(str(error)))]
        then, now = item.spec, json.loads(canonical_spec(found[1]))
        if item.entry is None and then and ordered_json(then) != ordered_json(now):
            reasons = [Why.STEP()]
        lines = tuple(_spec_difference(then, now)) if then else ()
        return self._as_told(reasons, subject, lines)

    async def _differences(
        self, item: RecordedItem, plan: BoundPlan, node: BoundNode
    ) -> list[Reason]:
        """Verify an item's trace; what is not known without the steps before counts as it was."""
        entry, scope_id, index = item.entry, item.owner.scope, self._index
        if entry is None:
            return []
        inputs, ledger, world = plan.inputs, index.ledger, self._world
        index.own_scopes = ledger.scopes_of(item.owner.file)
        if self._is_elsewhere:
            unasked = _UnaskedModels(model_pools.LookupPool(self._settings).facts)
            world = replace(world, models=unasked)
        reviews, scopes = RunReviews(ledger, plan), PipelineScopes.of(plan, index)
        judge = Judge(world, reviews, plan, RunOptions(), scopes)
        trace = Trace(scope_id, entry, PastItems(ledger, scope_id, node))
        scope = Scope.of(inputs, moment=plan.moment)
        world = await judge.world_of([node], scope, [trace])
        before, parts = json.loads(entry.parts), await judge.parts.of(node)
        # Inputs of a sub-pipeline may be known only during a run.
        hidden = {f"inputs.{n}" for n in inputs if n in self._hidden or inputs[n] is None}

        def is_unknown(name: str) -> bool:
            part = part_of(name)
            if isinstance(part, OuterValue) and part.root == "steps":
                return True
            if name not in parts and not isinstance(part, RulePart):
                return True
            is_secret = name not in parts and before[name].startswith(KEYED)
            is_elsewhere = isinstance(part, ModelPart) and self._is_elsewhere
            return is_secret or is_elsewhere or name in hidden | self._tables

        unknown = {*filter(is_unknown, before | parts)}
        now = ItemNow("", json.dumps(parts), older=judge.parts.older)
        return differences(trace, now, world, unknown)

    def changes_before(
        self, item: RecordedItem, explained: Collection[str], *, has_changes: bool
    ) -> list[LineageChange]:
        owner, node = item.owner, self._node_of(item)
        if node is None or not self._can_be_planned:
            return []
        names = [n.id for n in self._bound.before(node.id) if n.id not in explained]
        is_asked = not has_changes and self._may_differ_by_plan(item)
        if not names and not is_asked:
            return []
        if isinstance(self._planned, Reason):
            return [LineageChange(self._planned)]
        items = self._planned.items
        work = [i for i in items if i.state in (*WORK, ItemState.DELETED)]
        found = ((n, _work([i for i in work if f"{i.step}.".startswith(f"{n}.")])) for n in names)
        behind = [LineageChange(Why.BEHIND(name, words)) for name, words in found if words]
        if behind or not is_asked:
            return behind
        top = node.id, (*owner.outer, item.key)[0]
        return [
            LineageChange(Why.RECORDED(planned.why))
            for planned in items
            if (planned.step, planned.key) in (top, (owner.step, item.key))
            and planned.state in (ItemState.CHANGED, ItemState.STALE)
            and planned.why is not None
            and not any(reason.is_loss for reason in planned.reasons)
        ]

    def _may_differ_by_plan(self, item: RecordedItem) -> bool:
        """Return whether what is not known here may tell that an item would be done again."""
        if item.entry is None:
            return False
        parts = json.loads(item.entry.parts)
        values = (part for part in map(part_of, parts) if isinstance(part, OuterValue))
        reads_more = {PLACE_IN_LIST.name, *self._tables} & parts.keys()
        reads_more |= {part.name for part in values if part.root == "steps"}
        return bool(item.source is None or reads_more or dependencies_of(item.entry, ChosenLabels))

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


def _work(items: Sequence[PlanItem]) -> str | tuple[str, ...]:
    """Return the work to do; empty: there is none, or a step only waits for others."""
    if len(items) == 1 and items[0].key == items[0].step.rpartition(".")[2]:
        is_waiting = any(reason.why is Why.READS_UNDONE for reason in items[0].reasons)
        return "" if is_waiting else items[0].why or items[0].state
    return tuple(f"{item.key} ({item.state})" for item in items)


# --- the difference of two specs, as lines


def _spec_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    lines = [
        line
        for line in difflib.unified_diff(_spec_lines(before), _spec_lines(now), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    yield from lines[:MAX_DIFFERENCE_LINES]
    if len(lines) > MAX_DIFFERENCE_LINES:
        yield f"… {len(lines) - MAX_DIFFERENCE_LINES} more lines"


def _spec_lines(spec: Mapping[str, Any]) -> list[str]:
    """Return a spec as lines, one for each line of a text, for a readable diff."""
    lines: list[str] = []
    for kind in ("blocks", "steps"):
        for name, step in sorted(spec.get(kind, {}).items()):
            fields: list[tuple[str, Any]] = []
            for field, value in step.items():
                if isinstance(value, Mapping):
                    fields += value.items()
                elif value is not None:
                    fields.append((field, value))
            for field, value in sorted(fields):
                is_text = isinstance(value, str)
                texts = value.splitlines() if is_text else [json.dumps(value, ensure_ascii=False)]
                lines += [f"{name}.{field}: {text}" for text in texts]
    return lines
