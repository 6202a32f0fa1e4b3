"""Make the masks of constrained rows while the device computes.

One thread beside the owner's: it asks llguidance for all masks of a turn at once, which lets go of
the interpreter's lock, as the owner's decode does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llguidance import LLMatcher

MOST_THREADS = 8


class MaskMaker:
    """Makes masks, one bit for each token of the vocabulary. Used by the owner thread alone."""

    def __init__(self, n_vocab: int, n_cpus: int) -> None:
        from llguidance import LLExecutor

        self._n_words = (n_vocab + 31) // 32
        # A mask takes 2 to 50 µs: more threads than this only get into the decode's way.
        self._executor = LLExecutor(max(1, min(MOST_THREADS, n_cpus // 4)))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")

    def start(self, matchers: Sequence[LLMatcher]) -> Masks:
        """Begin the masks of matchers that nobody touches until `Masks.row` was asked."""
        words = np.empty((len(matchers), self._n_words), np.int32)
        return Masks(words, self._thread.submit(self._fill, list(matchers), words))

    def make(self, matcher: LLMatcher) -> NDArray[np.uint8]:
        """Make one mask now."""
        words = np.empty(self._n_words, np.int32)
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        return words.view(np.uint8)

    def _fill(self, matchers: list[LLMatcher], words: NDArray[np.int32]) -> None:
        rows = [(matcher, row) for row, matcher in enumerate(matchers)]
        self._executor.unsafe_compute_mask_ptr(
            rows, words.ctypes.data, 4 * self._n_words, len(matchers)
        )


class Masks:
    """The masks of one turn, ready or on their way."""

    def __init__(self, words: NDArray[np.int32], made: Future[None]) -> None:
        self._words = words
        self._made = made

    def wait(self) -> None:
        """Wait until all are made."""
        self._made.result()

    def row(self, number: int) -> NDArray[np.uint8]:
        """Give a mask's bytes, the lowest bit first; waits until it is made."""
        self.wait()
        row: NDArray[np.uint8] = self._words[number].view(np.uint8)
        return row
