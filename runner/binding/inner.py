"""The pipelines that a pipeline runs as steps: read, checked and bound with it, before it begins.

Which file it is and what it is given are looked at here, as far as they are known without a run;
`given_to` does the rest for each item. Knows no run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError, known
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.inputs import Input, WrongInput
from paddock.pipelines.plan import Plan
from paddock.pipelines.tree import Pipeline, Step
from paddock.steps.pipeline import RESULT
from paddock.steps.roots import OutsideRoots, Roots

from . import given
from .bound import BoundBlock, BoundNode, BoundPlan

USES = "pipeline"
# A file that runs two others, each of which runs two others: nobody means more than this.
MOST_PIPELINES, MOST_LEVELS = 100, 8


@dataclass
class Found:
    """What is shared by all pipelines that one run binds."""

    plans: dict[Path, Plan] = field(default_factory=dict)
    n_bound: int = 0


@dataclass(frozen=True)
class Within:
    """Where a pipeline stands that is bound for a step of another; the outermost has no files."""

    found: Found = field(default_factory=Found)
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


Bind = Callable[[Plan, "Mapping[str, Any] | None", Within], "tuple[BoundPlan, list[Fault]]"]


class Inner:
    """Binds what the `pipeline` steps of one file run; faults stand in `faults`."""

    def __init__(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Any] | None,
        roots: Roots,
        within: Within,
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

    def bound(self, step: Step, *, cache: bool) -> BoundPlan | None:
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
        remedy = "Name the YAML file in it." if path.is_dir() else _CORRECT
        self._fault(at, what, remedy)
        return None

    def _may_go_on(self, path: Path, at: tuple[str | int, ...]) -> bool:
        """Refuse circles, and more pipelines than anybody means."""
        files = self._within.files or (self._own(),)
        found = self._within.found
        found.n_bound += 1
        if path in files:
            circle = (*files[files.index(path) :], path)
            names = " → ".join(f"'{file.name}'" for file in circle)
            what = f"these pipelines run one another without end: {names}"
            self._fault(at, what, "Remove one of the steps.")
            return False
        if len(files) > MOST_LEVELS:
            what = f"pipelines run one another more than {MOST_LEVELS} levels deep"
            self._fault(at, what, "Make it flatter.")
            return False
        if found.n_bound > MOST_PIPELINES:
            if found.n_bound == MOST_PIPELINES + 1:
                what = f"more than {MOST_PIPELINES} steps run other pipelines"
                self._fault(at, what, "Use `for_each` with one of them in `do`.")
            return False
        return True

    def _plan(self, path: Path, name: str, at: tuple[str | int, ...]) -> Plan | None:
        """Read it once; what is wrong with it is told at its own places."""
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
        self, step: Step, pipeline: Pipeline, name: str
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """Give the inputs that are known by now, and the names of those that are not."""
        written = step.params.data.get("inputs")
        written = written if isinstance(written, dict) else {}
        values: dict[str, Any] = {}
        later: set[str] = set()
        for key, item in written.items():
            at = (*step.at, "with", "inputs", key)
            if key.startswith("x-"):
                continue
            if key not in pipeline.inputs:
                remedy = known(key, pipeline.inputs) if pipeline.inputs else "It takes none."
                mark = self._pipeline.document.key_mark(at)
                self.faults.append(Fault(f"'{name}' has no input '{key}'.", remedy, mark))
                continue
            is_known, value = self._known(item)
            if not is_known:
                later.add(key)
                continue
            try:
                values[key] = checked(pipeline.inputs[key], value, self._roots)
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
        """Give a value that is written out, or made of the run's own inputs alone."""
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


_CORRECT = "Paths are relative to the YAML; create or correct it."


def plans_within(nodes: Iterable[BoundNode]) -> Iterator[BoundPlan]:
    """Give the pipelines that steps run, and those that steps of theirs do."""
    for node in nodes:
        if isinstance(node, BoundBlock):
            yield from plans_within(node.body)
        elif node.inner is not None:
            yield node.inner
            yield from plans_within(node.inner.nodes)


def unheeded(bound: BoundPlan) -> Iterator[str]:
    """Say what pipelines that steps run ask for in vain: one sentence for each file."""
    of_runs = ("on", "concurrency", "budget")
    asked = {
        plan.file: [f"`{key}`" for key in of_runs if getattr(plan.pipeline, key) is not None]
        for plan in plans_within(bound.nodes)
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
    """Name what a step that runs this pipeline gives."""
    if inner.returns is None:
        return ()
    return tuple(inner.returns.data) if isinstance(inner.returns.data, dict) else (RESULT,)


def checked(declared: Input, value: Any, roots: Roots) -> Any:
    """Give an input of another pipeline; a path is one of the pipeline that gives it.

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


def given_to(inner: BoundPlan, inputs: Mapping[str, Any], roots: Roots) -> BoundPlan:
    """Give a bound pipeline these inputs; `roots` are those of the pipeline that gives them.

    Raises:
        WrongInput: one is unknown, missing, of another kind, or leads outside; it is named.
    """
    declared = inner.pipeline.inputs
    values: dict[str, Any] = {}
    for name, value in inputs.items():
        if name.startswith("x-"):
            continue
        if name not in declared:
            raise WrongInput(f"'{inner.file}' has no input '{name}'", known(name, declared))
        if value is None and not declared[name].is_required:
            continue  # such as an output of a skipped step: as if it were not given
        try:
            values[name] = checked(declared[name], value, roots)
        except WrongInput as error:
            what = f"input '{name}' of '{inner.file}' {error.message}"
            raise WrongInput(what, error.remedy) from error
    base = inner.roots.base
    taken = given.read(inner.pipeline, values, base=base, cwd=base)
    if taken.faults:
        fault = taken.faults[0]
        raise WrongInput(fault.message.rstrip("."), fault.remedy)
    return replace(inner, inputs=taken.values, roots=taken.roots(base))
