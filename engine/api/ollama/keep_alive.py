"""`keep_alive` in Ollama's API: how long a model stays loaded after its last use.

A number of seconds, or a Go duration (`5m`, `1h30m`, `300ms`); below zero means for ever
(api/types.go, `Duration.UnmarshalJSON`; Go's time.ParseDuration). `paddock.engine.memory` unloads
idle models.
"""

from __future__ import annotations

import math
import re
from typing import Any

from paddock.engine.api.errors import ApiError

FOREVER_S = -1.0

# Two letters look like mu: the micro sign and the Greek one. Go accepts both.
_MICRO, _MU = "\u00b5", "\u03bc"
_UNITS_S: dict[str, float] = {"ns": 1e-9, "us": 1e-6, f"{_MICRO}s": 1e-6, f"{_MU}s": 1e-6,
                              "ms": 1e-3, "s": 1, "m": 60, "h": 3600}  # fmt: skip
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
_MAX_GO_DURATION_S = (2**63 - 1) / 1e9
_GO_TYPE_NAMES = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


def read_keep_alive(value: Any) -> float | None:
    """Return seconds; -1.0: for ever; None: not given.

    >>> read_keep_alive("1h30m"), read_keep_alive(-7), read_keep_alive(0), read_keep_alive(None)
    (5400.0, -1.0, 0.0, None)

    Raises:
        ApiError: 400, neither a number nor a duration.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _bounded(parse_go_duration(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounded(value)
    kind = _GO_TYPE_NAMES.get(type(value), type(value).__name__)
    raise ApiError(400, f"Unsupported type: '{kind}'")


def _bounded(seconds: float) -> float:
    is_forever = seconds < 0 or seconds > _MAX_GO_DURATION_S or math.isnan(seconds)
    return FOREVER_S if is_forever else float(seconds)


def parse_go_duration(text: str) -> float:
    """Return the seconds of a duration in Go's notation.

    >>> parse_go_duration("300ms"), parse_go_duration("-1m"), parse_go_duration("0")
    (0.3, -60.0, 0.0)

    Raises:
        ApiError: 400, with Go's text.
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    shown = text if len(text) <= 64 else text[:64] + "…"
    if not rest or not rest.isprintable():
        raise ApiError(400, f'time: invalid duration "{shown}"')
    seconds, at = 0.0, 0
    while at < len(rest):
        part = _DURATION_PART.match(rest, at)
        if part is None:
            raise ApiError(400, f'time: invalid duration "{shown}"')
        number, unit = part.groups()
        if not unit:
            raise ApiError(400, f'time: missing unit in duration "{shown}"')
        if unit not in _UNITS_S:
            raise ApiError(400, f'time: unknown unit "{unit}" in duration "{shown}"')
        seconds += float(number) * _UNITS_S[unit]
        at = part.end()
    return -seconds if text.startswith("-") else seconds
