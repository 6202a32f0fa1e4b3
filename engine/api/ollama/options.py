"""Ollama's `options` and `keep_alive`: names, types, ranges and defaults. Pure.

Unknown options, and those that llama.cpp no longer has, have no effect and are listed. Values out
of range are clamped, as in Ollama (github.com/ollama/ollama, api/types.go, `Options.FromMap` and
`DefaultOptions`).

`keep_alive` is how long a model stays loaded after its last use: a number of seconds, or a Go
duration (`5m`, `1h30m`, `300ms`); below zero means for ever (api/types.go,
`Duration.UnmarshalJSON`; Go's time.ParseDuration). `paddock.engine.memory` unloads idle models.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.api.errors import ApiError
from paddock.engine.sampling_values import INTEGER_RANGES, NUMBER_RANGES

INTEGER_OPTIONS = frozenset(
    (*INTEGER_RANGES, "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep",
     "num_predict", "draft_num_predict", "mirostat")
)  # fmt: skip
FLOAT_OPTIONS = frozenset((*NUMBER_RANGES, "tfs_z", "mirostat_tau", "mirostat_eta"))
BOOLEAN_OPTIONS = frozenset(
    ("use_mmap", "use_mlock", "numa", "low_vram", "f16_kv", "logits_all", "vocab_only",
     "penalize_newline")
)  # fmt: skip

MIN_CTX_TOKENS = 4
_INT32 = 2**31 - 1

DEFAULT_OPTIONS: Mapping[str, Any] = {
    "max_tokens": -1,  # to the end of the context
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Ollama's defaults where neither the request nor the model has a value; the seed is random."""


@dataclass(frozen=True, slots=True)
class OllamaOptions:
    """The options of a request."""

    params: Mapping[str, Any] = field(default_factory=dict)
    """Sampling values by the names of `paddock.engine.request.Sampling`."""
    n_ctx_tokens: int | None = None
    n_keep_tokens: int = 4
    """Negative: all."""
    drafts: bool | None = None
    """As `paddock.engine.request.ChatRequest.drafts`."""
    without_effect: tuple[str, ...] = ()
    """Given options that have no effect: unknown, obsolete, or a setting here."""


def read_options(options: Mapping[str, Any]) -> OllamaOptions:
    """Return a request's options, checked; a wrong type is ApiError (500), as in Ollama."""
    known: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None and (typed := _typed(name, value)) is not None:
            known[name] = typed
    params = {name: known[name] for name in _SAMPLING_OPTIONS if name in known}
    params = {name: _SAMPLING_OPTIONS[name](value) for name, value in params.items()}
    if "num_predict" in params:
        params["max_tokens"] = params.pop("num_predict")
    if params.get("seed") == -1:
        del params["seed"]
    n_ctx = known.get("num_ctx")
    return OllamaOptions(
        params,
        None if n_ctx is None or n_ctx <= 0 else max(n_ctx, MIN_CTX_TOKENS),
        min(known.get("num_keep", 4), _INT32),
        known["draft_num_predict"] != 0 if "draft_num_predict" in known else None,
        tuple(
            name for name in options if name not in _SAMPLING_OPTIONS and name not in _MODEL_OPTIONS
        ),
    )


def default_sampling() -> dict[str, Any]:
    """Return Ollama's defaults with a new seed."""
    return {**DEFAULT_OPTIONS, "seed": secrets.randbelow(_INT32)}


def _typed(name: str, value: Any) -> Any:
    """Return a value converted to its option's type; None: no such option."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in INTEGER_OPTIONS:
        if not is_number or not math.isfinite(_float(value)):
            raise _wrong_type(name, "type integer")
        return int(value)
    if name in FLOAT_OPTIONS:
        if not is_number:
            raise _wrong_type(name, "type float32")
        return _float(value)
    if name in BOOLEAN_OPTIONS:
        if not isinstance(value, bool):
            raise _wrong_type(name, "type boolean")
        return value
    if name == "stop":
        return _stop_texts(value)
    return None


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _stop_texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong_type("stop", "type array")
    if not all(isinstance(one, str) for one in value):
        raise _wrong_type("stop", "an array of strings")
    return tuple(one for one in value if one)


def _wrong_type(name: str, wanted: str) -> ApiError:
    return ApiError(500, f'option "{name}" must be of {wanted}')


def _clamp(least: float, most: float) -> Callable[[Any], Any]:
    return lambda value: min(max(value, least), most)


def _num_predict(value: int) -> int:
    return min(value, _INT32) if value > 0 else -1


def _repeat_penalty(value: float) -> float:
    return min(value, 100.0) if value >= 0.01 else 1.0  # logits are divided by it


_SAMPLING_OPTIONS: Mapping[str, Callable[[Any], Any]] = {
    **{name: _clamp(*ends) for name, ends in {**NUMBER_RANGES, **INTEGER_RANGES}.items()},
    "repeat_penalty": _repeat_penalty,
    "top_k": _clamp(0, _INT32),
    "num_predict": _num_predict,
    "stop": lambda marks: marks,
}
_MODEL_OPTIONS = frozenset({"num_ctx", "num_keep", "draft_num_predict"})


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
