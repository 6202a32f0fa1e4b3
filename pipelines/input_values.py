"""Values of a pipeline's inputs: how a caller's text is read by the declared type, and refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import shorten

from .errors import did_you_mean
from .expressions import Path
from .keys import InputType
from .typed_rows import ColumnType

PATH_TYPES = ("dir", "path", "rows")
"""Inputs whose texts are paths."""
FOLDER_TYPES = ("dir", "path")
"""Inputs that open a folder or file for the steps; each value has outputs of its own."""
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class WrongInput(ValueError):
    """A value that an input does not take: a sentence without the name, and a remedy."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(message)


class Input(Struct, frozen=True):
    name: str
    type: InputType
    at: Path
    has_default: bool = False
    default: Any = None
    is_required: bool = False
    values: tuple[Any, ...] = ()
    min: float | None = None
    max: float | None = None
    description: str = ""
    is_secret: bool = False
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    """Of rows: those that are read, with their types; empty: all, as they are found."""
    table: str = ""
    """Of rows in a file: which of its tables."""

    def read(self, given: Any) -> Any:
        """Parse a caller's text or check a Python value.

        Raises:
            WrongInput: it has another type, or is out of bounds.
        """
        return self.checked(self._parsed(given) if isinstance(given, str) else given)

    def checked(self, value: Any) -> Any:
        """Return the value if it has this type and is within its bounds.

        Raises:
            WrongInput: it is not.
        """
        if self.type == "enum":
            for option in self.values:
                if option == value or (isinstance(value, str) and str(option) == value):
                    return option
            names = [str(option) for option in self.values]
            raise WrongInput(f"cannot be {self._shown(value)}", did_you_mean(str(value), names))
        if not _IS_OF_TYPE[self.type](value):
            raise WrongInput(f"must be {_TYPE_NAMES[self.type]}, not {self._shown(value)}")
        if self.min is not None and value < self.min:
            raise WrongInput(f"must be at least {self.min:g}, not {self._shown(value)}")
        if self.max is not None and value > self.max:
            raise WrongInput(f"must be at most {self.max:g}, not {self._shown(value)}")
        return float(value) if self.type == "float" else value

    def _shown(self, value: Any) -> str:
        if self.is_secret:
            return "what was given"
        is_text = isinstance(value, str)
        text = value if is_text else json.dumps(value, ensure_ascii=False, default=str)
        return f"'{shorten(text, 60)}'"

    def _parsed(self, text: str) -> Any:
        """Parse a text; an invalid one is returned unchanged, for `checked` to refuse."""
        try:
            return _PARSERS[self.type](text)
        except (ValueError, RecursionError):
            if self.type in ("json", "rows") and text.lstrip()[:1] in ("{", "["):
                raise WrongInput(f"must be JSON; {self._shown(text)} is incomplete") from None
            return text


def kind_of_default(value: Any) -> InputType:
    kinds: dict[type, InputType] = {bool: "bool", int: "int", float: "float", list: "list"}
    kinds |= {str: "str", type(None): "str"}
    return kinds.get(type(value), "json")


def _bool(text: str) -> Any:
    word = text.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else text


def _list(text: str) -> Any:
    if text.lstrip().startswith("["):
        return _json(text)
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _rows(text: str) -> Any:
    return _json(text) if text.lstrip()[:1] in ("[", "{") else text


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


_PARSERS: dict[InputType, Callable[[str], Any]] = {
    **{"str": str, "path": str, "dir": str, "enum": str},
    **{"int": int, "float": float, "bool": _bool, "list": _list, "json": _json, "rows": _rows},
}
_IS_OF_TYPE: dict[InputType, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "path": _is_path,
    "dir": _is_path,
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "json": lambda value: True,
    "rows": lambda value: not isinstance(value, str) or _is_path(value),
}
_TYPE_NAMES: dict[InputType, str] = {
    **{"str": "text", "path": "a path", "dir": "a path", "int": "a whole number"},
    **{"float": "a number", "bool": "true or false", "list": "a list", "json": "JSON"},
    "rows": "rows, or the path of a table",
}
