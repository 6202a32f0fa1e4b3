#!/usr/bin/env bash
# xlsx2csv 0.8.6: a number whose format shows a unit is written as its format, in which a d, m, y, h or s becomes a part of a date,
# although the letters are quoted (`0.00 "USD"`) or escaped (`0\d`). The number itself is gone. And a time in `mm:ss` is
# written in hours and minutes.
#
# Expected: 12.5 each time and 30:15 of 5:30:15, as openpyxl 3.1.5 and python-calamine 0.9.1 read them; `0.0" kg"` is right.
# Seen: `0.00 "us11"`, `0.0" 01"`, `0.0 "11ays"`, `0.0 "12"`, `0.011` and 05:30, without a warning.
# Matters to whoever turns price lists and time sheets into text for a model: it reads no amounts at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xlsx2csv==0.8.6 openpyxl==3.1.5 python-calamine==0.9.1
cd "$folder"
venv/bin/python - <<'PY'
import csv
import datetime
import sys

import openpyxl
import python_calamine
from xlsx2csv import Xlsx2csv

SHAPES = ('0.0" kg"', '0.00 "USD"', '0.0" m"', '0.0 "days"', '0.0 "h"', "0.0\\d")
CELLS = {**dict.fromkeys(SHAPES, 12.5), "mm:ss": datetime.time(5, 30, 15)}
book = openpyxl.Workbook()
for row, (shape, value) in enumerate(CELLS.items(), 1):
    book.active.cell(row, 1, value).number_format = shape
book.save("list.xlsx")
Xlsx2csv("list.xlsx", outputencoding="utf-8").convert("list.csv")
seen = [row[0] for row in csv.reader(open("list.csv", encoding="utf-8"))]
right = [row[0] for row in openpyxl.load_workbook("list.xlsx").active.iter_rows(values_only=True)]
other = [row[0] for row in python_calamine.load_workbook("list.xlsx").get_sheet_by_index(0).to_python()]
for shape, text, value in zip(CELLS, seen, right, strict=True):
    print(f"{shape}: {text} for {value}")
wrong = ['0.00 "us11"', '0.0" 01"', '0.0 "11ays"', '0.0 "12"', "0.011", "05:30"]
if float(seen[0]) != 12.5 or seen[1:] != wrong or not right == other == [*CELLS.values()]:
    sys.exit("the behaviour has changed")
PY
