#!/usr/bin/env bash
# LanceDB 0.40.0: `add` and `update` make a value fit its column: 6.7 becomes 6 in a column of whole numbers, 1e300 infinity in
# one of float32, the evening of a day that day in one of dates, and the text "no" False. `merge_insert` of the same rows refuses
# them, and `add` refuses what is merely too large (2**40 in int32).
#
# Expected: what `merge_insert` says: "Float value 2.900000 was truncated converting to int64".
# Seen: 6, inf, 2026-01-02, False; 3 after an update with 3.9; no error and no warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lancedb==0.40.0 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import math
import sys

import lancedb
import pyarrow

schema = pyarrow.schema([("id", pyarrow.int32()), ("count", pyarrow.int64()), ("size", pyarrow.float32()), ("day", pyarrow.date32()), ("paid", pyarrow.bool_())])
table = lancedb.connect("store").create_table("rows", schema=schema)
table.add([{"id": 1, "count": 6.7, "size": 1e300, "day": datetime.datetime(2026, 1, 2, 23, 59), "paid": "no"}])
added = table.to_arrow().to_pylist()[0]
table.update(where="id = 1", values={"count": 3.9})
updated = table.to_arrow().to_pylist()[0]["count"]
errors = []
for write in (
    lambda: table.merge_insert("id").when_matched_update_all().execute([{**added, "count": 2.9, "size": 1.0}]),
    lambda: table.add([{**added, "id": 2**40}]),
):
    try:
        write()
    except Exception as error:
        errors.append(str(error).splitlines()[0][:110])
print("added", added, "updated", updated, *errors, sep="\n")
if (added["count"], added["size"], added["day"], added["paid"], updated) != (6, math.inf, datetime.date(2026, 1, 2), False, 3):
    sys.exit("the behaviour has changed")
if len(errors) != 2 or "truncated" not in errors[0]:
    sys.exit("the behaviour has changed")
PY
