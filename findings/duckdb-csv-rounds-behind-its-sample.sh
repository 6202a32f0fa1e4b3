#!/usr/bin/env bash
# DuckDB 2.0.1: `read_csv` finds a column's type in the first 20,480 rows. Where those are whole numbers, a later
# "1.50" is rounded to 2 and a later "0.49" to 0, without an error or a rejected row, although a value that is no
# number at all ("n/a") is refused with an error.
#
# Expected: an error, as for "n/a", or a column of decimals.
# Seen: BIGINT, 2 and 0; with `sample_size = -1` (all rows are looked at) a DOUBLE column with 1.5 and 0.49.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1
cd "$folder"
venv/bin/python - <<'PY'
import sys
from pathlib import Path

import duckdb

whole = "".join(f"{row},{row}\n" for row in range(30_000))
Path("late.csv").write_text("row,price\n" + whole + "30000,1.50\n30001,0.49\n")
Path("word.csv").write_text("row,price\n" + whole + "30000,n/a\n")
last = "order by row desc limit 2"
plain = duckdb.sql(f"select price from read_csv('late.csv') {last}")
whole_file = duckdb.sql(f"select price from read_csv('late.csv', sample_size = -1) {last}")
seen, right = [row[0] for row in plain.fetchall()], [row[0] for row in whole_file.fetchall()]
try:
    duckdb.sql(f"select price from read_csv('word.csv') {last}").fetchall()
    refused = False
except duckdb.ConversionException:
    refused = True
print(f"duckdb {duckdb.__version__}: {plain.types[0]} {seen}; all rows looked at: {whole_file.types[0]} {right}; a word is refused: {refused}")
if seen != [0, 2] or right != [0.49, 1.5] or not refused:
    sys.exit("the behaviour has changed")
PY
