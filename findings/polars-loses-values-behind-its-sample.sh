#!/usr/bin/env bash
# Polars 2.1.0: a table made of Python's rows takes its types and columns from the first 100 rows. Behind them, 2.5 in
# a column of whole numbers becomes 2 and a key that is new is dropped, without an error or a warning, though `strict`
# is on. `read_excel` (fastexcel 0.21.0) looks at 1,000 rows and makes a later text in a column of numbers null.
# `read_csv` on the same values raises.
#
# Expected: an error, as `read_csv` gives, since `strict=True` is the default.
# Seen: 2, no second column, null; with `infer_schema_length=None` 2.5, both columns, and the text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 fastexcel==0.21.0 openpyxl==3.1.5
cd "$folder"
venv/bin/python - <<'PY'
import io
import sys

import openpyxl
import polars as pl

rows = [{"price": 1}] * 200 + [{"price": 2.5, "note": "paid"}]
plain, whole = pl.DataFrame(rows), pl.DataFrame(rows, infer_schema_length=None)
book = openpyxl.Workbook()
for value in ["price", *range(1_200), "on request"]:
    book.active.append(["article", value])
book.save("prices.xlsx")
cell = pl.read_excel("prices.xlsx").row(-1)
whole_cell = pl.read_excel("prices.xlsx", infer_schema_length=None).row(-1)
try:
    pl.read_csv(io.StringIO("price\n" + "1\n" * 200 + "2.5\n"))
    refused = False
except pl.exceptions.ComputeError:
    refused = True
print(f"polars {pl.__version__}: last row {plain.row(-1)}, with all rows looked at {whole.row(-1)}; "
      f"last row of the workbook {cell}, with all rows {whole_cell}; read_csv raises: {refused}")
if plain.row(-1) != (2,) or whole.row(-1) != (2.5, "paid") or cell[1] is not None or whole_cell[1] != "on request" or not refused:
    sys.exit("the behaviour has changed")
PY
