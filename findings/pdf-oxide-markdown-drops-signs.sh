#!/usr/bin/env bash
# pdf_oxide 0.3.78: `to_markdown` takes a sign that stands apart from its number for the mark of a list and drops it: before the
# number (as Excel's accounting format writes it), behind it (as bank statements do) and between two numbers.
#
# Expected: "- 5.00", "1,250.00 -", "5 - 10 days", as its own `extract_text` and pdfplumber 0.11.10 have them.
# Seen: "5.00", "1,250.00", "5 10 days"; "+ 5.00" loses its sign, too. In one string with its number, the sign is kept.
# Matters to whoever lets a model add up a statement: a refund is a payment.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pdf_oxide==0.3.78 pdfplumber==0.11.10 reportlab==5.1.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import pdf_oxide
import pdfplumber
from reportlab.pdfgen import canvas

PAGES = [
    [(50, "-"), (70, "5.00")],
    [(50, "+"), (70, "5.00")],
    [(50, "Rent"), (300, "1,250.00"), (350, "-")],
    [(50, "5"), (65, "-"), (80, "10 days")],
    [(50, "Rent 1,250.00 -")],
]
seen = []
for words in PAGES:
    page = canvas.Canvas("page.pdf")
    page.setFont("Helvetica", 10)
    for x, word in words:
        page.drawString(x, 700, word)
    page.save()
    document = pdf_oxide.PdfDocument("page.pdf")
    right = " ".join(word for _, word in words)
    if not right == document.extract_text(0).strip() == pdfplumber.open("page.pdf").pages[0].extract_text():
        sys.exit("the plain text has changed")
    seen.append(document.to_markdown(0).strip())
    print(f"{right!r} becomes {seen[-1]!r}")
if seen != ["5.00", "5.00", "Rent 1,250.00", "5 10 days", "Rent 1,250.00 -"]:
    sys.exit("the behaviour has changed")
PY
