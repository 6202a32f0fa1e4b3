"""Parts of the hash of a pipeline's steps and blocks: all but an item's own content.

They are the prompts, parameters, models and versions of steps, also of those within a sub-pipeline,
and the outer values that they read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from paddock.engine.request import ModelSpec
from paddock.pipelines.expressions import Reference
from paddock.pipelines.times import TIME_NAMES
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    blocks_of,
    nodes_of,
    outer_references,
    steps_of,
)
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.output_index import OutputIndex

from .call_cache import ModelDigests
from .dependencies import DependencyIndex
from .fingerprints import (
    CONTEXT,
    READERS,
    context_part,
    ordered_digest,
    outer_value,
    part_digest,
    spec_parts,
)

RETURNS = "(returns)"
"""A sub-pipeline's `returns`, among the parts of its step's hash; not a valid id."""
_MEASURING_STEPS = frozenset(("chat", "reduce", "split", "summarise", "summarize"))
"""Steps that ask whether a prompt fits and take no other notice of the context."""


class NodeParts:
    """Makes the parts of one pipeline's steps and blocks."""

    def __init__(
        self,
        bound: BoundPlan,
        index: OutputIndex,
        digests: ModelDigests,
        dependencies: DependencyIndex,
    ) -> None:
        self._bound = bound
        self._index = index
        self._digests = digests
        self._dependencies = dependencies
        self.older: dict[str, frozenset[str]] = {}
        """Step version → compatible earlier versions, as parts of a hash."""

    async def of(self, node: BoundNode) -> dict[str, str]:
        """Return the parts of an item's hash, without its content and other steps' outputs."""
        scope = Scope.of(self._bound.inputs, moment=self._bound.moment)
        if isinstance(node, BoundBlock):
            parts = await self.of_block(node, scope)
        else:
            parts = await self.of_step(node)
            parts.update(self.outer(node.references - node.of_lists, node.shown, scope))
        return {name: parts[name] for name in parts if not name.startswith("steps.")}

    async def of_block(self, block: BoundBlock, scope: Scope) -> dict[str, str]:
        """Return every part of the items' hash that is the same for all of them."""
        written = json.loads(block.spec)
        parts = {f"{block.id}.parameters": ordered_digest(written.get("returns"))}
        for step in steps_of(block.body):
            parts.update(await self.of_step(step))
        for inner in blocks_of(block.body):
            spec = json.loads(inner.spec)
            parts[f"{inner.id}.parameters"] = ordered_digest(spec)
        parts.update(self.outer(outer_references(block), block.shown, scope))
        return parts

    async def of_step(self, step: BoundStep) -> dict[str, str]:
        parts = spec_parts(step.id, step.spec)
        version = part_digest([step.uses, step.kind.version])
        parts[f"{step.id}.version"] = version
        older: Iterable[int] = getattr(step.kind, "compatible_versions", ())
        self.older[version] = frozenset(part_digest([step.uses, number]) for number in older)
        # A step that depends on installed readers lists them: removing one makes results stale.
        if (installed := getattr(step.kind, "installed", None)) is not None:
            parts[f"{step.id}{READERS}"] = "\n".join(sorted(installed()))
        if step.inner is not None:
            parts.update(await self._inner_parts(step.id, step.inner))
        if step.model is not None:
            digest = await self._digests.of(step.model)
            besides = [await self._digests.of(spec) for spec in step.besides]
            parts[f"{step.id}.model"] = part_digest([digest, *besides] if besides else digest)
            written = parts[f"{step.id}.parameters"]
            options, context = await self._options(step, step.model)
            parts[f"{step.id}.parameters"] = part_digest([written, options])
            parts |= {f"{step.id}{CONTEXT}": text for text in context}
        if step.escalate is not None:
            place, to = f"{step.id}.escalate", step.escalate.to
            options, context = await self._options(step, to)
            parts[f"{place}.model"] = await self._digests.of(to)
            parts[f"{place}.parameters"] = part_digest(options)
            parts |= {f"{place}{CONTEXT}": text for text in context}
        return parts

    async def _options(self, step: BoundStep, model: ModelSpec) -> tuple[object, list[str]]:
        """Return what of a model's options decides results, and its context where that may not."""
        n_ctx = model.n_ctx_tokens
        is_elsewhere = n_ctx is None and model.pool  # servers may differ, and a plan may not ask
        if is_elsewhere or step.uses not in _MEASURING_STEPS:
            return _model_options(model, n_ctx), []
        default = await self._digests.default_context(model)
        known = [context_part(n_ctx, default)] if n_ctx or default else []
        return _model_options(model, None), known

    async def _inner_parts(self, place: str, inner: BoundPlan) -> dict[str, str]:
        """Return the hash parts of a sub-pipeline, without its inputs."""
        parts: dict[str, str] = {}
        for step in steps_of(inner.nodes):
            for name, value in (await self.of_step(step)).items():
                parts[f"{place}.{name}"] = value
        for block in blocks_of(inner.nodes):
            parts[f"{place}.{block.id}.parameters"] = ordered_digest(json.loads(block.spec))
        inputs = sorted(inner.pipeline.inputs.items())
        defaults = {name: declared.default for name, declared in inputs}
        types = {name: declared.type for name, declared in inputs if declared.type != "str"}
        returns = inner.returns.data if inner.returns is not None else None
        read = [defaults, returns, *([types] if types else [])]
        parts[f"{place}.{RETURNS}.parameters"] = ordered_digest(read)
        times = Scope.of({}, moment=self._bound.moment)
        read_names = {path[0] for node in nodes_of(inner.nodes) for path in node.references}
        read_names |= {path[0] for path in inner.returns.references} if inner.returns else set()
        for name in TIME_NAMES & read_names:
            parts[f"{place}.{name}"] = part_digest(times[name])
        return parts

    def outer(
        self, references: Iterable[Reference], shown: Collection[Reference], scope: Scope
    ) -> dict[str, str]:
        parts = {}
        for path in sorted(references):
            if path[0] == "secrets":
                continue  # a new password makes nothing stale, and leaves no trace
            if path[0] not in scope:
                continue  # a name that the step adds for its template, such as `chunk`
            kind = self._bound.input_types.get(path[1]) if path[:1] == ("inputs",) else None
            if kind == "dir":
                continue  # its path is part of the scope, its files are listed by steps
            value = outer_value(path, scope, self._index.stored if path in shown else None)
            if kind == "path" and isinstance(value, str):
                value = self._content(value)
            parts[".".join(path)] = ordered_digest(value)
        return parts

    def _content(self, path: str) -> str | None:
        try:
            return self._dependencies.digest(path)
        except OSError:
            return None

    def made_by(self, block: BoundBlock, base: str) -> str:
        """Return the digest of what a block's items have in common, with files that all read."""
        read = map(self._index.absolute, read_by_all(block))
        return part_digest([base, *map(self._content, read)])


def read_by_all(block: BoundBlock) -> list[str]:
    """Return the paths of files that all items read."""
    constants = (step for step in steps_of(block.body) if step.params.constant is not None)
    return [path for step in constants for path in step.kind().reads(step.params.constant)]


def _model_options(model: ModelSpec, n_ctx_tokens: int | None) -> list[Any]:
    """Return what of a model decides its answers, besides its file."""
    drops = [] if model.keeps_reasoning else ["drop"]
    return [model.role, n_ctx_tokens, dict(model.params), *drops]
