"""Records: msgspec Structs, and what these lack.

A command makes four hundred such classes at its start. A Struct has its methods in C, where the
standard library compiles six for each dataclass; what is called frozen is frozen.
"""

from __future__ import annotations

import os
from abc import ABCMeta
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar, TypeVar, cast

import msgspec
from msgspec import Struct, StructMeta, field
from msgspec.structs import astuple, replace

__all__ = [
    "SelectiveFields", "Struct", "StructABCMeta", "asdict", "astuple", "field", "known_record",
    "record_from", "replace",
]  # fmt: skip
_T = TypeVar("_T")


class StructABCMeta(StructMeta, ABCMeta):
    """Metaclass of Structs with abstract methods."""


class SelectiveFields:
    """Base, in front of `Struct`, of records with fields that are not shown or not compared."""

    __slots__ = ()
    hidden: ClassVar[tuple[str, ...]] = ()
    """Names of fields that no text of the record has, such as secrets."""
    uncompared: ClassVar[tuple[str, ...]] = ()
    """Names of fields that may differ in equal records."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        names: tuple[str, ...] = self.__struct_fields__  # type: ignore[attr-defined]
        return [(name, getattr(self, name)) for name in names if name not in self.hidden]

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SelectiveFields) and other.__class__ is self.__class__:
            return self._compared() == other._compared()
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[Any, ...]:
        if not self.__struct_config__.eq:  # type: ignore[attr-defined]
            return (id(self),)
        names: tuple[str, ...] = self.__struct_fields__  # type: ignore[attr-defined]
        return tuple([getattr(self, name) for name in names if name not in self.uncompared])


def record_from(kind: type[_T], values: Any) -> _T:
    """Return a record of a mapping that JSON can hold; paths are text.

    Raises:
        ValueError: the values do not match its types.
    """
    return msgspec.convert(values, kind, dec_hook=lambda kind, value: kind(value))


def known_record(kind: type[_T], values: Any) -> _T | None:
    """Return `record_from`; None: the values are no such record, as in a file that is damaged."""
    try:
        return record_from(kind, values)
    except ValueError:
        return None


def asdict(record: Struct) -> dict[str, Any]:
    """Return a record and those within it as mappings; paths and enums are text."""
    plain = msgspec.to_builtins(record, builtin_types=(bytes, date, Decimal), enc_hook=os.fspath)
    return cast("dict[str, Any]", plain)
