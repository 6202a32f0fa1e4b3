"""Time windows: hours outside of which a pipeline starts no run, and its running one is drained.

They are read on the wall clock. `start_decisions` asks for each due and each running run; a drained
run stops between two items (`progress.drain`) and goes on in the next window. Pure.
"""

from __future__ import annotations

from datetime import datetime, time, tzinfo
from zoneinfo import ZoneInfo

from paddock.engine.system.records import Struct


class TimeWindow(Struct, frozen=True):
    """From one time of day to another, also across midnight; equal times: always."""

    start: time
    end: time
    zone: tzinfo | None = None
    """Time zone; None: this machine's."""

    @classmethod
    def of(cls, written: str, zone: tzinfo | None = None) -> TimeWindow:
        """Parse `"22:00-07:00"` or `"22:00-07:00 Europe/Paris"`; `zone`: if it names none."""
        times, _, name = written.partition(" ")
        start, _, end = times.partition("-")
        zone = ZoneInfo(name) if name else zone
        return cls(time.fromisoformat(start), time.fromisoformat(end), zone)

    def __str__(self) -> str:
        """Write it as it stands in a file, with its zone.

        >>> str(TimeWindow.of("22:00-07:00", ZoneInfo("Europe/Paris")))
        '22:00-07:00 Europe/Paris'
        """
        return f"{self.start:%H:%M}-{self.end:%H:%M} {getattr(self.zone, 'key', '')}".rstrip()

    def is_open(self, now: datetime) -> bool:
        """Return whether it is open at this moment.

        >>> noon, paris = datetime(2026, 11, 20, 12), ZoneInfo("Europe/Paris")
        >>> noon = noon.replace(tzinfo=paris)
        >>> [TimeWindow.of(one, paris).is_open(noon) for one in ("22:00-07:00", "09:00-17:00")]
        [False, True]
        """
        clock = now.astimezone(self.zone).time()
        if self.start == self.end:
            return True
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end
