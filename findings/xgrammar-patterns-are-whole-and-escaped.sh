#!/usr/bin/env bash
# xgrammar 0.2.9: `pattern` of a JSON schema is a search in the string's value by the standard. xgrammar (a) takes a
# pattern without `^` and `$` as the whole string, so a model held to `"pattern": "[0-9]"` may write one digit and
# nothing else, and (b) compares it with the string as JSON writes it, so what JSON escapes (a quotation mark, a
# backslash, a line's end) matches no pattern, though `[^a]` or `\s` allow it.
#
# Expected: what jsonschema 4.26.0 and llguidance 1.9.1 take.
# Seen: xgrammar takes the first answer and refuses the others; jsonschema and llguidance take all.
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

CASES = [("[0-9]", "7"), ("[0-9]", "no. 7"), ("^INV", "INV-7"), ("^[^a]$", '"'), (r"^\\$", "\\"), (r"^\s$", "\n")]
vocabulary = [bytes([byte]) for byte in range(256)] + ["<end>"]
tokens = xgrammar.TokenizerInfo(vocabulary, vocab_type=xgrammar.VocabType.RAW, vocab_size=257, stop_token_ids=[256])
compiler, others = xgrammar.GrammarCompiler(tokens), LLTokenizer("byte")
seen = []
for pattern, value in CASES:
    schema, answer = {"type": "string", "pattern": pattern}, json.dumps(value)
    matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(json.dumps(schema)))
    taken = matcher.accept_string(answer) and matcher.accept_token(256)
    other = LLMatcher(others, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    other_taken = other.try_consume_tokens(list(answer.encode())) == len(answer) and other.is_accepting()
    seen.append((taken, other_taken, jsonschema.Draft202012Validator(schema).is_valid(value)))
    print(f"{pattern} {answer}: xgrammar, llguidance, jsonschema {seen[-1]}")
print("xgrammar", version("xgrammar"))
if seen != [(True, True, True)] + [(False, True, True)] * 5:
    sys.exit("the behaviour has changed")
PY
