#!/usr/bin/env bash
# ical 14.3.1 and icalevents 0.3.1: a meeting with further days of its own (RDATE) and no rule. By RFC 5545 (3.8.5.2) the first
# meeting and the further days are the set. ical's timeline leaves out the first, icalevents all others. And of a rule by the
# hour, ical has two meetings at one moment where clocks go forward: it counts 2:00, which is on no clock that night (3.3.10).
#
# Expected: 5, 10 and 12 January, as recurring-ical-events 3.8.2 has them; 0:00, 1:00, 3:00 and 4:00.
# Seen: ical has 10 and 12 January, icalevents the 5th; 0:00, 1:00, "2:00" and 3:00, and the last two are the same moment.
# Matters to whoever shows a calendar's days: nothing says that one is missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ical==14.3.1 icalevents==0.3.1 recurring-ical-events==3.8.2 \
    icalendar==7.3.2 tzdata==2026.6
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import sys

import icalendar
import recurring_ical_events
from ical.calendar_stream import IcsCalendarStream
from icalevents import icalevents

HEAD = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//example//EN\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTAMP:20260101T000000Z\r\nSUMMARY:Review\r\n"
DAYS = "DTSTART:20260105T100000Z\r\nDTEND:20260105T110000Z\r\nRDATE:20260110T100000Z,20260112T100000Z\r\n"
HOURS = "DTSTART;TZID=Europe/Berlin:20260329T000000\r\nDURATION:PT30M\r\nRRULE:FREQ=HOURLY;COUNT=4\r\n"
TAIL = "END:VEVENT\r\nEND:VCALENDAR\r\n"
year = datetime.datetime(2026, 1, 1), datetime.datetime(2027, 1, 1)
file = HEAD + DAYS + TAIL
seen = {
    "ical": [event.start.day for event in IcsCalendarStream.calendar_from_ics(file).timeline],
    "icalevents": sorted(event.start.day for event in icalevents.events(string_content=file.encode(), start=year[0], end=year[1])),
    "recurring-ical-events": sorted(e["DTSTART"].dt.day for e in recurring_ical_events.of(icalendar.Calendar.from_ical(file)).between(*year)),
}
hours = [event.start for event in IcsCalendarStream.calendar_from_ics(HEAD + HOURS + TAIL).timeline]
moments = [hour.astimezone(datetime.UTC).strftime("%H:%M") for hour in hours]
print(seen, [hour.isoformat() for hour in hours], moments)
if seen != {"ical": [10, 12], "icalevents": [5], "recurring-ical-events": [5, 10, 12]} or moments != ["23:00", "00:00", "01:00", "01:00"]:
    sys.exit("the behaviour has changed")
PY
