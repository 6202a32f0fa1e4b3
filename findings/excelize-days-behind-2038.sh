#!/usr/bin/env bash
# excelize 0.1.0, the Python package of the Go library: a day before 14 December 1901 or after 19 January 2038 is
# written as another day, 136 years away, since the seconds cross the border between the two languages in 32 bits.
#
# Expected: the day that was given, or an error.
# Seen: 2036-04-06 for 1900-03-01, 1901-12-14 for 2038-01-20 and 1927-10-19 for 2200-01-01, by openpyxl 3.1.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check excelize==0.1.0 openpyxl==3.1.5
cd "$folder"
venv/bin/python - <<'PY'
import sys
from datetime import date

import excelize
import openpyxl

days = [date(1900, 3, 1), date(1901, 12, 14), date(2038, 1, 18), date(2038, 1, 20), date(2200, 1, 1)]
book = excelize.new_file()
for row, day in enumerate(days, 1):
    book.set_cell_value("Sheet1", f"A{row}", day)
book.save_as("days.xlsx")
seen = [cell.value.date() for cell in openpyxl.load_workbook("days.xlsx")["Sheet1"]["A"]]
print("excelize 0.1.0:", ", ".join(f"{day} becomes {other}" for day, other in zip(days, seen)))
if seen != [date(2036, 4, 6), days[1], days[2], date(1901, 12, 14), date(1927, 10, 19)]:
    sys.exit("the behaviour has changed")
PY
