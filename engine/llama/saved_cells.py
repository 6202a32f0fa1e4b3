"""Sequences saved to bytes, to move them between streams, contexts and main memory.

llama.cpp writes the number of streams, then for each a count of cells and the cells; it refuses a
state with another number of streams, so that number and the empty streams are rewritten. Without
flash attention values are transposed, so a state needs a context with the same setting and the same
type of cells.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.system.records import record

from .library import CacheFull, DecodeFailed, lib
from .llama_context import Context

_StateBytes = NDArray[np.uint8]
_STATE_HEADER_BYTES = 8  # a magic number and the sequence's id
_COUNT_BYTES = 4


@record(frozen=True, slots=True)
class SavedCells:
    raw: _StateBytes
    n_streams: int
    stream: int
    n_cells_bytes: int
    """Size of the part that is written stream by stream."""

    def __len__(self) -> int:
        return len(self.raw)


def saved_cells_bytes(context: Context, seq_id: int) -> int:
    return int(lib.llama_state_seq_get_size(context.pointer, seq_id))


def save_cells(context: Context, seq_id: int) -> SavedCells:
    """Copy a sequence's cells to main memory.

    Raises:
        MemoryError: there is not enough main memory.
    """
    n_bytes = saved_cells_bytes(context, seq_id)
    raw: _StateBytes = np.empty(n_bytes, np.uint8)
    if (
        lib.llama_state_seq_get_data(context.pointer, _bytes_pointer(raw), n_bytes, seq_id)
        != n_bytes
    ):
        raise DecodeFailed(f"the cells of sequence {seq_id} cannot be copied")
    n_streams = _stream_count(context)
    n_cells_bytes = _cells_part_bytes(context, seq_id, n_bytes)
    return SavedCells(raw, n_streams, seq_id if n_streams > 1 else 0, n_cells_bytes)


def restore_cells(context: Context, seq_id: int, state: SavedCells) -> None:
    """Copy saved cells to `seq_id`.

    Raises:
        CacheFull: no free cells, or the cells are of another type.
    """
    raw = _for_stream_count(state, _stream_count(context))
    if not lib.llama_state_seq_set_data(context.pointer, _bytes_pointer(raw), len(raw), seq_id):
        raise CacheFull


def _stream_count(context: Context) -> int:
    return 1 if context.options.is_unified else context.options.n_seq_max


def _cells_part_bytes(context: Context, seq_id: int, n_bytes: int) -> int:
    """Return the size of a state's first part, the cells; recurrent layers follow."""
    model = context.model.pointer
    if lib.llama_model_is_recurrent(model):
        return 0
    if not lib.llama_model_is_hybrid(model):
        return n_bytes - _STATE_HEADER_BYTES
    partial = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
    return n_bytes - int(lib.llama_state_seq_get_size_ext(context.pointer, seq_id, partial))


def _for_stream_count(state: SavedCells, n_streams: int) -> _StateBytes:
    if n_streams == state.n_streams:
        return state.raw
    if not state.n_cells_bytes:
        return state.raw
    end = _STATE_HEADER_BYTES + state.n_cells_bytes
    first = _STATE_HEADER_BYTES + _COUNT_BYTES * (1 + state.stream)
    last = end - _COUNT_BYTES * (state.n_streams - 1 - state.stream)
    counted = np.array([n_streams], np.uint32).view(np.uint8)
    empty = np.zeros(_COUNT_BYTES * (n_streams - 1), np.uint8)
    head, cells, rest = state.raw[:_STATE_HEADER_BYTES], state.raw[first:last], state.raw[end:]
    return np.concatenate([head, counted, cells, empty, rest])


def _bytes_pointer(raw: _StateBytes) -> Any:
    return raw.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
