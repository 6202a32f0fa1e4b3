#!/usr/bin/env bash
# sqlite-vec 0.1.9: `vec_to_json` writes six digits behind the point whatever the value, so small parts of a vector are 0 and what
# is read back is another vector; and `vec_add` and `vec_sub` of int8 wrap around, so the sum of two vectors points the other way,
# although their distance is counted without wrapping.
#
# Expected: digits enough to read the same vector back, as 1e-7 needs; 200 or 127, or an error, as for `vec_int8('[200]')`.
# Seen: [1.000000,0.000000] for [1,1e-7], and -56 for 100 + 100.
# Matters to whoever moves vectors as JSON, or averages quantised ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sqlite-vec==0.1.9 apsw==3.54.1.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import apsw
import sqlite_vec

connection = apsw.Connection(":memory:")
connection.enable_load_extension(True)
connection.load_extension(sqlite_vec.loadable_path())


def ask(expression: str) -> object:
    return next(iter(connection.execute(f"select {expression}")))[0]


text = ask("vec_to_json('[1, 1e-7]')")
back = ask("vec_f32('[1, 1e-7]') = vec_f32(vec_to_json('[1, 1e-7]'))")
total = ask("vec_to_json(vec_add(vec_int8('[100, 1]'), vec_int8('[100, 1]')))")
angle = ask("vec_distance_cosine(vec_int8('[100, 1]'), vec_add(vec_int8('[100, 1]'), vec_int8('[100, 1]')))")
distance = ask("vec_distance_l1(vec_int8('[100, 1]'), vec_int8('[-100, 1]'))")
try:
    ask("vec_int8('[200]')")
    refused = ""
except apsw.SQLError as error:
    refused = str(error)
print(f"sqlite-vec {ask('vec_version()')}: {text}, the same again: {bool(back)}; {total}, cosine distance {angle:.3f}; {distance}; {refused}")
if text != "[1.000000,0.000000]" or back or total != "[-56,2]" or angle < 1.9 or distance != 200 or not refused:
    sys.exit("the behaviour has changed")
PY
