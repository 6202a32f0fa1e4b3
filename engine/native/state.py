"""The cells of one sequence as bytes: how a beginning comes into another stream of a split cache.

`llama_memory_seq_cp` cannot bring a part of a sequence into another stream; it ends the process.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .context import Context
from .faults import CacheFull, DecodeFailed
from .library import lib

State = NDArray[np.uint8]


def taken(context: Context, seq_id: int) -> State:
    """Copy out what a sequence has in the cache; its size is known only to llama.cpp."""
    n_bytes = lib.llama_state_seq_get_size(context.pointer, seq_id)
    state: State = np.empty(n_bytes, np.uint8)
    if lib.llama_state_seq_get_data(context.pointer, _bytes_of(state), n_bytes, seq_id) != n_bytes:
        raise DecodeFailed(f"the cells of sequence {seq_id} cannot be copied")
    return state


def given(context: Context, seq_id: int, state: State) -> None:
    """Copy a sequence's cells in as those of `seq_id`, in cells of its own.

    Raises:
        CacheFull: no room.
    """
    if not lib.llama_state_seq_set_data(context.pointer, _bytes_of(state), len(state), seq_id):
        raise CacheFull


def _bytes_of(state: State) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
