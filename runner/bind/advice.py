"""Advice on a pipeline, which is no fault: keys that have no effect, prompts that share nothing.

The KV cache of a prompt is shared up to the first token that differs: a document at the front is
computed once for all steps that read it, one behind their instructions once for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from paddock.pipelines.errors import Fault
from paddock.pipelines.expressions import ExpressionError, Reference, Template
from paddock.runner.progress.item_states import OF_LIST, OF_RUN
from paddock.steps.param_types import PromptTemplate
from paddock.steps.run_pipeline import RESULT_OUTPUT

from .bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from .node_reads import read_by
from .plan_walks import all_plans, all_steps, nodes_of, only_reads, steps_of, sub_plans

_MODEL_SEES_FIRST = ("tools", "images", "messages")
"""Parameters of `chat` that stand before the prompt, or in its place."""


def advice_on(bound: BoundPlan) -> Iterator[str]:
    """Yield each note once, also where several steps run the same file."""
    notes = (*_ignored_keys(bound), *_unshared_prefixes(bound), *_counts_of_runs(bound))
    yield from dict.fromkeys((*notes, *_repeated_actions(bound), *_equal_samples(bound)))


def _equal_samples(bound: BoundPlan) -> Iterator[str]:
    """Yield a note on each step that asks in each run and samples by one seed."""
    for step in all_steps(bound.nodes):
        own = step.written.get("params")
        params = {**(step.model.params if step.model else {}), **(own if own else {})}
        if not step.cache and params.get("temperature") and "{{" not in str(params.get("seed")):
            what = f"step '{step.id}' asks in each run, but by one seed: equal prompts get equal "
            what += "answers."
            yield Fault(
                what, 'Set `params.seed` by an expression: "{{ n }}".', step.mark
            ).in_one_line()


def _repeated_actions(bound: BoundPlan) -> Iterator[str]:
    """Yield a warning for each step that acts on results of filed documents again in each run."""
    for plan in all_plans(bound):
        blocks = (node for node in plan.nodes if isinstance(node, BoundBlock))
        filing = {
            block.id
            for block in blocks
            if any(step.takes_document for step in all_steps(block.body))
        }
        for step in plan.nodes:
            if isinstance(step, BoundBlock) or step.has_trace or only_reads(step) or step.inner:
                continue
            read = {path[:3] for path in step.reads.all}
            for name in sorted(filing):
                is_of_new = ("steps", name, "changed") in read
                if ("steps", name, "results") in read and not is_of_new:
                    what = f"step '{step.id}' reads the results of all documents that '{name}' "
                    what += "ever filed, and acts on them in each run."
                    remedy = f"For what is new alone: `if: steps.{name}.changed`, and its keys."
                    yield Fault(what, remedy, step.mark).in_one_line()


def _counts_of_runs(bound: BoundPlan) -> Iterator[str]:
    """Yield a warning for each step or block that reads counts of the run, not of a list."""
    for plan in all_plans(bound):
        nodes = {node.id: node for node in nodes_of(plan.nodes)}
        for node in nodes.values():
            if isinstance(node, BoundBlock):
                read = read_by(node.over, node.where, node.key, node.if_, node.returns)
            else:
                read = node.reads.all | read_by(node.returns)
            for path in sorted(path for path in read if _tells_of_run(path, nodes)):
                kind = "block" if isinstance(node, BoundBlock) else "step"
                what = f"{kind} '{node.id}' reads `{'.'.join(path)}`, which tells of the run: "
                what += "the next one counts otherwise, though nothing has changed."
                remedy = f"Name a count of the list: {', '.join(f'`{s}`' for s in OF_LIST)}."
                yield Fault(what, remedy, node.mark).in_one_line()


def _tells_of_run(path: Reference, nodes: Mapping[str, BoundNode]) -> bool:
    """Return whether a path names counts of the run, or all counts, also by way of `returns`."""
    node = nodes.get(path[1]) if path[0] == "steps" and path[1:] else None
    if node is None or not path[2:]:
        return False
    if isinstance(node, BoundBlock):
        return path[2] == "counts" and (not path[3:] or path[3] in OF_RUN)
    if node.inner is None or node.inner.returns is None:
        return False
    inner, expressions = {n.id: n for n in node.inner.nodes}, node.inner.returns.expressions
    is_whole = (path[2],) == node.inner.output_names == (RESULT_OUTPUT,)
    whole = path[3:] if is_whole else path[2:]
    return any(
        _tells_of_run((*read, *whole[len(at) :]) if read == made.chain else read, inner)
        for at, made in expressions.items()
        if at[: len(whole)] == whole[: len(at)]
        for read in made.references
    )


def _unshared_prefixes(bound: BoundPlan) -> Iterator[str]:
    """Yield a sentence for each document that several prompts could share, and do not.

    Documents are texts of steps that ask no model: answers are short.
    """
    order = "Prompts in another order may get other answers."
    for plan in all_plans(bound):
        steps = {step.id: step for step in steps_of(plan.nodes)}
        readings: dict[tuple[str, str, Reference], dict[str, tuple[str, str | None]]] = {}
        for step, loops in _chat_steps(plan.nodes, ()):
            prompt = step.params.templates.get(step.facts.param(PromptTemplate))
            for path in sorted(prompt.references) if prompt and step.model else ():
                source = (
                    steps.get(path[1]) if path[0] == "steps" and path[2:] == ("text",) else None
                )
                if source is None or source.kind.roles or step.model is None:
                    continue
                if (before := _before_document(step, path, loops)) is not None:
                    shared = readings.setdefault((step.model.pool, step.model.ref, path), {})
                    shared[step.id] = before
        for (_, _, path), by_step in readings.items():
            document, named = ".".join(path), [f"'{name}'" for name in by_step]
            n_beginnings = len({beginning for beginning, _ in by_step.values()})
            if n_beginnings > 1:
                yield (
                    f"{', '.join(named[:-1])} and {named[-1]} read `{document}` behind different "
                    f"words. Put it first in each `prompt`, with the same `system`: it is then "
                    f"computed once instead of {n_beginnings} times. {order}"
                )
                continue
            for name, (_, varies_by) in by_step.items():
                if varies_by is not None:
                    yield (
                        f"'{name}' reads `{document}` behind words that differ for each "
                        f"`{varies_by}`. Put it first in `prompt`: it is then computed once for "
                        f"all of them. {order}"
                    )


def _chat_steps(
    nodes: Iterable[BoundNode], loops: tuple[BoundBlock, ...]
) -> Iterator[tuple[BoundStep, tuple[BoundBlock, ...]]]:
    """Yield the steps that send a prompt as it is written, with the blocks around each."""
    for node in nodes:
        if isinstance(node, BoundBlock):
            yield from _chat_steps(node.body, (*loops, node))
        elif node.has(PromptTemplate) and not any(
            name in node.written for name in _MODEL_SEES_FIRST
        ):
            yield node, loops


def _before_document(
    step: BoundStep, document: Reference, loops: tuple[BoundBlock, ...]
) -> tuple[str, str | None] | None:
    """Return what a step's prompt has before a document, and by which loop variable that varies.

    None: the prompt does more than insert it.
    """
    prompt = step.params.templates[step.facts.param(PromptTemplate)].source
    place = re.search(r"\{\{-?\s*" + re.escape(".".join(document)) + r"\s*-?\}\}", prompt)
    if place is None:
        return None
    system = step.params.templates.get("system")
    beginning = f"{system.source if system is not None else ''}\n{prompt[: place.start()]}"
    try:
        names = {path[0] for path in Template.of(beginning).references}
    except ExpressionError:  # the document stands within an `if` or a `for`
        return None
    inner = [loop for loop in loops if document[1] not in {step.id for step in steps_of(loop.body)}]
    return beginning, next((loop.var for loop in inner if loop.var in names), None)


def _ignored_keys(bound: BoundPlan) -> Iterator[str]:
    """Yield a note on each file whose own settings a sub-pipeline ignores."""
    of_runs = ("on", "concurrency", "budget")
    ignored = {
        plan.file: [f"`{key}`" for key in of_runs if getattr(plan.pipeline, key) is not None]
        for plan in sub_plans(bound.nodes)
    }
    for file, keys in ignored.items():
        if keys:
            listed = " and ".join((", ".join(keys[:-1]), keys[-1])) if keys[1:] else keys[0]
            do, pronoun = ("do", "those") if keys[1:] else ("does", "that")
            yield (
                f"{listed} of {file} {do} not count where a step runs it, only {pronoun} of the "
                f"file that is run."
            )
