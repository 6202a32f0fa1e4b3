"""Checks of a whole pipeline: vector store order, schedules, test claims, prompt prefixes.

- A search in a store that the same pipeline fills must wait for the step that fills it. No
  reference shows that order, since both name a folder.
- A cron expression that never matches is a fault.
- Tests may only claim what the pipeline can have: functions of checks, schemas, models, inputs.
- The KV cache of a prompt is shared up to the first token that differs: a document at the front is
  computed once for all steps that read it, one behind their instructions once for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cronsim import CronSim, CronSimError

from paddock.pipelines import reply_schema
from paddock.pipelines.checking.check import Check
from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import ExpressionError, Reference, Template
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Block, Node, Pipeline, StepNode
from paddock.pipelines.pipeline_tests import ExpectKeys, TestKeys
from paddock.pipelines.plan import Plan
from paddock.steps.registry import CHECK_FUNCTIONS, BrokenCheck

from .bound import BoundBlock, BoundNode, BoundPlan, BoundStep, all_plans, steps_of

FILLS, SEARCHES = "embed", "search"


def store_order_faults(plan: Plan) -> Iterator[Fault]:
    """Name every search that should wait; those in the block that fills a store are left alone."""
    fillers = [(node, step) for node in plan.nodes for step in _with_store(node, FILLS)]
    for node in plan.nodes:
        for step in _with_store(node, SEARCHES):
            for filler, filling in fillers:
                if filler.id == node.id or _store_name(filling) != _store_name(step):
                    continue
                if not _waits_for(plan.edges, node.id, filler.id, set()) and not _waits_for(
                    plan.edges, filler.id, node.id, set()
                ):
                    yield _store_order_fault(plan, node, step, filler)


def _store_order_fault(plan: Plan, node: Node, step: StepNode, filler: Node) -> Fault:
    what = f"'{node.id}' searches the store '{_store_name(step)}', which '{filler.id}' fills, "
    return Fault(
        f"{what}but does not wait for it.",
        f"Add `needs: [{filler.id}]` to '{node.id}'.",
        plan.pipeline.document.mark((*step.at, "with", "store")),
    )


def _with_store(node: Node, uses: str) -> Iterator[StepNode]:
    if isinstance(node, Block):
        for inner in node.body:
            yield from _with_store(inner, uses)
    elif node.uses == uses and isinstance(_store_name(node), str):
        yield node


def _store_name(step: StepNode) -> object:
    return step.params.data.get("store")


def _waits_for(
    edges: Mapping[str, frozenset[str]], later: str, earlier: str, seen: set[str]
) -> bool:
    before = edges.get(later, frozenset()) - seen
    seen |= before
    return earlier in before or any(_waits_for(edges, one, earlier, seen) for one in before)


_REFERENCE_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def schedule_faults(pipeline: Pipeline) -> Iterator[Fault]:
    for index, schedule in enumerate(pipeline.on.schedule if pipeline.on else ()):
        why = never_due(schedule.cron)
        if why is not None:
            mark = pipeline.mark(("on", "schedule", index, "cron"))
            what = f"the schedule '{schedule.cron}' never comes."
            yield Fault(what, f"Check its {why}.", mark)


def never_due(cron: str) -> str | None:
    """Return which field keeps a cron expression from ever coming; None: it comes.

    >>> never_due("0 6 * * 1-5"), never_due("0 0 31 2 *")
    (None, 'day of the month')
    """
    if cron.startswith("@"):
        return None

    try:
        next(CronSim(cron, _REFERENCE_DAY))
    except CronSimError as error:
        return str(error).removeprefix("Bad ").replace("day-of-", "day of the ")
    except StopIteration:
        return "day and month"
    return None


def test_claim_faults(pipeline: Pipeline, base: Path) -> Iterator[Fault]:
    """Yield what is wrong with the tests of a pipeline; `base` is its folder."""
    for test in pipeline.tests:
        at = pipeline.place_of_test(test.name)
        yield from _test_input_faults(pipeline, test, at)
        for number, claim in enumerate(test.expect):
            for more, message, remedy in _claim_faults(claim, pipeline, base):
                mark = pipeline.mark((*at, "expect", number, *more))
                yield Fault(f"{message}.", remedy, mark)


def _test_input_faults(pipeline: Pipeline, test: TestKeys, at: Place) -> Iterator[Fault]:
    for name in test.inputs:
        if name not in pipeline.inputs:
            what = f"test '{test.name}' gives the input '{name}', which the pipeline does not have."
            remedy = did_you_mean(name, pipeline.inputs) if pipeline.inputs else "It takes none."
            yield Fault(what, remedy, pipeline.document.key_mark((*at, "inputs", name)))


def _claim_faults(
    claim: ExpectKeys, pipeline: Pipeline, base: Path
) -> Iterator[tuple[Place, str, str]]:
    if isinstance(claim.check, str):
        yield from ((("check",), *fault) for fault in _check_function_faults(claim.check))
    if claim.claim == "schema":
        for found in reply_schema.read_reply_schema(claim.schema_, base).faults:
            yield ("schema", *found.path), f"`schema`: {found.message}", found.remedy
    if claim.model is not None:
        yield from _model_claim_faults(claim, claim.model, pipeline)


def _check_function_faults(written: str) -> Iterator[tuple[str, str]]:
    try:
        for message, remedy in Check.of(written).faults(CHECK_FUNCTIONS):
            yield f"`check`: {message}", remedy
    except ExpressionError:
        return  # reported with the file
    except BrokenCheck as error:
        message, _, remedy = str(error).partition(". ")
        yield message, remedy


def _model_claim_faults(
    claim: ExpectKeys, alias: str, pipeline: Pipeline
) -> Iterator[tuple[Place, str, str]]:
    role = "embed" if claim.claim == "similar" else "chat"
    keys = pipeline.models.get(alias)
    if keys is None:
        remedy = (
            did_you_mean(alias, pipeline.models) if pipeline.models else "Add it under `models`."
        )
        yield ("model",), f"`{claim.claim}`: there is no model '{alias}' under `models`", remedy
    elif keys.role != role:
        what = (
            f"`{claim.claim}` needs a model of the role '{role}', and '{alias}' has '{keys.role}'"
        )
        yield ("model",), what, "Name another one."


_MODEL_SEES_FIRST = ("tools", "images", "messages")
"""Parameters of `chat` that stand before the prompt, or in its place."""


@dataclass(frozen=True, slots=True)
class _DocumentPrompt:
    """A step whose prompt takes a document as it is."""

    step: str
    beginning: str
    """The templates of the prompt's text before the document."""
    varies_by: str | None
    """The loop variable of a nested block on which the beginning depends; None: on none."""


def prefix_sharing_advice(bound: BoundPlan) -> Iterator[str]:
    """Yield a sentence for each document that several prompts could share, and do not."""
    for plan in all_plans(bound):
        steps = {step.id: step for step in steps_of(plan.nodes)}
        found: dict[tuple[str, str, Reference], list[_DocumentPrompt]] = {}
        for step, loops in _chat_steps(plan.nodes, ()):
            for document in _documents_read(step, steps):
                reading = _document_prompt(step, document, loops)
                if reading is not None and step.model is not None:
                    found.setdefault((step.model.pool, step.model.ref, document), []).append(
                        reading
                    )
        for (_, _, document), readings in found.items():
            yield from _advice_for(".".join(document), readings)


def _chat_steps(
    nodes: Iterable[BoundNode], loops: tuple[BoundBlock, ...]
) -> Iterator[tuple[BoundStep, tuple[BoundBlock, ...]]]:
    """Yield the steps that send a prompt as it is written, with the blocks around each."""
    for node in nodes:
        if isinstance(node, BoundBlock):
            yield from _chat_steps(node.body, (*loops, node))
        elif node.uses == "chat" and not any(
            name in node.params.value.data for name in _MODEL_SEES_FIRST
        ):
            yield node, loops


def _documents_read(step: BoundStep, steps: Mapping[str, BoundStep]) -> Iterator[Reference]:
    """Yield the texts that a prompt takes from steps that ask no model: answers are short."""
    prompt = step.params.templates.get("prompt")
    if not isinstance(prompt, Template):
        return
    for path in sorted(prompt.references):
        source = steps.get(path[1]) if path[0] == "steps" and path[2:] == ("text",) else None
        if source is not None and not source.kind.roles:
            yield path


def _document_prompt(
    step: BoundStep, document: Reference, loops: tuple[BoundBlock, ...]
) -> _DocumentPrompt | None:
    """Return how a step reads a document; None where its prompt does more than insert it."""
    prompt = step.params.templates["prompt"].source
    place = re.search(r"\{\{-?\s*" + re.escape(".".join(document)) + r"\s*-?\}\}", prompt)
    if place is None:
        return None
    system = step.params.templates.get("system")
    beginning = f"{system.source if system is not None else ''}\n{prompt[: place.start()]}"
    try:
        names = {path[0] for path in Template.of(beginning).references}
    except ExpressionError:  # the document stands within an `if` or a `for`
        return None
    inner = [one for one in loops if document[1] not in {step.id for step in steps_of(one.body)}]
    varies_by = next((loop.var for loop in inner if loop.var in names), None)
    return _DocumentPrompt(step.id, beginning, varies_by)


def _advice_for(document: str, readings: list[_DocumentPrompt]) -> Iterator[str]:
    n_beginnings = len({one.beginning for one in readings})
    named = [f"'{one.step}'" for one in readings]
    if n_beginnings > 1:
        listed = f"{', '.join(named[:-1])} and {named[-1]}"
        yield (
            f"{listed} read `{document}` behind different words. Put it first in each `prompt`, "
            f"with the same `system`: it is then computed once instead of {n_beginnings} times. "
            f"Prompts in another order may get other answers."
        )
        return
    for one in readings:
        if one.varies_by is not None:
            yield (
                f"'{one.step}' reads `{document}` behind words that differ for each "
                f"`{one.varies_by}`. Put it first in `prompt`: it is then computed once for all of "
                f"them. Prompts in another order may get other answers."
            )


def step_nodes(pipeline: Pipeline) -> Iterator[StepNode]:
    """Yield the steps that are written, those in blocks included."""
    return (node for node in pipeline.nodes() if isinstance(node, StepNode))
