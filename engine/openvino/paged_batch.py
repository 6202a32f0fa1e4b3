"""One pass of a paged model, as its context gives it and OpenVINO takes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paddock.engine.system.records import Struct

# Where an IR says in which precision it is computed; one that does not: 32 bits.
PRECISION = ["paddock", "precision"]


class PagedBatch(Struct, frozen=True):
    """One pass: the tokens of its sequences, one after another, and whose cells they see."""

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    n_before: NDArray[np.int32]
    """Cells that each sequence has already."""
    begins: NDArray[np.int32]
    """First token of each sequence in the batch, and the end of the last one."""
    blocks: NDArray[np.int32]
    block_begins: NDArray[np.int32]
    output_rows: NDArray[np.int64]
    """Tokens of the batch whose logits are wanted."""
