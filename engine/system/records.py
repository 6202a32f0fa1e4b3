"""Records: classes of named fields, declared as dataclasses and made as msgspec Structs.

A command makes four hundred such classes at its start. The standard library compiles six methods
for each; a Struct has them in C, and its objects are made, compared and replaced faster. What is
called frozen is frozen. `dataclasses.fields`, `asdict` and `replace` take records, too.
"""

from __future__ import annotations

import dataclasses
from abc import ABCMeta
from dataclasses import MISSING, Field, asdict, astuple, field, fields, is_dataclass
from itertools import chain
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

__all__ = [
    "asdict", "astuple", "field", "fields", "is_dataclass", "record", "record_from", "replace"
]  # fmt: skip
_T = TypeVar("_T")


def record_from(kind: type[_T], values: Any) -> _T:
    """Return a record of a mapping that JSON can hold; paths are text.

    Raises:
        ValueError: the values do not match its types.
    """
    return msgspec.convert(values, kind, dec_hook=lambda kind, value: kind(value))


if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from dataclasses import replace
else:
    from msgspec.structs import replace

    def record(cls=None, /, **options):
        """Return a class as `dataclasses.dataclass` does."""
        return _struct(cls, **options) if cls else lambda cls: _struct(cls, **options)

    class _DataclassFields:
        """The fields as the standard library has them, made when it first asks."""

        def __get__(self, instance, cls):
            if (found := cls.__dict__.get("__library_fields__")) is None:
                found = {}
                for name, (kind, default) in _fields_of(cls).items():
                    spec = default if isinstance(default, Field) else field(default=default)
                    spec.name = name
                    spec.type = kind
                    spec._field_type = dataclasses._FIELD
                    found[name] = spec
                cls.__library_fields__ = found
            return found

    def _fields_of(cls):
        """Return type and default of each field, of the base classes first."""
        own = (base.__dict__.get("__record_fields__", {}) for base in reversed(cls.__mro__))
        return dict(chain.from_iterable(fields.items() for fields in own))

    class _Meta(type(msgspec.Struct), ABCMeta):
        """Metaclass of records; other classes that are derived from one get no fields."""

        def __new__(mcs, name, bases, namespace, is_record=False, **options):
            if is_record:
                return super().__new__(mcs, name, bases, namespace, **options)
            body = {**namespace, "__record_body__": namespace}
            body["__annotations__"] = {}
            return super().__new__(mcs, name, bases, body, **options)

    class _Record(msgspec.Struct, metaclass=_Meta):
        __dataclass_fields__ = _DataclassFields()

        def __rich_repr__(self):
            return ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)

        @recursive_repr()
        def __repr__(self):
            shown = (f"{name}={value!r}" for name, value in self.__rich_repr__())
            return f"{type(self).__qualname__}({', '.join(shown)})"

    def _struct(cls, slots=False, weakref_slot=False, repr=True, **options):
        namespace = {**cls.__dict__.get("__record_body__", cls.__dict__)}
        namespace["__qualname__"] = cls.__qualname__
        for name in ("__dict__", "__weakref__"):
            namespace.pop(name, None)
        kinds = namespace.get("__annotations__", {})
        own = {
            name: (kind, namespace.pop(name, MISSING))
            for name, kind in kinds.items()
            if "ClassVar" not in str(kind)
        }
        # What is no argument comes last: `__post_init__` sets it
        set_later = [
            name for name, (_, spec) in own.items() if isinstance(spec, Field) and not spec.init
        ]
        namespace["__record_fields__"] = own
        namespace["__annotations__"] = {
            **{name: kind for name, kind in kinds.items() if name not in set_later},
            **{name: kinds[name] for name in set_later},
        }
        for name, (_, default) in own.items():
            if not isinstance(default, Field):
                if default is not MISSING:
                    namespace[name] = msgspec.field(default=default)
            elif default.default_factory is not MISSING:
                namespace[name] = msgspec.field(default_factory=default.default_factory)
            elif default.default is not MISSING:
                namespace[name] = msgspec.field(default=default.default)
            elif not default.init:
                namespace[name] = None
        bases = () if cls.__bases__ == (object,) else cls.__bases__
        if not any(issubclass(base, _Record) for base in bases):
            bases = (*bases, _Record)
        if not repr:
            namespace.setdefault("__repr__", object.__repr__)
            namespace.setdefault("__rich_repr__", lambda self: ())
        options |= {"dict": not slots, "weakref": not slots or weakref_slot}
        made = _Meta(cls.__name__, bases, namespace, is_record=True, **options)
        if options.get("eq", True):
            _compare_by_fields(made, "__hash__" in namespace, options.get("frozen", False))
        return made

    def _compare_by_fields(cls, has_own_hash, is_frozen):
        """Leave out of comparisons and hashes the fields that say so."""
        specs = {
            name: spec for name, (_, spec) in _fields_of(cls).items() if isinstance(spec, Field)
        }
        uncompared = {name for name, spec in specs.items() if not spec.compare}
        unhashed = uncompared | {name for name, spec in specs.items() if spec.hash is False}
        if not unhashed:
            return
        values = _values([name for name in cls.__struct_fields__ if name not in uncompared])
        hashed_values = _values([name for name in cls.__struct_fields__ if name not in unhashed])

        def __eq__(self, other):
            if other.__class__ is not self.__class__:
                return NotImplemented
            return values(self) == values(other)

        cls.__eq__ = __eq__
        if not has_own_hash:
            cls.__hash__ = (lambda self: hash(hashed_values(self))) if is_frozen else None

    def _values(names):
        """Return the function that returns an object's fields as a tuple."""
        if len(names) > 1:
            return attrgetter(*names)
        return lambda self: tuple(getattr(self, name) for name in names)
