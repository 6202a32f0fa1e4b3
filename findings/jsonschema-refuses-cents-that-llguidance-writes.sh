#!/usr/bin/env bash
# llguidance 1.9.1 and jsonschema 4.26.0: an amount of money under `{"type": "number", "multipleOf": 0.01}`. A model that
# llguidance holds to the schema may write 0.07 or 19.99; jsonschema then refuses the answer by that very schema.
#
# Expected: what the one lets a model write by a schema is valid by it for the other.
# Seen: llguidance takes all of 0.00 to 99.99; jsonschema says "0.07 is not a multiple of 0.01" and refuses 1,363 of these
# 10,000, since it divides binary fractions. With `parse_float=Decimal` and a step that is a Decimal it takes them all.
# Matters to whoever checks constrained answers again: every seventh bill fails at random, and asking again does not help.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check llguidance==1.9.1 jsonschema==4.26.0 numpy==2.3.5
cd "$folder"
venv/bin/python - <<'PY'
import json
import sys
from decimal import Decimal

from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer

SCHEMA = {"type": "number", "multipleOf": 0.01}
start = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_json_schema(SCHEMA))
validator = Draft202012Validator(SCHEMA)
exact = Draft202012Validator({"type": "number", "multipleOf": Decimal("0.01")})
written = refused = refused_exactly = 0
for cents in range(10_000):
    text = f"{cents // 100}.{cents % 100:02}"
    matcher = start.deep_copy()
    written += matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()
    refused += not validator.is_valid(json.loads(text))
    refused_exactly += not exact.is_valid(json.loads(text, parse_float=Decimal))
print(f"of 10,000 amounts llguidance takes {written:,}; jsonschema refuses {refused:,}, with decimals {refused_exactly:,}")
if (written, refused, refused_exactly) != (10_000, 1_363, 0):
    sys.exit("the behaviour has changed")
PY
