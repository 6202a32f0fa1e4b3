#!/usr/bin/env bash
# dateparser 1.5.0: the usual day of a Japanese document, in its era, is found as another day: `search_dates` leaves out the era
# and takes the year of the era for the month, the month for the day, and the day for the year. A Thai day, whose year is that
# of the Buddhist calendar (CLDR's first for Thailand), is 543 years late.
#
# Expected: 2026-05-14 for each, or nothing, as `parse` has for the first one.
# Seen: 2014-08-05 for 令和8年5月14日 in a text, and 2569-05-14 for 14 พฤษภาคม 2569, by both functions.
# Matters to whoever files invoices of Japan or Thailand by their day: a day that may be right is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dateparser==1.5.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import dateparser
from dateparser.search import search_dates

BILLS = {"発行日:令和8年5月14日": "ja", "วันที่ 14 พฤษภาคม 2569": "th"}
seen = []
for text, language in BILLS.items():
    found = search_dates(text, languages=[language])
    seen.append([(part, str(day.date())) for part, day in found or []])
    print(text, seen[-1])
parsed = [dateparser.parse(text, languages=[of]) for text, of in (("令和8年5月14日", "ja"), ("14 พฤษภาคม 2569", "th"))]
print(parsed)
ours = dateparser.parse("2026年5月14日", languages=["ja"])
is_so = [day for held in seen for _, day in held] == ["2014-08-05", "2569-05-14"]
if not is_so or parsed[0] is not None or str(parsed[1].date()) != "2569-05-14" or str(ours.date()) != "2026-05-14":
    sys.exit("the behaviour has changed")
PY
