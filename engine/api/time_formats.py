"""Times as the APIs write them: RFC 3339 timestamps, durations in whole nanoseconds. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

FOREVER = timedelta(microseconds=(2**63 - 1) // 1000)
"""Go's longest duration, 292 years: what Ollama adds to now for a model that stays for ever."""


def utc_now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Write a moment with six digits of its second: more, Python's `fromisoformat` refuses.

    >>> rfc3339(datetime(2026, 8, 1, 12, 0, tzinfo=UTC))
    '2026-08-01T12:00:00.000000Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def expires_at(expires_s: float | None) -> str:
    """Write when a model goes that stays for so many seconds more; None: for ever."""
    return rfc3339(utc_now() + (FOREVER if expires_s is None else timedelta(seconds=expires_s)))


def nanoseconds(seconds: float) -> int:
    """Turn seconds into nanoseconds.

    >>> nanoseconds(0.25)
    250000000
    """
    return round(seconds * 1_000_000_000)
