#!/usr/bin/env bash
# ics 0.7.3: a calendar that is read and written again is another one. A beginning in a zone becomes one in UTC, while the RRULE
# stays, so a meeting at ten in Berlin is at eleven in summer. A backslash before an "n" (`\\n`, RFC 5545, 3.3.11) is read as
# a line break. A name with a colon loses its quotes (3.2), so the rest of the name is read as the address.
#
# Expected: what icalendar 7.3.2 reads of the same file: ten o'clock in April, "C:\new folder", mailto:jane@example.com.
# Seen: eleven o'clock, "C:\" and "ew folder" on two lines, and " sales:mailto:jane@example.com".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ics==0.7.3 icalendar==7.3.2 python-dateutil==2.9.0.post0 tzdata==2026.3
cd "$folder"
cat >meeting.ics <<'ICS'
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//example//meetings//EN
BEGIN:VEVENT
UID:1@example.com
DTSTAMP:20260101T000000Z
DTSTART;TZID=Europe/Berlin:20260105T100000
DTEND;TZID=Europe/Berlin:20260105T110000
RRULE:FREQ=MONTHLY;COUNT=8
SUMMARY:C:\\new folder
ATTENDEE;CN="Doe, Jane: sales":mailto:jane@example.com
END:VEVENT
END:VCALENDAR
ICS
venv/bin/python - <<'PY'
import pathlib
import sys
from zoneinfo import ZoneInfo

import icalendar
import ics
from dateutil.rrule import rrulestr


def read(text: str) -> list[str]:
    event = icalendar.Calendar.from_ical(text).walk("VEVENT")[0]
    days = rrulestr(event["RRULE"].to_ical().decode(), dtstart=event["DTSTART"].dt)
    return [str(days[3].astimezone(ZoneInfo("Europe/Berlin"))), str(event["SUMMARY"]), str(event["ATTENDEE"])]


text = pathlib.Path("meeting.ics").read_text()
calendar = ics.Calendar(text)
event = next(iter(calendar.events))
before, after = read(text), read(calendar.serialize())
print("as it is:", before, "written again:", after, "ics reads:", repr(event.name), sep="\n")
if before != ["2026-04-05 10:00:00+02:00", r"C:\new folder", "mailto:jane@example.com"]:
    sys.exit("the behaviour has changed")
if after[0] != "2026-04-05 11:00:00+02:00" or after[2] != " sales:mailto:jane@example.com" or event.name != "C:\\\\new folder".replace(r"\n", "\n"):
    sys.exit("the behaviour has changed")
PY
