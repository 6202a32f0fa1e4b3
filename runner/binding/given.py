"""What the caller gives: the inputs' values, and the folders that they open."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, known
from paddock.pipelines.inputs import Input, WrongInput
from paddock.pipelines.tree import Pipeline
from paddock.steps.roots import Roots


@dataclass
class Given:
    """The inputs of one run; what is wrong with them stands in `faults`."""

    values: dict[str, Any] = field(default_factory=dict)
    by_hand: set[str] = field(default_factory=set)
    """The names of those that the caller gave."""
    opened: list[Path] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def roots(self, base: Path) -> Roots:
        """Give the folders that the pipeline may touch."""
        base = base.resolve()
        return Roots(base, tuple(dict.fromkeys((base, *self.opened))))


def read(
    pipeline: Pipeline,
    inputs: Mapping[str, Any] | None,
    *,
    base: Path,
    cwd: Path,
    later: Collection[str] = (),
) -> Given:
    """Read the inputs; with None, as `validate` has it, only the defaults are looked at.

    `later` are those whose values only show when a step runs the pipeline.
    """
    given = Given()
    given.faults += _unknown(pipeline, inputs or {})
    for name, declared in pipeline.inputs.items():
        if inputs is not None and name in inputs:
            given.by_hand.add(name)
            _take(given, declared, inputs[name], cwd)
        elif name in later:
            given.values[name] = None
        elif declared.has_default:
            _default(given, declared, pipeline, base)
        elif declared.is_required and inputs is not None:
            what = f"input '{name}' has no value."
            mark = pipeline.document.key_mark(declared.at)
            given.faults.append(Fault(what, f"Give it: `-i {name}=…`.", mark))
        else:
            given.values[name] = None
    return given


def _unknown(pipeline: Pipeline, inputs: Mapping[str, Any]) -> Iterator[Fault]:
    for name in inputs:
        if name not in pipeline.inputs:
            remedy = known(name, pipeline.inputs) if pipeline.inputs else "It takes none."
            yield Fault(f"the pipeline has no input '{name}'.", remedy)


def _take(given: Given, declared: Input, value: Any, cwd: Path) -> None:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    try:
        value = declared.read(value)
    except WrongInput as error:
        given.faults.append(Fault(f"input '{declared.name}' {error.message}.", error.remedy))
        return
    if declared.type in ("dir", "path"):
        # A shell leaves `~` alone behind `-i folder=`, and Python's callers have none.
        path = cwd / os.path.expanduser(value)  # noqa: PTH111 - an unknown user is no error here
        try:
            given.opened.append(path.resolve())
        except (OSError, RuntimeError):  # too long a name, a circle of symlinks
            what = f"input '{declared.name}' cannot be used as a path."
            given.faults.append(Fault(what, "Name another one."))
        value = os.path.normpath(path)
    given.values[declared.name] = value


def _default(given: Given, declared: Input, pipeline: Pipeline, base: Path) -> None:
    value = declared.default
    if declared.type in ("dir", "path") and isinstance(value, str):
        path = base.resolve() / value
        if not _lies_under(path, base):
            what = f"the default of input '{declared.name}' leads outside the pipeline's folder."
            remedy = f"Remove it, and give the folder to a run: `-i {declared.name}=…`."
            mark = pipeline.mark((*declared.at, "default"))
            given.faults.append(Fault(what, remedy, mark))
        value = os.path.normpath(path)
    elif declared.type == "float" and isinstance(value, int):
        value = float(value)
    given.values[declared.name] = value


def _lies_under(path: Path, base: Path) -> bool:
    try:
        return path.resolve().is_relative_to(base.resolve())
    except (OSError, RuntimeError):  # too long a name, a circle of symlinks
        return False
