"""Each setting, its value and its origin, for `paddock config` and the console; no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddock.engine.system.records import Struct
from paddock.runner.config.setting_specs import SETTING_SPECS
from paddock.runner.config.setting_values import parse_size, parse_size_or_auto
from paddock.runner.progress import printing
from paddock.runner.settings import Settings

DEFAULT = "default"
_HIDDEN = "(set, not shown)"
_MIB = 1024**2


class SettingRow(Struct, frozen=True):
    name: str
    value: Any
    """A JSON value; None: decided by the machine or the model."""
    origin: str
    note: str = ""


def setting_rows(settings: Settings) -> tuple[SettingRow, ...]:
    """Return every setting in the order of the documentation, then those without effect."""
    origins = settings.origins or {}
    rows = []
    for name, known in SETTING_SPECS.items():
        value = settings.value(name)
        shown = (_HIDDEN if value else None) if known.is_secret else _json_value(value)
        rows.append(SettingRow(name, shown, origins.get(name, DEFAULT)))
    for name in settings.without_effect:
        rows.append(SettingRow(name, None, "environment", "has no effect"))
    return tuple(rows)


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [_json_value(part) for part in value]
    if isinstance(value, frozenset):
        return sorted(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def settings_table(found: tuple[SettingRow, ...]) -> str:
    head = ("SETTING", "VALUE", "FROM")
    return printing.table([head, *((row.name, value_text(row), row.origin) for row in found)])


def value_text(row: SettingRow) -> str:
    """Return a value as an environment variable would have it.

    >>> value_text(SettingRow("num_parallel", None, DEFAULT))
    'auto'
    >>> value_text(SettingRow("max_body", 67108864, DEFAULT))
    '64MiB'
    """
    value = row.value
    if row.note:
        return f"({row.note})"
    if value is None:
        return "none" if row.name in _NONE_IF_UNSET else "auto"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, dict):
        return ",".join(f"{large}={small}" for large, small in value.items()) or "none"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, int | float):
        # A duration in days, a size in MiB, where it is a whole number of them
        if isinstance(value, float):
            days = value / 86_400
            return f"{days:g}d" if days >= 1 and days.is_integer() else f"{value:.10g}"
        is_size = SETTING_SPECS[row.name].read in (parse_size, parse_size_or_auto)
        return f"{value // _MIB}MiB" if is_size and value and value % _MIB == 0 else str(value)
    return str(value) or "none"


# Unset, these are off; other unset settings are decided by the machine or the model.
_NONE_IF_UNSET = frozenset(
    ("api_keys", "api_key", "rate", "pool_key", "ledger", "smtp", "mail_from")
)
