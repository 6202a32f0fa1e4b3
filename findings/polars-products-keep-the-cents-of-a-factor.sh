#!/usr/bin/env bash
# polars 2.1.0: a product or quotient of decimals in an expression has no more places than the factor with the most, and each row
# is rounded to them: 0.05 * 0.50 is 0.02, and 0.05 / 3 is 0.02 too. The SQL of the same frame keeps 4 places of a product and 8 of
# a quotient.
#
# Expected: 3.8993 for a hundred lines of 0.05 * 0.50 and one of 19.99 * 0.07, as polars' own SQL, pyarrow 26.0.1 and DuckDB 2.0.1
# have it.
# Seen: 3.40, with no warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1 duckdb==2.0.1
cd "$folder"
venv/bin/python - <<'PY'
import sys
from decimal import Decimal

import duckdb
import polars
import pyarrow.compute

lines = {"price": [Decimal("0.05")] * 100 + [Decimal("19.99")], "share": [Decimal("0.50")] * 100 + [Decimal("0.07")]}
frame = polars.DataFrame(lines, schema=dict.fromkeys(lines, polars.Decimal(10, 2)))
table = frame.to_arrow()
product = polars.col("price") * polars.col("share")
sums = {
    "Python": sum(price * share for price, share in zip(*lines.values())),
    "polars": frame.select(product.sum()).item(),
    "polars SQL": frame.sql("SELECT sum(price * share) FROM self").item(),
    "pyarrow": pyarrow.compute.sum(pyarrow.compute.multiply(table["price"], table["share"])).as_py(),
    "DuckDB": duckdb.from_arrow(table).sum("price * share").fetchall()[0][0],
}
row = frame[:1].select(product.alias("product"), quotient=polars.col("price") / 3).row(0)
by_sql = frame[:1].sql("SELECT price * share, price / 3 FROM self").row(0)
print(*sums.items(), f"0.05 * 0.50 and 0.05 / 3: {row}, by SQL {by_sql}", sep="\n")
exact = sums.pop("Python")
if sums.pop("polars") != Decimal("3.40") or set(sums.values()) != {exact} or exact != Decimal("3.8993"):
    sys.exit("the behaviour has changed")
if row != (Decimal("0.02"), Decimal("0.02")) or by_sql != (Decimal("0.0250"), Decimal("0.01666667")):
    sys.exit("the behaviour has changed")
PY
