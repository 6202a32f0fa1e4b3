"""Durations, sizes, token counts and shares as people write them: `5m`, `2GiB`, `16k`, `10 %`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from paddock.engine.system.units import BYTES_PER_UNIT, SECONDS_PER_UNIT

from .errors import MustBe

TOKENS_PER_UNIT = {"": 1, "k": 1 << 10, "K": 1 << 10, "m": 1 << 20, "M": 1 << 20}

_QUANTITY = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s?([a-zA-Z]*)\Z", re.ASCII)


def parse_seconds(value: Any) -> float:
    """Read a duration.

    >>> parse_seconds("300ms"), parse_seconds("5m")
    (0.3, 300.0)
    """
    return _parse_quantity(value, SECONDS_PER_UNIT, "a duration such as 300ms, 30s, 5m, 2h or 1d")


def parse_size_bytes(value: Any) -> int:
    """Read a size; a plain number counts bytes.

    >>> parse_size_bytes("512MiB")
    536870912
    """
    if _is_count(value):
        return int(value)
    return int(_parse_quantity(value, BYTES_PER_UNIT, "a size such as 512MiB or 2GiB"))


def parse_tokens(value: Any) -> int:
    """Read a number of tokens; `k` is 1,024.

    >>> parse_tokens("16k"), parse_tokens(2048)
    (16384, 2048)
    """
    if _is_count(value):
        return int(value)
    return int(_parse_quantity(value, TOKENS_PER_UNIT, "a number of tokens such as 2048 or 16k"))


def parse_keep_alive(value: Any) -> float:
    """Read how long a model stays loaded: a duration, 0 (unload at once) or -1 (forever)."""
    if value in (0, -1) and not isinstance(value, bool):
        return float(value)
    what = "a duration such as 30s or 15m, 0 (unload at once) or -1 (forever)"
    return _parse_quantity(value, SECONDS_PER_UNIT, what)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _parse_quantity(value: Any, units: Mapping[str, float], what: str) -> float:
    found = _QUANTITY.match(value) if isinstance(value, str) else None
    if found is None or found[2] not in units:
        raise MustBe(f"must be {what}")
    return float(found[1]) * units[found[2]]


Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    WithJsonSchema({"type": "string", "examples": ["300ms", "30s", "5m"]}),
]
_OR_INTEGER = {"type": "integer"}
SizeBytes = Annotated[
    int,
    BeforeValidator(parse_size_bytes),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["512MiB", "2GiB"]}, _OR_INTEGER]}),
]
Tokens = Annotated[
    int,
    BeforeValidator(parse_tokens),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["4k", "16k"]}, _OR_INTEGER]}),
]
KeepAlive = Annotated[
    float,
    BeforeValidator(parse_keep_alive),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["15m"]}, _OR_INTEGER]}),
]

_PERCENT = re.compile(r"^([0-9]{1,3}(?:\.[0-9]{1,3})?)%\Z", re.ASCII)


def parse_percentage(given: Any) -> float:
    """Read a share of a whole.

    >>> parse_percentage("50%"), parse_percentage("2.5%")
    (0.5, 0.025)
    """
    match = _PERCENT.match(given) if isinstance(given, str) else None
    if match is None or float(match[1]) > 100:
        raise MustBe("must be a percentage such as 50%")
    return float(match[1]) / 100


Percentage = Annotated[
    float,
    BeforeValidator(parse_percentage),
    WithJsonSchema({"type": "string", "pattern": _PERCENT.pattern.replace(r"\Z", "$")}),
]
