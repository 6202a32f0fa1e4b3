"""`options` in Ollama's API: names, types, defaults and ranges.

Unknown `options`, and those that llama.cpp no longer has, have no effect, and the header `Warning`
names them; constraints among them are refused. Values out of range are clamped, as in Ollama
(github.com/ollama/ollama, api/types.go, `Options.FromMap` and `DefaultOptions`).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_fields import CONSTRAINT, REFUSED
from paddock.engine.api.request_log import note_without_effect
from paddock.engine.sampling_values import INTEGER_RANGES, NUMBER_RANGES
from paddock.engine.system.records import field, record

INTEGER_OPTIONS = frozenset(
    (*INTEGER_RANGES, "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep",
     "num_predict", "draft_num_predict", "mirostat")
)  # fmt: skip
FLOAT_OPTIONS = frozenset((*NUMBER_RANGES, "tfs_z", "mirostat_tau", "mirostat_eta"))
BOOLEAN_OPTIONS = frozenset(
    ("use_mmap", "use_mlock", "numa", "low_vram", "f16_kv", "logits_all", "vocab_only",
     "penalize_newline", "guards_repetition")
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


@record(frozen=True, slots=True)
class OllamaOptions:
    params: Mapping[str, Any] = field(default_factory=dict)
    """Sampling values by the names of `paddock.engine.request.Sampling`."""
    n_ctx_tokens: int | None = None
    n_keep_tokens: int = 4
    """Negative: all."""
    drafts: bool | None = None
    """As `paddock.engine.request.ChatRequest.drafts`."""
    on_processor: bool | None = None
    """As `paddock.engine.request.ModelSpec.on_processor`."""


def read_options(options: Mapping[str, Any]) -> OllamaOptions:
    """Return a request's options, checked; a wrong type is ApiError (500), as in Ollama."""
    known: dict[str, Any] = {}
    in_vain = options.keys() - _SAMPLING_OPTIONS.keys() - _MODEL_OPTIONS
    for name in in_vain:
        if options[name] and REFUSED.get(name) == CONSTRAINT:
            why = f"options.{name} is not supported here: {CONSTRAINT}"
            raise ApiError(400, why, param=f"options.{name}")
    for name, value in options.items():
        if value is not None and (typed := _typed(name, value)) is not None:
            known[name] = typed
    some_layers = {"num_gpu"} if known.get("num_gpu", 0) > 0 else set()  # the pool says how many
    note_without_effect("options", in_vain | some_layers)
    read = _SAMPLING_OPTIONS.items()
    params = {name: convert(known[name]) for name, convert in read if name in known}
    if "num_predict" in params:
        params["max_tokens"] = params.pop("num_predict")
    if params.get("seed") == -1:
        del params["seed"]
    n_ctx = known.get("num_ctx", 0)
    return OllamaOptions(
        params,
        max(n_ctx, MIN_CTX_TOKENS) if n_ctx > 0 else None,
        min(known.get("num_keep", 4), _INT32),
        known["draft_num_predict"] != 0 if "draft_num_predict" in known else None,
        known["num_gpu"] == 0 if "num_gpu" in known else None,
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
        if not isinstance(value, list):
            raise _wrong_type("stop", "type array")
        if not all(isinstance(text, str) for text in value):
            raise _wrong_type("stop", "an array of strings")
        return tuple(text for text in value if text)
    return None


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _wrong_type(name: str, expected: str) -> ApiError:
    return ApiError(500, f'option "{name}" must be of {expected}')


def _clamp(least: float, most: float) -> Callable[[Any], Any]:
    return lambda value: min(max(value, least), most)


_SAMPLING_OPTIONS: Mapping[str, Callable[[Any], Any]] = {
    **{name: _clamp(*ends) for name, ends in {**NUMBER_RANGES, **INTEGER_RANGES}.items()},
    "repeat_penalty": lambda value: min(value, 100.0) if value >= 0.01 else 1.0,  # a divisor
    "top_k": _clamp(0, _INT32),
    "num_predict": lambda value: min(value, _INT32) if value > 0 else -1,
    "stop": lambda marks: marks,
    "guards_repetition": lambda is_guarded: is_guarded,
}
_MODEL_OPTIONS = frozenset({"num_ctx", "num_keep", "draft_num_predict", "num_gpu"})
