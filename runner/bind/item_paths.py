"""Output paths that follow from their item alone, by the specs of its steps.

By the spec that a ledger keeps of an item is known whether a path names more than the item, so that
outputs of earlier forms of a pipeline are told apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from paddock.engine.system.distribution import DISTRIBUTION
from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Reference, Value, loop_parts
from paddock.steps import registry
from paddock.steps.effects import effects_of
from paddock.steps.param_types import PipelineInputs
from paddock.steps.registry import is_function_reference, step_package

from .bound import BoundNode, BoundPlan, BoundStep, InputSource, ListOrigin
from .plan_walks import blocks_of, origin_of, steps_of
from .specs import whole_spec


def paths_depend_on_item_alone(
    spec: Mapping[str, Mapping[str, Any]], inputs: Collection[str], *, is_within_item: bool = False
) -> bool:
    """Return whether the paths of all written files depend on nothing but the items.

    `spec` is that of a block with all within it, or of a step. `inputs` may be named. So may
    answers of the item's own steps, unless they depend on more. False for a step of a plug-in that
    says no effect: it is not known. `is_within_item`: variables of blocks around may be named.
    """
    for step in spec["steps"].values():
        uses = str(step.get("uses"))
        effects = [*effects_of(registry.facts_of(uses).types, step.get("with") or {})]
        is_of_plugin = not is_function_reference(uses) and step_package(uses) != DISTRIBUTION
        if is_of_plugin and not effects:
            return False
        paths = [effect.written for effect in effects if effect.makes_output]
        if not _follows_from_item(paths, spec, inputs, is_within_item=is_within_item):
            return False
    return True


def _follows_from_item(
    written: Any,
    spec: Mapping[str, Mapping[str, Any]],
    inputs: Collection[str],
    *,
    is_within_item: bool = False,
) -> bool:
    steps: Mapping[str, Any] = spec["steps"]
    of_items = {"loop", *(loop_parts(block)[0] for block in spec["blocks"].values())}

    def follows(path: Reference, seen: frozenset[str]) -> bool:
        name = str(path[1]) if len(path) > 1 else ""
        if path[0] == "inputs":
            return name in inputs
        if path[0] != "steps":
            # Within other steps it may be a name that the step adds for its template.
            return path[0] in of_items or is_within_item or bool(seen)
        if name in seen:
            return True
        if name not in steps or not registry.facts_of(str(steps[name].get("uses"))).is_repeatable:
            return False
        read = [
            *_references_in(steps[name].get("with")),
            *_references_in(steps[name].get("returns"), True),
        ]
        return all(follows(path, seen | {name}) for path in read)

    return all(follows(path, frozenset()) for path in _references_in(written))


def _references_in(data: Any, is_bare: bool = False) -> Collection[Reference]:
    value, errors = Value.scan(data, bare=is_bare)
    return [("steps",)] if errors else value.references


def called_plan(outer: BoundPlan, caller: BoundStep) -> BoundPlan | None:
    """Return the pipeline that a step runs, with its `input_sources`."""
    inner = caller.inner
    if inner is None:
        return None
    top = next(node for node in outer.nodes if caller.id in (step.id for step in steps_of([node])))
    spec = whole_spec(top)
    given = caller.written.get(caller.facts.param(PipelineInputs), {})
    is_one_by_one = isinstance(given, Mapping)  # else an expression makes all of them
    sources: dict[str, InputSource] = {}
    for name in inner.pipeline.inputs:
        written = given.get(name) if is_one_by_one else given
        read = _references_in(written)
        sources[name] = InputSource(
            origin=origin_of(outer, caller, read) if read else ListOrigin.NEITHER,
            follows_item=is_one_by_one and _follows_from_item(written, spec, outer.inputs_in_paths),
        )
    return replace(inner, input_sources=sources)


def find_in_plans(bound: BoundPlan, name: str) -> tuple[BoundPlan, BoundNode] | None:
    """Return a block or step by the name that a caller has for it (`clean.each`), and its plan."""
    nodes: tuple[BoundNode, ...] = (*steps_of(bound.nodes), *blocks_of(bound.nodes))
    for node in nodes:
        if node.id == name:
            return bound, node
        if isinstance(node, BoundStep) and name.startswith(f"{node.id}."):
            inner = called_plan(bound, node)
            return find_in_plans(inner, name.removeprefix(f"{node.id}.")) if inner else None
    return None
