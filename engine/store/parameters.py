"""A model's parameters: which there are, how a Modelfile writes them, how `show` prints them.

Knows no files. The names are those of Ollama's `api.Options`; what llama.cpp no longer has is
accepted and left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal

Kind = Literal["integer", "number", "boolean", "texts"]

KINDS: Mapping[str, Kind] = {
    "num_ctx": "integer",
    "num_predict": "integer",
    "num_keep": "integer",
    "num_batch": "integer",
    "num_gpu": "integer",
    "main_gpu": "integer",
    "num_thread": "integer",
    "draft_num_predict": "integer",
    "seed": "integer",
    "top_k": "integer",
    "repeat_last_n": "integer",
    "temperature": "number",
    "top_p": "number",
    "min_p": "number",
    "typical_p": "number",
    "repeat_penalty": "number",
    "presence_penalty": "number",
    "frequency_penalty": "number",
    "use_mmap": "boolean",
    "stop": "texts",
}
SETTINGS: Mapping[str, str] = {
    "num_batch": "NUM_BATCH",
    "num_gpu": "NUM_GPU",
    "main_gpu": "MAIN_GPU",
    "num_thread": "NUM_THREAD",
}
"""Parameters that are settings of the whole pool here, and their names."""
OBSOLETE = frozenset(
    {
        "mirostat", "mirostat_tau", "mirostat_eta", "tfs_z", "penalize_newline", "numa", "low_vram",
        "f16_kv", "logits_all", "vocab_only", "use_mlock", "num_gqa", "rope_frequency_base",
        "rope_frequency_scale",
    }
)  # fmt: skip

_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_WANTED = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "texts": "a text",
}


def read_parameter(name: str, text: str) -> Any:
    """Read a value as a Modelfile writes it.

    >>> read_parameter("temperature", "0.7"), read_parameter("stop", "</s>")
    (0.7, '</s>')

    Raises:
        ValueError: no such parameter, or no such value; with a sentence.
    """
    kind = KINDS.get(name)
    if kind is None:
        near = get_close_matches(name, KINDS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(KINDS)}."
        raise ValueError(f"there is no parameter '{name}'. {hint}")
    if kind == "texts":
        return text
    value = _read(kind, text.strip())
    if value is None:
        raise ValueError(f"parameter '{name}' must be {_WANTED[kind]}, not {text!r}")
    return value


def _read(kind: Kind, text: str) -> Any:
    if kind == "boolean":
        small = text.lower()
        return True if small in _TRUE else False if small in _FALSE else None
    try:
        number = float(text)
        whole = int(text) if kind == "integer" else None
    except ValueError:
        return None
    if kind == "integer":
        return whole
    return number if math.isfinite(number) else None


def print_parameters(params: Mapping[str, Any]) -> str:
    """Print parameters as `show` does: a name, spaces, a value; texts in double quotes.

    >>> print(print_parameters({"stop": ["<a>", "b c"], "num_ctx": 4096}))
    stop                           "<a>"
    stop                           "b c"
    num_ctx                        4096
    """
    return "\n".join(f"{name:<30} {_printed(value)}" for name, value in each(params))


def each(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give every name and value, one for each text of a list."""
    for name, value in params.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            yield name, one


def _printed(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)
