"""Missing requirements: packages, programs, servers, readers and model files.

It is found before a run where it is constant; what depends on an item (an `if` over a document, a
command made by a template) is found when that item is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.errors import EngineError, ModelBroken, NoModelFile, WrongModel
from paddock.engine.model_file_parts import check_file
from paddock.engine.system.records import Struct
from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Pipeline
from paddock.steps.extras import is_missing_program, missing_mcp_library
from paddock.steps.tools.python_files import missing_imports

from ..bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from ..inputs import KnownInputs
from ..plan_walks import all_plans, all_steps, steps_of
from ..trust.reached import ReachedCode, ReachedServer, reached_by_step

if TYPE_CHECKING:
    from paddock.engine.request import ModelFacts, ModelSpec


def refuse_missing(bound: BoundPlan) -> None:
    """Refuse a pipeline that needs what is not installed here; inner ones are looked at as well.

    Raises:
        PipelineError: with each package, program or model file that is missing, where needed first.
    """
    missing: dict[str, Fault] = {}
    for fault in _missing_of_plan(bound):
        missing.setdefault(fault.message, fault)
    if faults := [*missing.values(), *model_file_faults(bound)]:
        raise PipelineError(faults)


def _missing_of_plan(bound: BoundPlan) -> Iterator[Fault]:
    for step in _certain_steps(bound.nodes, bound):
        yield from _missing_of_step(step, bound)
        if step.inner is not None:
            yield from _missing_of_plan(step.inner)


def _certain_steps(nodes: Iterable[BoundNode], bound: BoundPlan) -> Iterator[BoundStep]:
    """Yield the steps that no `if` may leave out, as far as the inputs tell."""
    known = KnownInputs(bound.inputs, bound.later_inputs)
    for node in nodes:
        if node.if_ is not None and not known.holds(node.if_):
            continue
        if isinstance(node, BoundBlock):
            yield from _certain_steps(node.body, bound)
        else:
            yield node


def _missing_of_step(step: BoundStep, bound: BoundPlan) -> Iterator[Fault]:
    pipeline, fault = bound.pipeline, bound.pipeline.document.fault
    for path, what, remedy in step.facts.missing(step.id, step.written, bound.roots.base):
        yield fault((*step.params.step.at, "with", *path), what, remedy)
    for reached in reached_by_step(step.params.step, pipeline):
        if isinstance(reached, ReachedCode) and reached.file:
            for module in missing_imports(bound.roots.base / reached.file):
                what = f"the file '{reached.file}' imports '{module}', which is not installed"
                yield fault(reached.at, what, "Install it in the environment that runs Paddock.")
        elif isinstance(reached, ReachedServer):
            if (library := missing_mcp_library()) is not None:
                yield fault(reached.at, *library)
            program = reached.program
            if program and is_missing_program(program.words[0], program.env, bound.roots.base):
                by = f"is started by '{program.words[0]}', which is not installed here"
                what = f"the MCP server '{reached.name}' {by}"
                at = pipeline.servers[reached.name].at
                yield fault(at, what, "Install it, or correct `command`.")


# --- models


class ModelFaults(EngineError):
    def __init__(self, faults: list[Fault]) -> None:
        self.faults = PipelineError(faults).faults
        super().__init__("\n".join(fault.render() for fault in self.faults))


def model_file_faults(bound: BoundPlan) -> Iterator[Fault]:
    """Yield a fault for each GGUF file that a step's model names by its path and that is none.

    The files are opened, but only their first four bytes are read.
    """
    for model in _used_models(bound):
        if not model.spec.pool and Path(model.spec.ref).is_absolute():
            try:
                check_file(Path(model.spec.ref), model.written)
            except WrongModel as error:
                yield model.lookup_fault(error)


def lookup_faults(error: WrongModel, spec: ModelSpec, bound: BoundPlan) -> Iterator[Fault]:
    models = _used_models(bound)
    return (model.lookup_fault(error) for model in models if model.spec.key == spec.key)


def model_fact_faults(
    facts: Mapping[tuple[str, str], ModelFacts], bound: BoundPlan
) -> Iterator[Fault]:
    comparing = {
        s.key for step in all_steps(bound.nodes) if step.facts.compares for s in step.models
    }
    for model in _used_models(bound):
        spec, known = model.spec, facts.get(model.spec.key)
        if known is not None and not known.compares_answers and model.spec.key in comparing:
            from paddock.engine.backends.option_wires import cannot_compare

            what, remedy = cannot_compare(f"the server of model '{model.alias}'")
            yield model.fault("pool", what, f"{remedy}.")
        if known is None or spec.pool:
            continue
        if known.role != spec.role:
            does = {"chat": "writes text", "embed": "makes vectors", "rerank": "ranks documents"}
            what = f"model '{model.alias}' has the role '{spec.role}', but '{model.written}' "
            remedy = "Name another model" if spec.role == "chat" else "Name an embedding model"
            if known.role != "rerank":  # no step ranks
                remedy += f", or write `role: {known.role}`"
            yield model.fault("role", f"{what}{does[known.role]}", f"{remedy}.")
        elif (spec.n_ctx_tokens or 0) > known.n_ctx_train_tokens:
            asks = f"`ctx` asks for {spec.n_ctx_tokens:,} tokens"
            trained = f"'{model.written}' was trained on {known.n_ctx_train_tokens:,}"
            remedy = "Write a smaller `ctx`, or leave it out."
            yield model.fault("ctx", f"{asks}, but {trained}", remedy)


class _DeclaredModel(Struct, frozen=True):
    alias: str
    spec: ModelSpec
    pipeline: Pipeline

    @property
    def written(self) -> str:
        return self.pipeline.models[self.alias].ref

    def fault(self, key: str, what: str, remedy: str) -> Fault:
        """Return a fault of one of its keys; where that is not written, of its reference."""
        written = self.pipeline.document.data["models"][self.alias]
        at: Place = ("models", self.alias)
        if not isinstance(written, str):
            at = (*at, key if key in written else "ref")
        return self.pipeline.document.fault(at, what, remedy)

    def lookup_fault(self, error: WrongModel) -> Fault:
        if isinstance(error, NoModelFile):
            folder = Path(self.spec.ref).parent
            names = [file.name for file in folder.glob("*.gguf")] if folder.is_dir() else []
            near = did_you_mean(Path(self.written).name, names, "There is no GGUF file.")
            remedy = f"Looked for in {folder}. {near}"
            return self.fault("ref", f"no such file: '{self.written}'", remedy)
        if isinstance(error, ModelBroken) and not self.spec.pool:
            return self.fault("ref", f"'{self.written}': {error.why}", "")
        return self.fault("ref", error.what if error.remedy else str(error), error.remedy)


def _used_models(bound: BoundPlan) -> Iterator[_DeclaredModel]:
    """Yield the models that steps use, inner pipelines' too.

    Also those of a step whose `if` is known not to hold: the hash of an item has their digests.
    """
    for plan in all_plans(bound):
        used = {spec.key for step in steps_of(plan.nodes) for spec in step.models}
        for alias, spec in plan.models.items():
            if spec.key in used:
                yield _DeclaredModel(alias, spec, plan.pipeline)
