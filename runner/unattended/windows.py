"""The hours in which a pipeline may work: whether they are now, and when they come. Pure.

A window is read on the wall's clock: where clocks are put forward or back, it is as long as the
clock on the wall says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo

_FEW_DAYS = 3


@dataclass(frozen=True, slots=True)
class Window:
    """From one time of the day to another, past midnight too; equal times: always."""

    start: time
    end: time
    zone: tzinfo | None = None
    """Whose clock is read; None: this machine's."""

    @classmethod
    def of(cls, written: str, zone: tzinfo | None = None) -> Window:
        """Read `"22:00-07:00"`."""
        start, _, end = written.partition("-")
        return cls(time.fromisoformat(start), time.fromisoformat(end), zone)

    def __str__(self) -> str:
        """Write it as it stands in a file.

        >>> str(Window.of("22:00-07:00"))
        '22:00-07:00'
        """
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def is_open(self, now: datetime) -> bool:
        """Tell whether it is open at this moment.

        >>> noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
        >>> Window.of("22:00-07:00", UTC).is_open(noon), Window.of("09:00-17:00", UTC).is_open(noon)
        (False, True)
        """
        clock = now.astimezone(self.zone).time()
        if self.start == self.end:
            return True
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def opens(self, now: datetime) -> datetime:
        """Give the moment from which it is open: now, or later, in UTC.

        >>> Window.of("22:00-07:00", UTC).opens(datetime(2026, 11, 20, 12, tzinfo=UTC)).hour
        22
        """
        if self.is_open(now):
            return now.astimezone(UTC)
        today = now.astimezone(self.zone).date()
        for days in range(_FEW_DAYS):
            moment = self._at(datetime.combine(today + timedelta(days), self.start))
            if moment > now:
                return moment
        return now.astimezone(UTC) + timedelta(days=1)

    def _at(self, wall: datetime) -> datetime:
        """Give the moment at which the wall's clock shows this."""
        local = wall.astimezone() if self.zone is None else wall.replace(tzinfo=self.zone)
        return local.astimezone(UTC)
