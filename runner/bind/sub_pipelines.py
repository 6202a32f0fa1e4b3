"""The pipelines that steps run: their files, limits on nesting, and inputs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paddock.engine.system import files
from paddock.engine.system.records import Struct, field, replace
from paddock.pipelines.errors import PipelineError, did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.input_values import FOLDER_TYPES, Input, WrongInput
from paddock.pipelines.model import Pipeline, StepNode
from paddock.pipelines.plan import Plan, read_plan
from paddock.pipelines.validation import FaultCollector
from paddock.steps.base import OutsideRoots, Roots
from paddock.steps.param_types import PipelineFile, PipelineInputs
from paddock.steps.registry import facts_of

from .bound import BoundPlan
from .inputs import LATER, KnownInputs, read_inputs

# A file that runs two others, each of which runs two others: more is a mistake.
MAX_PIPELINES, MAX_LEVELS = 100, 8
_ROWS_IN_FILE = "is a file, which only a run of its own reads"
_ROWS_REMEDY = "Give it the `rows` of a step `files.rows`."


class SharedPlans(Struct):
    plans: dict[Path, Plan] = field(default_factory=dict)
    """By their files as they are shown: each link to a file has a folder of its own."""
    n_bound: int = 0
    moment: float = field(default_factory=time.time)


class SubPipelinePlace(Struct, frozen=True):
    """Where in a run a pipeline is bound; empty for the outermost."""

    shared: SharedPlans = field(default_factory=SharedPlans)
    files: tuple[Path, ...] = ()
    """The files that lead here, resolved, the outermost first."""
    steps: tuple[str, ...] = ()
    later: frozenset[str] = frozenset()
    """Inputs whose values are known when the step runs."""
    cache: bool = True
    """Whether recorded replies may be taken, as the steps that lead here say."""

    @property
    def is_outermost(self) -> bool:
        """Whether no step runs this pipeline: what starts it counts then."""
        return not self.files

    @property
    def label(self) -> str:
        """What the names of its models' pools begin with, so that none is another's."""
        return "".join(f"{step}." for step in self.steps)


class SubPipelineReader(Struct):
    _pipeline: Pipeline
    _known: KnownInputs | None
    """Its inputs; None: they are not given yet."""
    _roots: Roots
    _place: SubPipelinePlace
    _checks: FaultCollector

    def read(
        self, step: StepNode, *, cache: bool
    ) -> tuple[Plan, Mapping[str, Any] | None, SubPipelinePlace] | None:
        """Read the pipeline that a step names, to be bound; None where that is a fault.

        With it come the inputs that are known by now (None: those of the outer one are not given
        yet), and its place.
        """
        facts = facts_of(step.uses)
        at = (*step.at, "with", facts.param(PipelineFile))
        name = step.params.data.get(facts.param(PipelineFile))
        path = self._file(name, at) if isinstance(name, str) and name else None
        this_file = self._roots.base / Path(self._pipeline.document.file).name
        around = self._place.files or (this_file,)  # the files that lead here, with this one
        if path is None or not self._may_run(path, around, at):
            return None
        plans = self._place.shared.plans
        shown = Path(os.path.normpath(Path(self._pipeline.document.file).parent / str(name)))
        if shown not in plans:
            try:
                plans[shown] = read_plan(shown)
            except PipelineError as error:
                self._checks.include(error.faults)
                return None
        values, later = self._known_inputs(step, plans[shown].pipeline, str(name))
        place = replace(
            self._place,
            files=(*around, path),
            steps=(*self._place.steps, step.id),
            later=later,
            cache=cache,
        )
        return plans[shown], None if self._known is None else values, place

    def _file(self, name: str, at: Place) -> Path | None:
        """Find the file; it must lie in the folder of the one that names it."""
        if "{{" in name or "{%" in name:
            what = f"the file of a pipeline must stand there as it is, not as '{name}'"
            self._checks.add(at, what, "Choose between files with `if` on two steps.")
            return None
        path = files.resolved(self._roots.base / name)
        if path is None:
            what = f"the file '{name[:60]}' cannot be used as a path"
            self._checks.add(at, what, "Name another one.")
            return None
        if not path.is_relative_to(self._roots.base):
            what = f"the file '{name}' lies outside the pipeline's folder"
            self._checks.add(at, what, "Move or copy it there.")
            return None
        if path.is_file():
            return path
        if path.is_dir():
            self._checks.add(at, f"'{name}' is a folder", "Name the YAML file in it.")
        else:
            remedy = "Paths are relative to the YAML; create or correct it."
            self._checks.add(at, f"there is no file '{name}'", remedy)
        return None

    def _may_run(self, path: Path, around: tuple[Path, ...], at: Place) -> bool:
        """Refuse circles, and too many pipelines."""
        shared = self._place.shared
        shared.n_bound += 1
        if path in around:
            circle = (*around[around.index(path) :], path)
            names = " → ".join(f"'{file.name}'" for file in circle)
            what = f"these pipelines run one another without end: {names}"
            self._checks.add(at, what, "Remove one of the steps.")
            return False
        if len(around) > MAX_LEVELS:
            what = f"pipelines run one another more than {MAX_LEVELS} levels deep"
            self._checks.add(at, what, "Make it flatter.")
            return False
        if shared.n_bound > MAX_PIPELINES:
            if shared.n_bound == MAX_PIPELINES + 1:
                what = f"more than {MAX_PIPELINES} steps run other pipelines"
                self._checks.add(at, what, "Use `for_each` with one of them in `do`.")
            return False
        return True

    def _known_inputs(
        self, step: StepNode, pipeline: Pipeline, name: str
    ) -> tuple[dict[str, Any], frozenset[str]]:
        parameter = facts_of(step.uses).param(PipelineInputs)
        written = step.params.data.get(parameter) or {}
        if not isinstance(written, dict):  # one expression makes all of them
            return {}, frozenset(pipeline.inputs)
        values: dict[str, Any] = {}
        later: set[str] = set()
        known = self._known or KnownInputs({})
        given = {key: known.value_of(item) for key, item in written.items()}
        for key, value in _checked_inputs(pipeline, name, given, self._roots):
            if isinstance(value, WrongInput):
                at = (*step.at, "with", *((parameter, key) if key in written else ()))
                is_key = key not in pipeline.inputs
                self._checks.add(at, value.message, value.remedy, is_key=is_key)
            if value is LATER or isinstance(value, WrongInput):
                later.add(key)
            else:
                values[key] = value
        for key, declared in pipeline.inputs.items():
            if declared.is_required and not declared.has_default and key not in written:
                remedy = f"Add `{key}: …` under `{parameter}`."
                self._checks.add((*step.at, "with"), f"'{name}' needs the input '{key}'", remedy)
                later.add(key)
        return values, frozenset(later)


def _checked_inputs(
    pipeline: Pipeline, file: str, given: Mapping[str, Any], roots: Roots
) -> Iterator[tuple[str, Any]]:
    """Yield the inputs that another pipeline has of those given: each value, or a `WrongInput`.

    A path is one of the pipeline that gives it, in its `roots`. Null, such as an output of a
    skipped step, is as if it were not given. What is `LATER` stays so.
    """
    declared = pipeline.inputs
    for name, value in given.items():
        if name.startswith("x-"):
            continue
        if name not in declared:
            remedy = did_you_mean(name, declared, "It takes none.")
            yield name, WrongInput(f"'{file}' has no input '{name}'", remedy)
            continue
        if value is None and not declared[name].is_required:
            continue
        try:
            read = value if value is LATER else _checked_input(declared[name], value, roots)
        except WrongInput as error:
            read = WrongInput(f"input '{name}' of '{file}' {error.message}", error.remedy)
        yield name, read
    for name, missing in declared.items():
        if given.get(name) is None and missing.type == "rows" and isinstance(missing.default, str):
            yield name, WrongInput(f"input '{name}' of '{file}' {_ROWS_IN_FILE}", _ROWS_REMEDY)


def _checked_input(declared: Input, value: Any, roots: Roots) -> Any:
    read = declared.read(value)
    if declared.type == "rows" and isinstance(read, str):
        raise WrongInput(_ROWS_IN_FILE, _ROWS_REMEDY)
    if declared.type not in FOLDER_TYPES:
        return read
    try:
        return str(roots.resolve(read))
    except OutsideRoots as error:
        what = f"leads outside the pipeline's folders: '{read}'"
        raise WrongInput(what, error.remedy) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise WrongInput(f"cannot be used as a path: '{str(read)[:60]}'") from error


def with_inputs(inner: BoundPlan, inputs: Mapping[str, Any], roots: Roots) -> BoundPlan:
    """Return a bound pipeline with these inputs; `roots` are those of the pipeline that gives them.

    Raises:
        WrongInput: one is unknown, missing, of another kind, or leads outside; it is named.
    """
    values: dict[str, Any] = {}
    for name, value in _checked_inputs(inner.pipeline, str(inner.file), inputs, roots):
        if isinstance(value, WrongInput):
            raise value
        values[name] = value
    base = inner.roots.base
    taken = read_inputs(inner.pipeline, values, base=base, cwd=base)
    if taken.faults:
        fault = taken.faults[0]
        raise WrongInput(fault.message.rstrip("."), fault.remedy)
    roots = replace(taken.roots(base), outside=roots.outside)
    return replace(inner, inputs=taken.values, later_inputs=frozenset(), roots=roots)
