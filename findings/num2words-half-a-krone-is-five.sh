#!/usr/bin/env bash
# num2words 0.5.14: amounts in words are other amounts in Danish and Turkish. Danish takes the 5 of 1.5 for five øre, and of
# `Decimal("12.30")` says "twelve point three øre". Turkish cuts binary fractions, so 19.99 lira have 98 kuruş, calls half a
# lira "bedelsiz" (free of charge), and of `Decimal("12.30")` says "lira" and no number.
#
# Expected: halvtreds øre (50), doksandokuz kuruş (99), elli kuruş (50), as its Norwegian and Romanian have the same amounts.
# Seen: fem (5), doksansekiz (98), bedelsiz, lira; without an error.
# Matters to whoever prints amounts in words beside the figures, where the words count.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check num2words==0.5.14
cd "$folder"
venv/bin/python - <<'PY'
import sys
from decimal import Decimal

from num2words import num2words

seen = {}
for amount in (1.5, 1.05, 19.99, 0.5, Decimal("12.30")):
    for language in ("da", "no", "tr", "ro"):
        seen[language, str(amount)] = words = num2words(amount, lang=language, to="currency")
        print(language, repr(amount), words)
wrong = {
    ("da", "1.5"): "et kr og fem øre",
    ("da", "1.05"): "et kr og fem øre",
    ("tr", "19.99"): "ondokuzliradoksansekizkuruş",
    ("tr", "0.5"): "bedelsiz",
    ("da", "12.30"): "tolv komma tre øre",
    ("tr", "12.30"): "lira",
}
right = {("no", "1.5"): "en krone og femti øre", ("no", "19.99"): "nitten kroner og nittini øre", ("no", "0.5"): "null kroner og femti øre"}
if any(seen[case] != words for case, words in {**wrong, **right}.items()):
    sys.exit("the behaviour has changed")
PY
