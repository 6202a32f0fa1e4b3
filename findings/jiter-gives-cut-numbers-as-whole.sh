#!/usr/bin/env bash
# jiter 0.19.0 (which pydantic and the clients of OpenAI and Anthropic read unfinished JSON with): `partial_mode="on"`
# leaves out a string or a word that the stream has not ended, yet gives the digits of a number that have come so far
# as if they were the number. So while `{"total": 1250}` arrives, the total is 1, 12, 125 and then 1250, and no reader
# can tell that the first three are not it; "12." is left out again.
#
# Expected: a number that nothing follows is left out, as a string without its closing quote is.
# Seen: below.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jiter==0.19.0
cd "$folder"
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

import jiter


def readings(text: str) -> list[object]:
    """Each different reading of *text* while it arrives byte by byte."""
    seen: list[object] = []
    for end in range(1, len(text) + 1):
        reading = jiter.from_json(text[:end].encode(), partial_mode="on")
        if reading not in seen:
            seen.append(reading)
    return seen


number, word, string = readings('{"total": 1250}'), readings('{"paid": true}'), readings('{"name": "Anna"}')
print(f"jiter {version('jiter')}: {number}; {word}; {string}")
if (
    number != [{}, {"total": 1}, {"total": 12}, {"total": 125}, {"total": 1250}]
    or word != [{}, {"paid": True}]
    or string != [{}, {"name": "Anna"}]
    or jiter.from_json(b'{"total": 12.', partial_mode="on") != {}
):
    sys.exit("the behaviour has changed")
PY
