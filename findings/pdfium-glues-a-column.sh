#!/usr/bin/env bash
# pypdfium2 5.15.2 (PDFium 159.0.8149.0) and pdf_oxide 0.3.78: characters that stand alone, one below the other, are read as one
# word, so a column of quantities from 1 to 9 is one large number. PDFium does so whatever the distance and wherever the rest of
# the row stands, if the column is written in one go; pdf_oxide, at the usual distance of lines, even takes in "12".
#
# Expected: 5 and 7 on two lines, as pdfplumber 0.11.10 and pypdf 7.1.1 have them.
# Seen: "57" from lines that are 12, 15 and 20 points apart, and "Qty 57"; "Qty 5712" by pdf_oxide.
# Matters to whoever reads quantities: 57 pieces for 5 and 7, and both are right numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pypdfium2==5.15.2 pdf_oxide==0.3.78 pdfplumber==0.11.10 pypdf==7.1.1 \
    reportlab==5.1.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import pdf_oxide
import pdfplumber
import pypdf
import pypdfium2
from reportlab.pdfgen import canvas

PAGES = {
    "12 points": [(50, 700, "5"), (50, 688, "7")],
    "15 points": [(50, 700, "5"), (50, 685, "7")],
    "20 points": [(50, 700, "5"), (50, 680, "7")],
    "two digits": [(50, 700, "12"), (50, 688, "34")],
    "head": [(50, 700, "Qty"), (50, 688, "5"), (50, 676, "7"), (50, 664, "12")],
    "rows": [(250, 700, "5"), (250, 688, "7"), (50, 700, "Pump"), (50, 688, "Pipe")],
}
seen = {}
for name, words in PAGES.items():
    page = canvas.Canvas("page.pdf")
    page.setFont("Helvetica", 10)
    for x, y, word in words:
        page.drawString(x, y, word)
    page.save()
    texts = (
        pypdfium2.PdfDocument("page.pdf")[0].get_textpage().get_text_range(),
        pdf_oxide.PdfDocument("page.pdf").extract_text(0),
        pdfplumber.open("page.pdf").pages[0].extract_text(),
        pypdf.PdfReader("page.pdf").pages[0].extract_text(),
    )
    seen[name] = [" ".join(text.split()) for text in texts]
    print(name, seen[name])
want = {
    "12 points": ["57", "57", "5 7", "5 7"],
    "15 points": ["57", "5 7", "5 7", "5 7"],
    "20 points": ["57", "5 7", "5 7", "5 7"],
    "two digits": ["12 34", "12 34", "12 34", "12 34"],
    "head": ["Qty 57 12", "Qty 5712", "Qty 5 7 12", "Qty 5 7 12"],
    "rows": ["57 Pump Pipe", "Pump 5 Pipe 7", "Pump 5 Pipe 7", "5 7 Pump Pipe"],
}
if seen != want:
    sys.exit("the behaviour has changed")
PY
