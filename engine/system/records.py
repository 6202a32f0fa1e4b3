"""Records: dataclasses that cost a quarter to make; a command makes three hundred at its start.

The standard library compiles six methods for each class, at each start. Here only `__init__` is
compiled; the others are shared. That a class is frozen is checked by mypy, and in the processes of
the tests, which set `FREEZES`. Else nothing refuses an assignment: an object is made as fast as one
that is not frozen.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, field, fields, is_dataclass, replace
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["asdict", "astuple", "field", "fields", "is_dataclass", "record", "replace"]

FREEZES = False

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    import dataclasses as standard

    def record(cls=None, /, *, eq=True, frozen=False, repr=True, **options):
        """Return a class as that of the standard library does."""

        def made(cls):
            own = cls.__dict__
            shows_fields = repr and "__repr__" not in own
            has_own_hash = own.get("__hash__") is not None or (
                "__hash__" in own and "__eq__" not in own
            )
            cls.__doc__ = cls.__doc__ or cls.__name__  # else its signature is worked out
            is_ordered = options.get("order", False)
            cls = standard.dataclass(
                cls, eq=eq and is_ordered, repr=False, frozen=frozen and FREEZES, **options
            )
            if shows_fields:
                cls.__repr__ = _shown
            if eq and "__eq__" not in cls.__dict__:
                cls.__eq__ = _comparison(cls)
            if eq and not has_own_hash:
                cls.__hash__ = _hash(cls) if frozen else None
            return cls

        return made if cls is None else made(cls)


@recursive_repr()
def _shown(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _comparison(cls: Any) -> Any:
    values = _values([f.name for f in fields(cls) if f.compare])

    def is_equal(self: Any, other: Any) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    return is_equal


def _hash(cls: Any) -> Any:
    values = _values([f.name for f in fields(cls) if (f.compare if f.hash is None else f.hash)])
    return lambda self: hash(values(self))


def _values(names: list[str]) -> Any:
    """Return the function that returns an object's fields as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda self: tuple(getattr(self, name) for name in names)
