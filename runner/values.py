"""Read single values of the configuration, as people write them and as Ollama accepts them.

Each function takes what an environment variable, a flag or TOML holds and gives the value, or
raises `BadValue`. `None` stands for "decide from the machine or the model".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast, get_args

from paddock.engine.settings import SplitMode

_FOREVER_S = -1.0
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_YES, _NO = ("1", "true", "yes", "on", "t", "y"), ("0", "false", "no", "off", "f", "n")


class BadValue(Exception):
    """A value that cannot be used; `problem` continues "'x' …"."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(problem)


def text(value: object) -> str:
    """Give a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise BadValue("is not a text", "Give a name.")
    return value.strip()


def folder(value: object) -> Path:
    """Give a folder; `~` is left for the caller, who knows whose home is meant."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadValue("is not the path of a folder", "Give a path such as '~/.paddock/models'.")
    return Path(value)


def file(value: object) -> Path:
    """Give a file; `~` is left for the caller, who knows whose home is meant."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadValue("is not the path of a file", "Give a path such as '~/.paddock/keys'.")
    return Path(value)


def listed(value: object) -> tuple[str, ...]:
    """Give texts: a list, or one text with commas between.

    >>> listed("https://a.example, app://*"), listed(["b.example"])
    (('https://a.example', 'app://*'), ('b.example',))
    """
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise BadValue("is not a list", "Give texts with commas between.")
    return tuple(part.strip() for part in parts if part.strip())


def urls(value: object) -> tuple[str, ...]:
    """Give the addresses of servers.

    >>> urls("http://gpu-1:8000/v1, http://gpu-2:8000")
    ('http://gpu-1:8000', 'http://gpu-2:8000')
    """
    from paddock.engine.elsewhere.address import BadAddress, base_url

    try:
        return tuple(dict.fromkeys(map(base_url, listed(value))))
    except BadAddress as error:
        raise BadValue(error.why, error.remedy) from None


CONSENTS = ("run", "tool", "mcp", "network", "secrets")


def consents(value: object) -> frozenset[str]:
    """Give what pipelines may reach besides files and models.

    >>> sorted(consents("network, run"))
    ['network', 'run']
    """
    given = frozenset(listed(value))
    if not given.issubset(CONSENTS):
        raise BadValue("is not known", f"Known: {', '.join(CONSENTS)}.")
    return given


def rate(value: object) -> int | None:
    """Give requests a minute; `none` and 0 are None.

    >>> rate("60"), rate("10/s"), rate("600/h"), rate("none")
    (60, 600, 10, None)
    """
    written = str(value).strip().lower()
    number, _, unit = written.partition("/")
    n = 0 if written in ("none", "off") else _whole(number.strip())
    per_minute = {"": 1.0, "m": 1.0, "min": 1.0, "s": 60.0, "h": 1 / 60}.get(unit.strip())
    if isinstance(value, bool) or n is None or n < 0 or per_minute is None:
        raise BadValue("is not a rate", "Give requests a minute such as 60, or '10/s'; 0 is any.")
    return max(1, round(n * per_minute)) if n else None


def keep_alive(value: object) -> float:
    """Give seconds, -1 for ever.

    >>> keep_alive("5m"), keep_alive("1h30m"), keep_alive(90), keep_alive("-1"), keep_alive("0")
    (300.0, 5400.0, 90.0, -1.0, 0.0)
    """
    written = str(value).strip().lower()
    is_negative, written = written.startswith("-"), written.removeprefix("-")
    seconds = _seconds(written)
    if seconds is None or isinstance(value, bool):
        raise BadValue(
            "is not a duration",
            "Give seconds, or a number with a unit such as '5m' or '1h30m'; "
            "0 lets a model go at once, a negative number keeps it for ever.",
        )
    return _FOREVER_S if is_negative else seconds


def _seconds(written: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", written):
        return float(written)
    if not _DURATION.fullmatch(written):
        return None
    return sum(float(n) * _UNITS_S[unit] for n, unit in _DURATION_PART.findall(written))


def seconds(value: object) -> float:
    """Give seconds of 0 or more.

    >>> seconds("4"), seconds("1.5"), seconds("500ms"), seconds(0)
    (4.0, 1.5, 0.5, 0.0)
    """
    answer = None if isinstance(value, bool) else _seconds(str(value).strip().lower())
    if answer is None:
        raise BadValue("is not a time", "Give seconds such as 4; 0 switches it off.")
    return answer


def count(value: object) -> int:
    """Give a whole number of 1 or more."""
    number = _whole(value)
    if number is None or number < 1:
        raise BadValue("is not a whole number of 1 or more", "Give a number such as 4.")
    return number


def count_or_auto(value: object) -> int | None:
    """Give a whole number of 1 or more; `auto` and 0 are None."""
    if value == "auto" or _whole(value) == 0:
        return None
    number = _whole(value)
    if number is None or number < 0:
        raise BadValue("is not a whole number of 1 or more", "Give a number such as 4, or 'auto'.")
    return number


def context_or_auto(value: object) -> int | None:
    """Give tokens; `16k` is 16,384.

    >>> context_or_auto("16k"), context_or_auto(2048), context_or_auto("auto")
    (16384, 2048, None)
    """
    written = str(value).strip().lower()
    number = _whole(written.removesuffix("k")) if written.endswith("k") else None
    try:
        return count_or_auto(value if number is None else number * 1024)
    except BadValue:
        remedy = "Give a number such as 4096 or '16k', or 'auto'."
        raise BadValue("is not a number of tokens", remedy) from None


def layers(value: object) -> int:
    """Give a number of layers, -1 for all of them."""
    number = -1 if value in ("auto", "all") else _whole(value)
    if number is None or number < -1:
        remedy = "Give 0 for none, a number, or -1 for all that fit on the device."
        raise BadValue("is not a number of layers", remedy)
    return number


def size(value: object) -> int:
    """Give bytes; `2GB` are 2,000,000,000, `2GiB` and Ollama's `2G` 2,147,483,648.

    >>> size("512MiB"), size(0), size("2GB")
    (536870912, 0, 2000000000)
    """
    written = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", str(value).strip().lower())
    if written is None or isinstance(value, bool):
        raise BadValue("is not a size", "Give bytes, or a number with a unit such as '512MiB'.")
    number, unit, ending = written.groups()
    base = 1000 if ending == "b" else 1024
    return int(float(number) * base ** " kmgt".index(unit or " "))


def size_or_auto(value: object) -> int | None:
    """Return bytes, as `size` reads them; `auto` is None."""
    return None if value == "auto" else size(value)


def split_mode(value: object) -> SplitMode:
    """Return how a model is spread over several devices."""
    written = str(value).strip().lower()
    for mode in get_args(SplitMode):
        if written == mode:
            return cast("SplitMode", mode)
    raise BadValue("is not a way to split a model", "Give 'none', 'layer', 'row' or 'tensor'.")


def index(value: object) -> int:
    """Give a whole number of 0 or more."""
    number = _whole(value)
    if number is None or number < 0:
        raise BadValue("is not a whole number of 0 or more", "Give a number such as 0.")
    return number


def flag(value: object) -> bool:
    """Give yes or no; a number above 1 is a level, as Ollama has it for DEBUG."""
    written = str(value).strip().lower()
    number = _whole(written)
    if written in _YES or (number is not None and number > 1):
        return True
    if written in _NO:
        return False
    raise BadValue("is neither yes nor no", "Give 1 or 0.")


def switch(value: object) -> Literal["auto", "on", "off"]:
    """Give `auto`, `on` or `off`."""
    written = str(value).strip().lower()
    if written == "auto":
        return "auto"
    if written in _YES or written in _NO:
        return "on" if written in _YES else "off"
    raise BadValue("is not a switch", "Give 'auto', 1 or 0.")


def cache_type(value: object) -> Literal["f16", "q8_0"]:
    """Give the type of the key and value cache."""
    written = str(value).strip().lower()
    if written == "f16":
        return "f16"
    if written == "q8_0":
        return "q8_0"
    raise BadValue("is not a type of cache that this version has", "Give 'f16' or 'q8_0'.")


def cache_layout(value: object) -> Literal["auto", "unified", "split"]:
    """Give how sequences share the key and value cache."""
    written = str(value).strip().lower()
    if written == "auto":
        return "auto"
    if written == "unified":
        return "unified"
    if written == "split":
        return "split"
    raise BadValue("is not a layout of the cache", "Give 'auto', 'unified' or 'split'.")


def model_pairs(value: object) -> dict[str, str]:
    """Give a small model for each large one: a table, or `large=small` with commas between.

    >>> model_pairs("llama3.1:8b=llama3.2:1b, qwen3:8b = qwen3:0.6b")
    {'llama3.1:8b': 'llama3.2:1b', 'qwen3:8b': 'qwen3:0.6b'}
    """
    if isinstance(value, Mapping):
        pairs = [(str(large), str(small)) for large, small in value.items()]
    else:
        parts = [part.partition("=") for part in str(value).split(",") if part.strip()]
        pairs = [(large.strip(), small.strip()) for large, _, small in parts]
    if all(large and small for large, small in pairs):
        return dict(pairs)
    raise BadValue(
        "does not name two models", "Give 'large=small', as in 'llama3.1:8b=llama3.2:1b'."
    )


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    is_number = isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value.strip())
    return int(value.strip()) if is_number and isinstance(value, str) else None
