#!/usr/bin/env bash
# icalendar 7.3.2: hours of a DURATION or an alarm are added to the time on the clock, so where the clocks change in between, an
# event is an hour shorter or longer than it says. `PT24H`, which RFC 5545 (3.3.6) keeps apart from the nominal `P1D`,
# is written back as `P1D`.
#
# Expected: noon of 28 March in Berlin, before summer time begins, and 24 exact hours: 13:00 on the 29th; an
# alarm 12 hours before 9:00 of the 29th at 20:00 of the 28th.
# Seen: 12:00, which is 23 hours later; 21:00, which is 11 hours before; and P1D.
# Matters to whoever reads on-call shifts, rentals or working hours from calendars.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check icalendar==7.3.2
cd "$folder"
venv/bin/python - <<'PY'
import sys
from datetime import UTC

from icalendar import Calendar

LINES = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:finding
BEGIN:VEVENT
UID:1
DTSTAMP:20260101T000000Z
DTSTART;TZID=Europe/Berlin:{start}
DURATION:{duration}
BEGIN:VALARM
ACTION:DISPLAY
DESCRIPTION:soon
TRIGGER:-PT12H
END:VALARM
END:VEVENT
END:VCALENDAR
"""


def event(start: str, duration: str):
    text = LINES.format(start=start, duration=duration).replace("\n", "\r\n")
    return Calendar.from_ical(text).walk("VEVENT")[0]


shift = event("20260328T120000", "PT24H")
hours = (shift.end.astimezone(UTC) - shift.start.astimezone(UTC)).total_seconds() / 3600
written = shift["DURATION"].to_ical().decode()
morning = event("20260329T090000", "PT1H")
alarm = morning.alarms.times[0].trigger
before = (morning.start.astimezone(UTC) - alarm.astimezone(UTC)).total_seconds() / 3600
print(f"{shift.start} and PT24H: {shift.end}, {hours} hours, written as {written}; -PT12H: {alarm}, {before} hours")
if (hours, written, before) != (23.0, "P1D", 11.0):
    sys.exit("the behaviour has changed")
PY
