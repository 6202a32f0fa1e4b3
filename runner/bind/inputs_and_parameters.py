"""The caller's inputs, what expressions see, and the parameters of a step.

`read_inputs` checks the inputs' values and opens the folders that they name. `Scope` is the
immutable set of names that an item's expressions see: inputs, finished steps, loop variables;
plain JSON data only. Parameters are checked before anything runs and rendered for each item.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from types import new_class
from typing import TYPE_CHECKING, Any, cast, get_args

from pydantic import ValidationError

from paddock.engine.system.text import counted
from paddock.pipelines.errors import Fault, Mark, did_you_mean
from paddock.pipelines.expressions import ExpressionError, Template, Value
from paddock.pipelines.keys import Input, WrongInput
from paddock.pipelines.model import Pipeline, StepNode
from paddock.pipelines.prompt_file import TEXT_OR_FILE_PARAMETERS, ConversationTemplate
from paddock.pipelines.validation import faults_of
from paddock.pipelines.yaml_source import YamlDocument
from paddock.steps.base import Params, Roots
from paddock.steps.llm.confidence import is_confidence

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MOST_UNKNOWN_INPUTS = 20
"""Named in an error: a program or a form may send thousands."""


class Scope(dict[str, Any]):
    """The names of one item's world. A child sees its parents'; nothing is ever changed in place.

    >>> scope = Scope.of({"folder": "in"}).with_step("text", {"text": "Hello"})
    >>> scope["steps"]["text"]
    {'text': 'Hello', 'skipped': False}
    """

    @classmethod
    def of(cls, inputs: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> Scope:
        """Return the outermost scope; only the places that may read secrets name them."""
        named = {"secrets": dict(secrets)} if secrets else {}
        return cls(inputs=dict(inputs), steps={}, **named)

    def child(self, names: str | Mapping[str, Any], item: Any = None) -> Scope:
        """Return the scope of one item of a `for_each`: one name and its value, or several."""
        added = {names: item} if isinstance(names, str) else names
        return Scope({**self, **added})

    def with_step(self, step_id: str, outputs: Mapping[str, Any] | None) -> Scope:
        """Return the scope in which this step, or block, is done; outputs None: it was skipped."""
        skipped = SkippedOutputs(skipped=True)
        seen = skipped if outputs is None else {**as_expressions_see(outputs), "skipped": False}
        return Scope({**self, "steps": {**self["steps"], step_id: seen}})

    def is_skipped(self, step_id: str) -> bool:
        """Return whether a step was skipped; one that is not there was not."""
        return bool(self["steps"].get(step_id, {}).get("skipped"))


class SkippedOutputs(dict[str, Any]):
    """The outputs of a skipped step: whatever one asks for is null."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> None:
        """And it is null."""
        return


# Mirrors of an answer (confidence, evidence): its fields, and names that tell of the whole. These
# names are to be read only: what is stored and written has the fields alone. A field of the answer
# with such a name is the field, but for `review.when`, which always could ask about the whole and
# has the field under `fields`: `confidence.fields.min`.

ABOUT_FIELDS = ("evidence", "confidence")
"""Outputs of a model's step that have the shape of its answer."""
CONFIDENCE_NAMES, EVIDENCE_NAMES = ("min", "mean"), ("missing",)
"""What they tell of the answer as a whole."""
ALL_FIELDS = "fields"
NAMES_OF_WHOLE: Mapping[str, tuple[str, ...]] = {
    "confidence": CONFIDENCE_NAMES,
    "evidence": EVIDENCE_NAMES,
}


class AnswerMirror(dict[str, Any]):
    """The fields of a mirror; values of the answer as a whole can be read, but are not listed.

    >>> mirror = AnswerMirror({"a": {"p": 0.5, "raw": 0.5}}, confidence_of_whole)
    >>> mirror["min"], "min" in mirror, list(mirror)
    (0.5, True, ['a'])
    """

    def __init__(
        self, fields: Mapping[str, Any], of_whole: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        super().__init__(fields)
        self._of_whole = partial(of_whole, fields)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._of_whole()

    def __missing__(self, name: str) -> Any:
        """Return a value of the whole."""
        return self._of_whole()[name]

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]  # `dict.get` does not see what is missing
        except KeyError:
            return default


def confidence_of_whole(confidence: Any) -> dict[str, Any]:
    """Return the least and the mean probability of an answer's fields; 0 where none is known."""
    values = list(probabilities(confidence))
    return {"min": min(values, default=0.0), "mean": sum(values) / max(1, len(values))}


def evidence_of_whole(evidence: Any) -> dict[str, Any]:
    """Return the paths of the values that stand nowhere."""
    # The finder's tables of words and units take 30 ms: only what asks about it imports them.
    from paddock.pipelines.checking.evidence import missing_paths

    return {"missing": missing_paths(evidence)}


_OF_WHOLE: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "confidence": confidence_of_whole,
    "evidence": evidence_of_whole,
}


def as_expressions_see(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's outputs with mirrors that tell of the answer as a whole, too."""
    if _OF_WHOLE.keys().isdisjoint(outputs):
        return dict(outputs)
    mirrors = {
        name: AnswerMirror(outputs[name], of_whole)
        for name, of_whole in _OF_WHOLE.items()
        if isinstance(outputs.get(name), Mapping)
    }
    return {**outputs, **mirrors}


def review_names(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of `escalate.when` and `review.when` for a step's outputs.

    >>> review_names({"output": {"a": 1}, "text": "", "confidence": {"a": {"p": 0.5, "raw": 0.5}}})[
    ...     "confidence"]["min"]
    0.5
    """
    confidence, evidence = outputs.get("confidence"), outputs.get("evidence")
    return {
        "output": outputs.get("output"),
        "text": outputs.get("text"),
        "confidence": _names_of(confidence, confidence_of_whole(confidence)),
        "evidence": _names_of(evidence, evidence_of_whole(evidence)),
        "undecided": outputs.get("undecided") or [],
    }


def _names_of(mirror: Any, of_whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names under `confidence` or `evidence` in `review.when`."""
    fields = mirror if isinstance(mirror, Mapping) else {} if mirror is None else {"items": mirror}
    return {**fields, **of_whole, ALL_FIELDS: fields}


def probabilities(mirror: Any) -> Iterator[float]:
    """Yield the probability of each field of an answer, without those that a person wrote."""
    if is_confidence(mirror):
        if mirror["raw"] is not None:
            yield mirror["p"] or 0.0
    elif isinstance(mirror, Mapping | list):
        for one in mirror.values() if isinstance(mirror, Mapping) else mirror:
            yield from probabilities(one)


# Inputs


@dataclass
class GivenInputs:
    """The inputs of one run; what is wrong with them stands in `faults`."""

    values: dict[str, Any] = field(default_factory=dict)
    by_hand: set[str] = field(default_factory=set)
    """The names of those that the caller gave."""
    opened: list[Path] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def roots(self, base: Path) -> Roots:
        """Return the folders that the pipeline may touch."""
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

    `later` are those whose values only show when a step runs the pipeline.
    """
    given = GivenInputs()
    given.faults += _unknown_inputs(pipeline, inputs or {})
    for name, declared in pipeline.inputs.items():
        if inputs is not None and name in inputs:
            given.by_hand.add(name)
            _read_value(given, declared, inputs[name], cwd)
        elif name in later:
            given.values[name] = None
        elif declared.has_default:
            _read_default(given, declared, pipeline, base)
        elif declared.is_required and inputs is not None:
            what = f"input '{name}' has no value."
            mark = pipeline.document.key_mark(declared.at)
            given.faults.append(Fault(what, f"Give it: `-i {name}=…`.", mark))
        else:
            given.values[name] = None
    return given


def paths_outside(
    pipeline: Pipeline, given: Collection[str], values: Mapping[str, Any], folder: Path, what: str
) -> list[Fault]:
    """Return the given inputs whose paths lead out of a folder: for callers from elsewhere.

    What a person opens by `-i folder=`, such a call cannot. `what` names the folder.
    """
    return [
        Fault(f"input '{name}' leads outside {what}.", "")
        for name in given
        if name in values
        and pipeline.inputs[name].type in ("dir", "path")
        and not _lies_under(Path(values[name]), folder)
    ]


def _unknown_inputs(pipeline: Pipeline, inputs: Mapping[str, Any]) -> Iterator[Fault]:
    unknown = [name for name in inputs if name not in pipeline.inputs]
    for name in unknown[:_MOST_UNKNOWN_INPUTS]:
        remedy = did_you_mean(name, pipeline.inputs) if pipeline.inputs else "It takes none."
        yield Fault(f"the pipeline has no input '{name}'.", remedy)
    if (n_left := len(unknown) - _MOST_UNKNOWN_INPUTS) > 0:
        yield Fault(f"the pipeline has none of {counted(n_left, 'more input')} either.")


def _read_value(given: GivenInputs, declared: Input, value: Any, cwd: Path) -> None:
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


def _read_default(given: GivenInputs, declared: Input, pipeline: Pipeline, base: Path) -> None:
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


# What a lenient reading would let pass: a text for a number, a number for true or false.
_STRICT = frozenset(("int_type", "float_type", "bool_type", "string_type"))


class BindError(Exception):
    """Parameters that turned out wrong when an item's values were filled in."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.reason = fault.message
        self.remedy = fault.remedy
        self.mark: Mark | None = fault.mark
        super().__init__(f"{fault.message} {fault.remedy}".strip())


class _KnownAtRunTime:
    """Stands for a value that is known when the step runs."""


@dataclass(frozen=True)
class BoundParams:
    """A step's parameters with its type. `render` gives an instance for one scope."""

    table: type[Params]
    step: StepNode
    document: YamlDocument
    value: Value
    """All but the templates."""
    templates: Mapping[str, Template]
    constant: Params | None = None
    """The instance itself, where no scope is needed to make it."""

    def render(self, scope: Mapping[str, Any]) -> Any:
        """Fill in the values of a scope, and check the types again.

        Raises:
            BindError: an expression failed, or gave another type than the step takes.
        """
        if self.constant is not None:
            return self.constant
        at = (*self.step.at, "with")
        try:
            given = self.value.render(scope)
        except ExpressionError as error:
            what = f"`{'.'.join(map(str, error.path))}`: {error.message}."
            fault = Fault(what, error.remedy, self.document.mark((*at, *error.path)))
            raise BindError(fault) from error
        for name, template in self.templates.items():
            given[name] = template.bound(scope)
        try:
            return self.table.model_validate(given)
        except ValidationError as error:
            details = error.errors(include_url=False)
            fault = next(faults_of(details, self.table, given, self.document, at))
            raise BindError(fault) from error

    def with_model(self, alias: str) -> BoundParams:
        constant = self.constant and self.constant.model_copy(update={"model": alias})
        return replace(self, value=Value.of({**self.value.data, "model": alias}), constant=constant)


class ParameterBinder:
    """Checks what stands under a step's `with` against the step's own type."""

    def __init__(self, table: type[Params], step: StepNode, document: YamlDocument) -> None:
        self.faults: list[Fault] = []
        self._table = table
        self._step = step
        self._document = document
        self._at = (*step.at, "with")
        self._fields = {field.alias or name: field for name, field in table.model_fields.items()}

    def bound(self) -> BoundParams:
        """Return the parameters; what is wrong with them stands in `faults`."""
        written = self._step.params.data
        for name in written:
            if name not in self._fields:
                self._unknown(name)
        templates = {name: made for name in written if (made := self._template(name)) is not None}
        rest = {name: self._text(name) for name in written if name not in templates}
        value, _ = Value.scan(rest)
        self._choice(written)
        self._conversations()
        constant = self._checked(value, templates)
        reads = any(template.references for template in templates.values())
        if reads or not value.is_constant or any(map(_has_names, templates.values())):
            constant = None
        return BoundParams(self._table, self._step, self._document, value, templates, constant)

    def reads_names(self, name: str) -> frozenset[str] | None:
        """Return which names the step adds for the text of a parameter; None: any."""
        if name not in self._fields or not self._takes_template(name):
            return frozenset()
        names = self._step.params.data.get("vars", {})
        added = self._table.sees.get(name, TEXT_OR_FILE_PARAMETERS.get(name))
        if added is None or not isinstance(names, dict):
            return None
        return added | frozenset(names)

    def _takes_template(self, name: str) -> bool:
        return Template in set(_types(self._fields[name].annotation))

    def _template(self, name: str) -> Template | None:
        if name not in self._fields or not self._takes_template(name):
            return None
        written = self._step.params.data[name]
        if name in self._step.files:
            return self._step.files[name]
        if not isinstance(written, str):
            return None
        try:
            return self._step.params.template(name)
        except ExpressionError:
            return Template.of("")  # said before, by the model

    def _text(self, name: str) -> Any:
        """Return a parameter as written, or the text of the file that it names."""
        made = self._step.files.get(name)
        return made.source if made is not None else self._step.params.data[name]

    def _unknown(self, name: str) -> None:
        names = [*self._fields]
        what = f"step '{self._step.uses}' has no parameter '{name}'."
        remedy = did_you_mean(name, names) if names else "It has none."
        mark = self._document.key_mark((*self._at, name))
        self.faults.append(Fault(what, remedy, mark))

    def _choice(self, written: Mapping[str, Any]) -> None:
        """Check which parameters stand together, and that none is missing."""
        mark = self._document.mark(self._at)
        for sentence in self._table.faults(written):
            what, _, remedy = sentence.partition(". ")
            what = f"step '{self._step.uses}': {what[:1].lower()}{what[1:].rstrip('.')}."
            self.faults.append(Fault(what, remedy, mark))
        for name, parameter in self._fields.items():
            if parameter.is_required() and name not in written:
                what = f"step '{self._step.uses}' needs the parameter '{name}'."
                self.faults.append(Fault(what, f"Add `{name}: …` under `with`.", self._place()))

    def _conversations(self) -> None:
        """Refuse files that hold a whole conversation where a text is asked for."""
        for name, made in self._step.files.items():
            if isinstance(made, ConversationTemplate) and name not in self._table.conversations:
                what = f"`{name}` of step '{self._step.uses}' takes a text, no whole conversation."
                remedy = "`prompt` of 'chat' takes a .prompt.yml."
                mark = self._document.mark((*self._at, name, "file"))
                self.faults.append(Fault(what, remedy, mark))

    def _place(self) -> Mark:
        return self._document.mark(self._at) if self._step.params.data else self._step.mark

    def _checked(self, value: Value, templates: Mapping[str, Template]) -> Params | None:
        """Check what is written out, with stand-ins for what comes later or is broken."""
        given = {name: item for name, item in value.data.items() if name in self._fields}
        required = {name for name, field in self._fields.items() if field.is_required()}
        later = {str(path[0]) for path in value.places()} | self._step.broken
        later |= required - {*given, *templates}
        later &= self._fields.keys()
        given |= dict(templates) | {name: _KnownAtRunTime() for name in later}
        has_faults = bool(self._table.faults(self._step.params.data))
        table = _loosened(self._table, frozenset(later)) if later or has_faults else self._table
        made, details = _validated(table, given, strict=False)
        details += _strict_details(table, given, {detail["loc"][:1] for detail in details})
        details = [detail for detail in details if not _is_about(detail, later)]
        self.faults += faults_of(details, self._table, given, self._document, self._at)
        return made


def _validated(
    table: type[Params], given: Any, *, strict: bool
) -> tuple[Params | None, list[ErrorDetails]]:
    try:
        return table.model_validate(given, strict=strict), []
    except ValidationError as error:
        return None, error.errors(include_url=False)
    except (TypeError, AttributeError):
        return None, []  # a check of the step's own met a stand-in


def _strict_details(
    table: type[Params], given: Any, known: Collection[tuple[int | str, ...]]
) -> Iterator[ErrorDetails]:
    """Yield which values are of another type, but for parameters with a fault that is known."""
    for detail in _validated(table, given, strict=True)[1]:
        is_constant = isinstance(detail["input"], str | int | float)
        if detail["type"] in _STRICT and is_constant and detail["loc"][:1] not in known:
            yield detail


def _is_about(detail: ErrorDetails, later: set[str]) -> bool:
    """Return whether an error speaks of a stand-in."""
    if detail["loc"]:
        return detail["loc"][0] in later
    return any(f"`{name}`" in detail["msg"] for name in later)


@lru_cache(maxsize=128)  # a type takes 1.5 ms to make, and steps are much alike
def _loosened(table: type[Params], later: frozenset[str]) -> type[Params]:
    """Return the type with any value allowed where it is known only later.

    Which parameters stand together was checked before, so that it is not asked here.
    """
    names = [name for name, field in table.model_fields.items() if (field.alias or name) in later]
    members: dict[str, Any] = {name: _KnownAtRunTime() for name in names}
    members["__annotations__"] = dict.fromkeys(names, Any)
    members["__module__"] = __name__
    members["faults"] = classmethod(lambda cls, given: ())
    made = new_class(table.__name__, (table,), exec_body=lambda names: names.update(members))
    return cast("type[Params]", made)


def _has_names(template: Template) -> bool:
    return "{{" in template.source or "{%" in template.source


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)
