#!/usr/bin/env bash
# jsonschema 4.26.0: a class with rules of one's own (`validators.extend`) gives way to the plain class at each part that names its
# `$schema`, as bundled schemas do (JSON Schema 2020-12, 9.3). Own keywords are ignored below it, and an own sense of "array" is
# lost, although the part names the very dialect that was extended.
#
# Expected: the same faults with and without `$schema` in the part.
# Seen: the amount that the own keyword refuses is valid, and the tuple that the own type takes is no array.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jsonschema==4.26.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

from jsonschema import Draft202012Validator, ValidationError, validators


def cents(validator, is_wanted, value, schema):
    if is_wanted and round(value, 2) != value:
        yield ValidationError(f"{value} has parts of cents")


types = Draft202012Validator.TYPE_CHECKER.redefine("array", lambda _, value: isinstance(value, (list, tuple)))
Own = validators.extend(Draft202012Validator, {"cents": cents}, type_checker=types)
dialect = Draft202012Validator.META_SCHEMA["$id"]
seen = []
for named in ({}, {"$schema": dialect}):
    parts = {
        "amount": {"$id": "https://example.com/amount", **named, "type": "number", "cents": True},
        "lines": {"$id": "https://example.com/lines", **named, "type": "array"},
    }
    schema = {
        "$schema": dialect,
        "properties": {"amount": {"$ref": "https://example.com/amount"}, "lines": {"$ref": "https://example.com/lines"}},
        "$defs": parts,
    }
    Own.check_schema(schema)
    seen.append([error.message for error in Own(schema).iter_errors({"amount": 9.999, "lines": ("a", "b")})])
print("without:", seen[0], "with $schema:", seen[1], sep="\n")
if seen != [["9.999 has parts of cents"], ["('a', 'b') is not of type 'array'"]]:
    sys.exit("the behaviour has changed")
PY
