#!/usr/bin/env bash
# kreuzberg 4.10.4, undoc 0.27.1, docx2python 3.7.1 and docx2txt 0.9: a paragraph that was moved while Word tracked changes is
# read at its old place (`w:moveFrom`) and at its new one (`w:moveTo`), although all leave out what was deleted
# (`w:del`). And a hyphen that must not break (`w:noBreakHyphen`) is nothing for all but undoc: 2024-05 becomes 202405.
#
# Expected: the text once, where it stands now, as mammoth 1.13.0 has it; 2024-05.
# Seen: twice in all four; 202405 in three. Matters to whoever adds up amounts or compares numbers of files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kreuzberg==4.10.4 undoc==0.27.1 docx2python==3.7.1 docx2txt==0.9 \
    mammoth==1.13.0 python-docx==1.2.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import docx
import docx2python
import docx2txt
import kreuzberg
import mammoth
import undoc
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

BY = 'w:author="A" w:date="2026-01-02T03:04:05Z"'
document = docx.Document()
for content in (
    "<w:r><w:t>File 2024</w:t><w:noBreakHyphen/><w:t>05.</w:t></w:r>"
    f'<w:del w:id="9" {BY}><w:r><w:delText>Deleted.</w:delText></w:r></w:del>',
    f'<w:moveFromRangeStart w:id="1" w:name="m" {BY}/><w:moveFrom w:id="2" {BY}><w:r><w:t>Rent 700.</w:t></w:r></w:moveFrom>'
    '<w:moveFromRangeEnd w:id="1"/>',
    "<w:r><w:t>Between.</w:t></w:r>",
    f'<w:moveToRangeStart w:id="3" w:name="m" {BY}/><w:moveTo w:id="4" {BY}><w:r><w:t>Rent 700.</w:t></w:r></w:moveTo>'
    '<w:moveToRangeEnd w:id="3"/>',
):
    paragraph = document.add_paragraph()
    paragraph._p.extend(list(parse_xml(f"<w:p {nsdecls('w')}>{content}</w:p>")))
document.save("moved.docx")
with open("moved.docx", "rb") as file:
    texts = {"mammoth": mammoth.extract_raw_text(file).value}
texts["kreuzberg"] = kreuzberg.extract_file_sync("moved.docx").content
texts["undoc"] = undoc.parse_file("moved.docx").to_markdown()
texts["docx2python"] = docx2python.docx2python("moved.docx").text
texts["docx2txt"] = docx2txt.process("moved.docx")
seen = {name: (text.count("Rent 700."), "202405" in text, "Deleted" in text) for name, text in texts.items()}
print("name: (times moved text is read, hyphen is lost, deleted text is read)", *seen.items(), sep="\n")
if seen != {
    "mammoth": (1, False, False),
    "kreuzberg": (2, True, False),
    "undoc": (2, False, False),
    "docx2python": (2, True, False),
    "docx2txt": (2, True, False),
}:
    sys.exit("the behaviour has changed")
PY
