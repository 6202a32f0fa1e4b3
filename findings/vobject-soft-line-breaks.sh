#!/usr/bin/env bash
# vobject 0.9.9 and icalendar 7.3.2: a contact of version 2.1 (which old telephones and Outlook export) whose value is
# quoted-printable with a soft line break, as the standard has it, cannot be read.
#
# Expected: NOTE is "Rent for the shop: 640,00 EUR".
# Seen: vobject raises ParseError at the second physical line of the value; icalendar's content lines end the value at
# the "=" and refuse the rest as a line of its own. Join soft line breaks before either library sees the text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vobject==0.9.9 icalendar==7.3.2
"$folder/venv/bin/python" - <<'PY'
import sys
import vobject
from icalendar.parser import Contentlines

card = (
    "BEGIN:VCARD\r\nVERSION:2.1\r\nN:Gull;Ann\r\nFN:Ann Gull\r\n"
    "NOTE;ENCODING=QUOTED-PRINTABLE:Rent for the shop: 64=\r\n0,00 EUR\r\nEND:VCARD\r\n"
)
try:
    seen = vobject.readOne(card).note.value
except vobject.base.ParseError as error:
    seen = f"ParseError: {error}"
print("vobject:", seen)
lines = [line for line in Contentlines.from_ical(card) if line.startswith(("NOTE", "0"))]
try:
    parts = [line.parts()[2] for line in lines]
except ValueError as error:
    parts = [lines[0].parts()[2], f"ValueError: {error}"]
print("icalendar:", parts)
if not seen.startswith("ParseError") or not parts[0].endswith("64=") or "ValueError" not in parts[1]:
    sys.exit("the behaviour has changed")
PY
