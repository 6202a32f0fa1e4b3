#!/usr/bin/env bash
# babel 2.19.0: `parse_time` knows "am" and "pm" only, not the words of the locale that it is asked for: "3:45 p.m.", as its own
# `format_time` writes it for Canada and Mexico, is a time of the morning; so is it in Greek and Korean, and "12:05 a.m." is noon.
#
# Expected: 15:45 and 00:05, as for the USA's "3:45 PM" and "12:05 AM"; or an error, as for a text without numbers.
# Seen: 03:45 and 12:05.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check babel==2.19.0
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import sys

from babel.dates import format_time, parse_time

wrong = {}
for locale in ("en_US", "en_CA", "es_MX", "el_GR", "ko_KR"):
    for time in (datetime.time(15, 45), datetime.time(0, 5), datetime.time(9, 30)):
        text = format_time(time, "short", locale=locale)
        read = parse_time(text, locale=locale, format="short")
        print(locale, repr(text), read, "" if read == time else f"is {time}")
        if read != time:
            wrong.setdefault(str(read), []).append(locale)
if wrong != {"03:45:00": ["en_CA", "es_MX", "el_GR", "ko_KR"], "12:05:00": ["en_CA", "es_MX", "el_GR", "ko_KR"]}:
    sys.exit("the behaviour has changed")
PY
