#!/usr/bin/env bash
# Polars 2.1.0: in its SQL, `IS TRUE`, `IS NOT TRUE`, `IS FALSE` and `IS NOT FALSE` of a NULL are NULL, though these exist to be
# true or false of every value; so a filter drops these rows, and a CASE takes its ELSE.
#
# Expected: what the standard says, and PostgreSQL, which Polars names as what it follows, and DuckDB 2.0.1: bill 3, of which
# nobody knows whether it was paid, is open like bill 2.
# Seen: bill 2 alone; bill 3 is "paid". `IS DISTINCT FROM TRUE` is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 duckdb==2.0.1 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PY'
import sys

import duckdb
import polars

bills = polars.DataFrame({"id": [1, 2, 3], "paid": [True, False, None]})
queries = (
    "select id from bills where paid is not true order by id",
    "select id from bills where paid is not false order by id",
    "select case when paid is not true then 'open' else 'paid' end as state from bills order by id",
    "select paid is true as known from bills order by id",
    "select id from bills where paid is distinct from true order by id",
)
seen = [[row[0] for row in polars.SQLContext(bills=bills).execute(query, eager=True).rows()] for query in queries]
connection = duckdb.connect()
connection.register("bills", bills.to_arrow())
right = [[row[0] for row in connection.sql(query).fetchall()] for query in queries]
for query, by_polars, by_duckdb in zip(queries, seen, right, strict=True):
    print(query, "| polars", by_polars, "| duckdb", by_duckdb)
if seen != [[2], [1], ["paid", "open", "paid"], [True, False, None], [2, 3]]:
    sys.exit("the behaviour has changed")
if right != [[2, 3], [1, 3], ["paid", "open", "open"], [True, False, False], [2, 3]]:
    sys.exit("the behaviour has changed")
PY
