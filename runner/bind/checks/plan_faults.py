"""Faults of a plan that no step shows: searches, schedules and tests that cannot go well.

A search in a store that the same pipeline fills must wait for the step that fills it: no reference
shows that order, since both name a folder. A schedule may never come, or give inputs that the
pipeline does not take. A test may claim only what the pipeline can have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from paddock.pipelines import reply_schema
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Block, Node, Pipeline, StepNode
from paddock.pipelines.pipeline_tests import ExpectKeys
from paddock.pipelines.plan import Plan, all_before
from paddock.pipelines.reply_check import Check
from paddock.pipelines.triggers import is_ever_due
from paddock.pipelines.validation import FaultCollector
from paddock.steps.effects import StoreRows
from paddock.steps.files.globs import BadPattern, Globs
from paddock.steps.param_types import ParamType, SearchedStore
from paddock.steps.registry import CHECK_FUNCTIONS, UnusableCheckPlugin, facts_of

from ..inputs import REMEDY_FOR_FOLDER_ELSEWHERE, outside_path_faults, read_inputs


def check_code_patterns(pipeline: Pipeline, checks: FaultCollector) -> None:
    for number, pattern in enumerate(pipeline.code or ()):
        try:
            Globs.of([pattern])
        except BadPattern as error:
            checks.add(("code", number), str(error), "Write it as in .gitignore.")


# --- searches


def check_store_order(plan: Plan, checks: FaultCollector) -> None:
    """Find each search that should wait; those in the block that fills a store are left alone."""
    fillers = [(node, store) for node in plan.nodes for _, store in _stores(node, StoreRows)]
    before = {node.id: {node.id, *all_before(plan.edges, node.id)} for node in plan.nodes}
    for node in plan.nodes:
        for step, store in _stores(node, SearchedStore):
            for filler, filled in fillers:
                has_order = filler.id in before[node.id] or node.id in before[filler.id]
                if filled == store and not has_order:
                    at = (*step.at, "with", facts_of(step.uses).param(SearchedStore))
                    what = f"'{node.id}' searches the store '{store}', which '{filler.id}' fills, "
                    remedy = f"Add `needs: [{filler.id}]` to '{node.id}'."
                    checks.add(at, f"{what}but does not wait for it", remedy)


def _stores(node: Node, kind: type[ParamType]) -> Iterator[tuple[StepNode, str]]:
    """Yield the steps of a node that name a store in a parameter of a type, each with it."""
    if isinstance(node, Block):
        for inner in node.body:
            yield from _stores(inner, kind)
    else:
        name = facts_of(node.uses).param(kind)
        if isinstance(store := node.params.data.get(name), str):
            yield node, store


# --- triggers


def check_schedules(pipeline: Pipeline, checks: FaultCollector) -> None:
    for index, schedule in enumerate(pipeline.on.schedule if pipeline.on else ()):
        at = ("on", "schedule", index)
        if not is_ever_due(schedule.cron):
            what = f"the schedule '{schedule.cron}' never comes"
            checks.add((*at, "cron"), what, "Check its day and month.")
        base = Path(pipeline.document.file).absolute().parent
        given = read_inputs(pipeline, schedule.inputs, base=base, cwd=base)
        outside = outside_path_faults(
            pipeline, schedule.inputs, given.values, base, "the pipeline's folder"
        )
        for fault in given.wrong_values:
            checks.add((*at, "inputs"), fault.message, fault.remedy)
        for fault in outside:
            checks.add((*at, "inputs"), fault.message, REMEDY_FOR_FOLDER_ELSEWHERE)


def check_webhooks(pipeline: Pipeline, checks: FaultCollector) -> None:
    paths = set[str]()
    for index, webhook in enumerate(pipeline.on.webhook if pipeline.on else ()):
        at = ("on", "webhook", index)
        if webhook.path in paths:
            what = f"two webhooks have the path '{webhook.path}'"
            checks.add((*at, "path"), what, "Choose another path.")
        paths.add(webhook.path)
        for name in webhook.inputs:
            if name in pipeline.inputs and pipeline.inputs[name].is_secret:
                what = f"input '{name}' is secret, and inputs of a webhook are stored in the queue"
                checks.add((*at, "inputs", name), what, "Read it from `secrets` instead.")


# --- tests


def check_test_claims(pipeline: Pipeline, base: Path, checks: FaultCollector) -> None:
    for test in pipeline.tests:
        for name in test.inputs:
            if name not in pipeline.inputs:
                gives = f"test '{test.name}' gives the input '{name}'"
                remedy = did_you_mean(name, pipeline.inputs, "It takes none.")
                what = f"{gives}, which the pipeline does not have"
                at = (*pipeline.place_of_test(test.name), "inputs", name)
                checks.add(at, what, remedy, is_key=True)
        for number, claim in enumerate(test.expect):
            for place, what, remedy in _claim_faults(claim, pipeline, base):
                at = (*pipeline.place_of_test(test.name), "expect", number, *place)
                checks.add(at, what, remedy)


def _claim_faults(
    claim: ExpectKeys, pipeline: Pipeline, base: Path
) -> Iterator[tuple[Place, str, str]]:
    if isinstance(claim.check, str):
        try:
            for message, remedy in Check.of(claim.check).faults(CHECK_FUNCTIONS):
                yield ("check",), f"`check`: {message}", remedy
        except ExpressionError:
            pass  # reported with the file
        except UnusableCheckPlugin as error:
            yield ("check",), error.message, error.remedy
    if claim.claim == "schema":
        for found in reply_schema.read_reply_schema(claim.schema_, base).faults:
            yield ("schema", *found.path), f"`schema`: {found.message}", found.remedy
    if (alias := claim.model) is None:
        return
    role, known = "embed" if claim.claim == "similar" else "chat", pipeline.models
    if alias not in known:
        remedy = did_you_mean(alias, known, "Add it under `models`.")
        yield ("model",), f"`{claim.claim}`: there is no model '{alias}' under `models`", remedy
    elif (has := known[alias].role) != role:
        what = f"`{claim.claim}` needs a model of the role '{role}', and '{alias}' has '{has}'"
        yield ("model",), what, "Name another one."
