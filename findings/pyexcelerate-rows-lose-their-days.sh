#!/usr/bin/env bash
# PyExcelerate 0.13.0: days in the rows that `new_sheet(data=…)` takes, its usual and fast way, are written without a
# format, and the workbook has no style sheet: every reader sees the number 46082. A day that is put into a cell by
# itself has its format.
#
# Expected: a day in both.
# Seen: 46082.0 and 46082.5 by openpyxl 3.1.5 (with a warning that no style sheet is there); a day where it was put into
# the cell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyexcelerate==0.13.0 openpyxl==3.1.5
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import sys

import openpyxl
import pyexcelerate

day, noon = datetime.date(2026, 3, 1), datetime.datetime(2026, 3, 1, 12)
book = pyexcelerate.Workbook()
book.new_sheet("rows", data=[[day], [noon]])
book.save("rows.xlsx")
book = pyexcelerate.Workbook()
book.new_sheet("cell")[1][1].value = noon
book.save("cell.xlsx")
rows = [cell.value for cell in openpyxl.load_workbook("rows.xlsx")["rows"]["A"]]
alone = openpyxl.load_workbook("cell.xlsx")["cell"]["A1"].value
print(f"pyexcelerate 0.13.0: of rows {rows}, of a cell {alone!r}")
if rows != [46082.0, 46082.5] or alone != noon:
    sys.exit("the behaviour has changed")
PY
