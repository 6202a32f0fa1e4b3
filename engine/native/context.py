"""A KV cache with its compute buffers, and the forward pass.

Low-level bindings only: `llama_cpp.Llama` decodes one sequence at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors
from paddock.engine.settings import CacheType, Switch

from .batch import BatchBuffers
from .faults import CacheFull, DecodeFailed, LoadFailed
from .library import LOG, lib, supports_gpu
from .model import Model
from .samplers import DeviceGreedy
from .threads import ThreadGovernor

_KV_TYPES: dict[CacheType, int] = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}
_FLASH: dict[Switch, int] = {"auto": -1, "on": 1, "off": 0}


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """Shape of a context."""

    n_ctx_tokens: int
    n_batch_tokens: int
    n_seq_max: int
    n_threads: int
    n_rows_max: int = 0
    """Tokens of a batch whose logits are wanted, at most; 0: all. Room is kept for their logits:
    311 MB for 512 rows of 151,936 tokens. More of them end the process."""
    n_pass_tokens: int = 0
    """Of a batch, what is computed in one pass (llama.cpp's ubatch); 0: all of it."""
    embeds: bool = False
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
    is_unified: bool = True
    """One cache for all sequences, whose beginnings can be shared; else a stream for each."""


class Context:
    """One KV cache and its compute buffers. Only the thread that made it may use it."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        self.model = model
        self.options = options
        params = lib.llama_context_default_params()
        params.n_ctx = options.n_ctx_tokens
        # llama.cpp ends the process where a batch cannot hold a token of each sequence.
        params.n_batch = max(options.n_batch_tokens, options.n_seq_max)
        n_pass_tokens = options.n_pass_tokens or params.n_batch
        params.n_ubatch = min(params.n_batch, max(n_pass_tokens, options.n_seq_max))
        params.n_outputs_max = options.n_rows_max
        params.n_seq_max = options.n_seq_max
        params.n_threads = params.n_threads_batch = options.n_threads
        params.flash_attn_type = _FLASH[options.flash_attention]
        params.type_k = params.type_v = _KV_TYPES[options.kv_cache_type]
        params.embeddings = options.embeds
        params.kv_unified = options.is_unified
        params.no_perf = True
        with LOG.recording() as said:
            pointer = lib.llama_init_from_model(model.pointer, params)
        if not pointer:
            what = f"a context of {options.n_ctx_tokens} tokens for {options.n_seq_max} sequences"
            raise LoadFailed(said.explain(f"llama.cpp cannot make {what}"))
        self.pointer = pointer
        self.buffers = said.buffers()
        model.adapters.lay_over(pointer)
        self._memory = lib.llama_get_memory(pointer)
        self._batch = BatchBuffers(params.n_batch)
        self._device_greedy: DeviceGreedy | None = None
        self._governor = None if supports_gpu() else ThreadGovernor(options.n_threads)

    def __enter__(self) -> Context:
        """Use the context in a `with` statement."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the context."""
        self.close()

    def close(self) -> None:
        """Free cells and buffers."""
        self.choose_on_device(False)
        if self.pointer:
            lib.llama_free(self.pointer)
            self.pointer = None

    def use_threads(self, n_threads: int) -> None:
        """Compute with so many threads from the next decode on."""
        lib.llama_set_n_threads(self.pointer, n_threads, n_threads)

    def trim(self, seq_id: int, n_keep: int) -> None:
        """Free the cells of a sequence from position `n_keep` on."""
        if not lib.llama_memory_seq_rm(self._memory, seq_id, n_keep, -1):
            raise DecodeFailed(f"this model's memory cannot be cut at position {n_keep}")

    def drop_beginning(self, seq_id: int, n_tokens: int) -> None:
        """Free the cells of a sequence up to position `n_tokens`."""
        if not lib.llama_memory_seq_rm(self._memory, seq_id, 0, n_tokens):
            raise DecodeFailed(f"this model's memory cannot be cut at position {n_tokens}")

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Let `target` share the first `n_tokens` cells of `source`."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, n_tokens)

    def clear(self) -> None:
        """Free every cell; a model without a memory (BERT) has none."""
        if self._memory:
            lib.llama_memory_clear(self._memory, False)

    def decode(self, tokens: Tokens, pos: Tokens, seq_ids: Tokens, wanted: NDArray[np.int8]) -> int:
        """Run one forward pass.

        Args:
            tokens: token ids, shape (n,).
            pos: position of each within its sequence, shape (n,).
            seq_ids: sequence of each, shape (n,).
            wanted: 1 where logits or an embedding are wanted, shape (n,).

        Returns:
            How many rows there are to read.

        Raises:
            CacheFull: no room; nothing was decoded.
            DecodeFailed: the context is broken.
        """
        batch = self._batch.fill(tokens, pos, seq_ids, wanted)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        status = lib.llama_decode(self.pointer, batch)
        cpu_s = time.process_time() - began_cpu_s
        self._govern(time.perf_counter() - began_s, cpu_s, len(tokens))
        if status == 1:
            raise CacheFull
        if status != 0:
            raise DecodeFailed(f"llama_decode answered {status}")
        return int(np.count_nonzero(wanted))

    def _govern(self, wall_s: float, cpu_s: float, n_tokens: int) -> None:
        if self._governor is None:
            return
        n_before = self._governor.n_threads
        if self._governor.observe(wall_s, cpu_s, n_tokens) != n_before:
            self.use_threads(self._governor.n_threads)

    def logits(self, n_rows: int) -> Logits:
        """Give next-token logits, shape (n_rows, n_vocab), in the order of the wanted tokens.

        The array is llama.cpp's own memory: it is valid until the next decode.
        """
        pointer = lib.llama_get_logits(self.pointer)
        return np.ctypeslib.as_array(pointer, shape=(n_rows, self.model.n_vocab))

    @property
    def n_pooled(self) -> int:
        """Length of a pooled vector."""
        is_rank = lib.llama_pooling_type(self.pointer) == lib.LLAMA_POOLING_TYPE_RANK
        return self.model.n_scores if is_rank else self.model.n_embedding

    @property
    def chooses_on_device(self) -> bool:
        """Whether the next decode chooses the likeliest tokens itself, and gives no logits."""
        return self._device_greedy is not None

    def choose_on_device(self, is_wanted: bool) -> bool:
        """Choose the likeliest tokens on the device from now on, or stop; return whether it does.

        A change costs a new plan of the compute buffers at the next decode.
        """
        if is_wanted and self._device_greedy is None:
            greedy = DeviceGreedy(self.pointer, self.options.n_seq_max)
            if not greedy.is_possible:
                greedy.close()
                return False
            self._device_greedy = greedy
        elif not is_wanted and self._device_greedy is not None:
            self._device_greedy.close()
            self._device_greedy = None
        return self.chooses_on_device

    def chosen(self, batch_places: Items[int]) -> list[int]:
        """Return the tokens that the device chose after these places of the last batch.

        Raises:
            DecodeFailed: it chose none.
        """
        tokens = self._device_greedy.tokens(batch_places) if self._device_greedy else []
        if len(tokens) < len(batch_places) or min(tokens, default=0) < 0:
            raise DecodeFailed("the device chose no token")
        return tokens

    def embedding(self, seq_id: int) -> Vectors:
        """Return a sequence's pooled vector, valid until the next decode.

        Shape is (n_embedding,), of a reranker (n_scores,).
        """
        pointer = lib.llama_get_embeddings_seq(self.pointer, seq_id)
        if not pointer:
            raise DecodeFailed("the model gives no pooled embedding")
        return np.ctypeslib.as_array(pointer, shape=(self.n_pooled,))
