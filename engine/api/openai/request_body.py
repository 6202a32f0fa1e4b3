"""Read bodies of OpenAI requests: JSON, plain or zstd, and its fields by type.

A wrong type is answered with one sentence that names the field and what was there. `null` counts
as absent, because clients write it for what they leave out; unknown fields are ignored. Codex and
others compress bodies with zstd; the unpacked size counts against the same limit.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request

from paddock.engine.api.errors import ApiError, InvalidValue
from paddock.engine.api.json_body import parse_object, read_body, read_json

MOST_LEVELS = 64
"""As many as a JSON Schema may have."""


class Fields:
    """One JSON object of a request, and where it stands in it."""

    def __init__(self, values: Mapping[str, Any], at: str = "") -> None:
        self.values = values
        self.at = at

    def place(self, name: str) -> str:
        """Name a field from the request's top: `messages[0].role`."""
        return f"{self.at}.{name}" if self.at else name

    def refused(self, name: str, why: str, code: str | None = None) -> InvalidValue:
        """Make the error that a field deserves: "Invalid value for 'n': why"."""
        place = self.place(name)
        return InvalidValue(f"Invalid value for '{place}': {why}", place, code=code)

    def _wrong(self, name: str, wanted: str) -> InvalidValue:
        found = _type_name(self.values[name])
        place = self.place(name)
        said = f"Invalid type for '{place}': expected {wanted}, but got {found} instead."
        return InvalidValue(said, place, code="invalid_type")

    def has(self, name: str) -> bool:
        """Return whether a field is there, and not null."""
        return self.values.get(name) is not None

    def any(self, name: str) -> Any:
        """Return a field whatever it is; None where it is not there."""
        return self.values.get(name)

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def needed_text(self, name: str) -> str:
        """Return a text that must be there and say something."""
        value = self.text(name)
        if not value:
            place = self.place(name)
            raise InvalidValue(
                f"Missing required parameter: '{place}'.", place, code="missing_required_parameter"
            )
        return value

    def one_of(self, name: str, known: tuple[str, ...], default: str) -> str:
        """Return one of some words."""
        value = self.text(name, default)
        if value not in known:
            words = ", ".join(f"'{word}'" for word in known)
            raise self.refused(name, f"'{_short(value)}'. Supported values are: {words}.")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return true or false."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, "a boolean")
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """Return a number within a range, both ends included."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        if not least <= value <= most:
            raise self.refused(name, f"expected a number from {least:g} to {most:g}, not {value}.")
        return float(value)

    def whole(self, name: str, least: int, most: int = 2**31 - 1) -> int | None:
        """Return a whole number within a range, both ends included."""
        value = self.values.get(name)
        if value is None:
            return None
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not is_whole:
            raise self._wrong(name, "an integer")
        if not least <= value <= most:
            raise self.refused(name, f"expected an integer from {least} to {most}, not {value}.")
        return int(value)

    def object(self, name: str) -> Fields | None:
        """Return an object; None where it is not there."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._wrong(name, "an object")
        return Fields(value, self.place(name))

    def needed_object(self, name: str) -> Fields:
        """Return an object that must be there."""
        found = self.object(name)
        if found is None:
            place = self.place(name)
            raise InvalidValue(
                f"Missing required parameter: '{place}'.", place, code="missing_required_parameter"
            )
        return found

    def tree(self, name: str) -> dict[str, Any] | None:
        """Return an object that goes on as it is, such as a schema; None where it is not there.

        Only so deep that whatever walks through it later can.
        """
        found = self.object(name)
        if found is None:
            return None
        if not is_shallow(found.values):
            raise self.refused(name, f"it is nested more than {MOST_LEVELS} levels deep.")
        return dict(found.values)

    def list(self, name: str) -> list[Any]:
        """Return an array; empty where it is not there."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, "an array")
        return value

    def objects(self, name: str) -> Iterator[Fields]:
        """Yield an array's objects, each with its place."""
        for number, value in enumerate(self.list(name)):
            at = f"{self.place(name)}[{number}]"
            if not isinstance(value, Mapping):
                said = f"Invalid type for '{at}': expected an object, but got {_type_name(value)} instead."
                raise InvalidValue(said, at, code="invalid_type")
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


def _type_name(value: Any) -> str:
    """Name a JSON value's type with its article."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        (str, "a string"),
        (int, "an integer"),
        (float, "a number"),
        (list, "an array"),
        (Mapping, "an object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


async def read_fields(request: Request, max_bytes: int) -> Fields:
    """Return the fields of a request's body.

    Raises:
        ApiError: 400, it is no JSON object; 413, it is too large; 415, it is packed in a way that
            cannot be read here.
    """
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing in ("", "identity"):
        return Fields(await read_json(request, max_bytes=max_bytes))
    if packing != "zstd":
        raise _unsupported_encoding(packing)
    packed = await read_body(request, max_bytes)
    return Fields(await asyncio.to_thread(lambda: parse_object(_decompress(packed, max_bytes))))


def _unsupported_encoding(packing: str) -> ApiError:
    return ApiError(
        415,
        f"bodies with `Content-Encoding: {packing[:40]}` are not read here; send plain JSON",
        {"Accept-Encoding": "zstd" if _has_zstd() else "identity"},
    )


def _has_zstd() -> bool:
    return importlib.util.find_spec("zstandard") is not None


def _decompress(packed: bytes, max_bytes: int) -> bytes:
    """Unpack a zstd body.

    Raises:
        ApiError: it is none, is larger than is taken, or cannot be unpacked on this machine.
    """
    if not _has_zstd():
        raise _unsupported_encoding("zstd")
    import zstandard

    parts, size = [], 0
    try:
        for part in zstandard.ZstdDecompressor().read_to_iter(packed):
            size += len(part)
            if size > max_bytes:
                raise ApiError(413, f"request body too large: at most {max_bytes} bytes are taken")
            parts.append(part)
    except zstandard.ZstdError as error:
        raise ApiError(400, f"the body is not zstd: {error}") from None
    return b"".join(parts)
