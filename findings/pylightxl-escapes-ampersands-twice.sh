#!/usr/bin/env bash
# pylightxl 1.61: an ampersand in a text is escaped twice when a workbook is written, `&amp;amp;`, while `<` is escaped
# once; so `Smith & Sons` is `Smith &amp; Sons` for every reader, its own too. A workbook that is read and written again
# has one more each time. True is written as the number "True", which openpyxl 3.1.5 refuses for the whole sheet.
#
# Expected: the text that was given.
# Seen: "Smith &amp; Sons", after the next round "Smith &amp;amp; Sons"; "a < b" as it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pylightxl==1.61 openpyxl==3.1.5
cd "$folder"
venv/bin/python - <<'PY'
import sys

import openpyxl
import pylightxl


def write(texts, name):
    book = pylightxl.Database()
    book.add_ws("names")
    for row, text in enumerate(texts, 1):
        book.ws("names").update_index(row, 1, text)
    pylightxl.writexl(book, name)
    return [cell.value for cell in openpyxl.load_workbook(name)["names"]["A"]]


first = write(["Smith & Sons", "a < b"], "first.xlsx")
own = pylightxl.readxl("first.xlsx").ws("names").col(1)
second = write(own, "second.xlsx")
try:
    write([True], "true.xlsx")
    refused = False
except ValueError:
    refused = True
print(f"pylightxl 1.61: {first}, by its own reader {own}, written again {second}; openpyxl refuses True: {refused}")
if first != ["Smith &amp; Sons", "a < b"] or own != first or second[0] != "Smith &amp;amp; Sons" or not refused:
    sys.exit("the behaviour has changed")
PY
