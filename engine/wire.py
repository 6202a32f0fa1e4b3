"""The one codec of requests and answers: socket, worker's pipe, ledger rows and cassettes.

A record is written as a mapping of the fields that differ from their defaults, and read by its
type hints; what does not match them is a `ValueError`, a name that is not known is passed over.
Bytes are base64, or lie in a body beside the JSON, where `[start, length]` stands for them. Vectors
are float32. Not Pydantic: its import makes the start of each worker 0.2 s slower.
"""

from __future__ import annotations

import base64
import json
import types
from array import array
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT
from msgspec.structs import fields

from .request import TokenLogprob
from .system.records import Struct

T = TypeVar("T")
_Write = Callable[[Any, bytearray | None], Any]
_Read = Callable[[Any, bytes], Any]
_VECTORS = tuple[tuple[float, ...], ...]


def write_json(value: object) -> bytes:
    """Return a value as JSON in one line; half a character, which is no Unicode, becomes `?`."""
    text = json.dumps(to_plain(value), ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace")


def read_json(kind: type[T], raw: bytes) -> T:
    """Return the value that `write_json` wrote.

    Raises:
        ValueError: it is none of this kind.
    """
    try:
        return from_plain(kind, json.loads(raw))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def to_plain(value: Any, body: bytearray | None = None) -> Any:
    """Return a value as JSON can hold it; with a `body`, bytes are appended to that."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        if body is None:
            return base64.b64encode(value).decode()
        body += value
        return [len(body) - len(value), len(value)]
    if isinstance(value, Mapping):
        return {name: to_plain(inner, body) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner, body) for inner in value]
    if isinstance(value, TokenLogprob):
        # Write a token by its bytes, one character for each, with the alternatives after it
        top = [[raw.decode("latin-1"), logprob] for _, logprob, raw in value.top]
        return [value.raw.decode("latin-1"), value.logprob, *top]
    kind: Any = type(value)
    return {
        name: write(getattr(value, name), body)
        for name, default, write in _written_fields(kind)
        if default is NODEFAULT or getattr(value, name) != default
    }


def from_plain(kind: type[T], plain: Any, body: bytes = b"") -> T:
    """Return the value that `to_plain` wrote.

    Raises:
        ValueError: it is none of this kind.
    """
    try:
        return cast("T", _reader(cast("Any", kind))(plain, body))
    except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"it is no {getattr(kind, '__name__', kind)}: {error}") from error


@cache
def _written_fields(kind: Any) -> tuple[tuple[str, Any, _Write], ...]:
    return tuple(
        (
            field.name,
            field.default if field.default_factory is NODEFAULT else field.default_factory(),
            _vectors_plain if field.type == _VECTORS else to_plain,
        )
        for field in fields(kind)
    )


@cache
def _reader(hint: Any) -> _Read:
    origin, args = get_origin(hint), get_args(hint)
    if hint in _READERS:
        return _READERS[hint]
    if isinstance(hint, type) and issubclass(hint, Struct):
        return _record_reader(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return lambda plain, _: hint(plain)
    if origin in (Union, types.UnionType):
        return _union_reader([_reader(arg) for arg in args])
    if origin is Literal:

        def read(plain: Any, _: bytes) -> Any:
            if plain not in args:
                raise TypeError(f"{str(plain)[:40]!r} is none of {args}")
            return plain

        return read
    if origin is tuple:
        item = _reader(args[0])
        return lambda plain, body: tuple([item(element, body) for element in _as(list, plain)])
    if origin in (dict, Mapping):
        return _mapping_reader(*args)
    kinds = (int, float) if hint is float else (hint,)
    return lambda plain, _: plain if isinstance(plain, kinds) else _as(kinds[0], plain)


def _mapping_reader(key: Any, hint: Any) -> _Read:
    value, has_numbers = _reader(hint), key is int  # JSON has no numbers as keys
    return lambda plain, body: {
        int(name) if has_numbers else name: value(element, body)
        for name, element in _as(dict, plain).items()
    }


def _record_reader(kind: Any) -> _Read:
    readers: dict[str, _Read] = {}

    def read(plain: Any, body: bytes) -> Any:
        if not readers:  # at first use: a type may hold its own
            hints = get_type_hints(kind)
            readers.update((name, _reader(hints[name])) for name in kind.__struct_fields__)
        given = _as(dict, plain).items()
        return kind(
            **{name: readers[name](element, body) for name, element in given if name in readers}
        )

    return read


def _union_reader(readers: Sequence[_Read]) -> _Read:
    def read(plain: Any, body: bytes) -> Any:
        for reader in readers[:-1]:
            try:
                return reader(plain, body)
            except (TypeError, ValueError, LookupError):
                pass
        return readers[-1](plain, body)

    return read


def _as(kind: type[T], plain: Any) -> T:
    if not isinstance(plain, kind):
        raise TypeError(f"{str(plain)[:40]!r} is not a {kind.__name__}")
    return plain


def _read_bytes(plain: Any, body: bytes) -> bytes:
    if isinstance(plain, str):
        return base64.b64decode(plain, validate=True)
    start, length = plain
    found = body[start : start + length]
    if start < 0 or len(found) != length:
        raise ValueError("the body is cut")
    return found


def _vectors_plain(rows: Any, body: bytearray | None) -> list[Any]:
    """Write vectors (rows of floats, or an array of float32) as their number and their values."""
    if hasattr(rows, "tobytes"):
        packed = rows.tobytes()
    else:
        packed = b"".join(array("f", row).tobytes() for row in rows)
    return [len(rows), to_plain(packed, body)]


def _read_vectors(plain: Any, body: bytes) -> tuple[tuple[float, ...], ...]:
    n_rows, packed = _as(list, plain)
    values = array("f", _read_bytes(packed, body))
    if n_rows < 0 or n_rows > len(values) or (n_rows and len(values) % n_rows):
        raise ValueError(f"{len(values)} values are not {n_rows} vectors")
    width = len(values) // n_rows if n_rows else 0
    return tuple(tuple(values[row * width : (row + 1) * width]) for row in range(n_rows))


def _read_logprob(text: str, logprob: float = 0.0, *top: Sequence[Any]) -> TokenLogprob:
    raw = text.encode("latin-1")
    others = [(other.encode("latin-1"), float(value)) for other, value in top]
    alternatives = tuple((other.decode(errors="replace"), value, other) for other, value in others)
    return TokenLogprob(raw.decode(errors="replace"), float(logprob), raw, alternatives)


_READERS: Mapping[Any, _Read] = {
    TokenLogprob: lambda plain, _: _read_logprob(*plain),
    _VECTORS: _read_vectors,
    bytes: _read_bytes,
    Any: lambda plain, _: plain,
}
"""Of types that are not read by their fields or parts."""
