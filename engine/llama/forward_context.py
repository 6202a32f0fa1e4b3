"""What computes: one pass over a batch, and cells that are copied, shared and removed.

llama.cpp's `llama_context.Context` and OpenVINO's `paged_context.PagedContext` both do; what they
promise of each method stands at the first. OpenVINO's `encoder_context.EncoderContext` keeps no
cells, and only embeds.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors

from .library import AllocatedBuffers
from .llama_context import ContextOptions


class ForwardContext(Protocol):
    buffers: AllocatedBuffers
    options: ContextOptions

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    @property
    def keeps_states(self) -> bool: ...
    @property
    def fewer_threads(self) -> int: ...
    @property
    def n_pooled(self) -> int: ...
    def close(self) -> None: ...
    def use_threads(self, n_threads: int) -> None: ...
    def keep_states(self, keeps: bool) -> None: ...
    def states(self, n_tokens: int) -> Vectors: ...
    def synchronize(self) -> None: ...
    def trim(self, seq_id: int, n_keep: int) -> None: ...
    def drop_beginning(self, seq_id: int, n_tokens: int) -> None: ...
    def copy(self, source: int, target: int, n_tokens: int) -> None: ...
    def clear(self) -> None: ...
    def saved_bytes(self, seq_id: int) -> int: ...
    def save(self, seq_id: int) -> Sized: ...
    def restore(self, seq_id: int, state: Sized) -> None: ...
    def decode(
        self,
        tokens: Tokens | None,
        pos: Tokens,
        seq_ids: Tokens,
        output_mask: NDArray[np.int8],
        rows: Vectors | None = None,
    ) -> int: ...
    def decode_image(
        self, rows: Vectors, pos: NDArray[np.int32], seq_id: int, *, is_causal: bool = True
    ) -> None: ...
    def logits(self, n_rows: int) -> Logits: ...
    def embedding(self, seq_id: int) -> Vectors: ...


WARM_UP_CELLS = 256  # llama.cpp pads to it
# Kernels for several tokens differ from those for one: AMX is used from two on, repacked weights
# take four at once.
_N_WARM_UP_TOKENS = 8


def warm_up(context: ForwardContext, *, is_gpu: bool) -> int:
    """Decode a few tokens at once, and then one, in a context of its own; return how many.

    On a graphics device decode a prompt first: kernels are loaded at their first use, and the first
    request would wait for that.

    Raises:
        DecodeFailed: it cannot compute.
    """
    embeds = context.options.embeds
    if is_gpu and not embeds:
        _decode_zeros(context, 0, WARM_UP_CELLS)
        context.clear()
    _decode_zeros(context, 0, _N_WARM_UP_TOKENS)
    if not embeds:
        _decode_zeros(context, _N_WARM_UP_TOKENS, 1)
    return _N_WARM_UP_TOKENS


def _decode_zeros(context: ForwardContext, start: int, n_tokens: int) -> None:
    output_mask = np.full(n_tokens, context.options.embeds, np.int8)
    output_mask[-1] = 1
    pos = np.arange(start, start + n_tokens, dtype=np.int32)
    tokens = np.zeros(n_tokens, np.int32)
    context.decode(tokens, pos, np.zeros(n_tokens, np.int32), output_mask)
