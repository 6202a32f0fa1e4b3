"""Compute batches of texts, and make vectors of what the model gives for their pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.errors import TextRefused
from paddock.engine.native.context import Context

from .line import Batch
from .tiles import TILE, batch_size

_FILLER = 0  # any token: nobody reads what becomes of it


class Embedder:
    """Embeds with one context. Only the thread that owns the context may use it."""

    def __init__(self, context: Context, n_least: int = TILE) -> None:
        self._context = context
        self._n_least = n_least
        # The last id is that of the tokens which fill gaps.
        self.n_most_pieces = context.options.n_seq_max - 1

    def n_tokens(self, batch: Batch) -> int:
        """Return the size of a batch with what fills its gaps."""
        return batch_size(list(batch.places), self._n_least)

    def has_room(self, batch: Batch) -> bool:
        """Return whether the context computes the batch at once."""
        return self.n_tokens(batch) <= self._context.options.n_batch_tokens

    def compute(self, batch: Batch) -> Vectors:
        """Give the model's own vectors, shape (n_pieces, n_embedding), in the batch's order.

        Raises:
            DecodeFailed: the context is broken.
        """
        n = self.n_tokens(batch)
        tokens = np.full(n, _FILLER, np.int32)
        pos = np.zeros(n, np.int32)
        seq_ids = np.full(n, self.n_most_pieces, np.int32)
        for seq_id, (piece, places) in enumerate(zip(batch.pieces, batch.places, strict=True)):
            tokens[places] = piece.tokens
            pos[places] = np.arange(len(places), dtype=np.int32)
            seq_ids[places] = seq_id
        self._context.clear()
        self._context.decode(tokens, pos, seq_ids, np.ones(n, np.int8))
        rows = [self._context.embedding(seq_id) for seq_id in range(len(batch.pieces))]
        result: Vectors = np.array(rows, np.float32)
        return result


def finished(
    rows: Vectors, n_tokens: Sequence[int], n_pieces: Sequence[int], dimensions: int | None
) -> Vectors:
    """Make one vector of length 1 for each text.

    Args:
        rows: the model's vectors, shape (n_pieces, n_embedding).
        n_tokens: of each piece; they weigh by them.
        n_pieces: of each text.
        dimensions: how many of the first values are kept.

    Raises:
        TextRefused: a vector has no length, or is not a number.
    """
    owners = np.repeat(np.arange(len(n_pieces)), n_pieces)
    units = _normalised(rows, owners)
    if len(rows) > len(n_pieces):
        weighted = units * np.asarray(n_tokens, np.float32)[:, None]
        units = np.zeros((len(n_pieces), rows.shape[1]), np.float32)
        np.add.at(units, owners, weighted)
        units = _normalised(units, np.arange(len(units)))
    return _normalised(units[:, :dimensions], np.arange(len(units))) if dimensions else units


def scores(rows: Vectors) -> Vectors:
    """Return the first value that a reranker gives for each document, shape (n_documents, 1).

    Raises:
        TextRefused: it is not a number.
    """
    for index, value in enumerate(rows[:, 0].tolist()):
        if not np.isfinite(value):
            raise TextRefused(index, "got a score that is NaN or Inf")
    return rows[:, :1]


def _normalised(
    rows: Vectors, owners: Tokens | np.ndarray[tuple[int], np.dtype[np.intp]]
) -> Vectors:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    for row, length in enumerate(lengths[:, 0].tolist()):
        if not np.isfinite(length):
            raise TextRefused(int(owners[row]), "got a vector that holds NaN or Inf")
        if length == 0:
            raise TextRefused(int(owners[row]), "got a vector of length 0")
    result: Vectors = (rows / lengths).astype(np.float32)
    return result
