"""A context of OpenVINO's: what `llama_context.Context` is for llama.cpp, with cells in blocks.

Sequences share blocks, which are copied before one of them writes there. A sequence's cells are the
first positions of its blocks, so that cutting it takes nothing but its length.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors
from paddock.engine.llama.library import AllocatedBuffers, CacheFull, DecodeFailed
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.system.records import Struct

from .paged_batch import PagedBatch

if TYPE_CHECKING:
    from .paged_model import PagedModel


class SavedBlocks(Struct, frozen=True):
    """A sequence's cells in main memory, outside the cache."""

    cells: NDArray[np.uint8]
    """All caches' blocks, one cache after another: one array, since large pages are sooner got."""
    n_blocks: int
    n_tokens: int

    def __len__(self) -> int:
        return self.cells.nbytes


class _Sequence:
    __slots__ = ("blocks", "n_tokens")

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.n_tokens = 0


class PagedContext:
    """One cache in blocks. Only the thread that made it may use it."""

    keeps_states = False
    fewer_threads = 0

    def __init__(self, paged: PagedModel, options: ContextOptions) -> None:
        self.options = options
        self._paged = paged
        self._n_each = paged.n_block_cells
        # A sequence's last block is seldom full, and is copied where two go on from it.
        n_blocks = -(-options.n_ctx_tokens // self._n_each) + 2 * options.n_seq_max
        self._caches = paged.new_caches(n_blocks)
        self._rows = [cache.reshape(n_blocks, -1).view(np.uint8) for cache in self._caches]
        self._free = list(range(n_blocks))[::-1]
        self._users: Counter[int] = Counter()
        self._sequences = [_Sequence() for _ in range(options.n_seq_max)]
        n_bytes = sum(cache.nbytes for cache in self._caches)
        cells = Counter({"": n_bytes})
        self.buffers = AllocatedBuffers(cells, cells)
        self._block_bytes = n_bytes // n_blocks
        self._logits: Logits = np.empty((0, 0), np.float32)

    def __enter__(self) -> PagedContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._caches, self._rows = [], []

    def use_threads(self, n_threads: int) -> None:
        """OpenVINO's threads are chosen when the model is compiled."""

    def keep_states(self, keeps: bool) -> None:
        assert not keeps

    def states(self, n_tokens: int) -> Vectors:
        raise DecodeFailed("OpenVINO returns no hidden states")

    def synchronize(self) -> None:
        """Every pass is over when it returns."""

    def trim(self, seq_id: int, n_keep: int) -> None:
        sequence = self._sequences[seq_id]
        sequence.n_tokens = min(sequence.n_tokens, n_keep)
        n_blocks = -(-sequence.n_tokens // self._n_each)
        self._release(sequence.blocks[n_blocks:])
        del sequence.blocks[n_blocks:]

    def drop_beginning(self, seq_id: int, n_tokens: int) -> None:
        """Leave the first cells to the `copy` that follows: they lie in blocks of their own."""

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Have the first cells of one sequence stand in another one, instead of its own.

        What the target has behind them stays. Raises `CacheFull`.
        """
        shared, own = self._sequences[source], self._sequences[target]
        n_tokens = shared.n_tokens if n_tokens < 0 else min(n_tokens, shared.n_tokens)
        n_whole, n_rest = divmod(n_tokens, self._n_each)
        has_more = own.n_tokens > n_tokens
        n_blocks = n_whole if has_more else -(-n_tokens // self._n_each)
        taken = shared.blocks[:n_blocks]
        self._users.update(taken)
        self._release(own.blocks[:n_blocks])
        own.blocks[:n_blocks] = taken
        if has_more and n_rest:
            block = self._own_block(own, n_whole)
            for cache in self._caches:
                cache[block, :, :n_rest] = cache[shared.blocks[n_whole], :, :n_rest]
        own.n_tokens = max(own.n_tokens, n_tokens)

    def clear(self) -> None:
        for seq_id in range(len(self._sequences)):
            self.trim(seq_id, 0)

    def saved_bytes(self, seq_id: int) -> int:
        return len(self._sequences[seq_id].blocks) * self._block_bytes

    def save(self, seq_id: int) -> SavedBlocks:
        blocks = self._sequences[seq_id].blocks
        cells = np.empty(len(blocks) * self._block_bytes, np.uint8)
        for rows, part in zip(self._rows, self._parts(cells, len(blocks)), strict=True):
            rows.take(blocks, axis=0, out=part, mode="clip")  # by default it buffers
        return SavedBlocks(cells, len(blocks), self._sequences[seq_id].n_tokens)

    def restore(self, seq_id: int, state: SavedBlocks) -> None:
        """Raises `CacheFull`: too few free blocks."""
        self.trim(seq_id, 0)
        sequence = self._sequences[seq_id]
        if state.n_blocks > len(self._free):
            raise CacheFull
        sequence.blocks = [self._take() for _ in range(state.n_blocks)]
        sequence.n_tokens = state.n_tokens
        parts = self._parts(state.cells, state.n_blocks)
        for rows, part in zip(self._rows, parts, strict=True):
            rows[sequence.blocks] = part

    def decode(
        self, tokens: Tokens, pos: Tokens, seq_ids: Tokens, output_mask: NDArray[np.int8]
    ) -> int:
        """Run one forward pass, as `llama_context.Context.decode` does."""
        order = np.argsort(seq_ids, kind="stable").astype(np.int64)
        ids, firsts = np.unique(seq_ids[order], return_index=True)
        begins = np.append(firsts, len(order)).astype(np.int32)
        n_before = pos[order][firsts].astype(np.int32)
        sequences = [self._sequences[seq_id] for seq_id in ids.tolist()]
        lengths = (n_before + np.diff(begins)).tolist()
        self._make_room(sequences, n_before.tolist(), lengths)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        output_rows = place[output_mask.astype(bool)]
        counts = [len(sequence.blocks) for sequence in sequences]
        batch = PagedBatch(
            tokens=tokens[order],
            positions=pos[order],
            n_before=n_before,
            begins=begins,
            blocks=np.concatenate([sequence.blocks for sequence in sequences]).astype(np.int32),
            block_begins=np.cumsum([0, *counts]).astype(np.int32),
            output_rows=output_rows if len(output_rows) else np.zeros(1, np.int64),
        )
        self._paged.use_caches(self._caches)
        try:
            self._logits = self._paged.compute(batch)
        except RuntimeError as error:
            why = str(error).strip().splitlines()[-1]
            raise DecodeFailed(f"OpenVINO cannot compute: {why}") from error
        for sequence, length in zip(sequences, lengths, strict=True):
            sequence.n_tokens = length
        return len(output_rows)

    def decode_image(
        self, rows: Vectors, pos: NDArray[np.int32], seq_id: int, *, is_causal: bool = True
    ) -> None:
        raise DecodeFailed("OpenVINO's IR of a model reads no images")

    def logits(self, n_rows: int) -> Logits:
        """Return next-token logits, shape (n_rows, n_vocab), valid until the next decode."""
        return self._logits[:n_rows]

    def _parts(self, cells: NDArray[np.uint8], n_blocks: int) -> list[NDArray[np.uint8]]:
        ends = np.cumsum([rows.shape[1] * n_blocks for rows in self._rows])[:-1]
        return [part.reshape(n_blocks, -1) for part in np.split(cells, ends)]

    def _make_room(
        self, sequences: list[_Sequence], n_before: list[int], lengths: list[int]
    ) -> None:
        """Add to each sequence blocks of its own for what it will write.

        Raises:
            CacheFull: there are too few; nothing was changed that another pass would see.
        """
        n_missing = 0
        for sequence, n_had, length in zip(sequences, n_before, lengths, strict=True):
            n_blocks = -(-length // self._n_each)
            written = sequence.blocks[n_had // self._n_each : n_blocks]
            n_missing += n_blocks - len(sequence.blocks)
            n_missing += sum(self._users[block] > 1 for block in written)
        if n_missing > len(self._free):
            raise CacheFull
        for sequence, n_had, length in zip(sequences, n_before, lengths, strict=True):
            for place in range(n_had // self._n_each, -(-length // self._n_each)):
                if place == len(sequence.blocks):
                    sequence.blocks.append(self._take())
                else:
                    self._own_block(sequence, place)

    def _own_block(self, sequence: _Sequence, place: int) -> int:
        """Return the block at `place` of a sequence, copied first where others use it, too."""
        block = sequence.blocks[place]
        if self._users[block] > 1:
            own = self._take()
            for cache in self._caches:
                cache[own] = cache[block]
            self._users[block] -= 1
            sequence.blocks[place] = block = own
        return block

    def _take(self) -> int:
        if not self._free:
            raise CacheFull
        block = self._free.pop()
        self._users[block] = 1
        return block

    def _release(self, blocks: list[int]) -> None:
        for block in blocks:
            self._users[block] -= 1
            if not self._users[block]:
                self._free.append(block)
