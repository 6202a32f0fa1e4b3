"""The parameters of a step: checked before anything runs, and rendered for each item."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, reduce
from operator import getitem
from types import new_class
from typing import Any, cast, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from paddock.engine.system.records import Struct, field, replace
from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import ExpressionError, Reference, Template, Value
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import StepNode
from paddock.pipelines.prompt_file import TEXT_OR_FILE_PARAMETERS, ConversationTemplate
from paddock.pipelines.typed_rows import TypedRows
from paddock.pipelines.validation import FaultCollector, faults_of
from paddock.pipelines.yaml_source import YamlDocument
from paddock.steps.base import Params
from paddock.steps.facts import Facts
from paddock.steps.param_types import RowsParam

# Faults of a strict reading alone: a text for a number, a number for true or false.
_STRICT = frozenset(("int_type", "float_type", "bool_type", "string_type"))
_OTHER_KIND = frozenset(("string_type", "list_type", "dict_type", "mapping_type", "none_required"))
_SAMPLES: Mapping[Any, Any] = {str: "…", float: 1, bool: True, list: [], dict: {}}


class _Later:
    """Stand-in for a value that is known later; to look at it raises TypeError."""

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError

    def __eq__(self, other: object) -> bool:
        raise TypeError


class BoundParams(Struct, frozen=True):
    """A step's parameters with its type. `render` gives an instance for one scope."""

    params_type: type[Params]
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
        places = {path: made.references for path, made in self.value.expressions.items()}
        places.update(((name,), text.references) for name, text in self.templates.items())
        return places

    def render(
        self, scope: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Any:
        """Fill in the values of a scope, and check the types again.

        `others`: the scopes of parameters that see more.

        Raises:
            RenderError: an expression failed, or gave another type than the step takes.
        """
        if self.constant is not None:
            return self.constant
        at = (*self.step.at, "with")
        try:
            values = self.value.render(scope, others)
        except ExpressionError as error:
            what = f"`{'.'.join(map(str, error.path))}`: {error.message}."
            fault = self.document.fault((*at, *error.path), what, error.remedy)
            raise RenderError(fault) from error
        for name, template in self.templates.items():
            values[name] = template.bound(scope)
        for place, types in self.columns.items():
            *above, last = place
            holder = reduce(getitem, above, values)
            if isinstance(holder[last], list):
                holder[last] = TypedRows(holder[last], types)
        try:
            return self.params_type.model_validate(values)
        except ValidationError as error:
            details = error.errors(include_url=False)
            faults = faults_of(
                details, self.params_type, values, self.document, at, is_rendered=True
            )
            raise RenderError(next(faults)) from error

    def with_model(self, alias: str) -> BoundParams:
        constant = self.constant and self.constant.model_copy(update={"model": alias})
        return replace(self, value=Value.of({**self.value.data, "model": alias}), constant=constant)


class ParameterBinder:
    """Checks what stands under a step's `with` against the type of its parameters.

    What is wrong is added to `checks`.
    """

    def __init__(
        self, params_type: type[Params], step: StepNode, facts: Facts, checks: FaultCollector
    ) -> None:
        self._checks = checks
        self.params_type = params_type
        self.step = step
        self._at = (*step.at, "with")
        self._facts = facts
        self._fields = {
            field.alias or name: field for name, field in params_type.model_fields.items()
        }
        self._required = [name for name, field in self._fields.items() if field.is_required()]
        self._template_names = {
            name
            for name, field in self._fields.items()
            if Template in (field.annotation, *get_args(field.annotation))
        }

    def bind(self) -> BoundParams:
        """Return the parameters, as far as they are known before a run.

        1. Name parameters that the type does not have.
        2. Compile the texts that the step renders itself; the rest is one value.
        3. Check which parameters stand together, which are missing, which take a conversation.
        4. Validate what is known; keep the instance itself where nothing in it is rendered.
        """
        step, checks, fields = self.step, self._checks, self._fields
        written = step.params.data
        # 1
        for name in written:
            if name not in fields:
                what = f"step '{step.uses}' has no parameter '{name}'"
                remedy = did_you_mean(name, fields, "It has none.")
                checks.add((*self._at, name), what, remedy, is_key=True)
        # 2
        templates: dict[str, Template] = {}
        for name in written if self._template_names else ():
            if (template := self._template(name)) is not None:
                templates[name] = template
        rest = {name: item for name, item in step.written.items() if name not in templates}
        value, _ = Value.scan(rest, tables=(self._facts.param(RowsParam),))
        # 3
        conflicts = self.params_type.faults(written)
        for what, remedy in conflicts:
            checks.add(self._at, f"step '{step.uses}': {what}", remedy)
        for name in self._required:
            if name not in written:
                what = f"step '{step.uses}' needs the parameter '{name}'."
                mark = checks.document.mark(self._at) if written else step.mark
                checks.include([Fault(what, f"Add `{name}: …` under `with`.", mark)])
        for name, file in step.files.items():
            takes_conversation = name in self.params_type.conversations
            if isinstance(file, ConversationTemplate) and not takes_conversation:
                what = f"`{name}` of step '{step.uses}' takes a text, no whole conversation"
                at = (*self._at, name, "file")
                checks.add(at, what, "`prompt` of 'chat' takes one.")
        # 4
        instance = self._validate(value, templates, has_conflicts=bool(conflicts))
        texts = [template.source for template in templates.values()]
        if value.expressions or any("{{" in text or "{%" in text for text in texts):
            instance = None
        return BoundParams(self.params_type, step, checks.document, value, templates, instance)

    def _validate(
        self, value: Value, templates: Mapping[str, Template], *, has_conflicts: bool
    ) -> Params | None:
        """Return the instance, with stand-ins for what a run knows, has a fault, or is missing.

        Validate as a run does; then strictly, since that passes a text for a number.
        """
        known = {name: item for name, item in value.data.items() if name in self._fields}
        known |= dict(templates)
        later = {str(path[0]) for path in value.expressions} | self.step.broken
        later |= {name for name in self._required if name not in known}
        later &= self._fields.keys()
        known |= {name: _Later() for name in later}
        checked_type = self.params_type
        if later or has_conflicts:
            checked_type = _loosened(self.params_type, frozenset(later))
        instance, details = _validated(checked_type, known, strict=False)
        at_fault = {detail["loc"][:1] for detail in details}
        for detail in _validated(checked_type, known, strict=True)[1]:
            is_constant = isinstance(detail["input"], str | int | float)
            if detail["type"] in _STRICT and is_constant and detail["loc"][:1] not in at_fault:
                details.append(detail)
        certain = [detail for detail in details if not later.intersection(detail["loc"][:1])]
        for name in later:  # what stands beside an expression in a mapping is known
            hint, given = self._fields[name].annotation, value.data.get(name)
            kind = next((kind for kind in (hint, *get_args(hint)) if isinstance(kind, type)), int)
            if isinstance(given, Mapping) and issubclass(kind, Params):
                unknown = {str(path[1]) for path in value.expressions if path[0] == name}
                within = _loosened(kind, frozenset(unknown))
                known[name] = given = {**given, **dict.fromkeys(unknown, _Later())}
                for detail in _validated(within, given, strict=False)[1]:
                    if not unknown.intersection(detail["loc"][:1]):
                        certain.append({**detail, "loc": (name, *detail["loc"])})
        if certain:
            document = self._checks.document
            self._checks.include(faults_of(certain, self.params_type, known, document, self._at))
        return instance

    def check_kinds(self, kinds: Mapping[str, type[Any] | None]) -> None:
        known = {name: _SAMPLES[kind] for name, kind in kinds.items() if kind is not None}
        if not known:
            return
        given = {name: _Later() for name in self.step.params.data} | known
        _, details = _validated(self.params_type, given, strict=False)
        document = self._checks.document
        for name in known:
            of_name = [detail for detail in details if detail["loc"][:1] == (name,)]
            if of_name and all(detail["type"] in _OTHER_KIND for detail in of_name):
                self._checks.include(
                    faults_of(
                        of_name, self.params_type, given, document, self._at, is_rendered=True
                    )
                )

    def reads_names(self, name: str) -> frozenset[str] | None:
        """Return which names the step adds for the text of a parameter; None: any."""
        if name not in self._template_names:
            return frozenset()
        names = self.step.params.data.get(self._facts.names, {})
        added = self.params_type.sees.get(name, TEXT_OR_FILE_PARAMETERS.get(name))
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
    params_type: type[Params], given: Any, *, strict: bool
) -> tuple[Params | None, list[ErrorDetails]]:
    try:
        return params_type.model_validate(given, strict=strict), []
    except ValidationError as error:
        return None, error.errors(include_url=False)
    except (TypeError, AttributeError):
        return None, []  # a check of the step's own met a stand-in


@lru_cache(maxsize=128)  # a type takes 1.5 ms to make, and steps are much alike
def _loosened(params_type: type[Params], later: frozenset[str]) -> type[Params]:
    """Return the type with any value allowed where it is known only later.

    Which parameters stand together was checked before, so that it is not asked here.
    """
    names = [
        name for name, field in params_type.model_fields.items() if (field.alias or name) in later
    ]
    members: dict[str, Any] = {name: _Later() for name in names}
    members["__annotations__"] = dict.fromkeys(names, Any)
    members["__module__"] = __name__
    members["faults"] = classmethod(lambda cls, given: ())
    loosened = new_class(
        params_type.__name__, (params_type,), exec_body=lambda names: names.update(members)
    )
    return cast("type[Params]", loosened)


class RenderError(Exception):
    """Parameters that turned out wrong when an item's values were filled in."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(f"{fault.message} {fault.remedy}".strip())
