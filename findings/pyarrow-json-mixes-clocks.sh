#!/usr/bin/env bash
# pyarrow 26.0.1: `json.read_json` takes texts of times as times, in UTC where a text names an offset and as they are where it
# does not, in one column without a zone. So the same evening, written by two systems, is two hours apart, and which is which is lost.
#
# Expected: what `csv.read_csv` does with the same column: texts where only some name an offset, else times that say UTC.
# Seen: 18:00 and 16:00 in `timestamp[s]`; and of a list of days with one time in it, the time is of the next day.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PY'
import io
import json
import sys

from pyarrow import csv
from pyarrow import json as arrow_json

columns = {
    "some": ["2026-07-02T18:00:00", "2026-07-02T18:00:00+02:00"],
    "all": ["2026-07-02T18:00:00+02:00", "2026-07-02T18:00:00-05:00"],
    "days": ["2026-07-02", "2026-07-02T23:00:00-05:00"],
}
seen = {}
for name, texts in columns.items():
    lines = "".join(json.dumps({"at": text}) + "\n" for text in texts)
    by_json = arrow_json.read_json(io.BytesIO(lines.encode()))["at"]
    by_csv = csv.read_csv(io.BytesIO("\n".join(["at", *texts]).encode()))["at"]
    seen[name] = [f"{column.type}: {', '.join(map(str, column))}" for column in (by_json, by_csv)]
    print(name, texts, "JSON", seen[name][0], "CSV", seen[name][1], sep="\n  ")
if [by_json for by_json, _ in seen.values()] != [
    "timestamp[s]: 2026-07-02 18:00:00, 2026-07-02 16:00:00",
    "timestamp[s]: 2026-07-02 16:00:00, 2026-07-02 23:00:00",
    "timestamp[s]: 2026-07-02 00:00:00, 2026-07-03 04:00:00",
]:
    sys.exit("the behaviour has changed")
if [by_csv.split(":")[0] for _, by_csv in seen.values()] != ["string", "timestamp[s, tz=UTC]", "string"]:
    sys.exit("the behaviour has changed")
PY
