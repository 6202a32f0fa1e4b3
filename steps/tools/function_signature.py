"""A Python function's signature as the JSON Schema of a tool.

Type hints become the JSON Schema of the arguments, the docstring their descriptions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

_DOC_SECTION = re.compile(r"^(\w[\w ]*):\s*$")
_GOOGLE_ARGUMENT = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX_ARGUMENT = re.compile(r"^\s*:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)$")
_PARAMETER_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class NotATool(Exception):
    """A function that cannot be called as a tool; one plain sentence."""


def validation_sentence(error: ValidationError, names: tuple[str, ...]) -> str:
    """Return the first fault of arguments as a sentence for people and models."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    listed = ", ".join(f"`{known}`" for known in names) or "none"
    if first["type"] == "extra_forbidden":
        return f"`{name}` is not known; it takes {listed}."
    if first["type"] == "missing":
        return f"`{name}` is missing; it takes {listed}."
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"`{name}` {message[:1].lower()}{message[1:]}." if name else f"{message}."


def arguments_model(function: Callable[..., Any]) -> type[BaseModel]:
    """Return a Pydantic model of a function's arguments.

    Raises:
        NotATool: they have no names, or their hints cannot be read.
    """
    name = getattr(function, "__name__", "function")
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise NotATool(f"the type hints of '{name}' cannot be read: {error}.") from error
    docs = documented_arguments(inspect.getdoc(function) or "")
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.kind not in _PARAMETER_KINDS:
            raise NotATool(f"'{name}' takes `{parameter}`; arguments of a tool need names.")
        default = ... if parameter.default is parameter.empty else parameter.default
        hint = hints.get(parameter.name, Any)
        # Under generated names: the function's own, such as `schema`, may be reserved.
        described = docs.get(parameter.name)
        if get_origin(hint) is Annotated:  # `Annotated[str, "what it is for"]`
            words = (word for word in get_args(hint)[1:] if isinstance(word, str))
            described = next(words, described)
        argument_field = (hint, Field(default=default, alias=parameter.name, description=described))
        fields[f"argument_{len(fields)}"] = argument_field
    try:
        return create_model(name, __config__=_ARGUMENTS_CONFIG, **fields)
    except Exception as error:  # Pydantic raises many kinds for unknown types
        raise NotATool(f"the type hints of '{name}' cannot be used: {error}") from error


_ARGUMENTS_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


def schema_of_arguments(table: type[BaseModel]) -> dict[str, Any]:
    schema = table.model_json_schema(by_alias=True)
    for argument in schema.setdefault("properties", {}).values():
        argument.pop("title", None)
    schema.pop("title", None)
    return schema


def typed_arguments(table: type[BaseModel], args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as the function's own types.

    Raises:
        ValidationError: they do not fit.
    """
    made = table.model_validate(dict(args))
    fields = type(made).model_fields
    return {str(field.alias): getattr(made, name) for name, field in fields.items()}


def description_of(function: Callable[..., Any]) -> str:
    """Return the first paragraph of a docstring.

    >>> description_of(typed_arguments)
    "Return the arguments as the function's own types."
    """
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def documented_arguments(text: str) -> dict[str, str]:
    """Return the arguments' descriptions in a docstring of Google's or Sphinx' style.

    >>> documented_arguments(":param str name: Who.")
    {'name': 'Who.'}
    """
    found: dict[str, str] = {}
    is_inside = False
    last = ""
    indent = 0
    for line in text.splitlines():
        section = _DOC_SECTION.match(line)
        if section:
            is_inside, last = section[1] in ("Args", "Arguments", "Parameters"), ""
            continue
        sphinx, google = _SPHINX_ARGUMENT.match(line), _GOOGLE_ARGUMENT.match(line)
        depth = len(line) - len(line.lstrip())
        if sphinx:
            found[sphinx[1]] = sphinx[2].strip()
        elif is_inside and google and (not last or depth <= indent):
            last, indent = google[1], depth
            found[last] = google[2].strip()
        elif is_inside and last and line.strip():
            found[last] = f"{found[last]} {line.strip()}".strip()
    return found
