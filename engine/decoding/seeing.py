"""Compute the images of a prompt: rows of embeddings, which no batch of tokens can hold.

Where a piece has stand-ins for an image (negative numbers), everything up to its last image is
computed by itself; what is left goes into the turn's batch with the others.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.dialogue.images import PlacedImage
from paddock.engine.native.context import Context

from .turn import Piece


def see(context: Context, piece: Piece, images: Items[PlacedImage]) -> Piece:
    """Compute a piece up to its last image; gives what is left of it, perhaps nothing.

    Raises:
        CacheFull: no room; a part of the piece may be in the cache (see `forget`).
    """
    are_rows = piece.tokens < 0
    if not are_rows.any():
        return piece
    n_seen = int(np.flatnonzero(are_rows)[-1]) + 1
    for start, end in _runs(are_rows[:n_seen]):
        _compute(context, piece, start, end, images)
    return replace(piece, tokens=piece.tokens[n_seen:], pos=piece.pos + n_seen)


def forget(context: Context, pieces: Items[Piece]) -> None:
    """Free what was computed of pieces with images, when their turn has failed."""
    for piece in pieces:
        if (piece.tokens < 0).any():
            context.trim(piece.sequence.seq_id, piece.pos)


def _runs(are_rows: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Cut where text and images meet."""
    edges = [0, *(np.flatnonzero(np.diff(are_rows)) + 1).tolist(), len(are_rows)]
    return list(pairwise(edges))


def _compute(
    context: Context, piece: Piece, start: int, end: int, images: Items[PlacedImage]
) -> None:
    tokens = piece.tokens[start:end]
    seq_id, pos = piece.sequence.seq_id, piece.pos + start
    if tokens[0] >= 0:
        places = np.arange(pos, pos + len(tokens), dtype=np.int32)
        ids, wanted = np.full(len(tokens), seq_id, np.int32), np.zeros(len(tokens), np.int8)
        context.decode(tokens, places, ids, wanted)
        return
    from paddock.engine.native.vision import show

    for first, rows in _rows_of(images, pos, pos + len(tokens)):
        show(context, rows, first, seq_id)


def _rows_of(images: Items[PlacedImage], start: int, end: int) -> list[tuple[int, Vectors]]:
    """Give the rows of the images that stand between two positions, and where they begin."""
    found = []
    for image in images:
        first, last = max(start, image.start), min(end, image.start + len(image.piece.rows))
        if first < last:
            found.append((first, image.piece.rows[first - image.start : last - image.start]))
    return found


def text_of(prompt: Tokens) -> Tokens:
    """Give a prompt without the stand-ins for its images."""
    return prompt[prompt >= 0]
