#!/usr/bin/env bash
# Polars 2.1.0: `to_arrow` and the Arrow C stream of a frame give a column of Python objects as `fixed_size_binary[8]`:
# eight bytes a row that say nothing of the object, where `to_dicts` of the same frame has the objects.
#
# Expected: an error that names the column and its type, since Arrow has none for it.
# Seen: two fractions become bytes, without an error or a warning, and are read so by all that
# takes a frame by Arrow (here pyarrow 26.0.1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 polars==2.1.0
cd "$folder"
venv/bin/python - <<'PY'
import sys
from fractions import Fraction

import polars
import pyarrow

frame = polars.DataFrame({"price": polars.Series([Fraction(1, 3), Fraction(5, 2)], dtype=polars.Object)})
kept = [row["price"] for row in frame.to_dicts()]
types = [str(table.schema.field("price").type) for table in (frame.to_arrow(), pyarrow.table(frame))]
lengths = [len(value) for value in pyarrow.table(frame).column("price").to_pylist()]
print(f"polars {polars.__version__}: to_dicts {kept}; Arrow {types}, bytes of each value {lengths}")
if kept != [Fraction(1, 3), Fraction(5, 2)] or set(types) != {"fixed_size_binary[8]"} or lengths != [8, 8]:
    sys.exit("the behaviour has changed")
PY
