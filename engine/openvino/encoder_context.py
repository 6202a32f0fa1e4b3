"""A context of OpenVINO's for an encoder: texts of one batch in, a vector for each out.

It keeps no cells: what a token sees is in the batch with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.llama.library import AllocatedBuffers, DecodeFailed
from paddock.engine.llama.llama_context import ContextOptions

if TYPE_CHECKING:
    from .encoder_model import EncoderModel

# Texts of as many tiles are computed together, padded: each is a few rows of one product, and sees
# itself alone.
_TILE = 16


class EncoderContext:
    """Vectors of the last batch. Only the thread that made it may use it."""

    def __init__(self, encoder: EncoderModel, n_embedding: int, options: ContextOptions) -> None:
        self.options = options
        self.n_pooled = n_embedding
        self.buffers = AllocatedBuffers(Counter(), Counter())
        self._encoder = encoder
        self._vectors: dict[int, Vectors] = {}

    def __enter__(self) -> EncoderContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._vectors = {}

    def clear(self) -> None:
        self._vectors = {}

    def decode(
        self, tokens: Tokens, _pos: Tokens, seq_ids: Tokens, output_mask: NDArray[np.int8]
    ) -> int:
        """Compute the vectors of whole texts. Raises DecodeFailed.

        Tokens that `output_mask` leaves out only fill gaps.
        """
        texts = {
            seq_id: tokens[(seq_ids == seq_id) & (output_mask > 0)]
            for seq_id in np.unique(seq_ids[output_mask > 0]).tolist()
        }
        n_tiles = {seq_id: -(-len(text) // _TILE) for seq_id, text in texts.items()}
        for size in set(n_tiles.values()):
            group = [seq_id for seq_id in texts if n_tiles[seq_id] == size]
            vectors = self._computed([texts[each] for each in group])
            self._vectors |= zip(group, vectors, strict=True)
        return len(texts)

    def _computed(self, texts: Sequence[Tokens]) -> Vectors:
        """Return the vectors of texts of about one length, shape (n_texts, n_embedding)."""
        lengths = np.array([len(text) for text in texts])[:, None]
        place = np.arange(-(-lengths.max() // _TILE) * _TILE)
        tokens = np.zeros((len(texts), len(place)), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text)] = text
        n_counted = np.ones_like(lengths) if self._encoder.pools_first else lengths
        shares = (place < n_counted) / n_counted
        sees = np.where(place < lengths, 0, -np.inf)
        try:
            return self._encoder.compute(tokens, sees.astype(np.float32), shares.astype(np.float32))
        except RuntimeError as error:
            why = str(error).strip().splitlines()[-1]
            raise DecodeFailed(f"OpenVINO cannot compute: {why}") from error

    def embedding(self, seq_id: int) -> Vectors:
        """Return a text's pooled vector, shape (n_embedding,), valid until the next decode."""
        return self._vectors[seq_id]
