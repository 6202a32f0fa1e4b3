"""Paths that steps are expected to write: as far as they are known before a step of an item ran."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct, field
from paddock.pipelines.expressions import ExpressionError, Reference, Value
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.plan_walks import node_ids, steps_with_blocks
from paddock.runner.bind.scope import Scope
from paddock.steps.effects import Destination

from .traces.block_items import loop_value

if TYPE_CHECKING:
    from .traces.block_work import BlockWork


class ExpectedPaths(Struct, frozen=True):
    """Where does a step write for each item with work to do?"""

    step: BoundStep
    effect: Destination
    texts: Mapping[str, str]
    """Absolute, by the items' keys; where that is not known, none."""


def paths_of_work(bound: BoundPlan, work: BlockWork, scope: Scope) -> list[ExpectedPaths]:
    """Return, of each step whose path no other step of the item tells, where it writes."""
    block, base, found = work.block, str(bound.roots.base), list[ExpectedPaths]()
    todo = {item.key: item.scope_in(block, scope) for item in work.items if item.verdict.is_work}
    steps = [*output_paths(block.body)]
    if work.step is not None:  # its `if` holds
        steps += output_paths(block.body, conditional=True)
    for step, effect in steps if todo else ():
        texts = {key: forecast_place(effect, its, base) for key, its in todo.items()}
        whole = {key: text for key, text in texts.items() if text is not None}
        found.append(ExpectedPaths(step, effect, whole))
    return found


def output_paths(
    body: Sequence[BoundNode], *, conditional: bool = False
) -> Iterator[tuple[BoundStep, Destination]]:
    """Yield the output paths that depend on none of these steps, of those with or without `if`."""
    for step in body:
        if not isinstance(step, BoundStep) or (step.if_ is not None) != conditional:
            continue
        for effect in step.destinations:
            reads, inner = effect.value.references, {("steps", name) for name in node_ids(body)}
            if effect.is_foreseen and inner.isdisjoint(read[:2] for read in reads):
                yield step, effect


def written_within(
    body: Sequence[BoundNode], scope: Scope, bound: BoundPlan, *, is_within: bool = False
) -> Iterator[str]:
    """Yield the paths that an item writes in nested blocks and in pipelines that its steps run.

    Those that nothing but the item tells: neither a step that is to run, nor a condition.
    """
    for node in body:
        with suppress(ExpressionError):
            if node.if_ is not None:
                continue
            if isinstance(node, BoundBlock):
                is_known = node.where is None and _are_known(node.over.references, scope)
                values = node.over.evaluate(scope) if is_known else ()
                for place, value in enumerate(values):
                    names = {node.var: value, "loop": loop_value(place, len(values))}
                    yield from written_within(node.body, scope.child(names), bound, is_within=True)
                continue
            if node.inner is not None:
                written = {n: Value.of(v) for n, v in node.written.get("inputs", {}).items()}
                inputs = {n: v for n, v in node.inner.inputs.items() if n not in written}
                known = (n for n in written if _are_known(written[n].references, scope))
                inputs |= {name: written[name].render(scope) for name in known}
                own = scope.child({"inputs": inputs, "steps": {}})
                yield from written_within(node.inner.nodes, own, node.inner, is_within=True)
            for effect in node.destinations if is_within else ():
                if effect.is_claimed and _are_known(effect.value.references, scope):
                    text = forecast_place(effect, scope, str(bound.roots.base))
                    yield from () if text is None else (text,)


def _are_known(references: Iterable[Reference], scope: Scope) -> bool:
    """Return whether the inputs and steps that expressions read have their values."""
    named = (path for path in references if path[0] in ("inputs", "steps"))
    return all(path[1:] and path[1] in scope[path[0]] for path in named)


def forecast_place(effect: Destination, scope: Scope, base: str) -> str | None:
    try:
        text = effect.value.render(scope)
    except ExpressionError:
        return None
    # Of a sub-pipeline the base is another folder than the ledger's.
    return effect.forecast(text, base) if isinstance(text, str) else None


class PossibleOutputs(Struct):
    """May a run write a path, by what its steps say?"""

    _paths: set[str] = field(default_factory=set)
    """Absolute paths of files, or of folders into which a file is copied."""
    _beginnings: set[str] = field(default_factory=set)
    """Of paths that only a run knows."""

    def add(
        self, bound: BoundPlan, body: Sequence[BoundNode], scopes: Iterable[Scope] = ()
    ) -> None:
        base, of_body = str(bound.roots.base), {("steps", name) for name in node_ids(body)}
        scopes = [*scopes]
        for block, step in steps_with_blocks(body):  # in a nested one `loop` is another
            if step.inner is not None:
                self.add(step.inner, step.inner.nodes)
            for effect in step.destinations:
                if not effect.makes_output:
                    continue
                texts = set[str | None]([None])
                reads = {read[:2] for read in effect.value.references}
                if scopes and not block and of_body.isdisjoint(reads):
                    texts = {forecast_place(effect, scope, base) for scope in scopes}
                self._paths.update(text for text in texts if text is not None)
                if None in texts:
                    known = str(effect.written).partition("{")[0]
                    self._beginnings.add(effect.forecast(known, base))

    def has(self, path: str) -> bool:
        paths = {path, os.path.dirname(path)}  # noqa: PTH120
        return not self._paths.isdisjoint(paths) or path.startswith((*self._beginnings,))
