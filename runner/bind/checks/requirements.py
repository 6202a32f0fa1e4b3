"""What a pipeline needs and this machine lacks: packages, programs, servers, readers, model files.

It is found before a run where it is constant; what depends on an item (an `if` over a document, a
command made by a template) is found when that item is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.errors import EngineError, ModelBroken, NoModelFile, WrongModel
from paddock.engine.model_file_parts import check_file
from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.steps.extras import is_missing_program, missing_mcp_library
from paddock.steps.tools.python_files import missing_imports

from ..bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from ..inputs import KnownInputs
from ..plan_walks import all_plans, all_steps
from ..trust.reached import ReachedCode, ReachedServer, reached_by_step

if TYPE_CHECKING:
    from paddock.engine.request import ModelFacts, ModelSpec

ModelKey = tuple[str, str]
"""A pool's and a model's, as a `ModelSpec` has them."""


def refuse_missing(bound: BoundPlan) -> None:
    """Refuse a pipeline that needs what is not installed here; inner ones are looked at as well.

    Raises:
        PipelineError: with each package, program or model file that is missing, where needed first.
    """
    found: dict[str, Fault] = {}
    for fault in _missing_of_plan(bound):
        found.setdefault(fault.message, fault)
    specs = (spec for plan in all_plans(bound) for spec in plan.models.values())
    has_paths = any(Path(spec.ref).is_absolute() for spec in specs)
    if faults := [*found.values(), *(model_file_faults(bound) if has_paths else ())]:
        raise PipelineError(faults)


def _missing_of_plan(bound: BoundPlan) -> Iterator[Fault]:
    for step in _certain_steps(bound.nodes, bound):
        yield from _missing_of_step(step, bound)
        if step.inner is not None:
            yield from _missing_of_plan(step.inner)


def _certain_steps(nodes: Iterable[BoundNode], bound: BoundPlan) -> Iterator[BoundStep]:
    """Yield the steps that no `if` may leave out, as far as the inputs tell."""
    inputs = {name: v for name, v in bound.inputs.items() if name not in bound.unknown_inputs}
    known = KnownInputs(inputs)
    for node in nodes:
        if node.if_ is not None and not known.holds(node.if_):
            continue
        if isinstance(node, BoundBlock):
            yield from _certain_steps(node.body, bound)
        else:
            yield node


def _missing_of_step(step: BoundStep, bound: BoundPlan) -> Iterator[Fault]:
    for path, what, remedy in step.facts.missing(step.id, step.written, bound.roots.base):
        yield Fault(what, remedy, step.mark_of("with", *path))
    for reached in reached_by_step(step.params.step, bound.pipeline):
        mark = bound.pipeline.mark(reached.at)
        if isinstance(reached, ReachedCode) and reached.file:
            for module in missing_imports(bound.roots.base / reached.file):
                what = f"the file '{reached.file}' imports '{module}', which is not installed."
                yield Fault(what, "Install it in the environment that runs Paddock.", mark)
        elif isinstance(reached, ReachedServer):
            if (library := missing_mcp_library()) is not None:
                yield Fault(*library, mark)
            program = reached.program
            if program and is_missing_program(program.words[0], program.env, bound.roots.base):
                by = f"is started by '{program.words[0]}', which is not installed here."
                what = f"the MCP server '{reached.name}' {by}"
                mark = bound.pipeline.mark(bound.pipeline.servers[reached.name].at)
                yield Fault(what, "Install it, or correct `command`.", mark)


# --- models


class ModelFaults(EngineError):
    """Models that cannot be used as a pipeline asks for them: every fault at once."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = PipelineError(faults).faults
        super().__init__("\n".join(fault.render() for fault in self.faults))


def model_file_faults(bound: BoundPlan) -> Iterator[Fault]:
    """Yield a fault for each GGUF file that a step's model names by its path and that is none.

    The files are opened, but only their first four bytes are read.
    """
    for plan, alias in _used_models(bound):
        spec = plan.models[alias]
        if spec.pool or not Path(spec.ref).is_absolute():
            continue
        try:
            check_file(Path(spec.ref), _model_ref(plan, alias))
        except WrongModel as error:
            yield _model_fault(error, plan, alias)


def lookup_faults(error: WrongModel, spec: ModelSpec, bound: BoundPlan) -> Iterator[Fault]:
    """Yield a fault for each place that names the model which could not be looked up."""
    for plan, alias in _used_models(bound):
        if _model_key(plan.models[alias]) == _model_key(spec):
            yield _model_fault(error, plan, alias)


def model_fact_faults(facts: Mapping[ModelKey, ModelFacts], bound: BoundPlan) -> Iterator[Fault]:
    """Yield a fault where a model cannot do what is asked of it: its role, or its context."""
    for plan, alias in _used_models(bound):
        spec = plan.models[alias]
        known = facts.get(_model_key(spec))
        if known is None or spec.pool:
            continue
        if known.role != spec.role:
            does = {"chat": "writes text", "embed": "makes vectors", "rerank": "ranks documents"}
            what = f"model '{alias}' has the role '{spec.role}', but '{_model_ref(plan, alias)}' "
            remedy = "Name another model" if spec.role == "chat" else "Name an embedding model"
            if known.role != "rerank":  # no step ranks
                remedy += f", or write `role: {known.role}`"
            yield Fault(
                f"{what}{does[known.role]}.",
                f"{remedy}.",
                plan.pipeline.mark(_model_place(plan, alias, "role")),
            )
        elif (spec.n_ctx_tokens or 0) > known.n_ctx_train_tokens:
            yield Fault(
                f"`ctx` asks for {spec.n_ctx_tokens:,} tokens, but '{_model_ref(plan, alias)}' was "
                f"trained on {known.n_ctx_train_tokens:,}.",
                "Write a smaller `ctx`, or leave it out.",
                plan.pipeline.mark(_model_place(plan, alias, "ctx")),
            )


def _used_models(bound: BoundPlan) -> Iterator[tuple[BoundPlan, str]]:
    """Yield the models that steps use, by their aliases, inner pipelines' too."""
    for plan in all_plans(bound):
        used = {_model_key(spec) for step in all_steps(plan.nodes) for spec in step.models}
        for alias, spec in plan.models.items():
            if _model_key(spec) in used:
                yield plan, alias


def _model_key(spec: ModelSpec) -> ModelKey:
    return spec.pool, spec.ref


def _model_ref(plan: BoundPlan, alias: str) -> str:
    """Return the reference as the author wrote it."""
    return plan.pipeline.models[alias].ref


def _model_place(plan: BoundPlan, alias: str, key: str) -> Place:
    """Return where a key of a model stands; where it is not written, its reference."""
    written = plan.pipeline.document.data["models"][alias]
    if isinstance(written, str):
        return ("models", alias)
    return ("models", alias, key if key in written else "ref")


def _model_fault(error: WrongModel, plan: BoundPlan, alias: str) -> Fault:
    written = _model_ref(plan, alias)
    mark = plan.pipeline.mark(_model_place(plan, alias, "ref"))
    if isinstance(error, NoModelFile):
        folder = Path(plan.models[alias].ref).parent
        names = [file.name for file in folder.glob("*.gguf")] if folder.is_dir() else []
        near = did_you_mean(Path(written).name, names, "There is no GGUF file.")
        return Fault(f"no such file: '{written}'.", f"Looked for in {folder}. {near}", mark)
    if isinstance(error, ModelBroken) and not plan.models[alias].pool:
        return Fault(f"'{written}': {error.why.rstrip('.')}.", "", mark)
    return Fault(f"{error.what}." if error.remedy else str(error), error.remedy, mark)
