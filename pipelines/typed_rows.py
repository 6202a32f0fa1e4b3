"""Rows with the types of their columns, as files and queries have them.

Expressions see plain lists of plain mappings; parameters that take a table get the types, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticKnownError, core_schema

from .errors import MustBe

ColumnType: TypeAlias = str
"""`str`, `int`, `float`, `bool`, `date`, `time`, `datetime`, `decimal`, or `decimal(10,2)`."""
_NAMES = ("str", "int", "float", "bool", "date", "time", "datetime", "decimal")
_PATTERN = rf"^({'|'.join(_NAMES)}|decimal\(\s*\d{{1,2}}\s*,\s*\d{{1,2}}\s*\))$"


def _known_type(name: str) -> str:
    digits = [int(part) for part in re.findall(r"\d+", name)]
    if not re.fullmatch(_PATTERN, name) or (digits and not 38 >= digits[0] >= max(digits[1], 1)):
        raise MustBe(f"must be one of {', '.join(map(repr, _NAMES))}")
    return name


WrittenType = Annotated[
    str, AfterValidator(_known_type), WithJsonSchema({"type": "string", "pattern": _PATTERN})
]


class TypedRows(Sequence[Any]):
    """A list of rows, plain data, with what is known of their columns' types."""

    def __init__(
        self,
        rows: list[Any],
        types: Mapping[str, str] | None = None,
        zones: Mapping[str, str] | None = None,
        lost: Mapping[str, int] | None = None,
    ) -> None:
        self._rows = rows
        self._types = types or {}
        self._lost = lost or {}
        self.zones = zones or {}
        """The time zone of each column of times that has one: its times are told by offset."""

    @property
    def types(self) -> Mapping[str, str]:
        """The type of each column whose type is known (`steps.tables.column_types`)."""
        return self._types

    @property
    def lost_values(self) -> Mapping[str, int]:
        """How many values of which columns plain data has not: infinite, NaN, bytes, fine times."""
        return self._lost

    @property
    def loss(self) -> str:
        """What plain data has not, as a sentence; empty: nothing."""
        shown = ", ".join(f"{n:,} of '{name}'" for name, n in self.lost_values.items())
        what = "numbers that are infinite or NaN are null, bytes that are no text U+FFFD, and times"
        return f"{what} cut at microseconds ({shown})" if shown else ""

    @property
    def content(self) -> Any:
        return self._rows

    def as_list(self) -> list[Any]:
        return self._rows

    def picked(self, columns: Sequence[str]) -> TypedRows:
        """Return the same rows with these columns alone; what a row lacks is null."""
        made = [
            {name: row.get(name) for name in columns} if isinstance(row, Mapping) else row
            for row in self._rows
        ]
        return TypedRows(made, {name: self.types[name] for name in columns if name in self.types})

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self.as_list()[index]

    def __repr__(self) -> str:
        return repr(self.as_list())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.as_list() == list(other)

    __hash__ = None  # type: ignore[assignment]  # as lists

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Accept a list as well."""

        def rows_of(value: Any) -> TypedRows:
            if isinstance(value, TypedRows):
                return value
            if not isinstance(value, list):
                raise PydanticKnownError("list_type")
            return TypedRows(value)

        return core_schema.no_info_plain_validator_function(rows_of)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        return {"type": "array", "items": {}}


def without_types(value: Any) -> Any:
    """Return rows, also those among a step's outputs, as plain data."""
    if isinstance(value, TypedRows):
        return value.as_list()
    if isinstance(value, dict) and any(isinstance(held, TypedRows) for held in value.values()):
        return {name: without_types(held) for name, held in value.items()}
    return value
