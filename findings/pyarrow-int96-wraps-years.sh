#!/usr/bin/env bash
# pyarrow 26.0.1: a Parquet file whose times are INT96 (as Spark, Hive and Impala write them) is read in nanoseconds,
# so 9999-12-31, a usual "no end" date, comes back as a day of 1816, without an error or a warning.
#
# Expected: the day that was written, or an error that it does not fit.
# Seen: 1816-03-29 05:56:08.066277376; with `coerce_int96_timestamp_unit="us"` the right day. (apache/arrow#44112)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import sys
import pyarrow as pa
import pyarrow.parquet as pq

until = datetime.datetime(9999, 12, 31)
table = pa.table({"until": pa.array([until], pa.timestamp("us"))})
pq.write_table(table, "a.parquet", use_deprecated_int96_timestamps=True)
plain = pq.read_table("a.parquet")["until"]
coerced = pq.read_table("a.parquet", coerce_int96_timestamp_unit="us")["until"]
shown = str(plain.cast(pa.string())[0])
print(f"pyarrow {pa.__version__}: written {until}, read {shown} as {plain.type}; coerced {coerced[0]}")
if not shown.startswith("1816-03-29") or coerced[0].as_py() != until:
    sys.exit("the behaviour has changed")
PY
