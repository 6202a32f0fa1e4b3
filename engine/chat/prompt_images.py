"""Images in a prompt, placed among the tokens.

Rows of an image are negative token ids, placeholders. Their last bits say what the scheduler and
the caches must know of a row, so that a prompt's tokens are enough to find out its positions and
where it may be cut.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest
from paddock.engine.system.records import Struct

if TYPE_CHECKING:  # libmtmd is loaded only where a model can see
    from paddock.engine.llama.image_cache import ImagePiece, PromptPiece

MAX_KNOWN_PIECES = 4096
"""Pieces whose placeholders are remembered; a forgotten one counts as new."""

# Bits of a placeholder, inverted: the row has the position of the row before it, it is not the last
# of its image, all rows of its image must be computed at once.
_STAYS, _GOES_ON, _AT_ONCE, _STEP = 1, 2, 4, 8
_LAST_NUMBER = 2**31 - _STEP


class PlacedImage(Struct, frozen=True):
    """An image in a prompt: where its rows begin among the tokens."""

    start: int
    piece: ImagePiece


class ImagePlaceholders:
    """Negative token ids that stand for rows of images.

    Equal image pieces get equal numbers, so that prompts share a prefix only where they show the
    same image. Safe from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._firsts: OrderedDict[str, int] = OrderedDict()
        """By digest, the least recently used first."""
        self._next = _STEP

    def of(self, piece: ImagePiece) -> Tokens:
        """Return the numbers of a piece, one for each of its rows."""
        n_rows = len(piece.rows)
        with self._lock:
            first = self._firsts.pop(piece.digest, None)
            if first is None:
                if len(self._firsts) == MAX_KNOWN_PIECES:
                    self._firsts.popitem(last=False)
                if self._next + _STEP * n_rows > _LAST_NUMBER:
                    # No cache holds rows from so long ago.
                    self._firsts.clear()
                    self._next = _STEP
                first, self._next = self._next, self._next + _STEP * n_rows
            self._firsts[piece.digest] = first
        numbers = first + _STEP * np.arange(n_rows)
        numbers[piece.n_positions :] += _STAYS
        numbers[:-1] += _GOES_ON
        numbers += 0 if piece.is_causal else _AT_ONCE
        return (~numbers).astype(np.int32)


def n_positions(tokens: Tokens) -> int:
    """Return how many positions a prompt's first tokens take.

    >>> n_positions(np.array([5, 6, ~8, ~17, 7]))
    4
    """
    return len(tokens) - int(np.count_nonzero((tokens < 0) & (~tokens & _STAYS > 0)))


def whole_prefix(tokens: Tokens) -> int:
    """Return the length of these tokens without an image at their end that goes on after them.

    Cells of an image may share a position, so that a sequence cannot be cut within it.

    >>> whole_prefix(np.array([5, ~10])), whole_prefix(np.array([5, ~10, ~16]))
    (1, 3)
    """
    n = len(tokens)
    while n and tokens[n - 1] < 0 and ~tokens[n - 1] & _GOES_ON:
        n -= 1
    return n


def next_piece_length(tokens: Tokens, n_most: int) -> int:
    """Return how many of a prompt's next tokens are computed in one call of llama.cpp.

    These are text alone, or rows of one image. Rows that must be computed at once may exceed
    `n_most`.
    """
    if tokens[0] >= 0:
        return _first_or_length(tokens[:n_most] < 0)
    n_rows = 1 + _first_or_length(~tokens & _GOES_ON == 0)
    return n_rows if ~tokens[0] & _AT_ONCE else min(n_rows, n_most)


def _first_or_length(are_found: NDArray[np.bool_]) -> int:
    return int(are_found.argmax()) if are_found.any() else len(are_found)


def place_images(
    texts: Sequence[Tokens],
    images: Sequence[bytes],
    embed_image: Callable[[bytes, int], Sequence[PromptPiece]],
    placeholders: ImagePlaceholders,
    n_ctx_tokens: int = 0,
) -> tuple[Tokens, tuple[PlacedImage, ...]]:
    """Put images between texts; their places hold placeholders.

    `embed_image` gets an image, and how many rows it may have: what those before it leave free.

    Raises:
        BadRequest: an image cannot be read, the chat template left one out, or no text follows.
    """
    if len(texts) != len(images) + 1:
        raise BadRequest(
            f"the model's chat template shows {len(texts) - 1} of {len(images)} images"
        )
    parts: list[Tokens] = [texts[0]]
    placed: list[PlacedImage] = []
    n_left = n_ctx_tokens or sys.maxsize
    for number, (image, text) in enumerate(zip(images, texts[1:], strict=True), start=1):
        try:
            pieces = embed_image(image, n_left)
        except ValueError as error:
            raise BadRequest(f"image {number} cannot be read: {error}") from error
        for piece in pieces:
            if isinstance(piece, np.ndarray):
                parts.append(piece)
            else:
                placed.append(PlacedImage(sum(map(len, parts)), piece))
                parts.append(placeholders.of(piece))
                n_left -= len(piece.rows)
        parts.append(text)
    tokens = np.concatenate(parts).astype(np.int32)
    if len(tokens) and tokens[-1] < 0:
        raise BadRequest("the prompt ends with an image: add a text after it")
    return tokens, tuple(placed)
