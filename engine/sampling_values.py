"""Sampling parameters: their names, types and ranges, and how values are checked. Pure.

The tables of Ollama's options, OpenAI's parameters and Modelfiles take names and ranges from here.
The ranges are wider than those of the YAML language.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from .errors import BadRequest

NUMBER_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repeat_penalty": (0.01, 100),  # logits are divided by it
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
}
INTEGER_RANGES: Mapping[str, tuple[int, int]] = {
    "top_k": (-1, 2**31 - 1),  # 0 and -1: all of them
    "repeat_last_n": (-1, 2**31 - 1),  # -1: the whole context
    "seed": (-(2**63), 2**64 - 1),
}
_SWITCHES = ("guards_repetition", "ignore_eos")
SAMPLING_NAMES = (
    *NUMBER_RANGES, *INTEGER_RANGES, *_SWITCHES, "max_tokens", "min_tokens", "stop",
    "stop_token_ids", "logit_bias",
)  # fmt: skip


def checked_sampling(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return sampling values as the engine wants them.

    Raises:
        BadRequest: a name that is not known, or a value that cannot be used.
    """
    return {name: checked_value(name, value) for name, value in params.items()}


def checked_value(name: str, value: Any) -> Any:
    if name in NUMBER_RANGES:
        return _number(name, value, *NUMBER_RANGES[name])
    if name == "max_tokens":  # -1 and -2: up to the end of the context
        return int(value) if value in (-1, -2) else _integer(name, value, 1, 2**31 - 1)
    if name in INTEGER_RANGES:
        return _integer(name, value, *INTEGER_RANGES[name])
    if name == "stop":
        marks = (value,) if isinstance(value, str) else value
        if not isinstance(marks, list | tuple) or not all(isinstance(mark, str) for mark in marks):
            raise BadRequest(f"`stop` must be a text or a list of texts, not {value!r}")
        return tuple(marks)
    if name == "logit_bias":
        return _bias(value)
    if name == "min_tokens":
        return _integer(name, value, 0, 2**31 - 1)
    if name == "stop_token_ids" and isinstance(value, list | tuple):
        return tuple(_integer(name, token, 0, 2**31 - 1) for token in value)
    if name in _SWITCHES:
        if isinstance(value, bool):
            return value
        raise BadRequest(f"`{name}` must be true or false, not {value!r}")
    near = get_close_matches(str(name), (*SAMPLING_NAMES, "num_predict"), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(SAMPLING_NAMES)}."
    raise BadRequest(f"there is no sampling value called '{name}'.{hint}")


def _number(name: str, value: Any, least: float, most: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # NaN is in no range
        raise BadRequest(f"`{name}` must be a number from {least:g} to {most:g}, not {value!r}")
    return float(value)


def _integer(name: str, value: Any, least: int, most: int) -> int:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"`{name}` must be a whole number from {least} on, not {value!r}")
    return int(value)


def _bias(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"`logit_bias` must map token ids to numbers, not be {value!r}")
    bias = {}
    for token, number in value.items():
        is_id = str(token).isascii() and str(token).isdigit()  # JSON has no integer keys
        if not is_id or isinstance(number, bool) or not isinstance(number, int | float):
            raise BadRequest(
                f"`logit_bias` must map token ids to numbers, not {token!r}: {number!r}"
            )
        if math.isnan(number) or number == math.inf:
            raise BadRequest(f"`logit_bias` of token {token} must be a finite number, not {number}")
        bias[int(token)] = float(number)
    return bias
