"""Units of time and size: tables to read them by, and text for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from .text import counted

SECONDS_PER_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES_PER_UNIT = {
    **{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40},
    **{"kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
}
HOUR_S, DAY_S = 3600.0, 86400.0


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    >>> duration(0.04), duration(3.14), duration(75), duration(3700), duration(200000)
    ('under 0.1 s', '3.1 s', '1 min 15 s', '1 h 1 min', '2 d 7 h')
    """
    if seconds < 10:
        return "under 0.1 s" if seconds < 0.1 else f"{seconds:.1f} s"
    minutes, secs = divmod(round(seconds), 60)
    hours, mins = divmod(minutes, 60)
    days, hrs = divmod(hours, 24)
    parts = [(days, "d"), (hrs, "h"), (mins, "min"), (secs, "s")]
    first = next(place for place, (n, _) in enumerate(parts) if n)
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2] if n)


def ago(seconds: float) -> str:
    """Return roughly how long ago something was.

    >>> ago(5), ago(125), ago(7500), ago(90_000), ago(86400 * 400)
    ('just now', '2 minutes ago', '2 hours ago', '1 day ago', '1 year ago')
    """
    units = (("year", 365 * DAY_S), ("month", 30 * DAY_S), ("week", 7 * DAY_S), ("day", DAY_S),
             ("hour", HOUR_S), ("minute", 60))  # fmt: skip
    for noun, length in units:
        if seconds >= length:
            return f"{counted(int(seconds // length), noun)} ago"
    return "just now"


def iso_time(at: float) -> str:
    """Return seconds since 1970 as ISO 8601, in UTC, to the millisecond.

    >>> iso_time(0)
    '1970-01-01T00:00:00.000+00:00'
    """
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def local_time(at: float, layout: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return seconds since 1970 by this machine's clock."""
    return time.strftime(layout, time.localtime(at))


def speed(per_s: float) -> str:
    """Return a rate, with one decimal below 10.

    >>> speed(0.31), speed(45.2)
    ('0.3', '45')
    """
    return f"{per_s:.1f}" if per_s < 10 else f"{per_s:.0f}"


def size(n_bytes: int) -> str:
    """Return a size in decimal units, as disks and `ollama list` do.

    >>> size(98_700_000), size(1_540_000_000), size(12)
    ('99 MB', '1.5 GB', '12 B')
    """
    amount = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.1f} {unit}" if unit == "GB" else f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
