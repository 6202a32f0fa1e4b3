#!/usr/bin/env bash
# DuckDB 2.0.1: a number inside JSON goes through a 64-bit float on its way to a text, so `->>`, `->`, `json_extract` and a
# VARCHAR column of `read_json` give other digits than stand there, and what is cast from them to DECIMAL has lost its cents.
# `from_json`, a cast of the number itself and a DECIMAL column of `read_json` keep every digit.
#
# Expected: 12345678901234567.89 every time, or an error; and 1.10, as the document writes it.
# Seen: 12345678901234568.00 by `->>` and 1.2345678901234568e+16 in a text column; 1.1.
# Matters to whoever takes amounts or identifiers out of JSON by `->>`, which is the usual way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1
cd "$folder"
venv/bin/python - <<'PY'
import sys
from decimal import Decimal
from pathlib import Path

import duckdb

document = '{"total": 12345678901234567.89, "price": 1.10}'
Path("bills.json").write_text(document)


def ask(query: str) -> list[object]:
    return list(duckdb.execute(query, {"document": document} if "$document" in query else None).fetchone())


arrow = ask("select ($document::json->>'total')::decimal(20, 2), $document::json->>'price', ($document::json->'total')::varchar")
whole = ask("""select from_json($document, '{"total": "DECIMAL(20,2)"}').total, ($document::json)::varchar""")
texts = ask("select * from read_json('bills.json', columns = {total: 'VARCHAR', price: 'VARCHAR'})")
amounts = ask("select * from read_json('bills.json', columns = {total: 'DECIMAL(20,2)', price: 'DECIMAL(20,2)'})")
print(f"duckdb {duckdb.__version__}", arrow, texts, whole, amounts, sep="\n")
right = Decimal("12345678901234567.89")
if arrow != [Decimal("12345678901234568.00"), "1.1", "12345678901234568.0"] or texts != ["1.2345678901234568e+16", "1.1"]:
    sys.exit("the behaviour has changed")
if whole != [right, document] or amounts != [right, Decimal("1.10")]:
    sys.exit("the behaviour has changed")
PY
