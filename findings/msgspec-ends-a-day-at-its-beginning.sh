#!/usr/bin/env bash
# msgspec 0.23.0: a time of day with more than six digits behind the second is rounded, and the last tenth of a microsecond of a
# day becomes its first moment: 23:59:59.9999999, which is `TimeOnly.MaxValue` of .NET as it writes it and stands for "until the
# end of the day", is 00:00. An opening time "00:00 to 23:59:59.9999999" lasts no time at all.
#
# Expected: 23:59:59.999999, as pydantic 2.14.4 has it, or an error, as msgspec has it for the last moment of the year 9999.
# Seen: 00:00:00 from JSON, MessagePack and `convert`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check msgspec==0.23.0 pydantic==2.14.4
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import sys

import msgspec
import pydantic

last = "23:59:59.9999999"
seen = [
    msgspec.json.decode(f'"{last}"', type=datetime.time),
    msgspec.msgpack.decode(msgspec.msgpack.encode(last), type=datetime.time),
    msgspec.convert(last, datetime.time),
]
right = pydantic.TypeAdapter(datetime.time).validate_python(last)
try:
    msgspec.convert(f"9999-12-31T{last}", datetime.datetime)
    refused = ""
except msgspec.ValidationError as error:
    refused = str(error)
print(f"msgspec {msgspec.__version__}:", *seen, "pydantic:", right, "the last moment of all:", refused)
if seen != [datetime.time(0)] * 3 or right != datetime.time(23, 59, 59, 999_999) or not refused:
    sys.exit("the behaviour has changed")
PY
