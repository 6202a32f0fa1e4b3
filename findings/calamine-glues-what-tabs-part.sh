#!/usr/bin/env bash
# python-calamine 0.9.1: of a text in an ODS sheet, tabs and line breaks (`text:tab`, `text:line-break`, as ODF writes them) are
# gone without so much as a space, although runs of blanks (`text:s`) are kept; so two amounts in a cell become one. And of two
# durations in a column, the one below 24 hours is a `time`, the other the text "PT36H00M00S"; of an XLSX sheet it is a timedelta.
#
# Expected: "12.50\t7.00" and "Invoice\n2026", as ezodf 0.3.2 has them; a timedelta of 36 hours.
# Seen: "12.507.00", "Invoice2026", and a text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check python-calamine==0.9.1 ezodf==0.3.2 lxml==6.1.3 openpyxl==3.1.5
cd "$folder"
venv/bin/python - <<'PY'
import datetime
import sys
import zipfile

import ezodf
import openpyxl
import python_calamine

spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text"))
texts = ("12.50<text:tab/>7.00", "Invoice<text:line-break/>2026", 'a<text:s text:c="2"/>b')
times = ("PT12H00M00S", "PT36H00M00S")
cells = [f'<table:table-cell office:value-type="string"><text:p>{text}</text:p></table:table-cell>' for text in texts]
cells += [f'<table:table-cell office:value-type="time" office:time-value="{time}"/>' for time in times]
body = f'<table:table table:name="S"><table:table-row>{"".join(cells)}</table:table-row></table:table>'
kind = "application/vnd.oasis.opendocument.spreadsheet"
files = {
    "content": f"<office:body><office:spreadsheet>{body}</office:spreadsheet></office:body>",
    "styles": "",
    "meta": "",
    "settings": "",
}
listed = "".join(f'<m:file-entry m:full-path="{name}.xml" m:media-type="text/xml"/>' for name in files)
with zipfile.ZipFile("sheet.ods", "w") as file:
    file.writestr("mimetype", kind)
    file.writestr(
        "META-INF/manifest.xml",
        '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0" m:version="1.2">'
        f'<m:file-entry m:full-path="/" m:media-type="{kind}"/>{listed}</m:manifest>',
    )
    for name, part in files.items():
        root = f"office:document-{name}"
        file.writestr(f"{name}.xml", f'<{root} {spaces} office:version="1.2">{part}</{root}>')
book = openpyxl.Workbook()
for column, hours in enumerate((12, 36), 1):
    book.active.cell(1, column, datetime.timedelta(hours=hours)).number_format = "[h]:mm:ss"
book.save("sheet.xlsx")


def row(path: str) -> list[object]:
    return python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()[0]


seen, of_xlsx = row("sheet.ods"), row("sheet.xlsx")
right = [cell.value for cell in next(iter(ezodf.opendoc("sheet.ods").sheets[0].rows()))]
print("calamine, ODS:", seen, "ezodf:", right, "calamine, XLSX:", of_xlsx, sep="\n")
if seen != ["12.507.00", "Invoice2026", "a  b", datetime.time(12, 0), "PT36H00M00S"]:
    sys.exit("the behaviour has changed")
if right[:3] != ["12.50\t7.00", "Invoice\n2026", "a  b"] or of_xlsx != [datetime.timedelta(hours=12), datetime.timedelta(hours=36)]:
    sys.exit("the behaviour has changed")
PY
