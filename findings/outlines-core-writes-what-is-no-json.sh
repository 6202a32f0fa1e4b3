#!/usr/bin/env bash
# outlines-core 0.2.14: `build_regex_from_schema` puts parts into the expression without brackets or escapes, so a model
# that is held to it may write what is no JSON, and may not write what the schema asks for.
#
# Expected: each answer that the expression takes is JSON and valid by the schema, or the schema is refused (as `not` is).
# Seen: of {"properties": {"a": {}}, "required": ["a"]} (anything goes for `a`) it takes `null` alone and `{"a":true` without
# an end, not `{"a":1}`; of `pattern: a|b` it takes `"a` and `b"`, not `"b"`; of two objects under `allOf` it takes one behind the
# other, `{"a":1}{"b":2}`; a name with a quotation mark (`inch 5"`) stands unescaped.
# Matters to all who take "constrained" for "can be parsed": pydantic writes `{}` for each field of type Any.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check outlines-core==0.2.14
cd "$folder"
venv/bin/python - <<'PY'
import json
import re
import sys

from outlines_core.json_schema import build_regex_from_schema

CASES = [
    ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, {"null": True, '{"a":true': True, '{"a":1}': False}),
    ({"type": "string", "pattern": "a|b"}, {'"a': True, 'b"': True, '"b"': False}),
    (
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
            ]
        },
        {'{"a":1}{"b":2}': True, '{"a":1,"b":2}': False},
    ),
    (
        {"type": "object", "properties": {'inch 5"': {"type": "integer"}}, "required": ['inch 5"']},
        {'{"inch 5"":1}': True, '{"inch 5\\"":1}': False},
    ),
]
has_changed = False
for schema, answers in CASES:
    taken = re.compile(build_regex_from_schema(json.dumps(schema)))
    seen = {answer: taken.fullmatch(answer) is not None for answer in answers}
    print(json.dumps(schema), *(f"{answer} {'taken' if is_taken else 'not taken'}" for answer, is_taken in seen.items()), sep="\n    ")
    has_changed |= seen != answers
if has_changed:
    sys.exit("the behaviour has changed")
PY
