"""Write what an answer took, as `ollama run --verbose` does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddock.runner.display import console

_NS = 1e9


def timings(last: Mapping[str, Any]) -> str:
    """Lay out the numbers of an answer's last object; what it does not tell is left out."""
    rows = [
        ("total", _time(last, "total_duration")),
        ("load", _time(last, "load_duration")),
        ("queue", _time(last, "queue_duration")),
        ("prompt", _read(last)),
        ("answer", _rate(last, "eval_count", "eval_duration")),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {words}" for name, words in rows if words)


def _time(last: Mapping[str, Any], name: str) -> str:
    seconds = (last.get(name) or 0) / _NS
    return console.duration(seconds) if seconds >= 0.01 else ""


def _read(last: Mapping[str, Any]) -> str:
    words = _rate(last, "prompt_eval_count", "prompt_eval_duration", last.get("cached_tokens") or 0)
    n_known = last.get("cached_tokens")
    return f"{words}, {n_known:,} known before" if words and n_known else words


def _rate(last: Mapping[str, Any], count: str, duration: str, n_free: int = 0) -> str:
    """Write tokens, their time, and how many in a second; `n_free` of them took none."""
    n, seconds = int(last.get(count) or 0), (last.get(duration) or 0) / _NS
    if not n:
        return ""
    words = console.counted(n, "token")
    if seconds <= 0:
        return words
    per_s = console.speed(max(0, n - n_free) / seconds)
    return f"{words} in {console.duration(seconds)}, {per_s} tokens/s"
