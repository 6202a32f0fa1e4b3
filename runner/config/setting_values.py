"""Parse values of the configuration: durations, sizes, switches, names.

Each function takes the value of an environment variable, a flag or a TOML key and returns the
typed value, or raises `BadValue`. `None` stands for "decide from the machine or the model".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from paddock.engine.settings import CacheLayout, CacheType, SplitMode, Switch
from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.server_address import BadAddress, base_url
from paddock.engine.system.units import SECONDS_PER_UNIT

_FOREVER_S = -1.0
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_TRUE, _FALSE = ("1", "true", "yes", "on", "t", "y"), ("0", "false", "no", "off", "f", "n")
PERMISSIONS = ("run", "tool", "mcp", "network", "secrets")


class BadValue(Exception):
    """A value that cannot be used; `problem` continues "'x' …"."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(problem)


def parse_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadValue("is not a text", "Give a name.")
    return value.strip()


def parse_folder(value: object) -> Path:
    """Return a folder; `~` is left for the caller, who knows whose home is meant."""
    return _path(value, "a folder", "~/.paddock/models")


def parse_file(value: object) -> Path:
    """Return a file; `~` is left for the caller, who knows whose home is meant."""
    return _path(value, "a file", "~/.paddock/keys")


def _path(value: object, what: str, example: str) -> Path:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadValue(f"is not the path of {what}", f"Give a path such as '{example}'.")
    return Path(value)


def parse_text_list(value: object) -> tuple[str, ...]:
    """Return texts: a list, or one text with commas between.

    >>> parse_text_list("https://a.example, app://*"), parse_text_list(["b.example"])
    (('https://a.example', 'app://*'), ('b.example',))
    """
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise BadValue("is not a list", "Give texts with commas between.")
    return tuple(part.strip() for part in parts if part.strip())


def parse_folders(value: object) -> tuple[Path, ...]:
    """Return folders; `~` is left for the caller.

    >>> parse_folders("/srv/team, ~/share")
    (PosixPath('/srv/team'), PosixPath('~/share'))
    """
    folders = tuple(map(parse_folder, parse_text_list(value)))
    if not all(path.is_absolute() or path.parts[0] == "~" for path in folders):
        raise BadValue("has a path that depends on the folder", "Begin each with '/' or '~'.")
    return folders


def parse_urls(value: object) -> tuple[str, ...]:
    """Return the addresses of servers.

    >>> parse_urls("http://gpu-1:8000/v1, http://gpu-2:8000")
    ('http://gpu-1:8000', 'http://gpu-2:8000')
    """
    try:
        return tuple(dict.fromkeys(map(base_url, parse_text_list(value))))
    except BadAddress as error:
        raise BadValue(error.why, error.remedy) from None


def parse_dask_scheduler(value: object) -> str:
    """Return the address of a Dask scheduler: of an encrypted one, or of one on this machine.

    >>> parse_dask_scheduler("tls://scheduler:8786"), parse_dask_scheduler("tcp://[::1]:8786")
    ('tls://scheduler:8786', 'tcp://[::1]:8786')
    """
    written = parse_text(value)
    parts = re.fullmatch(r"(tls|tcp)://(\[[0-9a-f:.]+\]|[\w.-]+):(\d{1,5})", written)
    if parts is None:
        raise BadValue("is not the address of a Dask scheduler", "Give it as 'tls://host:8786'.")
    if parts[1] == "tcp" and not is_loopback(parts[2].strip("[]")):
        raise BadValue(
            "is not encrypted, and those who take part in a Dask cluster can run code as you",
            "Use 'tls://' with certificates on both sides; 'tcp://' is for loopback alone.",
        )
    return written


def parse_permissions(value: object) -> frozenset[str]:
    """Return what pipelines may reach besides files and models.

    >>> sorted(parse_permissions("network, run"))
    ['network', 'run']
    """
    given = frozenset(parse_text_list(value))
    if not given.issubset(PERMISSIONS):
        raise BadValue("is not known", f"Known: {', '.join(PERMISSIONS)}.")
    return given


def parse_rate(value: object) -> int | None:
    """Return requests a minute; `none` and 0 are None.

    >>> parse_rate("60"), parse_rate("10/s"), parse_rate("600/h"), parse_rate("none")
    (60, 600, 10, None)
    """
    written = str(value).strip().lower()
    number, _, unit = written.partition("/")
    n = 0 if written in ("none", "off") else _whole_number(number.strip())
    per_minute = {"": 1.0, "m": 1.0, "min": 1.0, "s": 60.0, "h": 1 / 60}.get(unit.strip())
    if isinstance(value, bool) or n is None or n < 0 or per_minute is None:
        raise BadValue("is not a rate", "Give requests a minute such as 60, or '10/s'; 0 is any.")
    return max(1, round(n * per_minute)) if n else None


def parse_keep_alive(value: object) -> float:
    """Return seconds, -1 for ever.

    >>> [*map(parse_keep_alive, ("5m", "1h30m", 90, "-1", "0"))]
    [300.0, 5400.0, 90.0, -1.0, 0.0]
    """
    written = str(value).strip().lower()
    is_negative, written = written.startswith("-"), written.removeprefix("-")
    seconds = _parsed_seconds(written)
    if seconds is None or isinstance(value, bool):
        raise BadValue(
            "is not a duration",
            "Give seconds, or a number with a unit such as '5m' or '1h30m'; "
            "0 lets a model go at once, a negative number keeps it for ever.",
        )
    return _FOREVER_S if is_negative else seconds


def _parsed_seconds(written: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", written):
        return float(written)
    if not _DURATION.fullmatch(written):
        return None
    return sum(float(n) * SECONDS_PER_UNIT[unit] for n, unit in _DURATION_PART.findall(written))


def parse_seconds(value: object) -> float:
    """Return seconds of 0 or more.

    >>> parse_seconds("4"), parse_seconds("1.5"), parse_seconds("500ms"), parse_seconds(0)
    (4.0, 1.5, 0.5, 0.0)
    """
    answer = None if isinstance(value, bool) else _parsed_seconds(str(value).strip().lower())
    if answer is None:
        raise BadValue("is not a time", "Give seconds such as 4; 0 switches it off.")
    return answer


def parse_count(value: object) -> int:
    return _at_least(1, value, "Give a number such as 4.")


def parse_count_or_auto(value: object) -> int | None:
    """Return a whole number of 1 or more; `auto` and 0 are None."""
    if value == "auto" or _whole_number(value) == 0:
        return None
    return _at_least(1, value, "Give a number such as 4, or 'auto'.")


def parse_context_or_auto(value: object) -> int | None:
    """Return tokens; `16k` is 16,384.

    >>> parse_context_or_auto("16k"), parse_context_or_auto(2048), parse_context_or_auto("auto")
    (16384, 2048, None)
    """
    written = str(value).strip().lower()
    number = _whole_number(written.removesuffix("k")) if written.endswith("k") else None
    try:
        return parse_count_or_auto(value if number is None else number * 1024)
    except BadValue:
        remedy = "Give a number such as 4096 or '16k', or 'auto'."
        raise BadValue("is not a number of tokens", remedy) from None


def parse_layer_count(value: object) -> int:
    number = -1 if value in ("auto", "all") else _whole_number(value)
    if number is None or number < -1:
        remedy = "Give 0 for none, a number, or -1 for all that fit on the device."
        raise BadValue("is not a number of layers", remedy)
    return number


def parse_size(value: object) -> int:
    """Return bytes; `2GB` are 2,000,000,000, `2GiB` and Ollama's `2G` 2,147,483,648.

    >>> parse_size("512MiB"), parse_size(0), parse_size("2GB")
    (536870912, 0, 2000000000)
    """
    written = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", str(value).strip().lower())
    if written is None or isinstance(value, bool):
        raise BadValue("is not a size", "Give bytes, or a number with a unit such as '512MiB'.")
    number, unit, ending = written.groups()
    base = 1000 if ending == "b" else 1024
    return int(float(number) * base ** " kmgt".index(unit or " "))


def parse_size_or_auto(value: object) -> int | None:
    """Return bytes, as `parse_size` reads them; `auto` is None."""
    return None if value == "auto" else parse_size(value)


def parse_index(value: object) -> int:
    return _at_least(0, value, "Give a number such as 0.")


def _at_least(least: int, value: object, remedy: str) -> int:
    number = _whole_number(value)
    if number is None or number < least:
        raise BadValue(f"is not a whole number of {least} or more", remedy)
    return number


def parse_flag(value: object) -> bool:
    """Return yes or no; a number above 1 is a level, as Ollama has it for DEBUG."""
    written = str(value).strip().lower()
    number = _whole_number(written)
    if written in _TRUE or (number is not None and number > 1):
        return True
    if written in _FALSE:
        return False
    raise BadValue("is neither yes nor no", "Give 1 or 0.")


def parse_switch(value: object) -> Switch:
    written = str(value).strip().lower()
    if written == "auto":
        return "auto"
    if written in _TRUE or written in _FALSE:
        return "on" if written in _TRUE else "off"
    raise BadValue("is not a switch", "Give 'auto', 1 or 0.")


def _one_of(kind: Any, problem: str, remedy: str, value: object) -> Any:
    written = str(value).strip().lower()
    if written not in get_args(kind):
        raise BadValue(problem, remedy)
    return written


OtelMode = Literal["off", "on", "content"]
"""Whether runs are sent to OpenTelemetry's collector, and with prompts and answers."""
parse_split_mode = partial(
    _one_of, SplitMode, "is not a way to split a model", "Give 'none', 'layer', 'row' or 'tensor'."
)
parse_cache_type = partial(
    _one_of,
    CacheType,
    "is not a type of cache that this version has",
    "Give 'f16', 'q8_0' or 'q4_0'.",
)
parse_cache_layout = partial(
    _one_of, CacheLayout, "is not a layout of the cache", "Give 'auto', 'unified' or 'split'."
)
parse_otel_mode = partial(
    _one_of,
    OtelMode,
    "is no way to send spans",
    "Give 'off', 'on', or 'content' to send prompts and answers, too.",
)


def parse_model_pairs(value: object) -> dict[str, str]:
    """Return a small model for each large one: a table, or `large=small` with commas between.

    >>> parse_model_pairs("llama3.1:8b=llama3.2:1b, qwen3:8b = qwen3:0.6b")
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


def _whole_number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    is_number = isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value.strip())
    return int(value.strip()) if is_number and isinstance(value, str) else None
