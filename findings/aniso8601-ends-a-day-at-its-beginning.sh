#!/usr/bin/env bash
# aniso8601 10.0.1: 24:00, by which ISO 8601 has the end of a day (and which it takes on purpose: "with 24 representing midnight"), is
# the beginning of that day in `parse_datetime`, and so in intervals: a shift until midnight ends 22 hours before it begins.
#
# Expected: 2026-01-03T00:00, as arrow 1.4.0 and `isoparse` of python-dateutil 2.9.0 have it, or an error, as of isodate 0.7.2.
# Seen: 2026-01-02T00:00; "22:00/24:00" is a span of -22 hours, and the two hours before midnight are those of the day before.
# Matters to whoever reads opening times and shifts, and to what parses arguments with it, as Flask-RESTful does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aniso8601==10.0.1 arrow==1.4.0 python-dateutil==2.9.0.post0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import aniso8601
import arrow
from dateutil.parser import isoparse

text = "2026-01-02T24:00"
seen = str(aniso8601.parse_datetime(text))
right = [str(moment)[:10] for moment in (arrow.get(text), isoparse(text))]
spans = {}
for span in ("2026-01-02T22:00/24:00", "2026-01-02T22:00/2026-01-02T24:00", "PT2H/2026-01-02T24:00"):
    start, end = aniso8601.parse_interval(span)
    spans[span] = (end - start).total_seconds() / 3600, str(start)
    print(f"{span}: from {start} to {end}")
print(text, "is", seen, "for others", right)
if (
    seen != "2026-01-02 00:00:00"
    or right != ["2026-01-03", "2026-01-03"]
    or [*spans.values()] != [(-22, "2026-01-02 22:00:00"), (-22, "2026-01-02 22:00:00"), (-2, "2026-01-02 00:00:00")]
):
    sys.exit("the behaviour has changed")
PY
