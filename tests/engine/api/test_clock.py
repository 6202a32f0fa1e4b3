"""Moments and lengths of time as clients read them."""

from __future__ import annotations

from datetime import UTC, datetime

from paddock.engine.api.time_formats import expires_at, nanoseconds, rfc3339


def test_moments_can_be_read_by_python_and_for_ever_is_three_centuries() -> None:
    moment = datetime(2026, 8, 1, 12, 0, 0, 1, tzinfo=UTC)
    assert rfc3339(moment) == "2026-08-01T12:00:00.000001Z"
    assert datetime.fromisoformat(rfc3339(moment)) == moment
    assert datetime.fromisoformat(expires_at(None)).year in (2318, 2319)
    assert nanoseconds(0.000000001) == 1
