"""What a Python function takes: a JSON Schema from its type hints, words from its docstring.

Runs where the function is loaded, in a process of its own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

_SECTION = re.compile(r"^(\w[\w ]*):\s*$")
_ARGUMENT = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX = re.compile(r"^\s*:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)$")
_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class NoTool(Exception):
    """A function that cannot be called as a tool; one plain sentence."""


def table_of(function: Callable[..., Any]) -> type[BaseModel]:
    """Make the type of a function's arguments.

    Raises:
        NoTool: they have no names, or their hints cannot be read.
    """
    name = getattr(function, "__name__", "function")
    try:
        signature, hints = (
            inspect.signature(function),
            get_type_hints(function, include_extras=True),
        )
    except (NameError, TypeError, ValueError) as error:
        raise NoTool(f"the type hints of '{name}' cannot be read: {error}.") from error
    told = arguments_told(inspect.getdoc(function) or "")
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.kind not in _KINDS:
            raise NoTool(f"'{name}' takes `{parameter}`; a tool's arguments have names.")
        default = ... if parameter.default is parameter.empty else parameter.default
        hint = hints.get(parameter.name, Any)
        # Under names of ours: a function's own, such as `schema`, may be taken by the type.
        fields[f"argument_{len(fields)}"] = _field(parameter.name, hint, default, told)
    try:
        return create_model(name, __config__=_CONFIG, **fields)
    except Exception as error:  # whatever Pydantic says of a type that it does not know
        raise NoTool(f"the type hints of '{name}' cannot be used: {error}") from error


_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


def _field(name: str, hint: Any, default: Any, told: Mapping[str, str]) -> tuple[Any, Any]:
    described = told.get(name)
    if get_origin(hint) is Annotated:  # `Annotated[str, "what it is for"]`
        words = (one for one in get_args(hint)[1:] if isinstance(one, str))
        described = next(words, described)
    return (hint, Field(default=default, alias=name, description=described))


def schema_of(table: type[BaseModel]) -> dict[str, Any]:
    """Give the JSON Schema of a function's arguments."""
    schema = table.model_json_schema(by_alias=True)
    for one in schema.setdefault("properties", {}).values():
        one.pop("title", None)
    schema.pop("title", None)
    return schema


def given_to(table: type[BaseModel], args: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments as the function's own types.

    Raises:
        ValidationError: they do not fit.
    """
    made = table.model_validate(dict(args))
    fields = type(made).model_fields
    return {str(field.alias): getattr(made, name) for name, field in fields.items()}


def words_of(function: Callable[..., Any]) -> str:
    """Give the first paragraph of a docstring.

    >>> words_of(given_to)
    "Give the arguments as the function's own types."
    """
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def arguments_told(text: str) -> dict[str, str]:
    """Read what a docstring says of the arguments, in Google's form or in Sphinx's.

    >>> arguments_told(":param str name: Who.")
    {'name': 'Who.'}
    """
    found: dict[str, str] = {}
    is_inside, last, indent = False, "", 0
    for line in text.splitlines():
        section = _SECTION.match(line)
        if section:
            is_inside, last = section[1] in ("Args", "Arguments", "Parameters"), ""
            continue
        sphinx, google = _SPHINX.match(line), _ARGUMENT.match(line)
        depth = len(line) - len(line.lstrip())
        if sphinx:
            found[sphinx[1]] = sphinx[2].strip()
        elif is_inside and google and (not last or depth <= indent):
            last, indent = google[1], depth
            found[last] = google[2].strip()
        elif is_inside and last and line.strip():
            found[last] = f"{found[last]} {line.strip()}".strip()
    return found
