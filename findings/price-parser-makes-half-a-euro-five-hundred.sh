#!/usr/bin/env bash
# price-parser 0.5.1: an amount with three digits behind its only separator is read as thousands, also where it begins with
# a zero, which no number of thousands does; and the sign of an amount is dropped, however it is written.
#
# Expected: 0.312 (a price of a kilowatt hour), and -5.00 of a credit note.
# Seen: `0,312 EUR/kWh` is 312 and `0.500 EUR` is 500; `-5,00 €`, `5,00- €` and `(5.00)` are 5.00.
# With `decimal_separator=","` the first is 0.312; the sign is lost all the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check price-parser==0.5.1
cd "$folder"
venv/bin/python - <<'PY'
import sys

from price_parser import Price

texts = ["0,312 EUR/kWh", "0.500 EUR", "-5,00 €", "5,00- €", "(5.00)"]
seen = [str(Price.fromstring(text).amount) for text in texts]
told = [str(Price.fromstring(text, decimal_separator=",").amount) for text in ("0,312 EUR/kWh", "-5,00 €")]
print(dict(zip(texts, seen, strict=True)), "with decimal_separator:", told)
if seen != ["312", "500", "5.00", "5.00", "5.00"] or told != ["0.312", "5.00"]:
    sys.exit("the behaviour has changed")
PY
