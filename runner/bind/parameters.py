"""The parameters of a step: checked before anything runs, and rendered for each item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from operator import getitem
from types import new_class
from typing import TYPE_CHECKING, Any, cast, get_args

from pydantic import ValidationError

from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import ExpressionError, Reference, Template, Value
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import StepNode
from paddock.pipelines.prompt_file import TEXT_OR_FILE_PARAMETERS, ConversationTemplate
from paddock.pipelines.typed_rows import TypedRows
from paddock.pipelines.validation import faults_of
from paddock.pipelines.yaml_source import YamlDocument
from paddock.steps.base import Params

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


# What a lenient reading would let pass: a text for a number, a number for true or false.
_STRICT = frozenset(("int_type", "float_type", "bool_type", "string_type"))


_OTHER_KIND = frozenset(("string_type", "list_type", "dict_type", "mapping_type", "none_required"))
_SAMPLES: Mapping[Any, Any] = {str: "…", float: 1, bool: True, list: [], dict: {}}


class _KnownAtRunTime:
    """Stands for a value that is known when the step runs; what looks at it raises a TypeError."""

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError

    def __eq__(self, other: object) -> bool:
        raise TypeError


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
    columns: Mapping[Place, Mapping[str, str]] = field(default_factory=dict)
    """By the place of a table's rows: the types of their columns, as far as schemas tell."""

    def places(self) -> Mapping[Place, frozenset[Reference]]:
        """Return which path within the parameters reads what."""
        found = dict(self.value.places())
        found.update(((name,), made.references) for name, made in self.templates.items())
        return found

    def render(
        self, scope: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Any:
        """Fill in the values of a scope, and check the types again.

        `others`: the scopes of parameters that see more.

        Raises:
            BindError: an expression failed, or gave another type than the step takes.
        """
        if self.constant is not None:
            return self.constant
        at = (*self.step.at, "with")
        try:
            given = self.value.render(scope, others)
        except ExpressionError as error:
            what = f"`{'.'.join(map(str, error.path))}`: {error.message}."
            fault = Fault(what, error.remedy, self.document.mark((*at, *error.path)))
            raise BindError(fault) from error
        for name, template in self.templates.items():
            given[name] = template.bound(scope)
        for place, types in self.columns.items():
            *above, last = place
            holder = reduce(getitem, above, given)
            if isinstance(holder[last], list):
                holder[last] = TypedRows(holder[last], types)
        try:
            return self.table.model_validate(given)
        except ValidationError as error:
            details = error.errors(include_url=False)
            found = faults_of(details, self.table, given, self.document, at, is_rendered=True)
            raise BindError(next(found)) from error

    def with_model(self, alias: str) -> BoundParams:
        constant = self.constant and self.constant.model_copy(update={"model": alias})
        return replace(self, value=Value.of({**self.value.data, "model": alias}), constant=constant)


class ParameterBinder:
    """Checks what stands under a step's `with` against the step's own type."""

    def __init__(
        self, table: type[Params], step: StepNode, document: YamlDocument, rows: str = ""
    ) -> None:
        """`rows`: the parameter that takes tables."""
        self.faults: list[Fault] = []
        self.table = table
        self.step = step
        self._document = document
        self._at = (*step.at, "with")
        self._rows = rows
        self._fields = {field.alias or name: field for name, field in table.model_fields.items()}
        self._template_names = {
            name
            for name, field in self._fields.items()
            if Template in (field.annotation, *get_args(field.annotation))
        }

    def bound(self) -> BoundParams:
        """Return the parameters; what is wrong with them stands in `faults`."""
        step, written, fields = self.step, self.step.params.data, self._fields
        for name in written:
            if name not in fields:
                what = f"step '{step.uses}' has no parameter '{name}'."
                remedy = did_you_mean(name, fields, "It has none.")
                mark = self._document.key_mark((*self._at, name))
                self.faults.append(Fault(what, remedy, mark))
        templates: dict[str, Template] = {}
        for name in written if self._template_names else ():
            if (made := self._template(name)) is not None:
                templates[name] = made
        rest = {name: item for name, item in step.written.items() if name not in templates}
        value, _ = Value.scan(rest, tables=(self._rows,))
        # Which parameters stand together, and that none is missing
        mark, together = self._document.mark(self._at), self.table.faults(written)
        for what, remedy in together:
            self.faults.append(Fault(f"step '{step.uses}': {what}", remedy, mark))
        required = {name for name, field in fields.items() if field.is_required()}
        for name in fields:
            if name in required and name not in written:
                what, remedy = f"needs the parameter '{name}'.", f"Add `{name}: …` under `with`."
                place = mark if written else step.mark
                self.faults.append(Fault(f"step '{step.uses}' {what}", remedy, place))
        for name, file in step.files.items():
            if isinstance(file, ConversationTemplate) and name not in self.table.conversations:
                what = f"`{name}` of step '{step.uses}' takes a text, no whole conversation."
                place = self._document.mark((*self._at, name, "file"))
                self.faults.append(Fault(what, "`prompt` of 'chat' takes a .prompt.yml.", place))
        # The values that are written out, with stand-ins for what comes later or is broken
        given = {name: item for name, item in rest.items() if name in fields}
        later = {str(path[0]) for path in value.places()} | step.broken
        later |= required - {*given, *templates}
        later &= fields.keys()
        given |= dict(templates) | {name: _KnownAtRunTime() for name in later}
        table = _loosened(self.table, frozenset(later)) if later or together else self.table
        constant, details = _validated(table, given, strict=False)
        at_fault = {detail["loc"][:1] for detail in details}
        for detail in _validated(table, given, strict=True)[1]:
            is_constant = isinstance(detail["input"], str | int | float)
            if detail["type"] in _STRICT and is_constant and detail["loc"][:1] not in at_fault:
                details.append(detail)
        certain = [detail for detail in details if not later.intersection(detail["loc"][:1])]
        if certain:
            self.faults += faults_of(certain, self.table, given, self._document, self._at)
        # An instance for every scope, where nothing in it is rendered
        texts = [template.source for template in templates.values()]
        if not value.is_constant or any("{{" in text or "{%" in text for text in texts):
            constant = None
        return BoundParams(self.table, step, self._document, value, templates, constant)

    def kind_faults(self, kinds: Mapping[str, type[Any] | None]) -> Iterator[Fault]:
        """Yield which parameters take no value of the kind that their expressions give."""
        known = {name: _SAMPLES[kind] for name, kind in kinds.items() if kind is not None}
        if not known:
            return
        given = {name: _KnownAtRunTime() for name in self.step.params.data} | known
        _, details = _validated(self.table, given, strict=False)
        for name in known:
            of_name = [detail for detail in details if detail["loc"][:1] == (name,)]
            if of_name and all(detail["type"] in _OTHER_KIND for detail in of_name):
                yield from faults_of(
                    of_name, self.table, given, self._document, self._at, is_rendered=True
                )

    def reads_names(self, name: str) -> frozenset[str] | None:
        """Return which names the step adds for the text of a parameter; None: any."""
        if name not in self._template_names:
            return frozenset()
        names = self.step.params.data.get("vars", {})
        added = self.table.sees.get(name, TEXT_OR_FILE_PARAMETERS.get(name))
        if added is None or not isinstance(names, dict):
            return None
        return added | frozenset(names)

    def _template(self, name: str) -> Template | None:
        if name not in self._template_names:
            return None
        written = self.step.params.data[name]
        if name in self.step.files:
            return self.step.files[name]
        if not isinstance(written, str):
            return None
        try:
            return self.step.params.template(name)
        except ExpressionError:
            return Template.of("")  # said before, by the model


def _validated(
    table: type[Params], given: Any, *, strict: bool
) -> tuple[Params | None, list[ErrorDetails]]:
    try:
        return table.model_validate(given, strict=strict), []
    except ValidationError as error:
        return None, error.errors(include_url=False)
    except (TypeError, AttributeError):
        return None, []  # a check of the step's own met a stand-in


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


class BindError(Exception):
    """Parameters that turned out wrong when an item's values were filled in."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(f"{fault.message} {fault.remedy}".strip())
