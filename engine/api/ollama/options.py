"""`options` in Ollama's API: names, types, defaults and ranges.

Unknown `options`, and those that llama.cpp no longer has, have no effect, and the header `Warning`
names them; constraints among them are refused. Values out of range are clamped, as in Ollama
(github.com/ollama/ollama, api/types.go, `Options.FromMap` and `DefaultOptions`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_fields import CONSTRAINT, REFUSED
from paddock.engine.api.request_log import note_without_effect
from paddock.engine.models.modelfile import PARAMETER_KINDS
from paddock.engine.sampling_values import INT32, MOST_TEXTS, OTHER_NAMES, PARAMETERS
from paddock.engine.system.records import Struct, field

MIN_CTX_TOKENS = 4
DEFAULT_OPTIONS: Mapping[str, Any] = {"max_tokens": -1, "temperature": 0.8}
"""Ollama's defaults where neither the request nor the model has a value, and where they differ from
the engine's; -1: to the end of the context. The seed is random."""


class OllamaOptions(Struct, frozen=True):
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
    in_vain = options.keys() - _MODEL_OPTIONS - _SAMPLING_OPTIONS
    for name in in_vain:
        if options[name] and name in REFUSED and REFUSED[name].remedy == CONSTRAINT:
            why = f"options.{name} is not supported here: {CONSTRAINT}"
            raise ApiError(400, why, param=f"options.{name}")
    given = options.items()
    known = {name: _typed(name, value) for name, value in given
             if name in PARAMETER_KINDS and value is not None}  # fmt: skip
    some_layers = {"num_gpu"} if known.get("num_gpu", 0) > 0 else set()  # the pool says how many
    note_without_effect("options", in_vain | some_layers)
    params = {OTHER_NAMES.get(name, name): _within(name, known[name])
              for name in known.keys() & _SAMPLING_OPTIONS}  # fmt: skip
    if params.get("seed") == -1:
        del params["seed"]
    n_ctx = known.get("num_ctx", 0)
    return OllamaOptions(
        params,
        max(n_ctx, MIN_CTX_TOKENS) if n_ctx > 0 else None,
        min(known.get("num_keep", 4), INT32),
        known["draft_num_predict"] != 0 if "draft_num_predict" in known else None,
        known["num_gpu"] == 0 if "num_gpu" in known else None,
    )


def default_sampling() -> dict[str, Any]:
    return {**DEFAULT_OPTIONS, "seed": secrets.randbelow(INT32)}


_GO_TYPES = {"integer": "type integer", "number": "type float32", "boolean": "type boolean"}


def _typed(name: str, value: Any) -> Any:
    """Return a value of its option's type; an integer is cut from a number, as in Go."""
    parameter, expected = PARAMETER_KINDS[name], _GO_TYPES.get(PARAMETER_KINDS[name].kind)
    if isinstance(value, float) and parameter.kind == "integer":
        value = int(value)
    if expected is None:
        is_long = isinstance(value, list) and len(value) > MOST_TEXTS
        strings = f"at most {MOST_TEXTS} strings" if is_long else "strings"
        expected = f"an array of {strings}" if isinstance(value, list) else "type array"
        value = value if isinstance(value, list) else None
    try:
        return parameter.typed(value)
    except ValueError:
        raise ApiError(500, f'option "{name}" must be of {expected}') from None


def _within(name: str, value: Any) -> Any:
    parameter = PARAMETERS[OTHER_NAMES.get(name, name)]
    if name == "num_predict" and value <= 0:
        return -1
    if name == "repeat_penalty" and value < parameter.least:
        return 1.0  # it is a divisor
    is_number = parameter.kind in ("integer", "number")
    return min(max(value, parameter.least), parameter.most) if is_number else value


_MODEL_OPTIONS = frozenset({"num_ctx", "num_keep", "draft_num_predict", "num_gpu"})
_SAMPLING_OPTIONS = frozenset(
    name for name in PARAMETER_KINDS if OTHER_NAMES.get(name, name) in PARAMETERS
)
