"""What an engine computes: one pass over a batch, and cells that are copied, shared and removed.

llama.cpp (`llama_model.Model`, `llama_context.Context`) writes answers and embeds; what a context
promises of each method stands there. OpenVINO has a class for each: `ir_model.IrModel` and
`paged_context.PagedContext` for answers, `IrEncoder` and `EncoderContext`, without cells, for
vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sized
from typing import Generic, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors

from .library import AllocatedBuffers
from .llama_context import ContextOptions
from .vocabulary import Vocabulary

State = TypeVar("State", bound=Sized)
"""A sequence's cells in main memory, as an engine writes them for contexts of its own."""

MemoryKind = Literal["cells", "window", "state"]
"""How a model remembers a sequence.

- `cells`: a cell for each token; a sequence can be cut, and its prefix shared, anywhere.
- `window`: some layers see the last tokens only. A full-size cache (`swa_full`) keeps all tokens,
  but in a unified cache llama.cpp reuses the cells behind one sequence's window for another, even
  while others are free. In a split cache each stream has one sequence, so cutting and sharing are
  exact.
- `state`: recurrent layers, with or without attention. The state of a sequence can be saved and
  copied as a whole, but not cut back to an earlier token, except by a few where the context keeps
  copies (`ContextOptions.n_undo_tokens`).
"""


class BatchContext(Protocol):
    buffers: AllocatedBuffers
    options: ContextOptions

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def close(self) -> None: ...
    def clear(self) -> None: ...
    def decode(
        self, tokens: Tokens, pos: Tokens, seq_ids: Tokens, output_mask: NDArray[np.int8], /
    ) -> int: ...


class EmbeddingContext(BatchContext, Protocol):
    @property
    def n_pooled(self) -> int: ...
    def embedding(self, seq_id: int) -> Vectors: ...


class ForwardContext(BatchContext, Protocol[State]):
    @property
    def keeps_states(self) -> bool: ...
    @property
    def fewer_threads(self) -> int: ...
    def use_threads(self, n_threads: int) -> None: ...
    def keep_states(self, keeps: bool) -> None: ...
    def states(self, n_tokens: int) -> Vectors: ...
    def synchronize(self) -> None: ...
    def trim(self, seq_id: int, n_keep: int) -> None: ...
    def drop_beginning(self, seq_id: int, n_tokens: int) -> None: ...
    def copy(self, source: int, target: int, n_tokens: int) -> None: ...
    def saved_bytes(self, seq_id: int) -> int: ...
    def save(self, seq_id: int) -> State: ...
    def restore(self, seq_id: int, state: State) -> None: ...
    def decode_image(
        self, rows: Vectors, pos: NDArray[np.int32], seq_id: int, *, is_causal: bool = True
    ) -> None: ...
    def logits(self, n_rows: int) -> Logits: ...


class ChatModel(Vocabulary, ABC, Generic[State]):
    is_gpu = False
    is_paged = False
    """Whether prefixes are shared by the names of blocks of cells."""

    @property
    @abstractmethod
    def memory(self) -> MemoryKind: ...
    @abstractmethod
    def open_context(self, options: ContextOptions) -> ForwardContext[State]:
        """Raises `LoadFailed`: the context cannot be made."""


class EmbeddingModel(Vocabulary, ABC):
    is_gpu = False
    n_embedding: int

    @abstractmethod
    def open_context(self, options: ContextOptions) -> EmbeddingContext:
        """Raises `LoadFailed`: the context cannot be made."""


WARM_UP_CELLS = 256  # llama.cpp pads to it
# Kernels for several tokens differ from those for one: AMX is used from two on, repacked weights
# take four at once.
_N_WARM_UP_TOKENS = 8


def warm_up(context: BatchContext, *, is_gpu: bool) -> int:
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


def _decode_zeros(context: BatchContext, start: int, n_tokens: int) -> None:
    output_mask = np.full(n_tokens, context.options.embeds, np.int8)
    output_mask[-1] = 1
    pos = np.arange(start, start + n_tokens, dtype=np.int32)
    tokens = np.zeros(n_tokens, np.int32)
    context.decode(tokens, pos, np.zeros(n_tokens, np.int32), output_mask)
