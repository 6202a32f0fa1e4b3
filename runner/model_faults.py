"""Faults of the models that a pipeline names, each at the place in the YAML that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.errors import (
    EngineError,
    InvalidName,
    ModelBroken,
    ModelNotFound,
    NoModelFile,
)
from paddock.pipelines.errors import Fault, PipelineError, known
from paddock.pipelines.expressions import Path as Place

from .binding.bound import BoundPlan
from .body import plans_of, steps_within

if TYPE_CHECKING:
    from paddock.engine.request import ModelFacts, ModelSpec

LOOKUP = (ModelNotFound, ModelBroken, InvalidName)
"""Errors of a lookup that are the named model's own; others are the machine's or a server's."""

Name = tuple[str, str]
"""A pool's and a model's, as a `ModelSpec` has them."""


class ModelFaults(EngineError):
    """Models that cannot be used as a pipeline asks for them: every fault at once."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = PipelineError(faults).faults
        super().__init__("\n".join(fault.render() for fault in self.faults))


def of_files(bound: BoundPlan) -> Iterator[Fault]:
    """Yield a fault for each GGUF file that a step's model names by its path and that is none.

    The files are opened, but only their first four bytes are read.
    """
    from paddock.engine.gguf import check_file

    for plan, alias in _used(bound):
        spec, written = plan.models[alias], _ref(plan, alias)
        if spec.pool or not Path(spec.ref).is_absolute():
            continue
        try:
            check_file(Path(spec.ref), written)
        except EngineError as error:
            yield _fault(error, plan, alias)


def of_lookup(error: EngineError, spec: ModelSpec, bound: BoundPlan) -> Iterator[Fault]:
    """Yield a fault for each place that names the model which could not be looked up."""
    for plan, alias in _used(bound):
        if _name(plan.models[alias]) == _name(spec):
            yield _fault(error, plan, alias)


def of_facts(facts: Mapping[Name, ModelFacts], bound: BoundPlan) -> Iterator[Fault]:
    """Yield a fault where a model cannot do what is asked of it: its role, or its context."""
    for plan, alias in _used(bound):
        spec = plan.models[alias]
        one = facts.get(_name(spec))
        if one is None or spec.pool:
            continue
        if one.role != spec.role:
            does = {"chat": "writes text", "embed": "makes vectors", "rerank": "ranks documents"}
            what = f"model '{alias}' has the role '{spec.role}', but '{_ref(plan, alias)}' "
            remedy = "Name another model" if spec.role == "chat" else "Name an embedding model"
            if one.role != "rerank":  # no step ranks
                remedy += f", or write `role: {one.role}`"
            yield Fault(
                f"{what}{does[one.role]}.",
                f"{remedy}.",
                plan.pipeline.mark(_place(plan, alias, "role")),
            )
        elif (spec.n_ctx_tokens or 0) > one.n_ctx_train_tokens:
            yield Fault(
                f"`ctx` asks for {spec.n_ctx_tokens:,} tokens, but '{_ref(plan, alias)}' was "
                f"trained on {one.n_ctx_train_tokens:,}.",
                "Write a smaller `ctx`, or leave it out.",
                plan.pipeline.mark(_place(plan, alias, "ctx")),
            )


def _used(bound: BoundPlan) -> Iterator[tuple[BoundPlan, str]]:
    """Yield the models that steps use, by their aliases, inner pipelines' too."""
    for plan in plans_of(bound):
        used = {_name(spec) for step in steps_within(plan.nodes) for spec in step.models}
        for alias, spec in plan.models.items():
            if _name(spec) in used:
                yield plan, alias


def _name(spec: ModelSpec) -> Name:
    return spec.pool, spec.ref


def _ref(plan: BoundPlan, alias: str) -> str:
    """Return the reference as the author wrote it."""
    return plan.pipeline.models[alias].ref


def _place(plan: BoundPlan, alias: str, key: str) -> Place:
    """Return where a key of a model stands; where it is not written, its reference."""
    written = plan.pipeline.document.data["models"][alias]
    if isinstance(written, str):
        return ("models", alias)
    return ("models", alias, key if key in written else "ref")


def _fault(error: EngineError, plan: BoundPlan, alias: str) -> Fault:
    written = _ref(plan, alias)
    mark = plan.pipeline.mark(_place(plan, alias, "ref"))
    if isinstance(error, NoModelFile):
        folder = Path(plan.models[alias].ref).parent
        names = [file.name for file in folder.glob("*.gguf")] if folder.is_dir() else []
        near = known(Path(written).name, names) if names else "There is no GGUF file."
        return Fault(f"no such file: '{written}'.", f"Looked for in {folder}. {near}", mark)
    if isinstance(error, ModelBroken) and not plan.models[alias].pool:
        return Fault(f"'{written}': {error.why.rstrip('.')}.", "", mark)
    message, dot, remedy = str(error).partition(". ")
    return Fault(message + dot.strip(), remedy, mark)
