"""How alike many texts are: a MinHash of each one's phrases, compared where two share a band of it.

Of each text a sketch of 512 bytes is kept. Imported where texts are compared, for NumPy's sake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import rensa  # type: ignore[import-untyped]  # Rust, without types

_N_HASHES = 128
_N_BANDS = 32  # at a Jaccard of 0.7, 2 pairs of 10,000 are missed; at 0.8 none
_SEED = 1
_MOST_OF_BAND = 200  # a form filled in 100,000 times: the nearest are compared
_MOST_COMPARED = 100
Sketches: TypeAlias = npt.NDArray[np.uint32]


def room(n_texts: int) -> Sketches:
    return np.empty((n_texts, _N_HASHES), np.uint32)


def sketches(phrases: Sequence[list[str]]) -> Sketches:
    digests = rensa.RMinHash.digests_from_token_sets(phrases, _N_HASHES, _SEED)
    return np.array(digests, dtype=np.uint32)


def nearest(sketches: Sketches, least: float) -> dict[int, tuple[int, float]]:
    """Return for each sketch the nearest earlier one, the first of several, and how alike.

    Those that share a band are compared (locality-sensitive hashing), of many those that share the
    rarest ones.
    """
    shape = (_N_BANDS, len(sketches))
    order, place, start = (np.empty(shape, np.int32) for _ in range(3))
    for band in range(_N_BANDS):
        width = _N_HASHES // _N_BANDS
        bits = np.ascontiguousarray(sketches[:, band * width : (band + 1) * width])
        _, group = np.unique(bits.view(f"V{4 * width}")[:, 0], return_inverse=True)
        order[band] = np.argsort(group, kind="stable")
        place[band, order[band]] = np.arange(len(sketches))
        first = np.searchsorted(group[order[band]], np.arange(group.max() + 1))
        start[band] = first[group]
    found: dict[int, tuple[int, float]] = {}
    for row in np.flatnonzero((place > start).any(axis=0)):
        ends, begins = place[:, row], np.maximum(start[:, row], place[:, row] - _MOST_OF_BAND)
        shared = [order[band, begins[band] : ends[band]] for band in range(_N_BANDS)]
        earlier, at = np.unique(np.concatenate(shared), return_inverse=True)
        if len(earlier) > _MOST_COMPARED:  # a band that few have says most
            n_rows = ends - start[:, row]
            rarity = np.bincount(at, np.repeat(1 / np.maximum(n_rows, 1), ends - begins))
            earlier = np.sort(earlier[np.argsort(-rarity, kind="stable")[:_MOST_COMPARED]])
        alike = (sketches[earlier] == sketches[row]).mean(axis=1)
        best = int(alike.argmax())
        if alike[best] >= least:
            found[int(row)] = int(earlier[best]), min(round(float(alike[best]), 2), 0.99)
    return found
