"""llama.cpp behind our own types: the only importer of `llama_cpp`. Runs in a worker process.

Low-level bindings only: `llama_cpp.Llama` decodes one sequence at a time. Batches are filled
through NumPy arrays that the C struct points at (0.0014 ms for 2,048 tokens; setting the fields
one by one through ctypes takes 0.95 ms).
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from .request import Sampling
from .sampling import Logits, has_penalties
from .sequence import Tokens
from .settings import CacheType, Switch
from .threads import ThreadGovernor

Vectors = NDArray[np.float32]

_KV_TYPES: dict[CacheType, int] = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}
_FLASH: dict[Switch, int] = {"auto": -1, "on": 1, "off": 0}


class LoadFailed(Exception):
    """llama.cpp would not load the model or make its context; the reason is on stderr."""


class CacheFull(Exception):
    """No free cells for this batch; nothing was decoded, so it can be tried again."""


class DecodeFailed(Exception):
    """llama.cpp could not compute; the context is not to be trusted any more."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """Shape of a context."""

    n_ctx_tokens: int
    n_batch_tokens: int
    n_seq_max: int
    n_threads: int
    embeds: bool = False
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"


class Model:
    """Weights and vocabulary of one GGUF file. Tokenising is safe from any thread."""

    def __init__(self, path: Path, *, n_gpu_layers: int = -1, main_gpu: int = 0) -> None:
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.main_gpu = main_gpu
        pointer = lib.llama_model_load_from_file(str(path).encode(), params)
        if not pointer:
            raise LoadFailed(f"llama.cpp cannot load {path}")
        self.pointer = pointer
        self._vocab: Any = lib.llama_model_get_vocab(pointer)
        self.n_vocab: int = lib.llama_vocab_n_tokens(self._vocab)
        self._pieces: dict[int, bytes] = {}

    def close(self) -> None:
        """Free the weights; contexts must be closed before."""
        if self.pointer:
            lib.llama_model_free(self.pointer)
            self.pointer = None

    def tokenise(self, text: str, *, with_special: bool, parse_special: bool) -> Tokens:
        """Give the token ids of a text, shape (n,).

        Args:
            text: any text.
            with_special: add what the model wants around a text (BOS, CLS, …).
            parse_special: read control tokens that the text spells as such.
        """
        raw = text.encode("utf-8", errors="replace")
        room = len(raw) + 8
        buffer = np.empty(room, np.int32)
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        n = lib.llama_tokenize(
            self._vocab, raw, len(raw), pointer, room, with_special, parse_special
        )
        if n < 0:  # cannot be more than one token a byte and some around it
            raise DecodeFailed(f"llama.cpp cannot tokenise a text of {len(raw)} bytes")
        return buffer[:n].copy()

    def piece(self, token: int, *, shows_control: bool = False) -> bytes:
        """Give the bytes that a token stands for; control tokens are empty unless asked for."""
        known = self._pieces.get(token)
        if known is not None and not shows_control:
            return known
        buffer = ctypes.create_string_buffer(64)
        n = lib.llama_token_to_piece(self._vocab, token, buffer, 64, 0, shows_control)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = lib.llama_token_to_piece(self._vocab, token, buffer, -n, 0, shows_control)
        piece = buffer.raw[: max(n, 0)]
        if not shows_control:
            self._pieces[token] = piece
        return piece

    def ends_generation(self, token: int) -> bool:
        """Tell whether the model means the answer to end here."""
        return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def special_text(self, which: Literal["bos", "eos"]) -> str:
        """Give the text of the token that begins or ends a sequence; empty without one."""
        ask = lib.llama_vocab_bos if which == "bos" else lib.llama_vocab_eos
        token = ask(self._vocab)
        return self.piece(token, shows_control=True).decode(errors="replace") if token >= 0 else ""

    def control_texts(self) -> list[str]:
        """Give the texts of all control tokens."""
        return [
            self.piece(token, shows_control=True).decode(errors="replace")
            for token in range(self.n_vocab)
            if lib.llama_vocab_is_control(self._vocab, token)
        ]

    def chat_template(self) -> str | None:
        """Give the Jinja2 source from the model file."""
        raw = lib.llama_model_chat_template(self.pointer, None)
        return raw.decode("utf-8", errors="replace") if raw else None

    @property
    def adds_bos(self) -> bool:
        """Whether the model wants its BOS token before every prompt."""
        return bool(lib.llama_vocab_get_add_bos(self._vocab))

    @property
    def n_embedding(self) -> int:
        """Length of an embedding vector."""
        return int(lib.llama_model_n_embd_out(self.pointer))

    @property
    def n_ctx_train(self) -> int:
        """Context that the model was trained for, in tokens."""
        return int(lib.llama_model_n_ctx_train(self.pointer))

    @property
    def can_cut_memory(self) -> bool:
        """Whether a sequence's memory can be shortened and shared from any position."""
        is_stateful = lib.llama_model_is_recurrent(self.pointer) or lib.llama_model_is_hybrid(
            self.pointer
        )
        return not is_stateful and lib.llama_model_n_swa(self.pointer) == 0


class Context:
    """One KV cache and its compute buffers. Only the thread that made it may use it."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        self.model = model
        self.options = options
        params = lib.llama_context_default_params()
        params.n_ctx = options.n_ctx_tokens
        params.n_batch = options.n_batch_tokens
        params.n_ubatch = options.n_batch_tokens
        params.n_seq_max = options.n_seq_max
        params.n_threads = params.n_threads_batch = options.n_threads
        params.flash_attn_type = _FLASH[options.flash_attention]
        params.type_k = params.type_v = _KV_TYPES[options.kv_cache_type]
        params.embeddings = options.embeds
        params.kv_unified = True
        params.no_perf = True
        pointer = lib.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise LoadFailed(
                f"llama.cpp cannot make a context of {options.n_ctx_tokens} tokens "
                f"for {options.n_seq_max} sequences"
            )
        self.pointer = pointer
        self._memory = lib.llama_get_memory(pointer)
        self._batch = _BatchBuffers(options.n_batch_tokens)
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
        self._govern(time.perf_counter() - began_s, time.process_time() - began_cpu_s)
        if status == 1:
            raise CacheFull
        if status != 0:
            raise DecodeFailed(f"llama_decode answered {status}")
        return int(np.count_nonzero(wanted))

    def _govern(self, wall_s: float, cpu_s: float) -> None:
        if self._governor is None:
            return
        n_before = self._governor.n_threads
        if self._governor.observe(wall_s, cpu_s) != n_before:
            self.use_threads(self._governor.n_threads)

    def logits(self, n_rows: int) -> Logits:
        """Give next-token logits, shape (n_rows, n_vocab), in the order of the wanted tokens.

        The array is llama.cpp's own memory: it is valid until the next decode.
        """
        pointer = lib.llama_get_logits(self.pointer)
        return np.ctypeslib.as_array(pointer, shape=(n_rows, self.model.n_vocab))

    def embedding(self, seq_id: int) -> Vectors:
        """Give a sequence's pooled vector, shape (n_embedding,), valid until the next decode."""
        pointer = lib.llama_get_embeddings_seq(self.pointer, seq_id)
        if not pointer:
            raise DecodeFailed("the model gives no pooled embedding")
        return np.ctypeslib.as_array(pointer, shape=(self.model.n_embedding,))


class _BatchBuffers:
    """A `llama_batch` whose arrays are NumPy's."""

    def __init__(self, n_max: int) -> None:
        self._tokens = np.zeros(n_max, np.int32)
        self._pos = np.zeros(n_max, np.int32)
        self._n_seq_ids = np.ones(n_max, np.int32)
        self._seq_ids = np.zeros(n_max, np.int32)
        self._wanted = np.zeros(n_max, np.int8)
        # Each token has one sequence: entry i of the pointer table points at entry i of the ids.
        step = self._seq_ids.itemsize
        self._table = (self._seq_ids.ctypes.data + step * np.arange(n_max)).astype(np.uintp)
        self._struct = lib.llama_batch()
        self._struct.token = _pointer(self._tokens, lib.llama_batch, "token")
        self._struct.pos = _pointer(self._pos, lib.llama_batch, "pos")
        self._struct.n_seq_id = _pointer(self._n_seq_ids, lib.llama_batch, "n_seq_id")
        self._struct.seq_id = _pointer(self._table, lib.llama_batch, "seq_id")
        self._struct.logits = _pointer(self._wanted, lib.llama_batch, "logits")

    def fill(
        self, tokens: Tokens, pos: Tokens, seq_ids: Tokens, wanted: NDArray[np.int8]
    ) -> lib.llama_batch:
        n = len(tokens)
        self._tokens[:n] = tokens
        self._pos[:n] = pos
        self._seq_ids[:n] = seq_ids
        self._wanted[:n] = wanted
        self._struct.n_tokens = n
        return self._struct


def _pointer(array: NDArray[Any], struct: Any, field: str) -> Any:
    """Give the array's address in the type that the struct's field has."""
    kind = next(form for name, form, *_ in struct._fields_ if name == field)
    return ctypes.cast(ctypes.c_void_p(array.ctypes.data), kind)


class SamplerChain:
    """llama.cpp's own samplers for one sequence, in llama.cpp's order."""

    def __init__(self, sampling: Sampling, recent: Items[int], n_vocab: int) -> None:
        self._chain: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        add = lib.llama_sampler_chain_add
        if has_penalties(sampling):
            add(self._chain, _penalties(sampling, len(recent), n_vocab))
        if sampling.top_k > 0:
            add(self._chain, lib.llama_sampler_init_top_k(sampling.top_k))
        add(self._chain, lib.llama_sampler_init_top_p(sampling.top_p, 1))
        add(self._chain, lib.llama_sampler_init_min_p(sampling.min_p, 1))
        add(self._chain, lib.llama_sampler_init_temp(sampling.temperature))
        add(self._chain, lib.llama_sampler_init_dist(sampling.seed & 0xFFFFFFFF))
        for token in recent:
            lib.llama_sampler_accept(self._chain, token)

    def pick(self, context: Context, batch_index: int) -> int:
        """Sample after the token at `batch_index` of the last batch."""
        return int(lib.llama_sampler_sample(self._chain, context.pointer, batch_index))

    def close(self) -> None:
        """Free the samplers."""
        if self._chain:
            lib.llama_sampler_free(self._chain)
            self._chain = None


def _penalties(sampling: Sampling, n_recent: int, n_vocab: int) -> Any:
    return lib.llama_sampler_init_penalties(
        n_vocab,
        n_recent if sampling.repeat_last_n < 0 else sampling.repeat_last_n,
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    )


def quiet_logs() -> None:
    """Keep llama.cpp's messages below warnings off stderr."""
    lib.llama_log_set(_LOG_CALLBACK, None)


def _warnings_only(level: int, text: bytes, _data: object) -> None:
    # GGML_LOG_LEVEL_WARN is 3, ERROR 4; CONT (5) continues a line whose level is not told.
    if level in (3, 4):
        sys.stderr.write(text.decode("utf-8", errors="replace"))
        sys.stderr.flush()


# Kept here, because llama.cpp holds only the address.
_LOG_CALLBACK = lib.llama_log_callback(_warnings_only)


def supports_gpu() -> bool:
    """Tell whether this build of llama.cpp can use a graphics device."""
    return bool(lib.llama_supports_gpu_offload())


def version() -> str:
    """Give llama.cpp's build and the features that it was compiled with."""
    return str(lib.llama_print_system_info().decode(errors="replace"))
