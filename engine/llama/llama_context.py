"""A context: KV cache, compute buffers, the forward pass, samplers, and sequences saved to bytes.

Low-level bindings only: `llama_cpp.Llama` decodes one sequence at a time. Only the thread that
made a context may use it.

- `BatchBuffers` is a `llama_batch` whose arrays are NumPy's: filling it takes 0.0014 ms for 2,048
  tokens; setting the fields one by one through ctypes takes 0.95 ms.
- `ThreadGovernor` lowers the number of threads while other programs use the processor: llama.cpp's
  threads meet at a barrier some hundred times a token, and all spin while one is not running. With
  two threads on two cores and one other busy program, decoding fell from 126 tokens a second to 3;
  with one thread it stays at 40.
- `SamplerChain` samples on the host for one sequence, `DeviceChoice` on the device for all
  sequences of a context.
- `save_cells` and `restore_cells` move a sequence between streams, contexts and main memory.
  llama.cpp writes the number of streams, then for each a count of cells and the cells; it refuses
  a state with another number of streams, so that number and the empty streams are rewritten.
  Without flash attention values are transposed, so a state needs a context with the same setting
  and the same type of cells.
- `warm_up` makes the first decodes, so that a broken build crashes before a request is accepted.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors
from paddock.engine.request import Sampling
from paddock.engine.settings import CacheType, Switch
from paddock.engine.system.retry import Backoff, Pauses

from .library import LOG, CacheFull, DecodeFailed, LoadFailed, ext, lib
from .llama_model import Model

# Of a position: time, row, column and one that is reserved (M-RoPE).
MOST_COMPONENTS = 4


class BatchBuffers:
    """A `llama_batch` whose arrays are NumPy's."""

    def __init__(self, n_max: int) -> None:
        self._tokens = np.zeros(n_max, np.int32)
        self._pos = np.zeros(MOST_COMPONENTS * n_max, np.int32)
        self._n_seq_ids = np.ones(n_max, np.int32)
        self._seq_ids = np.zeros(n_max, np.int32)
        self._wanted = np.zeros(n_max, np.int8)
        # Each token has one sequence: entry i of the pointer table points at entry i of the ids.
        step = self._seq_ids.itemsize
        self._table = (self._seq_ids.ctypes.data + step * np.arange(n_max)).astype(np.uintp)
        self._struct: Any = lib.llama_batch()
        self._token_pointer = _array_pointer(self._tokens, "token")
        self._struct.pos = _array_pointer(self._pos, "pos")
        self._struct.n_seq_id = _array_pointer(self._n_seq_ids, "n_seq_id")
        self._struct.seq_id = _array_pointer(self._table, "seq_id")
        self._struct.logits = _array_pointer(self._wanted, "logits")

    def fill(
        self,
        tokens: Tokens | None,
        pos: Tokens,
        seq_ids: Tokens,
        wanted: NDArray[np.int8],
        rows: Vectors | None = None,
    ) -> Any:
        """Return the filled `llama_batch`, valid until the next call and while `rows` lives."""
        n = len(seq_ids)
        self._struct.token = None if tokens is None else self._token_pointer
        self._struct.embd = None if rows is None else _array_pointer(rows, "embd")
        if tokens is not None:
            self._tokens[:n] = tokens
        self._pos[: pos.size] = pos.ravel()
        self._seq_ids[:n] = seq_ids
        self._wanted[:n] = wanted
        self._struct.n_tokens = n
        return self._struct


def _array_pointer(array: NDArray[Any], field: str) -> Any:
    """Return the array's address as the type of a field of `llama_batch`."""
    kind: Any = next(form for name, form, *_ in lib.llama_batch._fields_ if name == field)
    return ctypes.cast(ctypes.c_void_p(array.ctypes.data), kind)


# From so many tokens on, a step has a governor of its own. Beside another busy program, a piece of
# a prompt takes 1.25 s with two threads and 2.05 s with one: its threads meet less often.
MANY_TOKENS = 64
# Long enough for a fair measurement, short enough that a stall is soon over.
GOVERNOR_WINDOW_S = 0.2
# Alone on the machine the share is above 0.95; another program on one of two cores makes it 0.75.
ENOUGH_CPU_SHARE = 0.85
# Below it, even pieces of prompts are quicker with fewer threads: beside 17 busy programs one of 71
# tokens took 10 s with two threads and 1.5 to 1.9 s with one.
CROWDED_CPU_SHARE = 0.65
# Most stalls are over at once: a longer first pause cost more than they did. A trial that fails may
# take ten seconds, so a pause is at least so many times its length.
PROBE_BACKOFF = Backoff(first_s=0.5, longest_s=32.0)
PAUSE_TRIALS = 4


class ThreadGovernor:
    """Choose the number of threads by measured steps."""

    def __init__(self, n_most: int) -> None:
        self.n_threads = n_most
        self._n_most = n_most
        self._wall_s = 0.0
        self._cpu_s = 0.0
        self._steps: dict[int, tuple[int, float]] = {}
        """Steps of this window and their seconds, by size."""
        self._undisturbed_s: dict[tuple[int, int], float] = {}
        """Seconds of an undisturbed step, by number of threads and size."""
        self._pauses = Pauses(PROBE_BACKOFF)
        self._until_probe_s = 0.0
        self._n_left, self._crowded_until = n_most, 0.0

    @property
    def n_left(self) -> int:
        """Threads that others left when they took much of the processor, until the next trial.

        Longer steps heed it too: they would lose seconds to find out.
        """
        return self._n_left if time.monotonic() < self._crowded_until else self._n_most

    def observe(self, wall_s: float, cpu_s: float, n_tokens: int = 1) -> int:
        """Note one decode's wall-clock and processor seconds; return the number of threads.

        >>> governor = ThreadGovernor(4)
        >>> governor.observe(1.0, 3.9), governor.observe(3.0, 6.2), governor.observe(11.9, 23.8)
        (4, 2, 2)
        >>> governor.observe(0.2, 0.4), governor.observe(0.5, 2.0)
        (4, 4)
        """
        self._wall_s += wall_s
        self._cpu_s += cpu_s
        size = n_tokens.bit_length()
        n_steps, steps_s = self._steps.get(size, (0, 0.0))
        self._steps[size] = (n_steps + 1, steps_s + wall_s)
        self._until_probe_s -= wall_s
        if self._wall_s >= GOVERNOR_WINDOW_S:
            self._judge(self._cpu_s / self._wall_s)
            self._wall_s = self._cpu_s = 0.0
            self._steps.clear()
        return self.n_threads

    def _judge(self, n_running: float) -> None:
        """Choose the number of threads after a window in which `n_running` ran on average."""
        if n_running >= ENOUGH_CPU_SHARE * self.n_threads:
            self._learn()
            if self.n_threads == self._n_most:
                self._pauses.succeeded()
                self._crowded_until = 0.0
        else:
            n_fewer = max(1, min(self.n_threads - 1, int(n_running)))
            if n_fewer < self.n_threads and self._would_be_quicker_with(n_fewer):
                # All of them are tried again after a growing pause.
                self._until_probe_s = max(self._pauses.failed(), PAUSE_TRIALS * self._wall_s)
                if n_running < CROWDED_CPU_SHARE * self.n_threads:
                    self._n_left = n_fewer
                    self._crowded_until = time.monotonic() + self._until_probe_s
                self.n_threads = n_fewer
                return
        if self.n_threads < self._n_most and self._until_probe_s <= 0:
            self.n_threads = self._n_most

    def _learn(self) -> None:
        for size, (n_steps, steps_s) in self._steps.items():
            self._undisturbed_s[self.n_threads, size] = steps_s / n_steps

    def _would_be_quicker_with(self, n_fewer: int) -> bool:
        """Return whether the window's steps took longer than they would with fewer threads.

        Steps not measured with fewer are estimated in proportion; those never measured undisturbed
        count as slow.
        """
        expected_s = actual_s = 0.0
        for size, (n_steps, steps_s) in self._steps.items():
            each_s = self._undisturbed_s.get((n_fewer, size))
            if each_s is None and (self.n_threads, size) in self._undisturbed_s:
                each_s = self._undisturbed_s[self.n_threads, size] * self.n_threads / n_fewer
            if each_s is not None:
                expected_s += n_steps * each_s
                actual_s += steps_s
        return actual_s > expected_s or not expected_s


_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class SamplerChain:
    """llama.cpp's samplers for one sequence, in llama.cpp's order.

    Penalties are applied to a row before (`sampling.logits`).
    """

    def __init__(self, sampling: Sampling) -> None:
        self._chain: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        add = lib.llama_sampler_chain_add
        if sampling.top_k > 0:
            add(self._chain, lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.typical_p < 1:
            add(self._chain, lib.llama_sampler_init_typical(sampling.typical_p, 1))
        add(self._chain, lib.llama_sampler_init_top_p(sampling.top_p, 1))
        add(self._chain, lib.llama_sampler_init_min_p(sampling.min_p, 1))
        add(self._chain, lib.llama_sampler_init_temp(sampling.temperature))
        add(self._chain, lib.llama_sampler_init_dist(sampling.seed & 0xFFFFFFFF))
        self._data = np.zeros(0, _TOKEN_DATA)
        self._array: Any = lib.llama_token_data_array()

    def pick(self, tokens: NDArray[np.intp], logits: Logits, *, are_sorted: bool) -> int:
        """Draw one of the tokens.

        `tokens` are at least one, with their `logits`; `are_sorted`: the likeliest comes first.
        """
        n = len(tokens)
        if len(self._data) < n:
            self._data = np.zeros(n, _TOKEN_DATA)
            self._array.data = self._data.ctypes.data_as(lib.llama_token_data_p)
        self._data["id"][:n] = tokens
        self._data["logit"][:n] = logits
        array = self._array
        array.size, array.selected, array.sorted = n, -1, are_sorted
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(self._data["id"][array.selected])

    def pick_of_all(self, row: Logits) -> int:
        token = self.pick(np.arange(len(row)), row, are_sorted=False)
        # Not kept for every request: 1.8 MB at 151,936 tokens.
        self._data = np.zeros(0, _TOKEN_DATA)
        return token

    def close(self) -> None:
        if self._chain:
            lib.llama_sampler_free(self._chain)
            self._chain = None


class DeviceChoice:
    """Choice within the forward pass: each row returns the likeliest token, or a few with logits.

    Every sequence id has a chain of its own, and at most one row in a step. Of one token, the
    device's kernel chooses among equal logits. Draws stay on the host: on the device the same seed
    would draw other tokens, so an answer would depend on what else runs.
    """

    def __init__(self, context: Any, n_seq_ids: int, n_candidates: int) -> None:
        """Set a chain for each sequence id; the next decode reserves its graph again."""
        self._context = context
        self._chains: list[Any] = []
        self.n_candidates = n_candidates
        self.is_possible = True
        for seq_id in range(n_seq_ids):
            chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
            is_one = n_candidates == 1
            sampler = (
                lib.llama_sampler_init_greedy()
                if is_one
                else lib.llama_sampler_init_top_k(n_candidates)
            )
            lib.llama_sampler_chain_add(chain, sampler)
            self._chains.append(chain)
            is_set = lib.llama_set_sampler(context, seq_id, chain)
            # llama.cpp marks samplers that the device can compute by a plus.
            name = lib.llama_sampler_name(lib.llama_sampler_chain_get(chain, 0))
            if not is_set or not name.startswith(b"+"):
                self.is_possible = False
                break

    def tokens(self, batch_places: Items[int]) -> list[int]:
        """Return the tokens chosen after these positions of the last batch."""
        get = lib.llama_get_sampled_token_ith
        return [get(self._context, place) for place in batch_places]

    def candidates(self, batch_place: int) -> tuple[Tokens, Logits] | None:
        """Return the likeliest tokens after a position of the last batch, in any order."""
        n = lib.llama_get_sampled_candidates_count_ith(self._context, batch_place)
        if not 0 < n == lib.llama_get_sampled_logits_count_ith(self._context, batch_place):
            return None
        tokens = lib.llama_get_sampled_candidates_ith(self._context, batch_place)
        logits = lib.llama_get_sampled_logits_ith(self._context, batch_place)
        as_array = np.ctypeslib.as_array
        return as_array(tokens, shape=(n,)), as_array(logits, shape=(n,))

    def close(self) -> None:
        """Take the chains away from the context, which must be open still, and free them."""
        for seq_id, chain in enumerate(self._chains):
            lib.llama_set_sampler(self._context, seq_id, None)
            lib.llama_sampler_free(chain)
        self._chains.clear()


_KV_TYPES: dict[CacheType, int] = {
    "f16": lib.GGML_TYPE_F16,
    "q8_0": lib.GGML_TYPE_Q8_0,
    "q4_0": lib.GGML_TYPE_Q4_0,
}
_FLASH: dict[Switch, int] = {"auto": -1, "on": 1, "off": 0}


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """Shape of a context."""

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


class Context:
    """One KV cache and its compute buffers. Only the thread that made it may use it."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
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
        with LOG.recording() as said:
            pointer = lib.llama_init_from_model(model.pointer, params)
        if not pointer:
            what = f"a context of {options.n_ctx_tokens} tokens for {options.n_seq_max} sequences"
            raise LoadFailed(said.explain(f"llama.cpp cannot make {what}"))
        self.pointer = pointer
        self.buffers = said.buffers()
        try:
            model.adapters.apply_to(pointer)
        except LoadFailed:
            lib.llama_free(pointer)
            raise
        self._memory = lib.llama_get_memory(pointer)
        self._batch = BatchBuffers(params.n_batch)
        self._logits_place = (0, 0)
        self._logits: Logits = np.empty((0, 0), np.float32)
        self._device_choice: DeviceChoice | None = None
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
        self.choose_on_device(0)
        if self.pointer:
            lib.llama_free(self.pointer)
            self.pointer = None

    def use_threads(self, n_threads: int) -> None:
        """Set the number of threads from the next decode on."""
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
        """Share the first `n_tokens` cells of `source` with `target`."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, n_tokens)

    def clear(self) -> None:
        """Free every cell; a model without a memory (BERT) has none."""
        if self._memory:
            lib.llama_memory_clear(self._memory, False)

    def keep_states(self, is_wanted: bool) -> None:
        """Keep hidden states from the next decode on, or stop; needs `supports_mtp`."""
        if is_wanted != self.keeps_states:
            # Of all tokens: "masked" states, of wanted tokens only, are those of a batch's first
            # tokens in an MTP context (t_h_nextn in llama.cpp's src/models/glm4-moe.cpp).
            ext.llama_set_embeddings_nextn(self.pointer, is_wanted, False)
            self.keeps_states = is_wanted

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
        wanted: NDArray[np.int8],
        rows: Vectors | None = None,
    ) -> int:
        """Run one forward pass.

        Args:
            tokens: token ids, shape (n,); None: `rows` stand for them.
            pos: position of each within its sequence, shape (n,); of rows of an image with its
                components, shape (n_components, n).
            seq_ids: sequence of each, shape (n,).
            wanted: 1 where logits or an embedding are wanted, shape (n,).
            rows: embeddings instead of tokens; in an MTP context the hidden state of the token
                before each. Shape (n, n_embedding), contiguous.

        Returns:
            How many rows there are to read.

        Raises:
            CacheFull: no free cells; nothing was decoded.
            DecodeFailed: the context is broken.
        """
        batch = self._batch.fill(tokens, pos, seq_ids, wanted, rows)
        governor = self._governors.get(len(seq_ids) >= MANY_TOKENS)
        if governor is not None:
            self._set_threads(governor)
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
        return int(np.count_nonzero(wanted))

    def _set_threads(self, governor: ThreadGovernor) -> None:
        n_threads, few = governor.n_threads, self._governors[False]
        if governor is not few:
            n_threads = min(n_threads, few.n_left)
        if n_threads != self._n_governed:
            self._n_governed = n_threads
            self.use_threads(n_threads)

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
        """Wait until the device has computed everything."""
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

    @property
    def n_candidates(self) -> int:
        """How many likely tokens of a row the next decode returns; 0: whole rows of logits."""
        return self._device_choice.n_candidates if self._device_choice is not None else 0

    def choose_on_device(self, n_candidates: int) -> bool:
        """Return so many of a row's likeliest tokens from now on, or whole rows; return if it can.

        Of one candidate there is only the token. A change costs a new plan of the compute buffers
        at the next decode.
        """
        if n_candidates == self.n_candidates:
            return True
        if self._device_choice is not None:
            self._device_choice.close()
            self._device_choice = None
        if n_candidates:
            choice = DeviceChoice(self.pointer, self.options.n_seq_max, n_candidates)
            if not choice.is_possible:
                choice.close()
                return False
            self._device_choice = choice
        return True

    def chosen(self, batch_places: Items[int]) -> list[int]:
        """Return the tokens that the device chose after these positions of the last batch.

        Raises:
            DecodeFailed: it chose none.
        """
        tokens = self._device_choice.tokens(batch_places) if self._device_choice else []
        if len(tokens) < len(batch_places) or min(tokens, default=0) < 0:
            raise DecodeFailed("the device chose no token")
        return tokens

    def candidates(self, batch_places: Items[int]) -> list[tuple[Tokens, Logits]]:
        """Return likely tokens and their logits after these positions, each in any order.

        The arrays are llama.cpp's own memory: they are valid until the next decode.

        Raises:
            DecodeFailed: the device chose none.
        """
        choice = self._device_choice
        found = [choice.candidates(place) for place in batch_places] if choice is not None else []
        known = [one for one in found if one is not None]
        if len(known) < len(batch_places):
            raise DecodeFailed("the device chose no tokens")
        return known

    def embedding(self, seq_id: int) -> Vectors:
        """Return a sequence's pooled vector, valid until the next decode.

        Shape is (n_embedding,), or (n_scores,) of a reranker.
        """
        pointer = lib.llama_get_embeddings_seq(self.pointer, seq_id)
        if not pointer:
            raise DecodeFailed("the model returns no pooled embedding")
        return np.ctypeslib.as_array(pointer, shape=(self.n_pooled,))


_StateBytes = NDArray[np.uint8]
_STATE_HEADER_BYTES = 8  # a magic number and the sequence's id
_COUNT_BYTES = 4


@dataclass(frozen=True, slots=True)
class SavedCells:
    """One sequence's part of a cache, as llama.cpp writes it."""

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
    """Return a state's bytes for a cache with `n_streams`."""
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


WARM_UP_CELLS = 256  # llama.cpp pads to it
# Kernels for several tokens differ from those for one: AMX is used from two on, repacked weights
# take four at once.
_N_WARM_UP_TOKENS = 8


def warm_up(model: Model, options: ContextOptions) -> int:
    """Decode a few tokens at once, and then one, in a context of its own; return how many.

    On a graphics device decode a prompt first: kernels are loaded at their first use, and the first
    request would wait for that.

    Raises:
        LoadFailed: the context cannot be made.
        DecodeFailed: llama.cpp cannot compute.
    """
    with Context(model, options) as context:
        if model.is_gpu and not options.embeds:
            _decode_zeros(context, 0, WARM_UP_CELLS)
            context.clear()
        _decode_zeros(context, 0, _N_WARM_UP_TOKENS)
        if not options.embeds:
            _decode_zeros(context, _N_WARM_UP_TOKENS, 1)
    return _N_WARM_UP_TOKENS


def _decode_zeros(context: Context, start: int, n_tokens: int) -> None:
    wanted = np.full(n_tokens, context.options.embeds, np.int8)
    wanted[-1] = 1
    pos = np.arange(start, start + n_tokens, dtype=np.int32)
    tokens = np.zeros(n_tokens, np.int32)
    context.decode(tokens, pos, np.zeros(n_tokens, np.int32), wanted)
