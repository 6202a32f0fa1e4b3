#!/usr/bin/env bash
# usearch 2.26.6: an index with `dtype="i8"` scales each vector to length 127 on its way in, whatever the metric. For cosine
# that changes nothing; by squared distance (`l2sq`) and inner product (`ip`) other neighbours are the nearest.
#
# Expected: the neighbours of `dtype="f32"` up to rounding, an error that i8 needs `cos`, or one scale for all vectors.
# Seen: nearest to (10, 0) by `l2sq` are (60, 0) and (1, 0), both at distance 0, before (10, 1); by `ip` (1, 0) is as near as
# (60, 0). `get` shows [127, 0] for (60, 0). If the same numbers are handed over as int8, the neighbours are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check usearch==2.26.6 numpy==2.3.5
cd "$folder"
venv/bin/python - <<'PY'
import sys

import numpy
from usearch.index import Index

VECTORS = {1: [1, 0], 2: [10, 1], 3: [60, 0]}


def nearest(metric: str, dtype: str, handed_over: str) -> list[tuple[int, float]]:
    index = Index(ndim=2, metric=metric, dtype=dtype)
    index.add(numpy.array([*VECTORS]), numpy.array([*VECTORS.values()], handed_over))
    matches = index.search(numpy.array([10, 0], handed_over), 3)
    print(metric, dtype, "from", handed_over, [*zip(matches.keys.tolist(), matches.distances.tolist())], index.get(3).tolist())
    return [(int(key), float(distance)) for key, distance in zip(matches.keys, matches.distances)]


for metric, order in (("l2sq", [2, 1, 3]), ("ip", [3, 2, 1])):
    exact, small, given = (nearest(metric, *types) for types in (("f32", "float32"), ("i8", "float32"), ("i8", "int8")))
    of_small = dict(small)
    if [key for key, _ in exact] != order or given != exact or of_small[1] != of_small[3] or small[-1][0] != 2:
        sys.exit("the behaviour has changed")
PY
