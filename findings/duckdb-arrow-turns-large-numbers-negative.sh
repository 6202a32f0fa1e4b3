#!/usr/bin/env bash
# DuckDB 2.0.1: the Arrow table and Polars frame of a relation have -1 for the largest UHUGEINT and a negative number for
# each one from 2**127 on, as `decimal128(38, 0)`, which cannot hold them; and of TIME WITH TIME ZONE the zone is gone.
# `fetchall` gives both as they are, and `df` refuses UHUGEINT by its name.
#
# Expected: an error that names the type, as `df` gives, or a text.
# Seen: -1, -170141183460469231731687303715884105728, and 10:00 where 10:00+02:00 stood, without a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1 polars==2.1.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import duckdb

QUERY = "select 340282366920938463463374607431768211455::uhugeint as most, 170141183460469231731687303715884105728::uhugeint as half, '10:00:00+02'::timetz as at"
(whole,) = duckdb.sql(QUERY).fetchall()
arrow = duckdb.sql(QUERY).to_arrow_table().to_pylist()[0]
polars = duckdb.sql(QUERY).pl().row(0)
print(f"duckdb {duckdb.__version__}: fetchall {whole}; Arrow {arrow}; Polars {polars}")
if (
    whole[:2] != (2**128 - 1, 2**127)
    or whole[2].utcoffset() is None
    or (int(arrow["most"]), int(arrow["half"])) != (-1, -(2**127))
    or arrow["at"].utcoffset() is not None
    or int(polars[0]) != -1
):
    sys.exit("the behaviour has changed")
PY
