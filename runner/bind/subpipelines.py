"""Sub-pipelines, read, checked and bound with the pipeline that runs them; walks over both.

Files and inputs are checked as far as they are known without a run; `with_inputs` does the rest
for each item. The walks yield the steps, blocks, ids and names of a bound plan, and what a block
reads from outside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
from paddock.pipelines.expressions import ExpressionError, Reference, Value
from paddock.pipelines.keys import Input, WrongInput
from paddock.pipelines.model import Pipeline, StepNode
from paddock.pipelines.plan import Plan
from paddock.steps.base import OutsideRoots, Roots
from paddock.steps.run_pipeline import RESULT_OUTPUT

from . import inputs_and_parameters
from .bound import BoundBlock, BoundNode, BoundPlan, BoundStep

PIPELINE_STEP = "pipeline"
# A file that runs two others, each of which runs two others: more is a mistake.
MAX_PIPELINES, MAX_LEVELS = 100, 8


@dataclass
class SharedPlans:
    """State shared by all pipelines that one run binds."""

    plans: dict[Path, Plan] = field(default_factory=dict)
    n_bound: int = 0


@dataclass(frozen=True)
class BindContext:
    """Place of a sub-pipeline; empty for the outermost."""

    found: SharedPlans = field(default_factory=SharedPlans)
    files: tuple[Path, ...] = ()
    """The files that lead here, resolved, the outermost first."""
    steps: tuple[str, ...] = ()
    """The steps that lead here."""
    later: frozenset[str] = frozenset()
    """Inputs whose values only show when the step runs."""
    cache: bool = True
    """Whether recorded replies may be taken, as the steps that lead here say."""

    @property
    def label(self) -> str:
        """What the names of its models' pools begin with, so that none is another's."""
        return "".join(f"{step}." for step in self.steps)


Bind = Callable[[Plan, "Mapping[str, Any] | None", BindContext], "tuple[BoundPlan, list[Fault]]"]


class SubPipelineBinder:
    """Binds what the `pipeline` steps of one file run; faults stand in `faults`."""

    def __init__(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Any] | None,
        roots: Roots,
        within: BindContext,
        read: Callable[[Path], Plan],
        bind: Bind,
    ) -> None:
        self.faults: list[Fault] = []
        self._pipeline = pipeline
        self._inputs = inputs
        self._roots = roots
        self._within = within
        self._read = read
        self._bind = bind

    def bound(self, step: StepNode, *, cache: bool) -> BoundPlan | None:
        """Bind the pipeline that a step names; None where that is a fault."""
        at = (*step.at, "with", "file")
        name = step.params.data.get("file")
        path = self._path(name, at) if isinstance(name, str) and name else None
        if path is None or not self._may_go_on(path, at):
            return None
        plan = self._plan(path, str(name), at)
        if plan is None:
            return None
        values, later = self._given(step, plan.pipeline, str(name))
        within = replace(
            self._within,
            files=(*(self._within.files or (self._own(),)), path),
            steps=(*self._within.steps, step.id),
            later=later,
            cache=cache,
        )
        made, faults = self._bind(plan, None if self._inputs is None else values, within)
        self.faults += faults
        return made

    # --- the file

    def _own(self) -> Path:
        return self._roots.base / Path(self._pipeline.document.file).name

    def _path(self, name: str, at: tuple[str | int, ...]) -> Path | None:
        """Find the file; it must lie in the folder of the one that names it."""
        if "{{" in name or "{%" in name:
            what = f"the file of a pipeline must stand there as it is, not as '{name}'"
            self._fault(at, what, "Choose between files with `if` on two steps.")
            return None
        try:
            path = (self._roots.base / name).resolve()
        except (OSError, RuntimeError, ValueError):  # too long, a circle of symlinks, a zero byte
            self._fault(at, f"the file '{name[:60]}' cannot be used as a path", "Name another one.")
            return None
        if not path.is_relative_to(self._roots.base):
            what = f"the file '{name}' lies outside the pipeline's folder"
            self._fault(at, what, "Move or copy it there.")
            return None
        if path.is_file():
            return path
        what = f"'{name}' is a folder" if path.is_dir() else f"there is no file '{name}'"
        remedy = "Name the YAML file in it." if path.is_dir() else _REMEDY
        self._fault(at, what, remedy)
        return None

    def _may_go_on(self, path: Path, at: tuple[str | int, ...]) -> bool:
        """Refuse circles, and too many pipelines."""
        files = self._within.files or (self._own(),)
        found = self._within.found
        found.n_bound += 1
        if path in files:
            circle = (*files[files.index(path) :], path)
            names = " → ".join(f"'{file.name}'" for file in circle)
            what = f"these pipelines run one another without end: {names}"
            self._fault(at, what, "Remove one of the steps.")
            return False
        if len(files) > MAX_LEVELS:
            what = f"pipelines run one another more than {MAX_LEVELS} levels deep"
            self._fault(at, what, "Make it flatter.")
            return False
        if found.n_bound > MAX_PIPELINES:
            if found.n_bound == MAX_PIPELINES + 1:
                what = f"more than {MAX_PIPELINES} steps run other pipelines"
                self._fault(at, what, "Use `for_each` with one of them in `do`.")
            return False
        return True

    def _plan(self, path: Path, name: str, at: tuple[str | int, ...]) -> Plan | None:
        """Read it once; its faults are reported at their own places."""
        plans = self._within.found.plans
        if path not in plans:
            shown = Path(os.path.normpath(Path(self._pipeline.document.file).parent / name))
            try:
                plans[path] = self._read(shown)
            except PipelineError as error:
                self.faults += error.faults
                return None
        return plans[path]

    # --- what it is given

    def _given(
        self, step: StepNode, pipeline: Pipeline, name: str
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """Return the inputs that are known by now, and the names of those that are not."""
        written = step.params.data.get("inputs")
        written = written if isinstance(written, dict) else {}
        values: dict[str, Any] = {}
        later: set[str] = set()
        for key, item in written.items():
            at = (*step.at, "with", "inputs", key)
            if key.startswith("x-"):
                continue
            if key not in pipeline.inputs:
                remedy = did_you_mean(key, pipeline.inputs) if pipeline.inputs else "It takes none."
                mark = self._pipeline.document.key_mark(at)
                self.faults.append(Fault(f"'{name}' has no input '{key}'.", remedy, mark))
                continue
            is_known, value = self._known(item)
            if not is_known:
                later.add(key)
                continue
            try:
                values[key] = checked_input(pipeline.inputs[key], value, self._roots)
            except WrongInput as error:
                what = f"input '{key}' of '{name}' {error.message}"
                self._fault(at, what, error.remedy)
                later.add(key)
        for key, declared in pipeline.inputs.items():
            if declared.is_required and not declared.has_default and key not in written:
                remedy = f"Add `{key}: …` under `inputs`."
                self._fault((*step.at, "with"), f"'{name}' needs the input '{key}'", remedy)
                later.add(key)
        return values, frozenset(later)

    def _known(self, item: Any) -> tuple[bool, Any]:
        """Return a value that is written out, or made of the run's own inputs alone."""
        value, errors = Value.scan(item)
        if errors:
            return False, None  # told with the file
        if value.is_constant:
            return True, item
        inputs = self._inputs or {}
        if any(p[0] != "inputs" or inputs.get((*p, "")[1]) is None for p in value.references):
            return False, None
        try:
            return True, value.render({"inputs": inputs})
        except ExpressionError:
            return False, None  # the run says why, at its place

    def _fault(self, at: tuple[str | int, ...], message: str, remedy: str) -> None:
        self.faults.append(Fault(f"{message}.", remedy, self._pipeline.mark(at)))


_REMEDY = "Paths are relative to the YAML; create or correct it."


def sub_plans(nodes: Iterable[BoundNode]) -> Iterator[BoundPlan]:
    """Yield the pipelines that steps run, and those that steps of theirs do."""
    for node in nodes:
        if isinstance(node, BoundBlock):
            yield from sub_plans(node.body)
        elif node.inner is not None:
            yield node.inner
            yield from sub_plans(node.inner.nodes)


def ignored_key_notes(bound: BoundPlan) -> Iterator[str]:
    """Yield a note on each file whose own settings a sub-pipeline ignores."""
    of_runs = ("on", "concurrency", "budget")
    asked = {
        plan.file: [f"`{key}`" for key in of_runs if getattr(plan.pipeline, key) is not None]
        for plan in sub_plans(bound.nodes)
    }
    for file, keys in asked.items():
        if keys:
            listed = " and ".join((", ".join(keys[:-1]), keys[-1])) if keys[1:] else keys[0]
            do, those = ("do", "those") if keys[1:] else ("does", "that")
            yield (
                f"{listed} of {file} {do} not count where a step runs it, only {those} of the "
                f"file that is run."
            )


def outputs_of(inner: BoundPlan) -> tuple[str, ...]:
    """Return the output names of a step that runs this pipeline."""
    if inner.returns is None:
        return ()
    return tuple(inner.returns.data) if isinstance(inner.returns.data, dict) else (RESULT_OUTPUT,)


def checked_input(declared: Input, value: Any, roots: Roots) -> Any:
    """Return an input of another pipeline; a path is one of the pipeline that gives it.

    Raises:
        WrongInput: it is of another kind, or a path outside the folders of the one that gives it.
    """
    read = declared.read(value)
    if declared.type not in ("dir", "path"):
        return read
    try:
        return str(roots.resolve(read))
    except OutsideRoots as error:
        _, _, remedy = str(error).partition(". ")
        raise WrongInput(f"leads outside the pipeline's folders: '{read}'", remedy) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise WrongInput(f"cannot be used as a path: '{str(read)[:60]}'") from error


def with_inputs(inner: BoundPlan, inputs: Mapping[str, Any], roots: Roots) -> BoundPlan:
    """Return a bound pipeline these inputs; `roots` are those of the pipeline that gives them.

    Raises:
        WrongInput: one is unknown, missing, of another kind, or leads outside; it is named.
    """
    declared = inner.pipeline.inputs
    values: dict[str, Any] = {}
    for name, value in inputs.items():
        if name.startswith("x-"):
            continue
        if name not in declared:
            raise WrongInput(f"'{inner.file}' has no input '{name}'", did_you_mean(name, declared))
        if value is None and not declared[name].is_required:
            continue  # such as an output of a skipped step: as if it were not given
        try:
            values[name] = checked_input(declared[name], value, roots)
        except WrongInput as error:
            what = f"input '{name}' of '{inner.file}' {error.message}"
            raise WrongInput(what, error.remedy) from error
    base = inner.roots.base
    taken = inputs_and_parameters.read_inputs(inner.pipeline, values, base=base, cwd=base)
    if taken.faults:
        fault = taken.faults[0]
        raise WrongInput(fault.message.rstrip("."), fault.remedy)
    return replace(inner, inputs=taken.values, roots=taken.roots(base))


def node_ids(body: Iterable[BoundNode]) -> Iterator[str]:
    """Yield the ids of all steps and blocks in a body, nested ones too."""
    for node in body:
        yield node.id
        if isinstance(node, BoundBlock):
            yield from node_ids(node.body)


def steps_of(body: Iterable[BoundNode]) -> Iterator[BoundStep]:
    """Yield all steps of a body, those of nested blocks too."""
    for node in body:
        if isinstance(node, BoundBlock):
            yield from steps_of(node.body)
        else:
            yield node


def all_steps(body: Iterable[BoundNode]) -> Iterator[BoundStep]:
    """Yield all steps of a body, and those of the pipelines that they run."""
    for step in steps_of(body):
        yield step
        if step.inner is not None:
            yield from all_steps(step.inner.nodes)


def all_plans(bound: BoundPlan) -> Iterator[BoundPlan]:
    """Yield a pipeline, and all that its steps run."""
    yield bound
    yield from sub_plans(bound.nodes)


def callable_names(body: Iterable[BoundNode]) -> Iterator[str]:
    """Yield the names of all steps and blocks by which a caller may mean them: `clean.each`."""
    for node in body:
        yield node.id
        if isinstance(node, BoundBlock):
            yield from callable_names(node.body)
        elif node.inner is not None:
            yield from (f"{node.id}.{name}" for name in callable_names(node.inner.nodes))


def progress_line_names(nodes: Iterable[BoundNode]) -> Iterator[str]:
    """Yield the names of the lines that a run shows: top-level ones, each with what it runs."""
    for node in nodes:
        yield node.id
        if isinstance(node, BoundStep) and node.inner is not None:
            yield from (f"{node.id}.{name}" for name in progress_line_names(node.inner.nodes))


def has_no_nested_items(body: Iterable[BoundNode]) -> bool:
    """Return whether a body has no items of its own: no blocks, and no pipelines."""
    body = tuple(body)
    has_blocks = next(blocks_of(body), None) is not None
    return not has_blocks and all(step.inner is None for step in steps_of(body))


def blocks_of(body: Iterable[BoundNode]) -> Iterator[BoundBlock]:
    """Yield the nested blocks of a body."""
    for node in body:
        if isinstance(node, BoundBlock):
            yield node
            yield from blocks_of(node.body)


def outer_references(block: BoundBlock) -> frozenset[Reference]:
    """Return what the body of a block reads from outside of it; its own list is not among it."""
    inner = set(node_ids(block.body))
    variables = {block.var}
    found: set[Reference] = set(block.returns.references) if block.returns else set()
    for step in steps_of(block.body):
        found.update(step.references)
    for nested in blocks_of(block.body):
        variables.add(nested.var)
        found.update(nested.over.references)
        found.update(nested.where.references if nested.where else ())
    outside = (path for path in found if path[0] not in variables and path[0] != "loop")
    return frozenset(
        path for path in outside if not (path[0] == "steps" and path[1:2] and path[1] in inner)
    )


def canonical_spec(node: BoundNode) -> str:
    """Return the canonical spec of a step, or of a block with its steps: what decides results."""
    if not isinstance(node, BoundBlock):
        steps = {node.id: _spec_data(node.spec)}
        return json.dumps({"blocks": {}, "steps": steps}, sort_keys=True, ensure_ascii=False)
    blocks = {block.id: _spec_data(block.spec) for block in (node, *blocks_of(node.body))}
    steps = {step.id: _spec_data(step.spec) for step in steps_of(node.body)}
    return json.dumps({"blocks": blocks, "steps": steps}, sort_keys=True, ensure_ascii=False)


def _spec_data(spec: str) -> object:
    return json.loads(spec) if spec else {}
