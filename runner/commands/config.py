"""`paddock config`: each setting, its value, and where it came from. Shows no secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from paddock.runner import values
from paddock.runner.display import console
from paddock.runner.settings import NAMES, Settings, read_settings

from .exits import DONE, guarded
from .machine import Json

DEFAULT = "default"
_HIDDEN = "(set, not shown)"
_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Row:
    """One setting."""

    name: str
    value: Any
    """As JSON can write it; None: decided from the machine or the model."""
    origin: str
    note: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("config")(guarded(config))


def config(as_json: Json = False) -> int:
    """Show each setting, and where it came from."""
    found = rows(read_settings(Path.cwd()))
    if as_json:
        told = {row.name: {"value": row.value, "from": row.origin} for row in found}
        console.say_json({"settings": told})
    else:
        console.say(table(found))
    return DONE


def rows(settings: Settings) -> tuple[Row, ...]:
    """Return every setting in the order of the documentation, then what has no effect."""
    origins = settings.origins or {}
    known = (_row(name, settings, origins.get(name, DEFAULT)) for name in NAMES)
    unread = (Row(name, None, "environment", "has no effect") for name in settings.without_effect)
    return (*known, *unread)


def _row(name: str, settings: Settings, origin: str) -> Row:
    known = NAMES[name]
    value = settings.value(name)
    if known.is_secret:
        return Row(name, _HIDDEN if value else None, origin)
    return Row(name, _plain(value), origin)


def _plain(value: Any) -> Any:
    """Give a value as JSON can write it."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def table(found: tuple[Row, ...]) -> str:
    """Lay the settings out."""
    head = ("SETTING", "VALUE", "FROM")
    return console.table([head, *((row.name, _shown(row), row.origin) for row in found)])


def _shown(row: Row) -> str:
    """Write a value as it can be written in a variable.

    >>> _shown(Row("num_parallel", None, DEFAULT)), _shown(Row("debug", False, DEFAULT))
    ('auto', '0')
    >>> _shown(Row("keep_runs", 7_776_000.0, DEFAULT)), _shown(Row("max_body", 67108864, DEFAULT))
    ('90d', '64MiB')
    """
    value = row.value
    if row.note:
        return f"({row.note})"
    if value is None:
        return "none" if row.name in _NONE else "auto"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, dict):
        return ",".join(f"{large}={small}" for large, small in value.items()) or "none"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, float):
        days = value / 86_400
        return f"{days:g}d" if days >= 1 and days.is_integer() else f"{value:.10g}"
    is_size = NAMES[row.name].read in (values.size, values.size_or_auto)
    if is_size and value and value % _MIB == 0:
        return f"{value // _MIB}MiB"
    return str(value) or "none"


# Without one of these there is none; without others the machine or the model decides.
_NONE = frozenset(
    [
        "api_keys",
        "api_key",
        "rate",
        "pool_key",
        "ledger",
        "smtp",
        "work_pool",
        "mail_from",
    ]
)
