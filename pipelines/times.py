"""Times in expressions: `now`, `today`, and the filters `local`, `date` and `plus`.

All are texts: a date `2026-11-26`; a time in UTC `2026-11-26T04:30:00Z`, as `doc.modified` has it,
so that times compare as texts do; a local time `2026-11-26T05:30:00+01:00`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from .quantities import parse_seconds

TIME_NAMES = frozenset(("now", "today"))
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")


class Moment(str):
    """`now` or `today`: a text, which as a function moves it: `today("-1d")`."""

    __slots__ = ("_at", "_is_date")
    _at: datetime
    _is_date: bool

    @classmethod
    def of(cls, seconds: float, *, is_date: bool) -> Moment:
        at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
        moment = cls(at.astimezone().date().isoformat() if is_date else _written(at))
        moment._at, moment._is_date = at, is_date
        return moment

    def __call__(self, by: str = "", zone: str | None = None) -> str:
        """Return it, moved by a duration such as `-1d`; a date is that of `zone`.

        >>> Moment.of(1_000_000_000, is_date=False)("-24h")
        '2001-09-08T01:46:40Z'
        >>> Moment.of(1_000_000_000, is_date=True)("-1d", "Pacific/Kiritimati")
        '2001-09-08'
        """
        text = local_date(self._at.isoformat(), zone) if self._is_date else str(self)
        return moved(text, by) if by else text


def moments(seconds: float) -> dict[str, Moment]:
    return {name: Moment.of(seconds, is_date=name == "today") for name in sorted(TIME_NAMES)}


def local_time(value: str, zone: str | None = None) -> str:
    """Return a time as it is on this machine's clock, or in a zone.

    >>> local_time("2026-11-26T23:30:00Z", "Europe/Paris")
    '2026-11-27T00:30:00+01:00'
    """
    return _read(value).astimezone(ZoneInfo(zone) if zone else None).isoformat(timespec="seconds")


def local_date(value: str, zone: str | None = None) -> str:
    """Return the date of a time, here or in a zone.

    >>> local_date("2026-11-26T23:30:00Z", "Europe/Paris"), local_date("2026-11-26")
    ('2026-11-27', '2026-11-26')
    """
    return value if _DATE.match(value) else local_time(value, zone)[:10]


def moved(value: str, by: str) -> str:
    """Return a date or a time, moved by a duration.

    >>> moved("2026-03-01", "-1d"), moved("2026-11-26T23:30:00Z", "2h")
    ('2026-02-28', '2026-11-27T01:30:00Z')
    """
    step = timedelta(seconds=parse_seconds(by.lstrip("+-"))) * (-1 if by.startswith("-") else 1)
    if _DATE.match(value):
        if step % timedelta(days=1):
            raise ValueError(f"the date '{value}' cannot be moved by '{by}': write days, as `-1d`")
        return (date.fromisoformat(value) + step).isoformat()
    return _written(_read(value) + step)


def _read(value: str) -> datetime:
    at = datetime.fromisoformat(value)
    return at if at.tzinfo is not None else at.astimezone()


def _written(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
