#!/usr/bin/env bash
# pypdfium2 5.15.2 (PDFium 159.0.8149): the bounds of a path that was turned are those of a box around its former bounds, not of its points.
#
# A line from (0, 0) to (100, 100) is turned by -45 degrees with `FPDFPageObj_Transform`: it is level, and 141 points long.
# Expected: bounds that are as high as the line is thick (1 point).
# Seen: a square of 145 points. Whoever looks for level lines by their bounds, as for those of tables, finds none on a page that was turned.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pypdfium2==5.15.2
cd "$folder"
venv/bin/python - <<'PY'
import sys
from ctypes import c_float
from math import sqrt

from pypdfium2 import raw

raw.FPDF_InitLibrary()
line = raw.FPDFPageObj_CreateNewPath(0, 0)
raw.FPDFPath_LineTo(line, 100, 100)
raw.FPDFPath_SetDrawMode(line, 0, True)
raw.FPDFPageObj_SetStrokeWidth(line, 1)
a = sqrt(0.5)
raw.FPDFPageObj_Transform(line, a, -a, a, a, 0, 0)
left, bottom, right, top = (c_float() for _ in range(4))
raw.FPDFPageObj_GetBounds(line, left, bottom, right, top)
print("width", round(right.value - left.value, 1), "height", round(top.value - bottom.value, 1))
if round(right.value - left.value) < 140 or top.value - bottom.value < 100:
    sys.exit("the behaviour has changed")
PY
