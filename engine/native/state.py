"""The cells of one sequence as bytes: how they move between streams, contexts and main memory.

llama.cpp writes how many streams the cache has, then for each of them a count of cells and the
cells; of one sequence, all streams but its own are empty. It reads nothing from a cache with
another number of streams, so `given` rewrites that number and the empty streams. Keys and values
are as they lie in the cache: values are transposed without flash attention, so a state is of no
use to a context with another setting of it, or with another type of cells.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .context import Context
from .faults import CacheFull, DecodeFailed
from .library import lib

_Bytes = NDArray[np.uint8]
_HEADER_BYTES = 8  # a magic number and the sequence's id
_COUNT_BYTES = 4


@dataclass(frozen=True, slots=True)
class State:
    """What one sequence has in a cache."""

    raw: _Bytes
    n_streams: int
    stream: int
    n_cells_bytes: int
    """Size of the part that is written stream by stream."""

    def __len__(self) -> int:
        """Return the size in bytes."""
        return len(self.raw)


def size_bytes(context: Context, seq_id: int) -> int:
    """Return how many bytes `taken` would copy."""
    return int(lib.llama_state_seq_get_size(context.pointer, seq_id))


def taken(context: Context, seq_id: int) -> State:
    """Copy out what a sequence has in the cache.

    Raises:
        MemoryError: main memory does not hold it.
    """
    n_bytes = size_bytes(context, seq_id)
    raw: _Bytes = np.empty(n_bytes, np.uint8)
    if lib.llama_state_seq_get_data(context.pointer, _pointer(raw), n_bytes, seq_id) != n_bytes:
        raise DecodeFailed(f"the cells of sequence {seq_id} cannot be copied")
    n_streams = _n_streams(context)
    n_cells_bytes = _cells_bytes(context, seq_id, n_bytes)
    return State(raw, n_streams, seq_id if n_streams > 1 else 0, n_cells_bytes)


def given(context: Context, seq_id: int, state: State) -> None:
    """Copy a sequence's cells in as those of `seq_id`, in cells of its own.

    Raises:
        CacheFull: no room, or the cells are of another kind.
    """
    raw = _for_streams(state, _n_streams(context))
    if not lib.llama_state_seq_set_data(context.pointer, _pointer(raw), len(raw), seq_id):
        raise CacheFull


def _n_streams(context: Context) -> int:
    return 1 if context.options.is_unified else context.options.n_seq_max


def _cells_bytes(context: Context, seq_id: int, n_bytes: int) -> int:
    """Return the size of the part of a state that holds cells; recurrent layers come behind it."""
    model = context.model.pointer
    if lib.llama_model_is_recurrent(model):
        return 0
    if not lib.llama_model_is_hybrid(model):
        return n_bytes - _HEADER_BYTES
    partial = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
    return n_bytes - int(lib.llama_state_seq_get_size_ext(context.pointer, seq_id, partial))


def _for_streams(state: State, n_streams: int) -> _Bytes:
    """Return a state's bytes for a cache with so many streams."""
    if n_streams == state.n_streams:
        return state.raw
    if not state.n_cells_bytes:
        return state.raw
    end = _HEADER_BYTES + state.n_cells_bytes
    first = _HEADER_BYTES + _COUNT_BYTES * (1 + state.stream)
    last = end - _COUNT_BYTES * (state.n_streams - 1 - state.stream)
    counted = np.array([n_streams], np.uint32).view(np.uint8)
    empty = np.zeros(_COUNT_BYTES * (n_streams - 1), np.uint8)
    head, cells, rest = state.raw[:_HEADER_BYTES], state.raw[first:last], state.raw[end:]
    return np.concatenate([head, counted, cells, empty, rest])


def _pointer(raw: _Bytes) -> Any:
    return raw.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
