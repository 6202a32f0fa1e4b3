"""A context: KV cache, compute buffers, the forward pass.

Low-level bindings only: `llama_cpp.Llama` decodes one sequence at a time. Only the thread that
made a context may use it.

- `BatchBuffers` is a `llama_batch` whose arrays are NumPy's: filling it takes 0.0014 ms for 2,048
  tokens; setting the fields one by one through ctypes takes 0.95 ms.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors
from paddock.engine.settings import CacheType, Switch
from paddock.engine.system.records import Struct

from .library import LOG, CacheFull, DecodeFailed, LoadFailed, ext, lib
from .llama_weights import LlamaWeights
from .thread_governor import ThreadGovernor

# Of a position: time, row, column and one that is reserved (M-RoPE).
MOST_COMPONENTS = 4


class BatchBuffers:
    def __init__(self, n_max: int) -> None:
        self._tokens = np.zeros(n_max, np.int32)
        self._pos = np.zeros(MOST_COMPONENTS * n_max, np.int32)
        self._n_seq_ids = np.ones(n_max, np.int32)
        self._seq_ids = np.zeros(n_max, np.int32)
        self._output_mask = np.zeros(n_max, np.int8)
        # Each token has one sequence: entry i of the pointer table points at entry i of the ids.
        step = self._seq_ids.itemsize
        self._table = (self._seq_ids.ctypes.data + step * np.arange(n_max)).astype(np.uintp)
        self._struct: Any = lib.llama_batch()
        self._token_pointer = _array_pointer(self._tokens, "token")
        self._struct.pos = _array_pointer(self._pos, "pos")
        self._struct.n_seq_id = _array_pointer(self._n_seq_ids, "n_seq_id")
        self._struct.seq_id = _array_pointer(self._table, "seq_id")
        self._struct.logits = _array_pointer(self._output_mask, "logits")

    def fill(
        self,
        tokens: Tokens | None,
        pos: Tokens,
        seq_ids: Tokens,
        output_mask: NDArray[np.int8],
        rows: Vectors | None = None,
    ) -> Any:
        n = len(seq_ids)
        self._struct.token = None if tokens is None else self._token_pointer
        self._struct.embd = None if rows is None else _array_pointer(rows, "embd")
        if tokens is not None:
            self._tokens[:n] = tokens
        self._pos[: pos.size] = pos.ravel()
        self._seq_ids[:n] = seq_ids
        self._output_mask[:n] = output_mask
        self._struct.n_tokens = n
        return self._struct


def _array_pointer(array: NDArray[Any], field: str) -> Any:
    kind: Any = next(form for name, form, *_ in lib.llama_batch._fields_ if name == field)
    return ctypes.cast(ctypes.c_void_p(array.ctypes.data), kind)


# From so many tokens on, a step has a governor of its own. Beside another busy program, a piece of
# a prompt takes 1.25 s with two threads and 2.05 s with one: its threads meet less often.
MANY_TOKENS = 64


_KV_TYPES: dict[CacheType, int] = {
    "f16": lib.GGML_TYPE_F16,
    "q8_0": lib.GGML_TYPE_Q8_0,
    "q4_0": lib.GGML_TYPE_Q4_0,
}
_FLASH: dict[Switch, int] = {"auto": -1, "on": 1, "off": 0}


class ContextOptions(Struct, frozen=True):
    n_ctx_tokens: int
    n_batch_tokens: int
    n_seq_max: int
    n_threads: int
    n_rows_max: int = 0
    """Most rows of logits of a batch; 0: one for each token. Memory is reserved for them: 311 MB
    for 512 rows of 151,936 tokens. More rows than this end the process."""
    n_pass_tokens: int = 0
    """Tokens of a batch that are computed in one pass (llama.cpp's ubatch); 0: all."""
    embeds: bool = False
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
    is_unified: bool = True
    """One cache for all sequences, which can share prefixes; else a stream for each."""
    is_mtp: bool = False
    """Whether it runs the layer that guesses ahead, whose cells are its own."""
    n_undo_tokens: int = 0
    """Last tokens of a sequence that recurrent layers can forget: each takes a copy of its state.
    Only some architectures can."""


_StateBytes = NDArray[np.uint8]
_STATE_HEADER_BYTES = 8  # a magic number and the sequence's id
_COUNT_BYTES = 4


class SavedCells(Struct, frozen=True):
    """A sequence's cells in main memory, as llama.cpp writes them.

    It writes the number of streams, then for each a count of cells and the cells; it refuses a
    state with another number of streams, so that number and the empty streams are rewritten.
    Without flash attention values are transposed, so a state needs a context with the same setting
    and the same type of cells.
    """

    raw: _StateBytes
    n_streams: int
    stream: int
    n_cells_bytes: int
    """Size of the part that is written stream by stream."""

    def __len__(self) -> int:
        return len(self.raw)


class Context:
    """One KV cache and its compute buffers. Only the thread that made it may use it."""

    def __init__(self, model: LlamaWeights, options: ContextOptions) -> None:
        self.model = model
        self.options = options
        params = lib.llama_context_default_params()
        params.n_ctx = options.n_ctx_tokens
        # llama.cpp ends the process if a batch cannot hold a token of each sequence.
        params.n_batch = max(options.n_batch_tokens, options.n_seq_max)
        n_pass_tokens = options.n_pass_tokens or params.n_batch
        params.n_ubatch = min(params.n_batch, max(n_pass_tokens, options.n_seq_max))
        params.n_outputs_max = options.n_rows_max
        params.n_seq_max = options.n_seq_max
        params.n_threads = params.n_threads_batch = options.n_threads
        params.flash_attn_type = _FLASH[options.flash_attention]
        params.type_k = params.type_v = _KV_TYPES[options.kv_cache_type]
        params.embeddings = options.embeds
        if options.embeds and not model.names_pooling:  # as sentence-transformers does
            params.pooling_type = lib.LLAMA_POOLING_TYPE_MEAN
        params.kv_unified = options.is_unified
        params.n_rs_seq = options.n_undo_tokens
        if options.is_mtp:
            params.ctx_type = lib.LLAMA_CONTEXT_TYPE_MTP
        params.no_perf = True
        with LOG.recording() as recording:
            pointer = lib.llama_init_from_model(model.pointer, params)
        if not pointer:
            what = f"a context of {options.n_ctx_tokens} tokens for {options.n_seq_max} sequences"
            raise LoadFailed(recording.explain(f"llama.cpp cannot make {what}"))
        self.pointer = pointer
        self.buffers = recording.buffers()
        try:
            model.adapters.apply_to(pointer)
        except LoadFailed:
            lib.llama_free(pointer)
            raise
        self._memory = lib.llama_get_memory(pointer)
        self._batch = BatchBuffers(params.n_batch)
        self._logits_place = (0, 0)
        """Address of the last logits, and their number of rows."""
        self._logits: Logits = np.empty((0, 0), np.float32)
        self.keeps_states = False
        """Whether a decode's hidden states can be read, see `states`."""
        if options.is_mtp:
            self.keep_states(True)
        self._governors: dict[bool, ThreadGovernor] = {}
        """Of steps with few and with many tokens."""
        if not model.is_gpu:
            self._governors = {many: ThreadGovernor(options.n_threads) for many in (False, True)}
        self._n_governed = options.n_threads

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.pointer:
            lib.llama_free(self.pointer)
            self.pointer = None

    def use_threads(self, n_threads: int) -> None:
        lib.llama_set_n_threads(self.pointer, n_threads, n_threads)

    def trim(self, seq_id: int, n_keep: int) -> None:
        if not lib.llama_memory_seq_rm(self._memory, seq_id, n_keep, -1):
            raise DecodeFailed(f"this model's memory cannot be cut at position {n_keep}")

    def drop_beginning(self, seq_id: int, n_tokens: int) -> None:
        if not lib.llama_memory_seq_rm(self._memory, seq_id, 0, n_tokens):
            raise DecodeFailed(f"this model's memory cannot be cut at position {n_tokens}")

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, 0, n_tokens)

    def clear(self) -> None:
        """Free every cell; a model without a memory (BERT) has none."""
        if self._memory:
            lib.llama_memory_clear(self._memory, False)

    def saved_bytes(self, seq_id: int) -> int:
        return int(lib.llama_state_seq_get_size(self.pointer, seq_id))

    def save(self, seq_id: int) -> SavedCells:
        """Copy a sequence's cells to main memory; raises `MemoryError`: there is too little."""
        n_bytes = self.saved_bytes(seq_id)
        raw: _StateBytes = np.empty(n_bytes, np.uint8)
        place = _bytes_pointer(raw)
        if lib.llama_state_seq_get_data(self.pointer, place, n_bytes, seq_id) != n_bytes:
            raise DecodeFailed(f"the cells of sequence {seq_id} cannot be copied")
        n_streams = self._n_streams
        n_cells_bytes = self._cells_part_bytes(seq_id, n_bytes)
        return SavedCells(raw, n_streams, seq_id if n_streams > 1 else 0, n_cells_bytes)

    def restore(self, seq_id: int, state: SavedCells) -> None:
        """Copy what `save` returned to a sequence.

        Raises:
            CacheFull: no free cells, or the cells are of another type.
        """
        raw = _for_stream_count(state, self._n_streams)
        if not lib.llama_state_seq_set_data(self.pointer, _bytes_pointer(raw), len(raw), seq_id):
            raise CacheFull

    @property
    def _n_streams(self) -> int:
        return 1 if self.options.is_unified else self.options.n_seq_max

    def _cells_part_bytes(self, seq_id: int, n_bytes: int) -> int:
        """Return the size of a state's first part, the cells; recurrent layers follow."""
        model = self.model.pointer
        if lib.llama_model_is_recurrent(model):
            return 0
        if not lib.llama_model_is_hybrid(model):
            return n_bytes - _STATE_HEADER_BYTES
        partial = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        return n_bytes - int(lib.llama_state_seq_get_size_ext(self.pointer, seq_id, partial))

    def keep_states(self, keeps: bool) -> None:
        """Keep hidden states from the next decode on, or stop; needs `supports_mtp`."""
        if keeps != self.keeps_states:
            # Of all tokens: "masked" states, of wanted tokens only, are those of a batch's first
            # tokens in an MTP context (t_h_nextn in llama.cpp's src/models/glm4-moe.cpp).
            ext.llama_set_embeddings_nextn(self.pointer, keeps, False)
            self.keeps_states = keeps

    def states(self, n_tokens: int) -> Vectors:
        """Return the hidden states of the last batch's tokens, shape (n_tokens, n_embedding).

        The array is llama.cpp's own memory: it is valid until the next decode.
        """
        pointer = ext.llama_get_embeddings_nextn(self.pointer)
        if not pointer:
            raise DecodeFailed("the model returns no hidden states")
        return np.ctypeslib.as_array(pointer, shape=(n_tokens, self.model.n_embedding))

    def decode(
        self,
        tokens: Tokens | None,
        pos: Tokens,
        seq_ids: Tokens,
        output_mask: NDArray[np.int8],
        rows: Vectors | None = None,
    ) -> int:
        """Run one forward pass.

        Args:
            tokens: token ids, shape (n,); None: `rows` stand for them.
            pos: position of each within its sequence, shape (n,); of rows of an image with its
                components, shape (n_components, n).
            seq_ids: sequence of each, shape (n,).
            output_mask: 1 where logits or an embedding are wanted, shape (n,).
            rows: embeddings instead of tokens; in an MTP context the hidden state of the token
                before each. Shape (n, n_embedding), contiguous.

        Returns:
            How many rows there are to read.

        Raises:
            CacheFull: no free cells; nothing was decoded.
            DecodeFailed: the context is broken.
        """
        batch = self._batch.fill(tokens, pos, seq_ids, output_mask, rows)
        governor = self._governors.get(len(seq_ids) >= MANY_TOKENS)
        if governor is not None:
            n_threads, few = governor.n_threads, self._governors[False]
            if governor is not few:
                n_threads = min(n_threads, few.n_left)
            if n_threads != self._n_governed:
                self._n_governed = n_threads
                self.use_threads(n_threads)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        status = lib.llama_decode(self.pointer, batch)
        cpu_s = time.process_time() - began_cpu_s
        if governor is not None and governor.n_threads == self._n_governed:
            governor.observe(time.perf_counter() - began_s, cpu_s, len(seq_ids))
        if status == 1:
            raise CacheFull
        if status != 0:
            to_what = " to an image" if tokens is None else ""
            raise DecodeFailed(f"llama_decode answered {status}{to_what}")
        return int(np.count_nonzero(output_mask))

    @property
    def fewer_threads(self) -> int:
        """The number of threads while it is not the configured one, else 0."""
        return self._n_governed if self._n_governed != self.options.n_threads else 0

    def decode_image(
        self, rows: Vectors, pos: NDArray[np.int32], seq_id: int, *, is_causal: bool = True
    ) -> None:
        """Decode rows of an image into a sequence's cells; raises as `decode`.

        `pos` has shape (n_components, n). Not `is_causal`: each row sees all of them, so they must
        fit into one pass; llama.cpp ends the process if they do not.
        """
        n = len(rows)
        lib.llama_set_causal_attn(self.pointer, is_causal)
        try:
            self.decode(None, pos, np.full(n, seq_id, np.int32), np.zeros(n, np.int8), rows)
        finally:
            lib.llama_set_causal_attn(self.pointer, True)

    def synchronize(self) -> None:
        lib.llama_synchronize(self.pointer)

    def logits(self, n_rows: int) -> Logits:
        """Return next-token logits, shape (n_rows, n_vocab), in the order of the wanted tokens.

        The array is llama.cpp's own memory: it is valid until the next decode.
        """
        pointer = lib.llama_get_logits(self.pointer)
        place = ctypes.addressof(pointer.contents), n_rows
        if place != self._logits_place:  # making the array takes 0.04 ms
            self._logits_place = place
            self._logits = np.ctypeslib.as_array(pointer, shape=(n_rows, self.model.n_vocab))
        return self._logits

    @property
    def n_pooled(self) -> int:
        is_rank = lib.llama_pooling_type(self.pointer) == lib.LLAMA_POOLING_TYPE_RANK
        return self.model.n_scores if is_rank else self.model.n_embedding

    def embedding(self, seq_id: int) -> Vectors:
        """Return a sequence's pooled vector, valid until the next decode.

        Shape is (n_embedding,), or (n_scores,) of a reranker.
        """
        pointer = lib.llama_get_embeddings_seq(self.pointer, seq_id)
        if not pointer:
            raise DecodeFailed("the model returns no pooled embedding")
        return np.ctypeslib.as_array(pointer, shape=(self.n_pooled,))


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
