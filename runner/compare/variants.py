"""The compared part of a variant: the step whose answers are compared, and all that it reads.

So nothing is written, and nothing behind the step is done. The part has a file name of its own in
the ledger, hence scopes of its own; a model call is found by its request, also where another
variant or the pipeline itself made it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from paddock.engine.system.records import Struct
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import PipelineError, did_you_mean
from paddock.pipelines.expressions import Expression, steps_read
from paddock.pipelines.model import Block, Node
from paddock.pipelines.plan import Plan
from paddock.runner.bind.variations import Variant, answering_steps, not_answering
from paddock.runner.ledger.entries import variant_file

_NOT_RUN = ("on", "tests", "returns", "gold", "compare", "concurrency", "budget", "mcpServers")
"""Of a pipeline: what its compared part has no use for."""


def compared_step(plan: Plan, variants: Sequence[Variant], named: str | None) -> str:
    """Return the step whose answers are compared: as named, that of the options, the only one.

    Raises:
        PipelineError: there is none, or several.
    """
    steps = answering_steps(plan.pipeline)
    if named is not None:
        if named not in steps:
            raise PipelineError([not_answering(named, plan.pipeline)])
        return named
    # The steps that are changed, and those whose models are
    changes = [*itertools.chain.from_iterable(variant.changes for variant in variants)]
    changed = {change.target.partition(".")[0] for change in changes if change.option != "model"}
    models = {change.target for change in changes if change.option == "model"}
    using = {name for name, step in steps.items() if step.params.data.get("model") in models}
    for names in (changed & steps.keys(), using, steps.keys()):
        if len(names) == 1:
            return next(iter(names))
    if not steps:
        remedy = "Add one of `chat`, `summarise`, `reduce`."
        raise PipelineError.of("no step answers: there is nothing to compare.", remedy)
    known = ", ".join(f"'{name}'" for name in steps)
    remedy = "Name one: `--step NAME`, or `gold.step`."
    raise PipelineError.of(f"several steps answer: {known}.", remedy)


# --- the part of a variant that is run


class ComparedPart(Struct, frozen=True):
    data: Mapping[str, Any]
    block: str
    """The block with the compared step; empty for a step at the top."""
    step: str
    skipped: tuple[str, ...] = ()
    """Steps that `needs` names and that are not run: what they made before is used."""

    def file(self, whole: Path, inputs: Mapping[str, Any]) -> Path:
        """Return the file name under which the ledger has this part; there is no such file."""
        digest = hashlib.sha256(canonical_json([self.data, dict(inputs)]).encode()).hexdigest()
        return variant_file(whole, digest)


def compared_part(plan: Plan, step: str, key: str | None, gold: str | None) -> ComparedPart:
    """Return the step with all that it reads; an item's result has its answer, key and gold.

    `key`, `gold`: bare expressions that are evaluated for each item, if any.

    Raises:
        PipelineError: the step is in a block within a block, or an expression names no step.
    """
    homes = {node.id: block for node, block in _with_blocks(plan.pipeline.steps, ())}
    if len(homes[step]) > 1:
        what = f"step '{step}' is in a block within a block."
        raise PipelineError.of(what, "Compare a step of a block that is in no other.")
    block = homes[step][0] if homes[step] else None
    read = Expression.of(gold).references if gold is not None else ()
    roots = [step, *sorted(steps_read(read))]
    if unknown := [name for name in roots if name not in homes]:
        remedy = did_you_mean(unknown[0], homes)
        raise PipelineError.of(f"`gold.from` names step '{unknown[0]}'.", remedy)
    # The ids of steps, of what they read, and of the blocks around them
    nodes = {node.id: node for node in plan.pipeline.nodes()}
    kept: set[str] = set()
    waiting = [(name, True) for name in roots]
    while waiting:
        name, is_read = waiting.pop()
        if name in kept and not (is_read and isinstance(nodes[name], Block)):
            continue
        kept.add(name)
        node = nodes[name]
        waiting += [(read_step, True) for read_step in _reads_of(plan, node, with_results=is_read)]
        waiting += [(block.id, False) for block in homes[name] if block.id not in kept]
    data = copy.deepcopy(plan.pipeline.document.data)
    results = {"answer": f"steps.{step}", "key": key, "gold": gold}
    results = {name: text for name, text in results.items() if text is not None}
    skipped: list[str] = []  # in `needs`, and not run
    for node in plan.pipeline.nodes():
        written = reduce(getitem, node.at, data)
        written.pop("review", None)  # answers are compared as the model gave them
        if "needs" in written:
            written["needs"] = [name for name in node.needs if name in kept]
            skipped += [name for name in node.needs if name not in kept and node.id in kept]
    written = reduce(getitem, nodes[step].at, data)
    written.pop("returns", None)
    if block is None:
        written["returns"] = results
    else:
        reduce(getitem, block.at, data).update({"returns": results, "on_error": "quarantine"})
    data["steps"] = _kept_steps(data["steps"], plan.pipeline.steps, kept)
    for name in _NOT_RUN:
        data.pop(name, None)
    return ComparedPart(data, block.id if block else "", step, tuple(dict.fromkeys(skipped)))


def _with_blocks(
    nodes: Iterable[Node], around: tuple[Block, ...]
) -> Iterator[tuple[Node, tuple[Block, ...]]]:
    for node in nodes:
        yield node, around
        if isinstance(node, Block):
            yield from _with_blocks(node.body, (*around, node))


def _reads_of(plan: Plan, node: Node, *, with_results: bool) -> Iterator[str]:
    """Yield the steps that a node reads; of a block, its own keys, and what makes its results."""
    n = len(node.at)
    others = {"needs", "review"}
    if isinstance(node, Block):
        others |= {"do"} if with_results else {"do", "returns"}
    for use in plan.uses:
        root, *path = use.reference
        if use.at[:n] == node.at and root == "steps" and path and use.at[n] not in others:
            yield path[0]
    if isinstance(node, Block) and with_results and node.returns is None:
        yield node.body[-1].id


def _kept_steps(written: Sequence[Any], nodes: Iterable[Node], kept: set[str]) -> list[Any]:
    steps = []
    for node in nodes:
        if node.id not in kept:
            continue
        own = written[int(node.at[-1])]
        if isinstance(node, Block):
            own["do"] = _kept_steps(own["do"], node.body, kept)
        steps.append(own)
    return steps
