#!/usr/bin/env bash
# fastparquet 2026.9.0: a DATE column has days, 1677-09-21 to 2262-04-11 fit into the nanoseconds that it multiplies them to, and
# every other day becomes another one, with a time of day. 9999-12-31, with which tables say "until further notice", lies in 1816.
# A TIMESTAMP column of microseconds keeps the same days.
#
# Expected: the day that was written, as pyarrow 26.0.1 and pandas with it read, or an error.
# Seen: 1816-03-29 05:56:08 for 9999-12-31, 1825-06-13 for 2410-01-01 and 2085-07-19 for 1500-12-31, without a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastparquet==2026.9.0 pandas==3.1.1 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import sys

import fastparquet
import pyarrow
import pyarrow.parquet

days = [datetime.date(2026, 3, 1), datetime.date(9999, 12, 31), datetime.date(2410, 1, 1), datetime.date(1500, 12, 31)]
instants = [datetime.datetime.combine(day, datetime.time()) for day in days]
pyarrow.parquet.write_table(pyarrow.table({"day": days, "instant": pyarrow.array(instants, pyarrow.timestamp("us"))}), "rows.parquet")
rows = fastparquet.ParquetFile("rows.parquet").to_pandas()
seen, kept = ([str(value)[:19] for value in rows[name]] for name in ("day", "instant"))
right = pyarrow.parquet.read_table("rows.parquet")["day"].to_pylist()
print(f"fastparquet {fastparquet.__version__}: days {seen}, instants {kept}")
if [day[:4] for day in seen] != ["2026", "1816", "1825", "2085"] or kept != [str(instant) for instant in instants] or right != days:
    sys.exit("the behaviour has changed")
PY
