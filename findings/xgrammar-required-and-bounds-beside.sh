#!/usr/bin/env bash
# xgrammar 0.2.9: parts of a JSON schema that hold by the standard are passed over, without an error or the warning that
# other unsupported keywords get, so a model held to the schema writes what the schema forbids:
#   - `required` names a key that `properties` has not;
#   - a bound stands beside `$ref`, `enum` or `anyOf`;
#   - a value in `enum` is of another type than `type` says.
#
# Expected: the answer is impossible, as with llguidance 1.9.1, or the schema is refused.
# Seen: xgrammar takes all five answers, jsonschema 4.26.0 and llguidance refuse each.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xgrammar==0.2.9 llguidance==1.9.1 jsonschema==4.26.0
cd "$folder"
venv/bin/python - <<'PY'
import json
import sys
from importlib.metadata import version

import jsonschema
import xgrammar
from llguidance import LLMatcher, LLTokenizer

whole = {"a": {"type": "integer"}}
CASES = [
    ({"type": "object", "properties": whole, "required": ["a", "b"]}, '{"a":1}'),
    ({"$ref": "#/$defs/count", "minimum": 5, "$defs": {"count": {"type": "integer"}}}, "1"),
    ({"type": "integer", "enum": [1, 2, 3], "minimum": 2}, "1"),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}], "minimum": 5}, "1"),
    ({"type": "string", "enum": ["a", 1]}, "1"),
]
vocabulary = [bytes([byte]) for byte in range(256)] + ["<end>"]
tokens = xgrammar.TokenizerInfo(vocabulary, vocab_type=xgrammar.VocabType.RAW, vocab_size=257, stop_token_ids=[256])
compiler, others = xgrammar.GrammarCompiler(tokens), LLTokenizer("byte")
seen = []
for schema, answer in CASES:
    matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(json.dumps(schema)))
    taken = matcher.accept_string(answer) and matcher.accept_token(256)
    other = LLMatcher(others, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    other_taken = other.try_consume_tokens(list(answer.encode())) == len(answer) and other.is_accepting()
    valid = jsonschema.Draft202012Validator(schema).is_valid(json.loads(answer))
    seen.append((taken, other_taken, valid))
    print(f"{json.dumps(schema)} {answer}: xgrammar {taken}, llguidance {other_taken}, jsonschema {valid}")
print("xgrammar", version("xgrammar"))
if seen != [(True, False, False)] * len(CASES):
    sys.exit("the behaviour has changed")
PY
