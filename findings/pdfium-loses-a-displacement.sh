#!/usr/bin/env bash
# pypdfium2 5.15.2 (PDFium 159.0.8149.0): `[(50) -2000 ()] TJ (tak) Tj` writes "50", moves 20 points on, writes an empty
# string, then "tak". PDFium loses the move, so the two words stand side by side and are read as "50tak". groff's PDF
# driver writes its lines like this; man pages come out with their words joined.
#
# Expected: "tak" begins 20 points behind "50", as it does without the empty string, and as pdfplumber 0.11.10 has it.
# Seen: 21.3 instead of 41.3 points from the left, and one word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pypdfium2==5.15.2 pdfplumber==0.11.10
cd "$folder"
venv/bin/python - <<'PY'
import io
import sys

import pdfplumber
import pypdfium2


def page(content: str) -> bytes:
    """Return a PDF of one page with this content stream."""
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 100]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    data, starts = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        starts.append(len(data))
        data += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{start:010} 00000 n \n" for start in starts)
    tail = f"xref\n0 6\n0000000000 65535 f \n{table}trailer\n<</Root 1 0 R/Size 6>>\nstartxref\n{len(data)}\n%%EOF\n"
    return data + tail.encode()


seen = []
for shown in ("[(50) -2000] TJ", "[(50) -2000 ()] TJ"):
    data = page(f"BT /F1 10 Tf 10 50 Td {shown} (tak) Tj ET")
    text = pypdfium2.PdfDocument(data)[0].get_textpage()
    words = text.get_text_range()
    left = round(text.get_charbox(words.index("t"))[0], 1)
    with pdfplumber.open(io.BytesIO(data)) as other:
        peer = round(next(char["x0"] for char in other.pages[0].chars if char["text"] == "t"), 1)
    seen.append((words, left, peer))
    print(f"{shown} (tak) Tj: PDFium {words!r}, 't' at {left}; pdfplumber at {peer}")
print(pypdfium2.version.PYPDFIUM_INFO, pypdfium2.version.PDFIUM_INFO)
if [words.replace(" ", "|") for words, _, _ in seen] != ["50|tak", "50tak"] or round(seen[0][1] - seen[1][1], 1) != 20:
    sys.exit("the behaviour has changed")
PY
