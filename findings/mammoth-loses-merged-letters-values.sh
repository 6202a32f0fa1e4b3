#!/usr/bin/env bash
# mammoth 1.13.0, and markitdown 0.1.9 that reads Word files with it: the text of a simple field (`w:fldSimple`, in which
# Word may keep what a mail merge, a reference or a document property put in) is not in the text. Fields of the long form
# (`w:fldChar`) are.
#
# Expected: "Please pay 1,250.00 EUR by 3 May."
# Seen: "Please pay  EUR by 3 May." Among mammoth's messages is one about an element it ignored; markitdown passes on none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mammoth==1.13.0 'markitdown[docx]==0.1.9' python-docx==1.2.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import docx
import mammoth
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from markitdown import MarkItDown


def field(form: str) -> str:
    value = "<w:r><w:t>1,250.00</w:t></w:r>"
    if form == "simple":
        return f'<w:fldSimple w:instr=" MERGEFIELD Total ">{value}</w:fldSimple>'
    mark = '<w:r><w:fldChar w:fldCharType="{}"/></w:r>'
    code = '<w:r><w:instrText xml:space="preserve"> MERGEFIELD Total </w:instrText></w:r>'
    return mark.format("begin") + code + mark.format("separate") + value + mark.format("end")


texts = {}
for form in ("simple", "long"):
    document = docx.Document()
    paragraph = document.add_paragraph("Please pay ")
    paragraph._p.extend(parse_xml(f"<w:p {nsdecls('w')}>{field(form)}</w:p>"))
    paragraph.add_run(" EUR by 3 May.")
    document.save("letter.docx")
    with open("letter.docx", "rb") as letter:
        read = mammoth.extract_raw_text(letter)
    texts[form] = read.value.strip(), MarkItDown().convert("letter.docx").text_content.strip(), len(read.messages)
    print(form, texts[form])
if texts["simple"][0].split() != ["Please", "pay", "EUR", "by", "3", "May."] or "1,250" in texts["simple"][1]:
    sys.exit("the behaviour has changed")
if texts["simple"][2] != 1 or not all("1,250.00" in text for text in texts["long"][:2]):
    sys.exit("the behaviour has changed")
PY
