"""Names of scopes: a step or block of a pipeline in its folders, with the items around it.

A scope and a key are an item's name in the ledger. What people name makes a scope: the outermost
pipeline (`core.known_pipelines`), the ids of the steps that lead to a step, and the `dir` and
`path` inputs of each pipeline on the way. So a run on other documents finds none of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import starmap
from typing import TYPE_CHECKING

from paddock.engine.sampling.json_schema import json_pointer
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import canonical_json
from paddock.pipelines.label_choices import FieldPath
from paddock.runner.bind.bound import BoundPlan, BoundStep
from paddock.runner.bind.plan_walks import callable_names
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import ScopeOwner, whole_file

if TYPE_CHECKING:
    from paddock.runner.ledger.output_index import OutputIndex

ItemKey = tuple[str, str]
"""An item: its scope and its key."""


StepName = tuple[str, str]
"""The stem of the outermost pipeline's file, and the path of a step: `clean.bill`."""


def step_name(file: str, step: str) -> StepName:
    """Return a step's name; a variant of `paddock compare` learns as its pipeline does."""
    return whole_file(file).rpartition(".")[0], step


def owner_of(item: ItemKey) -> str:
    return "\n".join(item)


class PipelineScopes(Struct, frozen=True):
    index: OutputIndex
    file: str
    """Name that the outermost pipeline's file has in the ledger."""
    prefix: str
    """Ids of the steps that lead here, such as `clean.`."""
    folders: tuple[Mapping[str, str], ...]
    """The `dir` and `path` inputs of each pipeline, outermost first, relative to the outermost's
    folder where they lie in it."""
    name: str = ""
    """The outermost pipeline's in the ledger, which it keeps when its file is renamed."""

    @classmethod
    def of(cls, bound: BoundPlan, index: OutputIndex, file: str, name: str) -> PipelineScopes:
        return cls(index, file, "", (_folders(bound, index),), name)

    def within(self, step: str, inner: BoundPlan) -> PipelineScopes:
        folders = (*self.folders, _folders(inner, self.index))
        return replace(self, prefix=f"{self.prefix}{step}.", folders=folders)

    def id_of(self, step: str, keys_around: Sequence[str] = ()) -> str:
        """Return the id of the scope of a step or block; `keys_around`: of the items around it."""
        inputs = canonical_json([*self.folders, *keys_around])
        return hashlib.sha256(f"{self.name}\n{self.prefix}{step}\n{inputs}".encode()).hexdigest()

    def register(self, step: str, keys_around: Sequence[str] = ()) -> str:
        scope_id = self.id_of(step, keys_around)
        if scope_id not in self.index.own_scopes:
            self.index.own_scopes.add(scope_id)
            inputs = canonical_json([*self.folders, *keys_around])
            self.index.ledger.record_scope(scope_id, self.file, f"{self.prefix}{step}", inputs)
        return scope_id

    def list_name(self, step: BoundStep, field: FieldPath) -> str:
        """Return the name of the list that a field is chosen from, in dependencies and specs."""
        return f"{self.prefix}{step.id}{json_pointer(field)}"

    def taught_as(self, step: BoundStep) -> StepName:
        """Return the name of a step by which decisions on it are known."""
        return step_name(self.file, f"{self.prefix}{step.id}")

    def known(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield each scope in these folders that the ledger knows, of inner pipelines too.

        With it, the step behind `prefix`, and the keys of the items around it.
        """
        rows = self.index.ledger.rows(queries.SCOPES_OF_FILE, file=self.file)
        for owner in starmap(ScopeOwner.of, rows):
            is_here = owner.folders[: len(self.folders)] == self.folders
            if is_here and owner.step.startswith(self.prefix):
                yield owner.scope_id, owner.step.removeprefix(self.prefix), owner.outer

    def former(self, bound: BoundPlan) -> list[str]:
        """Return the scopes in these folders of steps and blocks that the pipeline has no more."""
        names, prefix = {*callable_names(bound.nodes)}, self.prefix
        at = {"file": self.file, "inputs": canonical_json([*self.folders])}
        rows = self.index.ledger.rows(queries.SCOPES_OF_FOLDERS, **at)
        return [s for s, n in rows if n.startswith(prefix) and n.removeprefix(prefix) not in names]


def _folders(bound: BoundPlan, index: OutputIndex) -> dict[str, str]:
    return {name: index.stored(path) for name, path in sorted(bound.folder_inputs.items())}
