"""One model file: weights, vocabulary, tokeniser, LoRA adapters.

Tokenising is thread-safe. `Model.raw_vocabulary` has the tokens' bytes and the address of
llama.cpp's tokeniser for llguidance.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.settings import SplitMode
from paddock.engine.system.records import Struct

from .library import LOG, DecodeFailed, LoadFailed, LogRecording, ggml_function, lib, supports_gpu


class LoraAdapters:
    def __init__(self, model: Any, paths: Sequence[str], recording: LogRecording) -> None:
        self._pointers = [_load_adapter(model, path, recording) for path in paths]

    def apply_to(self, context: Any) -> None:
        n = len(self._pointers)
        if not n:
            return
        pointers = (lib.llama_adapter_lora_p_ctypes * n)(
            *(ctypes.cast(pointer, lib.llama_adapter_lora_p_ctypes) for pointer in self._pointers)
        )
        scales = (ctypes.c_float * n)(*[1.0] * n)
        if lib.llama_set_adapters_lora(context, pointers, n, scales) != 0:
            raise LoadFailed("llama.cpp cannot use the adapters with this context")


def _load_adapter(model: Any, path: str, recording: LogRecording) -> Any:
    pointer = lib.llama_adapter_lora_init(model, path.encode())
    if not pointer:
        raise LoadFailed(
            recording.explain(f"llama.cpp cannot apply the adapter {path} to this model")
        )
    if lib.llama_adapter_get_alora_n_invocation_tokens(pointer):
        what = "holds from certain words of a prompt on (aLoRA), which is not supported"
        raise LoadFailed(f"the adapter {path} {what}: use one for whole prompts")
    return pointer


_SPLIT_MODES: dict[SplitMode, int] = {
    "none": lib.LLAMA_SPLIT_MODE_NONE,
    "layer": lib.LLAMA_SPLIT_MODE_LAYER,
    "row": lib.LLAMA_SPLIT_MODE_ROW,
    "tensor": lib.LLAMA_SPLIT_MODE_TENSOR,
}

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


class _BufferOverride(ctypes.Structure):
    _fields_ = (("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p))


def _load_files(files: Sequence[str], params: Any) -> Any:
    if len(files) == 1:
        return lib.llama_model_load_from_file(files[0].encode(), params)
    paths = (ctypes.c_char_p * len(files))(*(file.encode() for file in files))
    return lib.llama_model_load_from_splits(paths, len(files), params)


class ModelOptions(Struct, frozen=True):
    n_gpu_layers: int = -1
    """Layers on graphics devices; -1: all."""
    main_gpu: int = 0
    split_mode: SplitMode = "layer"
    """How weights are spread over several devices."""
    tensor_split: Sequence[float] = ()
    """Each device's share; empty: by free memory."""
    adapters: Sequence[str] = ()
    is_vocabulary: bool = False
    uses_extra_buffers: bool = True
    """Whether weights may be repacked for the processor (AMX and others)."""
    parts: Sequence[str] = ()
    """The other files of a split model."""
    n_cpu_experts: int = 0
    """Layers, from the first on, whose experts stay in main memory."""
    loads_mtp: bool = False
    """Whether to load the layer that guesses tokens ahead (multi-token prediction)."""


class Model:
    def __init__(self, path: Path, options: ModelOptions | None = None) -> None:
        options = options or ModelOptions()
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = options.n_gpu_layers
        params.main_gpu = options.main_gpu
        params.split_mode = _SPLIT_MODES[options.split_mode]
        if not options.n_gpu_layers:
            # Else it computes long prompts on a device, in buffers that are not planned.
            params.split_mode, params.main_gpu = lib.LLAMA_SPLIT_MODE_NONE, -1
        params.vocab_only = options.is_vocabulary
        params.use_extra_bufts = options.uses_extra_buffers
        params.load_mtp = options.loads_mtp
        if options.tensor_split:
            shares = (ctypes.c_float * lib.LLAMA_MAX_DEVICES)(*options.tensor_split)
            params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        if options.n_cpu_experts:
            # The experts of the first layers stay in main memory, by the pattern of llama.cpp's
            # `--n-cpu-moe`; an empty entry ends it. It must live until the weights are loaded.
            cpu = ggml_function("ggml_backend_cpu_buffer_type", ctypes.c_void_p)()
            pattern = r"blk\.%d\.ffn_(up|down|gate|gate_up)_(ch|)exps"
            layers = range(options.n_cpu_experts)
            rows = [_BufferOverride((pattern % layer).encode(), cpu) for layer in layers]
            overrides = (_BufferOverride * (len(rows) + 1))(*rows, _BufferOverride(None, None))
            params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        with LOG.recording() as recording:
            pointer = _load_files([str(path), *options.parts], params)
            if not pointer:
                raise LoadFailed(recording.explain(f"llama.cpp cannot load {path}"))
            self.pointer = pointer
            self.uses_extra_buffers = options.uses_extra_buffers
            self.adapters = LoraAdapters(pointer, options.adapters, recording)
        self.buffers = recording.buffers()
        self.is_gpu = supports_gpu() and options.n_gpu_layers != 0
        self._vocab: Any = lib.llama_model_get_vocab(pointer)
        self.n_vocab: int = lib.llama_vocab_n_tokens(self._vocab)
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self._special: dict[str, int] | None = None

    def close(self) -> None:
        if self.pointer:
            lib.llama_model_free(self.pointer)
            self.pointer = None

    def tokenise(self, text: str, *, with_special: bool, parse_special: bool) -> Tokens:
        """Return the token ids of a text, shape (n,).

        `with_special`: add what the model wants around a text (BOS, CLS, …); `parse_special`: texts
        of control tokens become these tokens.
        """
        raw = text.encode("utf-8", errors="replace")
        room = len(raw) + 8
        buffer = np.empty(room, np.int32)
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        n = lib.llama_tokenize(
            self._vocab, raw, len(raw), pointer, room, with_special, parse_special
        )
        if n < 0:  # at most one token a byte, and some around the text
            raise DecodeFailed(f"llama.cpp cannot tokenise a text of {len(raw)} bytes")
        return buffer[:n].copy()

    def piece(self, token: int, *, shows_control: bool = False) -> bytes:
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

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, control tokens included; each id must be valid."""
        ids = np.asarray(tokens, np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        room = 8 * len(ids) + 16
        while True:
            buffer = ctypes.create_string_buffer(room)
            n = lib.llama_detokenize(self._vocab, pointer, len(ids), buffer, room, False, True)
            if n >= 0:
                return buffer.raw[:n].decode("utf-8", errors="replace")
            room = -n

    def insert_tokens(self) -> tuple[int, int, int] | None:
        """Return the tokens for fill-in-the-middle: prefix, suffix, middle; None if unknown."""
        getters = (lib.llama_vocab_fim_pre, lib.llama_vocab_fim_suf, lib.llama_vocab_fim_mid)
        before, behind, between = (int(token_of(self._vocab)) for token_of in getters)
        if min(before, behind, between) < 0:
            return None
        return before, behind, between

    def pair_tokens(self) -> tuple[list[int], list[int], list[int]]:
        vocab = self._vocab
        bos, eos, sep = (
            int(token_of(vocab))
            for token_of in (lib.llama_vocab_bos, lib.llama_vocab_eos, lib.llama_vocab_sep)
        )
        eos = sep if eos < 0 else eos
        begin = [bos] if lib.llama_vocab_get_add_bos(vocab) else []
        end = [eos] if lib.llama_vocab_get_add_eos(vocab) else []
        between = [sep] if lib.llama_vocab_get_add_sep(vocab) else []
        return begin, end + between, end

    def ends_generation(self, token: int) -> bool:
        ends = self._ends.get(token)
        if ends is None:
            ends = self._ends[token] = bool(lib.llama_vocab_is_eog(self._vocab, token))
        return ends

    @property
    def vocabulary(self) -> Any:
        return self._vocab

    @cached_property
    def ending_tokens(self) -> tuple[int, ...]:
        own = lib.llama_vocab_eos(self._vocab)
        is_end = lib.llama_vocab_is_eog
        ends = [token for token in range(self.n_vocab) if is_end(self._vocab, token)]
        return tuple(sorted(ends, key=lambda token: token != own))

    @cached_property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """Tokens that are never said, by the file (`tokenizer.ggml.suppress_tokens`)."""
        n_tokens = ctypes.c_int32()
        found = lib.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(n_tokens))
        return tuple(found[: n_tokens.value])

    def special_text(self, which: Literal["bos", "eos"]) -> str:
        token_of = lib.llama_vocab_bos if which == "bos" else lib.llama_vocab_eos
        token = token_of(self._vocab)
        return self.piece(token, shows_control=True).decode(errors="replace") if token >= 0 else ""

    def special_tokens(self) -> dict[str, int]:
        """Return the ids of tokens that a grammar must name by number, by their texts.

        These are the control tokens, and user-defined tokens that look like tags. The first call
        takes 30 ms for 150,000 tokens.
        """
        if self._special is None:
            self._special = {}
            tag = lib.LLAMA_TOKEN_ATTR_USER_DEFINED
            for token in range(self.n_vocab):
                attributes = lib.llama_vocab_get_attr(self._vocab, token)
                if not attributes & (lib.LLAMA_TOKEN_ATTR_CONTROL | tag):
                    continue
                text = self.piece(token, shows_control=True).decode(errors="replace")
                if attributes & lib.LLAMA_TOKEN_ATTR_CONTROL or (text[:1], text[-1:]) == ("<", ">"):
                    self._special[text] = token
        return self._special

    def chat_template(self, name: str | None = None) -> str | None:
        """Return the Jinja2 source from the model file, or its variant of this name, if any."""
        raw = lib.llama_model_chat_template(self.pointer, name.encode() if name else None)
        return raw.decode("utf-8", errors="replace") if raw else None

    @property
    def adds_bos(self) -> bool:
        return bool(lib.llama_vocab_get_add_bos(self._vocab))

    @property
    def n_embedding(self) -> int:
        return int(lib.llama_model_n_embd_out(self.pointer))

    @property
    def n_layers(self) -> int:
        return int(lib.llama_model_n_layer(self.pointer))

    @property
    def n_scores(self) -> int:
        """Number of values that a classifier returns for a text; 1 for most rerankers."""
        return int(lib.llama_model_n_cls_out(self.pointer))

    @property
    def names_pooling(self) -> bool:
        """Whether the file says how the states of a text's tokens become one vector."""
        kind = self._metadata(f"{self._metadata('general.architecture')}.pooling_type")
        return kind not in ("", str(lib.LLAMA_POOLING_TYPE_NONE))

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(64)
        lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def raw_vocabulary(self) -> RawVocabulary:
        tokenise = ctypes.cast(lib._lib.llama_tokenize, ctypes.c_void_p).value
        assert tokenise is not None
        return RawVocabulary(list(_raw_tokens(self)), int(self.vocabulary), tokenise)

    @property
    def memory(self) -> MemoryKind:
        """How the model remembers a sequence, see `MemoryKind`."""
        if lib.llama_model_is_recurrent(self.pointer) or lib.llama_model_is_hybrid(self.pointer):
            return "state"
        return "window" if lib.llama_model_n_swa(self.pointer) else "cells"


SPECIAL_MARK = b"\xff"
"""llguidance's prefix of tokens that no text can spell."""


class RawVocabulary(Struct, frozen=True):
    tokens: list[bytes]
    pointer: int
    tokenise: int


def _raw_tokens(model: Model) -> Iterator[bytes]:
    pointer = model.vocabulary
    room = 256
    buffer = ctypes.create_string_buffer(room)
    to_piece, attributes = lib.llama_token_to_piece, lib.llama_vocab_get_attr
    for token in range(model.n_vocab):
        n = to_piece(pointer, token, buffer, room, 0, True)
        piece = buffer.raw[:n] if n >= 0 else model.piece(token, shows_control=True)
        is_special = _is_special_token(attributes(pointer, token), piece)
        yield SPECIAL_MARK + piece if is_special else piece


def _is_special_token(attributes: int, piece: bytes) -> bool:
    if attributes & lib.LLAMA_TOKEN_ATTR_CONTROL:
        return True
    is_added = attributes & lib.LLAMA_TOKEN_ATTR_USER_DEFINED
    return bool(is_added) and piece.startswith(b"<") and piece.endswith(b">")
