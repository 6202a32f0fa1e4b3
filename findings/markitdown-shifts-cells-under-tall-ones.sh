#!/usr/bin/env bash
# markitdown 0.1.9, with markdownify 1.2.3: below a cell that is two rows tall, the cells of the second row move one column to
# the left in its Markdown, of web pages and of Word's tables alike. Cells that are two columns wide keep theirs.
#
# Expected: `|  | 3 | 4 |` under `| Pump | 1 | 2 |`, as trafilatura 2.3.1 and html-to-markdown 3.21.2 write it.
# Seen: `| 3 | 4 |`, so the 3 of the first quarter is an item and the 4 of the second stands in the first, without a word.
# Matters to whoever lets a model read figures from such a table.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'markitdown[docx]==0.1.9' markdownify==1.2.3 python-docx==1.2.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import docx
from markitdown import MarkItDown

ROWS = [["Item", "First", "Second"], ["Pump", "1", "2"], ["", "3", "4"]]
with open("table.html", "w", encoding="utf-8") as page:
    page.write(
        "<html><body><table><tr><th>Item</th><th>First</th><th>Second</th></tr><tr><td rowspan='2'>Pump</td>"
        "<td>1</td><td>2</td></tr><tr><td>3</td><td>4</td></tr></table></body></html>"
    )
document = docx.Document()
table = document.add_table(rows=3, cols=3)
for row, texts in enumerate(ROWS):
    for column, text in enumerate(texts):
        table.cell(row, column).text = text
table.cell(1, 0).merge(table.cell(2, 0))
document.save("table.docx")
last_rows = {}
for name in ("table.html", "table.docx"):
    text = MarkItDown().convert(name).text_content
    print(name, text, sep="\n")
    last_rows[name] = text.strip().splitlines()[-1].split()
if last_rows != dict.fromkeys(last_rows, ["|", "3", "|", "4", "|"]):
    sys.exit("the behaviour has changed")
PY
