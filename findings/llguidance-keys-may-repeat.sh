#!/usr/bin/env bash
# llguidance 1.9.1: keys that a schema leaves to the model (`additionalProperties`) may be written twice, and `minProperties`
# counts them twice. A property that the schema names can be written once only.
#
# Expected: the grammar of `{"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2}` takes an
# object of two properties.
# Seen: it takes `{"a": 1, "a": 2}`. Python's json makes one property of that, the last; jsonschema 4.26.0 then refuses the
# answer for having one property, and without `minProperties` the value 1 is gone without a word.
# Matters to whoever asks a small model, which likes to repeat itself, for a map of free keys.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check llguidance==1.9.1 jsonschema==4.26.0 numpy==2.3.5
cd "$folder"
venv/bin/python - <<'PY'
import json
import sys

from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer


def is_taken(schema, text):
    matcher = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_json_schema(schema))
    return matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()


free = {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2}
named = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "integer"}}
text = '{"a": 1, "a": 2}'
value = json.loads(text)
seen = is_taken(free, text), Draft202012Validator(free).is_valid(value), is_taken(named, text)
print(f"free keys: taken {seen[0]}, its value {value} is valid {seen[1]}; a named key twice: taken {seen[2]}")
if seen != (True, False, False):
    sys.exit("the behaviour has changed")
PY
