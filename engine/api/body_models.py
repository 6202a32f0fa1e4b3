"""Base of the Pydantic models of request bodies; their faults in the words of each API.

Types are strict, as in the APIs. `null` counts as absent, because clients write it for what they
leave out; names are matched in any case, as in Go's decoder. Fields that a class does not declare
are as `request_fields` says: refused, or named in the header `Warning`. An array is read
up to its first fault: a million of them would fill the memory. What only one model knows to be
wrong is `refused(why)` in a validator of its own; an ApiError that is raised there is sent as it
is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from paddock.engine.api.errors import ApiError, Dialect, InvalidValue
from paddock.engine.api.json_body import parse_json, type_name
from paddock.engine.api.request_fields import check_undeclared
from paddock.engine.request import ToolCall
from paddock.engine.sampling_values import OTHER_NAMES, PARAMETERS
from paddock.engine.system.text import is_shallow

MOST_SCHEMA_LEVELS = 64
"""Nesting of a JSON Schema, or of a tool call's arguments."""
MOST_MEMBERS = 1_000
"""Files, parameters or options of a request: each costs work; the largest models have 200 files."""

_T = TypeVar("_T")


class Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, defer_build=True)
    dialect: ClassVar[Dialect] = "ollama"

    @model_validator(mode="before")
    @classmethod
    def _given(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        fields = {name.lower(): field for name, field in value.items() if field is not None}
        is_inner = info.context is not cls
        found = check_undeclared(cls.declared(), fields, is_inner=is_inner)
        if found is not None:
            name, refusal = found
            context = {"field": name, "why": refusal.remedy, "code": refusal.code}
            raise PydanticCustomError("unsupported", "{why}", context)
        return fields

    @classmethod
    @cache
    def declared(cls) -> frozenset[str]:
        """Return the names of the fields that have an effect."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    def sampling(self) -> dict[str, Any]:
        """Return the fields that are parameters, by the engine's names; the first name counts."""
        given: dict[str, Any] = {}
        for name in type(self).model_fields:
            parameter, value = OTHER_NAMES.get(name, name), getattr(self, name)
            if parameter in PARAMETERS and value is not None:
                given.setdefault(parameter, value)
        return given

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        try:
            return cls.model_validate(fields, context=cls)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise _api_error(cls.dialect, _path_in(fields, fault), fault) from None


def refused(why: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{why}", {"why": why})


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    if not is_shallow(value, MOST_SCHEMA_LEVELS):
        raise refused(f"it is nested more than {MOST_SCHEMA_LEVELS} levels deep.")
    return value


def _few(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MOST_MEMBERS:
        raise refused(f"it has {len(value):,} members; at most {MOST_MEMBERS:,} are read.")
    return value


def _of_texts(value: Any) -> Any:
    """Refuse other values at once: Pydantic would report each one of an object."""
    if isinstance(value, dict) and not all(isinstance(member, str) for member in value.values()):
        raise refused("its values must be strings.")
    return value


def decode_base64(text: str) -> bytes:
    """Return the bytes of a base64 text, padded or not; raise `refused` for another."""
    bare = "".join(text.split())
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise refused("illegal base64 data") from None


def within(name: str) -> Any:
    """Return the field of a number, with the range of the engine's parameter."""
    return Field(None, ge=PARAMETERS[name].least, le=PARAMETERS[name].most)


def parameter(name: str) -> PlainValidator:
    """Return the validator of a field that is read as the engine's parameter."""

    def typed(value: Any) -> Any:
        try:
            return PARAMETERS[name].typed(value)
        except ValueError:
            raise refused(f"expected {PARAMETERS[name].words}.") from None

    return PlainValidator(typed)


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer; `2.0` is one."""
Needed = Annotated[str, Field(min_length=1)]
"""A string that must be there and not be empty."""
Items = Annotated[tuple[_T, ...], Field(strict=False, fail_fast=True)]
TextOr = Annotated[
    Annotated[str, Tag("text")] | Annotated[Items[_T], Tag("array")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "array"),
]
"""A string, or an array."""
Tree = Annotated[dict[str, Any], AfterValidator(_shallow)]
"""An object that is passed on as it is, such as a schema; recursive functions can read it."""
Few = Annotated[dict[str, Any], BeforeValidator(_few)]
"""An object of which each member costs work."""
Texts = Annotated[dict[str, str], BeforeValidator(_of_texts), BeforeValidator(_few)]
Base64 = Annotated[
    bytes, BeforeValidator(lambda value: decode_base64(value) if isinstance(value, str) else value)
]


def _arguments(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = parse_json(value.encode()) if value.strip() else {}
        except ApiError:
            raise refused("invalid tool call arguments: not valid JSON.") from None
    if not isinstance(value, dict) or not is_shallow(value, MOST_SCHEMA_LEVELS):
        raise refused("invalid tool call arguments: not a JSON object.")
    return value


Arguments = Annotated[dict[str, Any], PlainValidator(_arguments)]
"""Of a tool call: an object, or its text."""


class CalledFunction(Body):
    name: Needed
    arguments: Arguments = Field(default_factory=dict)


class ToolCallBody(Body):
    type: Literal["function", ""] = ""
    id: str = ""
    function: CalledFunction

    def call(self) -> ToolCall:
        return ToolCall(self.function.name, self.function.arguments, self.id)


# By Pydantic's types of errors.
_TYPES = {
    **dict.fromkeys(("string_type", "string_unicode", "bytes_type"), "a string"),
    **{"bool_type": "a boolean", "int_type": "an integer", "float_type": "a number"},
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "an object"),
    **dict.fromkeys(("list_type", "tuple_type"), "an array"),
}
_BOUNDS = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
_MISSING = frozenset(("missing", "string_too_short", "too_short", "union_tag_not_found"))


def _path_in(value: Any, fault: ErrorDetails) -> list[str | int]:
    """Return an error's path in the request, without the names of a union's alternatives."""
    path: list[str | int] = []
    for name in fault["loc"]:
        inner: list[Any] = []  # the member of that name, if there is one
        if isinstance(value, list) and isinstance(name, int):
            inner = value[name : name + 1]
        elif isinstance(value, dict):
            inner = [member for key, member in value.items() if key.lower() == name]
        if inner:
            value = inner[0]
        elif fault["type"] != "missing" or name != fault["loc"][-1]:
            continue
        path.append(name)
    context = fault.get("ctx", {})
    below = context.get("field") or context.get("discriminator", "").strip("'")
    return [*path, below] if below else path


def _api_error(dialect: Dialect, path: list[str | int], fault: ErrorDetails) -> ApiError:
    kind, found = fault["type"], type_name(fault["input"])
    if dialect != "openai":
        place = ".".join(map(str, path))
        if kind in _TYPES:
            message = f"{place}: must be {_TYPES[kind]}, not {found}"
        elif kind == "unsupported":
            message = f"{place} is not supported here: {_reason(fault)}"
        else:
            message = f"{place} is required" if kind in _MISSING else f"{place}: {_reason(fault)}"
        return ApiError(400, message, param=place, code=fault.get("ctx", {}).get("code"))
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
    if kind in _TYPES:
        message = f"Invalid type for '{place}': expected {_TYPES[kind]}, but got {found} instead."
        return InvalidValue(message, place, code="invalid_type")
    if kind in _MISSING:
        return missing_parameter(place)
    if kind == "unsupported":
        message = f"Unsupported parameter: '{place}'. {_reason(fault)}"
        return InvalidValue(message, place, code="unsupported_parameter")
    return invalid_value(place, _reason(fault))


def invalid_value(place: str, why: str, code: str | None = None) -> InvalidValue:
    return InvalidValue(f"Invalid value for '{place}': {why}", place, code=code)


def missing_parameter(place: str) -> InvalidValue:
    message = f"Missing required parameter: '{place}'."
    return InvalidValue(message, place, code="missing_required_parameter")


def _reason(fault: ErrorDetails) -> str:
    """Return why a value of the right type cannot be used."""
    context, given = fault.get("ctx", {}), fault["input"]
    match fault["type"]:
        case "refused" | "unsupported":
            return str(context["why"])
        case "literal_error":
            return f"'{shown(str(given))}'. Supported values are: {context['expected']}."
        case "union_tag_invalid":
            known = context["expected_tags"]
            return f"'{shown(context['tag'])}' is not supported here. Supported are: {known}."
        case bound if bound in _BOUNDS:
            words, name = _BOUNDS[bound]
            return f"expected {words} {context[name]:.15g}, not {given}."
        case _:
            return str(fault["msg"])


def shown(text: str) -> str:
    """Return a text of the client, shortened, for an error."""
    return text if len(text) <= 80 else f"{text[:77]}..."
