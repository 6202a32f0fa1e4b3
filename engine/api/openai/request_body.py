"""Read bodies of OpenAI requests: JSON, plain or zstd, and its fields by type.

What is wrong raises InvalidValue, which names the field by its path and the type that was found;
so do all functions that read fields. `null` counts as absent, because clients write it for what
they leave out; unknown fields are ignored. Codex and others compress bodies with zstd; the
decompressed size counts against the same limit.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from starlette.requests import Request

from paddock.engine.api.errors import ApiError, InvalidValue
from paddock.engine.api.json_body import parse_object, read_body, read_json
from paddock.engine.api.request_limits import body_too_large
from paddock.engine.api.service import service_of

MOST_LEVELS = 64
"""Nesting that a JSON Schema may have."""

_T = TypeVar("_T")


class Fields:
    """One JSON object of a request, with its path in the request."""

    def __init__(self, values: Mapping[str, Any], at: str = "") -> None:
        self.values = values
        self.at = at

    def place(self, name: str) -> str:
        """Return a field's path in the request: `messages[0].role`."""
        return f"{self.at}.{name}" if self.at else name

    def refused(self, name: str, why: str, code: str | None = None) -> InvalidValue:
        """Return the error "Invalid value for 'n': why"."""
        place = self.place(name)
        return InvalidValue(f"Invalid value for '{place}': {why}", place, code=code)

    def _wrong(self, name: str, wanted: str) -> InvalidValue:
        return _invalid_type(self.place(name), wanted, self.values[name])

    def has(self, name: str) -> bool:
        """Return whether a field is present and not null."""
        return self.values.get(name) is not None

    def any(self, name: str) -> Any:
        """Return a field's value of any type; None where it is absent."""
        return self.values.get(name)

    def _missing(self, name: str) -> InvalidValue:
        said = f"Missing required parameter: '{self.place(name)}'."
        return InvalidValue(said, self.place(name), code="missing_required_parameter")

    def _typed(self, name: str, kind: type[_T] | tuple[type[_T], ...], wanted: str) -> _T | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._wrong(name, wanted)
        return value

    def text(self, name: str, default: str = "") -> str:
        value = self._typed(name, str, "a string")
        return default if value is None else value

    def needed_text(self, name: str) -> str:
        """Return a text that must be there and not be empty."""
        value = self.text(name)
        if not value:
            raise self._missing(name)
        return value

    def one_of(self, name: str, known: tuple[str, ...], default: str) -> str:
        value = self.text(name, default)
        if value not in known:
            words = ", ".join(f"'{word}'" for word in known)
            raise self.refused(name, f"'{shown(value)}'. Supported values are: {words}.")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self._typed(name, bool, "a boolean")
        return default if value is None else value

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self._typed(name, (int, float), "a number")
        if value is None:
            return None
        if not least <= value <= most:
            raise self.refused(name, f"expected a number from {least:g} to {most:g}, not {value}.")
        return float(value)

    def whole(self, name: str, least: int, most: int = 2**31 - 1) -> int | None:
        value = self._typed(name, (int, float), "an integer")
        if value is None:
            return None
        if isinstance(value, float) and not value.is_integer():
            raise self._wrong(name, "an integer")
        if not least <= value <= most:
            raise self.refused(name, f"expected an integer from {least} to {most}, not {value}.")
        return int(value)

    def object(self, name: str) -> Fields | None:
        value = self._typed(name, dict, "an object")
        return None if value is None else Fields(value, self.place(name))

    def needed_object(self, name: str) -> Fields:
        found = self.object(name)
        if found is None:
            raise self._missing(name)
        return found

    def tree(self, name: str) -> dict[str, Any] | None:
        """Return an object that is passed on as it is, such as a schema; None where it is absent.

        Its depth is limited, so that recursive functions can read it.
        """
        found = self.object(name)
        if found is None:
            return None
        if not is_shallow(found.values):
            raise self.refused(name, f"it is nested more than {MOST_LEVELS} levels deep.")
        return dict(found.values)

    def list(self, name: str) -> list[Any]:
        """Return an array; empty where it is absent."""
        return self._typed(name, list, "an array") or []

    def objects(self, name: str) -> Iterator[Fields]:
        """Yield an array's objects, each with its path."""
        for number, value in enumerate(self.list(name)):
            at = f"{self.place(name)}[{number}]"
            if not isinstance(value, Mapping):
                raise _invalid_type(at, "an object", value)
            yield Fields(value, at)


def is_shallow(value: Any) -> bool:
    """Return whether a value has at most 64 levels."""
    level = [value]
    for _ in range(MOST_LEVELS):
        inner = [one.values() if isinstance(one, Mapping) else one for one in level]
        level = [child for one in inner for child in one if isinstance(child, Mapping | list)]
        if not level:
            return True
    return False


def _invalid_type(place: str, wanted: str, value: Any) -> InvalidValue:
    found = _type_name(value)
    said = f"Invalid type for '{place}': expected {wanted}, but got {found} instead."
    return InvalidValue(said, place, code="invalid_type")


def _type_name(value: Any) -> str:
    """Return the name of a JSON value's type, with its article."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        (str, "a string"),
        (int, "an integer"),
        (float, "a number"),
        (list, "an array"),
        (Mapping, "an object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def shown(text: str) -> str:
    """Return a text of the client, shortened, for an error."""
    return text if len(text) <= 80 else f"{text[:77]}..."


async def read_fields(request: Request) -> Fields:
    """Return the fields of a request's body.

    Raises:
        ApiError: 400, it is no JSON object; 413, it is too large decompressed; 415, it has an
            encoding that cannot be read here.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return Fields(await read_json(request))
    if encoding != "zstd":
        raise _unsupported_encoding(encoding)
    body, max_bytes = await read_body(request), service_of(request).settings.max_body_bytes
    return Fields(await asyncio.to_thread(lambda: parse_object(_decompress(body, max_bytes))))


def _unsupported_encoding(encoding: str) -> ApiError:
    return ApiError(
        415,
        f"bodies with `Content-Encoding: {encoding[:40]}` are not read here; send plain JSON",
        {"Accept-Encoding": "zstd" if _has_zstd() else "identity"},
    )


def _has_zstd() -> bool:
    return importlib.util.find_spec("zstandard") is not None


def _decompress(body: bytes, max_bytes: int) -> bytes:
    if not _has_zstd():
        raise _unsupported_encoding("zstd")
    import zstandard  # an optional dependency

    parts, size = [], 0
    try:
        for part in zstandard.ZstdDecompressor().read_to_iter(body):
            size += len(part)
            if size > max_bytes:
                raise ApiError(413, body_too_large(max_bytes).message)
            parts.append(part)
    except zstandard.ZstdError as error:
        raise ApiError(400, f"the body is not zstd: {error}") from None
    return b"".join(parts)
