"""NumPy array types that the engine's modules exchange."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
"""Token ids, positions or sequence ids, shape (n,)."""

Logits = NDArray[np.float32]
"""Next-token logits, shape (n_rows, n_vocab) or one row of it."""

Vectors = NDArray[np.float32]
"""Embeddings, shape (n_texts, n_dimensions) or one row of it."""
