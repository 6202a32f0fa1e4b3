"""Inputs of a pipeline: those of the caller, who opens folders by them, and what follows from them.

`KnownInputs` answers what is known of a text or a condition before a run, by the inputs alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from paddock.engine.system import files
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import counted
from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import (
    TEMPLATE_START,
    Expression,
    ExpressionError,
    Reference,
    Value,
    template_pieces,
)
from paddock.pipelines.input_values import FOLDER_TYPES, PATH_TYPES, Input, WrongInput
from paddock.pipelines.model import Pipeline
from paddock.steps.base import Roots
from paddock.steps.tables.row_formats import UnreadableRows
from paddock.steps.tables.table_files import given_rows

_MOST_UNDECLARED = 20
"""Named in an error: a program or a form may send thousands."""
LATER = object()
"""In place of a value that is only known later: in a run, or for an item."""
LATER_PART = "…"
"""The same in a text, such as a path."""


class GivenInputs(Struct):
    values: dict[str, Any] = field(default_factory=dict)
    by_hand: set[str] = field(default_factory=set)
    """The names of those that the caller gave."""
    later: set[str] = field(default_factory=set)
    """The names of those whose values are known later; they are null until then."""
    opened: list[Path] = field(default_factory=list)
    is_check: bool = False
    """Whether they are not given yet, so that only the defaults are looked at."""
    wrong_values: list[Fault] = field(default_factory=list)
    """What is wrong with those that the caller gave."""
    wrong_in_file: list[Fault] = field(default_factory=list)
    """Inputs that have no value, and defaults that may not be."""

    @property
    def faults(self) -> list[Fault]:
        return [*self.wrong_values, *self.wrong_in_file]

    def roots(self, base: Path) -> Roots:
        base = base.resolve()
        return Roots(base, tuple(dict.fromkeys((base, *self.opened))))


def read_inputs(
    pipeline: Pipeline,
    inputs: Mapping[str, Any] | None,
    *,
    base: Path,
    cwd: Path,
    later: Collection[str] = (),
) -> GivenInputs:
    """Read the inputs; with None, as `validate` has it, only the defaults are looked at.

    `later`: the names of those whose values are known when a step runs the pipeline.
    """
    given = GivenInputs(is_check=inputs is None)
    undeclared = [name for name in inputs or () if name not in pipeline.inputs]
    for name in undeclared[:_MOST_UNDECLARED]:
        remedy = did_you_mean(name, pipeline.inputs, "It takes none.")
        given.wrong_values.append(Fault(f"the pipeline has no input '{name}'.", remedy))
    if (n_left := len(undeclared) - _MOST_UNDECLARED) > 0:
        what = f"the pipeline has none of {counted(n_left, 'more input')} either."
        given.wrong_values.append(Fault(what))
    for name, declared in pipeline.inputs.items():
        if inputs is not None and name in inputs:
            given.by_hand.add(name)
            _read_value(given, declared, inputs[name], cwd)
        elif declared.has_default and name not in later:
            _read_default(given, declared, pipeline, base)
        elif declared.is_required and inputs is not None and name not in later:
            what, remedy = f"input '{name}' has no value", f"Give it: `-i {name}=…`."
            fault = pipeline.document.fault(declared.at, what, remedy, is_key=True)
            given.wrong_in_file.append(fault)
        else:
            given.values[name] = None
            if declared.is_required or name in later:
                given.later.add(name)
    return given


REMEDY_FOR_FOLDER_ELSEWHERE = (
    "What starts by itself has only folders below its own; mount it there."
)


def outside_path_faults(
    pipeline: Pipeline, given: Collection[str], values: Mapping[str, Any], folder: Path, what: str
) -> list[Fault]:
    """Return the given inputs whose paths lead out of a folder: for callers from elsewhere.

    What a person opens by `-i folder=`, such a call cannot. `what` names the folder.
    """
    return [
        Fault(f"input '{name}' leads outside {what}.", "")
        for name in given
        if name in values
        and pipeline.inputs[name].type in PATH_TYPES
        and isinstance(values[name], str)
        and not _lies_under(Path(values[name]), folder)
    ]


def _read_value(given: GivenInputs, declared: Input, value: Any, cwd: Path) -> None:
    try:
        value = declared.read(os.fspath(value) if isinstance(value, os.PathLike) else value)
        if declared.type == "rows" and not isinstance(value, str):
            value = given_rows(value, declared.columns)
    except (WrongInput, UnreadableRows) as error:
        given.wrong_values.append(Fault(f"input '{declared.name}' {error}.", error.remedy))
        return
    if declared.type == "rows" and isinstance(value, str):
        value = os.path.normpath(cwd / os.path.expanduser(value))  # noqa: PTH111
    elif declared.type in FOLDER_TYPES:
        # A shell leaves `~` alone behind `-i folder=`, and Python's callers have none.
        path = cwd / os.path.expanduser(value)  # noqa: PTH111 - an unknown user is no error here
        try:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                path.resolve(strict=True)  # without `strict` a circle is no error since Python 3.13
            given.opened.append(path.resolve())
        except (OSError, RuntimeError):  # too long a name, a circle of symlinks
            what = f"input '{declared.name}' cannot be used as a path."
            given.wrong_values.append(Fault(what, "Name another one."))
        value = os.path.normpath(path)
    given.values[declared.name] = value


def _read_default(given: GivenInputs, declared: Input, pipeline: Pipeline, base: Path) -> None:
    value = declared.default
    if declared.type in PATH_TYPES and isinstance(value, str):
        path = base.resolve() / value
        if not _lies_under(path, base):
            what = f"the default of input '{declared.name}' leads outside the pipeline's folder"
            remedy = f"Remove it, and give the folder to a run: `-i {declared.name}=…`."
            if pipeline.on is not None:
                remedy += f" {REMEDY_FOR_FOLDER_ELSEWHERE}"
            at = (*declared.at, "default")
            given.wrong_in_file.append(pipeline.document.fault(at, what, remedy))
        value = os.path.normpath(path)
    elif declared.type == "float" and isinstance(value, int):
        value = float(value)
    given.values[declared.name] = value


def _lies_under(path: Path, base: Path) -> bool:
    resolved = files.resolved(path)
    return resolved is not None and resolved.is_relative_to(base.resolve())


def reads_only_inputs(references: Iterable[Reference], names: Container[str]) -> bool:
    """Return whether nothing but inputs of these names is read, and the path of this Python."""
    return all(
        path[0] == "python" or (path[0] == "inputs" and path[1:] and path[1] in names)
        for path in references
    )


class KnownInputs:
    """The values of inputs by their names, but for those that are known `later`.

    A condition may read an input that is null; what a text makes of one is known later, since the
    step may be skipped then.
    """

    def __init__(self, values: Mapping[str, Any], later: Collection[str] = ()) -> None:
        self._values = {name: value for name, value in values.items() if name not in later}
        self._scope = {"inputs": self._values, "python": sys.executable}

    def get(self, name: str) -> Any:
        """Return the value of an input; None: it is null, or known later."""
        return self._values.get(name)

    def value_of(self, written: Any) -> Any:
        """Return a value with the inputs filled in, or `LATER`; faults are told elsewhere.

        >>> known = KnownInputs({"out": "sums"})
        >>> known.value_of("{{ inputs.out }}/a"), known.value_of("{{ doc.name }}") is LATER
        ('sums/a', True)
        """
        value, errors = Value.scan(written)
        return LATER if errors else self._made(value.references, value.render)

    def text_of(self, template: str) -> str:
        """Return a text, with `…` in place of what is known later.

        >>> KnownInputs({"out": "sums"}).text_of("{{ inputs.out }}/{{ doc.relpath }}.md")
        'sums/….md'
        """
        try:
            pieces = template_pieces(template) if TEMPLATE_START.search(template) else [template]
        except ExpressionError:
            return LATER_PART
        text = ""
        for piece in pieces:
            value = self.evaluated(piece) if isinstance(piece, Expression) else piece
            text += value if isinstance(value, str) else LATER_PART
        return text

    def evaluated(self, made: Expression) -> Any:
        return self._made(made.references, made.evaluate)

    def _made(self, references: Iterable[Reference], make: Callable[[Any], Any]) -> Any:
        given = [name for name, value in self._values.items() if value is not None]
        if not reads_only_inputs(references, given):
            return LATER
        try:
            return make(self._scope)
        except ExpressionError:
            return LATER

    def holds(self, condition: Expression) -> bool:
        try:
            is_known = reads_only_inputs(condition.references, self._values)
            return is_known and bool(condition.evaluate(self._scope))
        except ExpressionError:
            return False
