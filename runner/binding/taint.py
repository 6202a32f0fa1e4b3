"""Whose words a step's parameters are made of: the caller's and the author's, or those of others.

Documents, their names, and what commands, tools and searches give were written by others, and so
is all that is made of them. Pure: asks the YAML alone, before anything runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from paddock.pipelines.expressions import Reference
from paddock.pipelines.tree import Pipeline

from .bound import BoundBlock, BoundNode, BoundStep

PASSES_ON = frozenset(
    ("agent", "chat", "embed", "files.write", "prompt", "reduce", "split", "summarise", "tool")
)
"""Steps that give nothing of others but what they were given, unless `_reaches_out` says so. What
is not here is not trusted: steps of other packages too."""
OWN_WORDS = frozenset(("calculator", "now"))
"""Tools whose results nobody else has written."""
_ASKING = frozenset(("agent", "chat", "reduce", "summarise"))
"""Steps that tell their `usage`, in numbers."""
_OF_FILES = ("sha256", "size", "modified")
_FILES = re.compile(r"steps\.(\w+)\.files\Z")


def marked(nodes: Iterable[BoundNode], inputs: Iterable[str] = ()) -> tuple[BoundNode, ...]:
    """Give the nodes with what each step reads of others' words, by the names that it uses.

    `inputs` are those that others fill in, such as a webhook's caller.
    """
    return tuple(_Marker({("inputs", name): True for name in inputs}).all(nodes))


def inputs_of_others(pipeline: Pipeline) -> frozenset[str]:
    """Name the inputs that whoever calls a webhook may fill in."""
    hooks = pipeline.on.webhook if pipeline.on is not None else ()
    return frozenset(name for hook in hooks for name in hook.inputs)


class _Marker:
    """Walks over the nodes in their order: what is read stands before who reads it."""

    def __init__(self, foreign: dict[Reference, bool]) -> None:
        self._foreign = foreign
        """Whether a step, an input (both by two words) or a loop variable is of others."""
        self._harmless: set[Reference] = set()
        """What holds no text, whoever made it: by its place, since a document's own field may
        have any name."""
        self._scans: set[str] = set()

    def all(self, nodes: Iterable[BoundNode]) -> Iterator[BoundNode]:
        """Mark nodes in order."""
        for node in nodes:
            yield self._block(node) if isinstance(node, BoundBlock) else self._step(node)

    def _step(self, step: BoundStep) -> BoundStep:
        untrusted = tuple(sorted(".".join(path) for path in self._of_others(_given(step))))
        is_foreign = bool(untrusted) or step.uses not in PASSES_ON or _reaches_out(step)
        self._harmless.add(("steps", step.id, "skipped"))
        if step.returns is not None:
            is_foreign = is_foreign or bool(self._of_others(step.returns.references))
        elif step.uses in _ASKING:
            self._harmless.add(("steps", step.id, "usage"))
        elif step.uses == "files.scan":
            self._scans.add(step.id)
        self._foreign["steps", step.id] = is_foreign
        inner = step.inner
        if inner is not None:
            within = marked(inner.nodes, {*self._into(step), *inputs_of_others(inner.pipeline)})
            inner = replace(inner, nodes=within)
        return replace(step, untrusted=untrusted, inner=inner)

    def _into(self, step: BoundStep) -> Iterator[str]:
        """Name the inputs of an inner pipeline that are filled in with words of others."""
        for path, references in step.params.value.places().items():
            if path[0] == "inputs" and self._of_others(references):
                if len(path) == 1:
                    yield from step.inner.pipeline.inputs if step.inner is not None else ()
                else:
                    yield str(path[1])

    def _block(self, block: BoundBlock) -> BoundBlock:
        outside = dict(self._foreign), set(self._harmless)
        is_foreign = bool(self._of_others(block.over.references))
        self._foreign[block.var,] = is_foreign
        self._harmless -= {(block.var, name) for name in _OF_FILES}
        files = _FILES.match(block.over.source.strip())
        if files is not None and files[1] in self._scans:
            self._harmless |= {(block.var, name) for name in _OF_FILES}
        body = tuple(self.all(block.body))
        returned = block.returns.references if block.returns is not None else ()
        is_foreign = is_foreign or bool(self._of_others(returned))
        is_foreign = is_foreign or any(self._foreign["steps", node.id] for node in body)
        self._foreign, self._harmless = outside  # its names are its own
        self._foreign["steps", block.id] = is_foreign
        self._harmless |= {("steps", block.id, name) for name in ("counts", "skipped")}
        return replace(block, body=body)

    def _of_others(self, references: Iterable[Reference]) -> list[Reference]:
        return [path for path in references if self._is_foreign(path)]

    def _is_foreign(self, path: Reference) -> bool:
        if path[:2] in self._harmless or path[:3] in self._harmless:
            return False
        if path[0] == "steps":  # what stands after who reads it is not known yet
            return self._foreign.get(path[:2], True)
        return self._foreign.get(path[:2] if path[0] == "inputs" else path[:1], False)


def _given(step: BoundStep) -> frozenset[Reference]:
    """Give what is written into a step's parameters."""
    texts = (template.references for template in step.params.templates.values())
    return step.params.value.references.union(*texts)


def _reaches_out(step: BoundStep) -> bool:
    """Tell whether a step reads more than it is given: a file, a picture, a tool's result."""
    written: Mapping[str, Any] = step.params.value.data
    match step.uses:
        case "summarise":
            return "file" in written
        case "chat":
            return bool(written.get("images"))
        case "tool":
            return bool(written.get("server")) or written.get("name") not in OWN_WORDS
        case "agent":
            tools = written.get("tools")
            if not isinstance(tools, list):
                return True
            return not all(isinstance(one, str) and one in OWN_WORDS for one in tools)
    return False
