"""Taint analysis: which step parameters contain untrusted text, by the YAML alone, before a run.

Untrusted are documents and their names, the output of commands, tools and searches, what a caller
sends, and all that is made of them. What a run does about it: `tainted_paths`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Reference
from paddock.pipelines.model import Pipeline
from paddock.steps.param_types import InputFolder, PipelineInputs

from ..bound import BoundBlock, BoundNode, BoundStep

_TRUSTED_FILE_ATTRIBUTES = ("sha256", "size", "modified")


def mark_tainted(nodes: Iterable[BoundNode], inputs: Iterable[str] = ()) -> tuple[BoundNode, ...]:
    """Return the nodes, each step with the untrusted references of its parameters.

    `inputs` are those that a caller may set, or that are filled with untrusted text.
    """
    tainted = {("inputs", name): True for name in inputs}
    return tuple(_TaintMarker(tainted | {("inputs",): bool(tainted)}).all(nodes))


def tainted_inputs(pipeline: Pipeline) -> frozenset[str]:
    on = pipeline.on
    return on.inputs_of_callers(pipeline.inputs) if on is not None else frozenset()


class _TaintMarker:
    """Walks over the nodes in their order: what is read stands before who reads it."""

    def __init__(self, tainted: dict[Reference, bool]) -> None:
        self._tainted = tainted
        """Whether a step, an input (both by two names) or a loop variable is tainted."""
        self._trusted: set[Reference] = set()
        """Outputs without text, trusted whatever their source: by place, since a document's own
        field may have any name."""
        self._scans: set[str] = set()

    def all(self, nodes: Iterable[BoundNode]) -> Iterator[BoundNode]:
        for node in nodes:
            yield self._block(node) if isinstance(node, BoundBlock) else self._step(node)

    def _step(self, step: BoundStep) -> BoundStep:
        read = frozenset[Reference]().union(*step.params.places().values())
        untrusted = tuple(sorted(".".join(path) for path in self._untrusted(read)))
        besides = set[Reference]()
        if step.reply is not None:
            besides.update(*(choice.source.references for choice in step.reply.choices))
            if step.reply.evidence is not None:  # which its answer quotes
                besides |= step.reply.evidence.references
        brings_text = step.facts.texts.brings(step.written)
        is_tainted = bool(untrusted) or brings_text or bool(self._untrusted(besides))
        self._trusted.add(("steps", step.id, "skipped"))
        if step.returns is not None:
            is_tainted = is_tainted or bool(self._untrusted(step.returns.references))
        else:
            self._trusted |= {("steps", step.id, name) for name in step.facts.texts.without}
            if step.has(InputFolder):
                self._scans.add(step.id)
        self._tainted["steps", step.id] = is_tainted
        inner = step.inner
        if inner is not None:
            tainted = tainted_inputs(inner.pipeline).union(self._into(step))
            inner = replace(inner, nodes=mark_tainted(inner.nodes, tainted), tainted_inputs=tainted)
        return replace(step, untrusted=untrusted, inner=inner)

    def _into(self, step: BoundStep) -> Iterator[str]:
        """Yield the inputs of an inner pipeline that are filled with untrusted text."""
        for path, references in step.params.places().items():
            if path[0] == step.facts.param(PipelineInputs) and self._untrusted(references):
                if len(path) == 1:
                    yield from step.inner.pipeline.inputs if step.inner is not None else ()
                else:
                    yield str(path[1])

    def _block(self, block: BoundBlock) -> BoundBlock:
        outside = dict(self._tainted), set(self._trusted)
        is_tainted = bool(self._untrusted(block.over.references))
        self._tainted[block.var,] = is_tainted
        self._trusted -= {(block.var, name) for name in _TRUSTED_FILE_ATTRIBUTES}
        match block.over.chain:
            case ("steps", step, "files") if step in self._scans:
                self._trusted |= {(block.var, name) for name in _TRUSTED_FILE_ATTRIBUTES}
        body = tuple(self.all(block.body))
        returned = block.returns.references if block.returns is not None else ()
        is_tainted = is_tainted or bool(self._untrusted(returned))
        is_tainted = is_tainted or any(self._tainted["steps", node.id] for node in body)
        self._tainted, self._trusted = outside  # its names are its own
        self._tainted["steps", block.id] = is_tainted
        self._trusted |= {("steps", block.id, name) for name in ("counts", "skipped")}
        return replace(block, body=body)

    def _untrusted(self, references: Iterable[Reference]) -> list[Reference]:
        untrusted: list[Reference] = []
        for path in references:
            if path[:2] in self._trusted or path[:3] in self._trusted:
                continue
            source = path[:1] if path[0] not in ("inputs", "steps") else path[:2]
            # What stands after who reads it is not known yet
            if self._tainted.get(source, path[0] == "steps"):
                untrusted.append(path)
        return untrusted
