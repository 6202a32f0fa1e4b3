#!/usr/bin/env bash
# json-schema-to-pydantic 0.5.0: rules that a schema keeps under a name (`$ref` to a text or number in `$defs`) are not in the model,
# while the same rules in place are. `additionalProperties` is passed over: values of any type are taken where it names one, and
# what it forbids is dropped. `uniqueItems` makes a list a set, so it loses its order.
#
# Expected: the answers that jsonschema 4.26.0 takes by the schema, unchanged; the features name references and constraints.
# Seen: an amount below its minimum and a currency of five letters are taken under a name and refused in place; {"b": "x"} is taken
# for a map of whole numbers; the key "tip" is gone from what forbids it; the priorities 3, 1, 2 are 1, 2, 3.
# Matters to whoever checks a model's answer by such a class: what is wrong passes, and what is right is changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check json-schema-to-pydantic==0.5.0 pydantic==2.14.4 jsonschema==4.26.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

from json_schema_to_pydantic import create_model
from jsonschema import Draft202012Validator
from pydantic import ValidationError

AMOUNT, CURRENCY = {"type": "number", "minimum": 0}, {"type": "string", "maxLength": 3}
whole = {"type": "integer"}
CASES = {
    "in place": ({"total": AMOUNT, "currency": CURRENCY}, {}, {"total": -5.0, "currency": "euros"}),
    "by name": (
        {"total": {"$ref": "#/$defs/Amount"}, "currency": {"$ref": "#/$defs/Currency"}},
        {"$defs": {"Amount": AMOUNT, "Currency": CURRENCY}},
        {"total": -5.0, "currency": "euros"},
    ),
    "map": ({"pieces": {"type": "object", "additionalProperties": whole}}, {}, {"pieces": {"b": "x"}}),
    "forbidden": ({"total": AMOUNT}, {"additionalProperties": False}, {"total": 5.0, "tip": 1.0}),
    "priorities": ({"order": {"type": "array", "items": whole, "uniqueItems": True}}, {}, {"order": [3, 1, 2]}),
}
seen = {}
for name, (properties, rest, answer) in CASES.items():
    schema = {"type": "object", "title": "Bill", "properties": properties, "required": [*properties], **rest}
    try:
        model = create_model(schema).model_validate(answer).model_dump(mode="json")
    except ValidationError:
        model = None
    seen[name] = Draft202012Validator(schema).is_valid(answer), model
    print(name, answer, "valid" if seen[name][0] else "invalid", "becomes", model)
if seen != {
    "in place": (False, None),
    "by name": (False, {"total": -5.0, "currency": "euros"}),
    "map": (False, {"pieces": {"b": "x"}}),
    "forbidden": (False, {"total": 5.0}),
    "priorities": (True, {"order": [1, 2, 3]}),
}:
    sys.exit("the behaviour has changed")
PY
