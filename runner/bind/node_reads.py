"""Reads: references of steps and blocks to inputs, other steps and loop variables. Pure.

`StepReads` and `BlockReads` are made whole when a node is bound. They answer the same questions:

| | is |
|---|---|
| `all` | what is read from outside of the node, at any time |
| `before_answer` | what must be there before the step asks, or before the block begins |
| `hashed` | what counts in the hash of a step, or in that of each item of a block |
| `shown` | what is read, but for paths of files of which the content alone is taken |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from paddock.engine.system.records import Struct
from paddock.engine.system.text import nested_values
from paddock.pipelines.expressions import Reference
from paddock.pipelines.model import Block, StepNode
from paddock.pipelines.references import ANSWER_NAMES
from paddock.pipelines.times import TIME_NAMES
from paddock.steps import registry
from paddock.steps.param_types import DoorParam, InputContent

References = frozenset[Reference]
LOOP_ATTRIBUTES = ("index", "index0", "first", "last", "length")


def read_by(*parts: Any) -> References:
    return frozenset().union(*[part.references for part in parts if part is not None])


class StepReads(Struct, frozen=True, dict=True):
    parameters: References
    """Before its answer is there, but for lists of labels."""
    lists: References
    """Lists of labels."""
    answer: References
    """Once its answer is there: what `reply.evidence`, `escalate.when` and `review.when` read."""
    shown: References
    shows_path: bool
    """Whether the path of a file that it reads is in its output."""
    doors: References = frozenset()
    """Secrets that only open a door."""

    @classmethod
    def of(cls, step: StepNode, names: frozenset[str]) -> StepReads:
        """`names` exist around the step; others are of its templates, or of its answer."""
        facts, made_at = registry.facts_of(step.uses), step.params.expressions
        added = step.params.data.get(facts.names)
        renamed = TIME_NAMES & added.keys() if isinstance(added, dict) else ()
        parameters = set(read_by(step.if_))
        read = read_by(step.params, *step.files.values())
        parameters.update(path for path in read if path[0] not in renamed)
        for place, made in made_at.items():
            if place[0] == facts.names:  # the values of these names are filled in from outside
                parameters |= made.references
        if step.returns is not None:
            own_outputs = ("steps", step.id)
            parameters.update(path for path in step.returns.references if path[:2] != own_outputs)
        lists: set[Reference] = set()
        answer: set[Reference] = set()
        if step.reply is not None:
            for check in step.reply.checks.values():
                parameters.update(path for path in check.references if path[0] not in ANSWER_NAMES)
            lists |= read_by(*(choice.source for choice in step.reply.choices))
            answer |= read_by(step.reply.evidence)
        for spec in (step.escalate, step.review):
            if spec is not None:
                answer |= spec.when.references
        shown = parameters | lists | answer
        files = {
            name: item
            for name, item in step.params.data.items()
            if name in facts.types.names(InputContent)
        }
        texts = (at for at, item in nested_values(files) if not isinstance(item, list | dict))
        if all(at in made_at and not made_at[at].is_text for at in texts):
            shown -= step.params.references
            shown |= read_by(*(made for place, made in made_at.items() if place[0] not in files))

        def known(read: set[Reference]) -> References:
            return frozenset(path for path in read if path[0] in names)

        doors = {False: set[Reference](), True: set[Reference]()}
        for place, made in made_at.items():
            doors[place[0] in facts.types.names(DoorParam)].update(made.references)
        opening = frozenset(path for path in doors[True] - doors[False] if path[0] == "secrets")
        return cls(
            parameters=known(parameters),
            lists=known(lists),
            answer=known(answer),
            shown=known(shown),
            shows_path=facts.shows_path,
            doors=opening,
        )

    @cached_property
    def all(self) -> References:
        return self.before_answer | self.answer

    @cached_property
    def before_answer(self) -> References:
        return self.parameters | self.lists

    @cached_property
    def hashed(self) -> References:
        """Lists of labels have dependencies of their own: a new list makes few items stale."""
        return (self.parameters | self.answer) - self.doors


class BlockReads(Struct, frozen=True):
    keys: References = frozenset()
    """What `for_each`, `where`, `key`, `if` and `returns` read."""
    all: References = frozenset()
    hashed: References = frozenset()
    """Without the list, of which each item counts alone."""
    shown: References = frozenset()
    item_attributes: frozenset[str] | None = None
    """The attributes of the loop variable that are read; None: the whole item is used."""
    loop_attributes: frozenset[str] = frozenset()
    """The attributes of `loop` that are read: an item whose place changes is then done again."""

    @classmethod
    def of(cls, block: Block, inner: Mapping[str, StepReads | BlockReads]) -> BlockReads:
        """`inner`: what the steps and blocks of its body read, by their ids."""
        within = {("steps", name) for name in inner}

        def from_around(read: References) -> References:
            paths = (path for path in read if path[:2] not in within)
            return frozenset(path for path in paths if path[0] not in ("loop", block.var))

        choosing, returned = read_by(block.where, block.key), read_by(block.returns)
        keys = read_by(block.over, block.if_) | from_around(returned)
        keys |= {path for path in choosing if path[0] != block.var}
        read = returned.union(*(reads.all for reads in inner.values()))
        hashed = returned.union(*(reads.hashed for reads in inner.values()))
        shown = read_by(block.over, block.if_) | choosing | returned
        for node in block.body:
            reads = inner.get(node.id, BlockReads())
            shown |= reads.shown
            if isinstance(reads, BlockReads):
                hashed |= reads.keys
            elif reads.shows_path:
                own_paths = ("steps", node.id), ("steps", node.id, "path")
                is_result = node is block.body[-1] and block.returns is None
                is_used = is_result or node.returns is not None
                if is_used or any(path[:3] in own_paths for path in read):
                    shown |= reads.all  # the file's path, too, which is in its output
        loop = _attributes("loop", read)
        return cls(
            keys=keys,
            all=keys | from_around(read),
            hashed=from_around(hashed),
            shown=shown,
            item_attributes=_attributes(block.var, read | read_by(block.key)),
            loop_attributes=frozenset(LOOP_ATTRIBUTES) if loop is None else loop,
        )

    @property
    def before_answer(self) -> References:
        return self.all


def _attributes(var: str, read: Iterable[Reference]) -> frozenset[str] | None:
    """Name the attributes of a variable that are read; None: all of it."""
    attributes = {path[1:2] for path in read if path[0] == var}
    return None if () in attributes else frozenset().union(*attributes)
