#!/usr/bin/env bash
# xlsx2html 0.6.4: a number below zero in one of the usual formats that write it in red (`0;[Red]-0`, Excel's own 38 is
# `#,##0;[Red](#,##0)`) is an empty cell. A number in a cell of text ("@", as bank exports have it) keeps its first digit, a
# fraction (`# ?/?`) loses itself, and a scale (`0.0,,"M"`) is not applied while its letter is.
#
# Expected: -5, (5,250), 12345678.9, 2 1/2 and 1.5M, as Excel shows them; the values that openpyxl 3.1.5 reads.
# Seen: nothing, nothing, 10000000, "2 /" and 1500000.0"M".
# Matters to whoever shows a model what the sheet shows: a loss is no number at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xlsx2html==0.6.4 openpyxl==3.1.5 babel==2.19.0
cd "$folder"
venv/bin/python - <<'PY'
import html
import io
import re
import sys

import openpyxl
from xlsx2html import xlsx2html

CELLS = {"0;(0)": -5, "0;[Red]-0": -5, "#,##0;[Red](#,##0)": -5250, "@": 12345678.9, "# ?/?": 2.5, '0.0,,"M"': 1500000}
book = openpyxl.Workbook()
for row, (shape, value) in enumerate(CELLS.items(), 1):
    book.active.cell(row, 1, value).number_format = shape
book.save("list.xlsx")
page = io.StringIO()
xlsx2html("list.xlsx", page)
seen = [html.unescape(text) for text in re.findall(r">([^<]*)</td>", page.getvalue())]
right = [row[0] for row in openpyxl.load_workbook("list.xlsx").active.iter_rows(values_only=True)]
for shape, text, value in zip(CELLS, seen, right, strict=True):
    print(f"{shape}: {text!r} for {value}")
if seen != ["(5)", "", "", "10000000", "2 /", '1500000.0"M"'] or right != [*CELLS.values()]:
    sys.exit("the behaviour has changed")
PY
