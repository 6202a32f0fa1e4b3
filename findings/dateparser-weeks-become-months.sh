#!/usr/bin/env bash
# dateparser 1.5.0: a date by its week (ISO 8601, as `date +%G-W%V-%u` and `datetime.date.fromisoformat` have it) loses its "W":
# the week is taken as the month and the day of the week as the day of the month; from week 13 on, it is the other way round.
#
# Expected: 2026-01-26 for 2026-W05-1; or None, as for 2026-034, the other form that ISO 8601 has beside months.
# Seen: 2026-05-01, 13 January for a day at the end of March, and a day of May for the whole of 2026-W05. With `STRICT_PARSING` too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dateparser==1.5.0
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import datetime
import sys

import dateparser

seen = {}
for text in ("2026-W05-1", "2026-W13-1", "2026-W12-7"):
    for settings in ({}, {"STRICT_PARSING": True}, {"DATE_ORDER": "YMD"}):
        parsed = dateparser.parse(text, settings=settings)
        print(text, settings, parsed, "is", datetime.date.fromisoformat(text))
    seen[text] = str(dateparser.parse(text, settings={"STRICT_PARSING": True}))[:10]
week, day = dateparser.parse("2026-W05"), dateparser.parse("2026-034")
print("2026-W05", week, "| 2026-034", day)
if seen != {"2026-W05-1": "2026-05-01", "2026-W13-1": "2026-01-13", "2026-W12-7": "2026-12-07"} or week.month != 5 or day is not None:
    sys.exit("the behaviour has changed")
PY
