#!/usr/bin/env bash
# pandas 3.1.1 with odfpy 1.4.1: `read_excel` of an ODS sheet takes truth and time from what a cell shows, not from its value
# (`office:boolean-value`, `office:time-value`), and a comment counts as shown. So each TRUE of a German sheet (WAHR) is
# False, an English one is as soon as somebody comments on it, 10 minutes and 30 seconds shown as 10:30 are half past ten, and
# seconds that are not shown are gone.
#
# Expected: True three times, 00:10:30 and 12:30:15, as `engine="calamine"` (0.9.1) has it.
# Seen: True, False, False, 10:30 and 12:30, without a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 odfpy==1.4.1 python-calamine==0.9.1
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import sys
import zipfile

import pandas

NAMES = ("office", "table", "text")
spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in NAMES)
true, comment = 'boolean" office:boolean-value="true', "<office:annotation><text:p>really?</text:p></office:annotation>"
cells = [
    (true, "", "TRUE"),
    (true, "", "WAHR"),
    (true, comment, "TRUE"),
    ('time" office:time-value="PT00H10M30S', "", "10:30"),
    ('time" office:time-value="PT12H30M15S', "", "12:30"),
]
row = "".join(
    f'<table:table-cell office:value-type="{value}">{note}<text:p>{shown}</text:p></table:table-cell>' for value, note, shown in cells
)
body = f'<table:table table:name="S"><table:table-row>{row}</table:table-row></table:table>'
kind = "application/vnd.oasis.opendocument.spreadsheet"
listed = "".join(
    f'<m:file-entry m:full-path="{path}" m:media-type="{media}"/>' for path, media in (("/", kind), ("content.xml", "text/xml"))
)
with zipfile.ZipFile("sheet.ods", "w") as file:
    file.writestr("mimetype", kind)
    file.writestr(
        "META-INF/manifest.xml",
        f'<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0" m:version="1.2">{listed}</m:manifest>',
    )
    file.writestr(
        "content.xml",
        f'<office:document-content {spaces} office:version="1.2"><office:body><office:spreadsheet>{body}'
        "</office:spreadsheet></office:body></office:document-content>",
    )
seen, right = (
    pandas.read_excel("sheet.ods", engine=engine, header=None).iloc[0].tolist() for engine in ("odf", "calamine")
)
print(f"pandas {pandas.__version__}: odf {seen}, calamine {right}")
if seen != [True, False, False, datetime.time(10, 30), datetime.time(12, 30)]:
    sys.exit("the behaviour has changed")
if right != [True, True, True, datetime.time(0, 10, 30), datetime.time(12, 30, 15)]:
    sys.exit("the behaviour has changed")
PY
