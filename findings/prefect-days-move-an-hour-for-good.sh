#!/usr/bin/env bash
# prefect 3.9.1: a schedule by an interval of days, anchored at a time of day that one night of the year lacks (02:30, when
# clocks go forward), runs an hour later from that night on for good: still in November, and of weeks as well.
#
# Expected: 03:30 or 01:30 in that night, and 02:30 in all others, as its schedule by cron has it.
# Seen: 02:30 until 28 March, 03:30 on each later day. A rule of calendars (RRuleSchedule) takes a third way, 01:30 in
# that night; and the zone within such a rule (`DTSTART;TZID=America/New_York:…093000`, or `…Z`) is passed over: 09:30 in the
# schedule's zone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check prefect==3.9.1
cd "$folder"
PREFECT_HOME="$folder/home" venv/bin/python - <<'PY'
import asyncio
import sys
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

ZONE = "Europe/Berlin"


def day(month: int, number: int) -> datetime:
    return datetime(2026, month, number, tzinfo=ZoneInfo(ZONE))


async def times(schedule: object, start: datetime, n: int) -> list[str]:
    found = [f"{moment:%m-%d %H:%M}" for moment in await schedule.get_dates(n, start)]
    print(type(schedule).__name__, found)
    return found


async def main() -> bool:
    anchor = day(3, 27).replace(hour=2, minute=30)
    days = IntervalSchedule(interval=timedelta(days=1), anchor_date=anchor, timezone=ZONE)
    cron = CronSchedule(cron="30 2 * * *", timezone=ZONE)
    rule = RRuleSchedule(rrule="DTSTART:20260327T023000\nRRULE:FREQ=DAILY", timezone=ZONE)
    away = RRuleSchedule(rrule="DTSTART;TZID=America/New_York:20260105T093000\nRRULE:FREQ=DAILY;COUNT=1", timezone=ZONE)
    return (
        await times(days, day(3, 28), 3) == ["03-28 02:30", "03-29 03:30", "03-30 03:30"]
        and await times(days, day(11, 20), 1) == ["11-20 03:30"]
        and await times(cron, day(3, 28), 3) == ["03-28 02:30", "03-29 03:30", "03-30 02:30"]
        and await times(rule, day(3, 28), 3) == ["03-28 02:30", "03-29 01:30", "03-30 02:30"]
        and await times(away, day(1, 1), 1) == ["01-05 09:30"]
    )


if not asyncio.run(main()):
    sys.exit("the behaviour has changed")
PY
