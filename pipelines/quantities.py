"""Durations, sizes and context lengths as people write them: `5m`, `2GiB`, `16k`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {
    **{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40},
    **{"KB": 10**3, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
}
TOKENS = {"": 1, "k": 1 << 10, "K": 1 << 10, "m": 1 << 20, "M": 1 << 20}

_QUANTITY = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s?([a-zA-Z]*)\Z", re.ASCII)


def seconds(value: Any) -> float:
    """Read a duration.

    >>> seconds("300ms"), seconds("5m")
    (0.3, 300.0)
    """
    return _read(value, SECONDS, "a duration such as 300ms, 30s, 5m, 2h or 1d")


def size_bytes(value: Any) -> int:
    """Read a size; a plain number counts bytes.

    >>> size_bytes("512MiB")
    536870912
    """
    if _is_count(value):
        return int(value)
    return int(_read(value, BYTES, "a size such as 512MiB or 2GiB"))


def tokens(value: Any) -> int:
    """Read a number of tokens; `k` is 1,024.

    >>> tokens("16k"), tokens(2048)
    (16384, 2048)
    """
    if _is_count(value):
        return int(value)
    return int(_read(value, TOKENS, "a number of tokens such as 2048 or 16k"))


def keep_alive(value: Any) -> float:
    """Read how long a model stays loaded: a duration, 0 for not at all, -1 for ever."""
    if value in (0, -1) and not isinstance(value, bool):
        return float(value)
    what = "a duration such as 30s or 15m, 0 (gone at once) or -1 (for ever)"
    return _read(value, SECONDS, what)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read(value: Any, units: Mapping[str, float], what: str) -> float:
    found = _QUANTITY.match(value) if isinstance(value, str) else None
    if found is None or found[2] not in units:
        raise ValueError(f"must be {what}")
    return float(found[1]) * units[found[2]]


def _schema(*examples: str, plain: bool) -> Any:
    text: dict[str, Any] = {"type": "string", "examples": list(examples)}
    shape = {"anyOf": [text, {"type": "integer"}]} if plain else text
    return Field(json_schema_extra=_replace(shape))


def _replace(shape: dict[str, Any]) -> Any:
    def put(schema: dict[str, Any]) -> None:
        for key in ("type", "minimum"):
            schema.pop(key, None)
        schema.update(shape)

    return put


Seconds = Annotated[float, BeforeValidator(seconds), _schema("300ms", "30s", "5m", plain=False)]
SizeBytes = Annotated[int, BeforeValidator(size_bytes), _schema("512MiB", "2GiB", plain=True)]
Tokens = Annotated[int, BeforeValidator(tokens), _schema("4k", "16k", plain=True)]
KeepAlive = Annotated[float, BeforeValidator(keep_alive), _schema("15m", plain=True)]
