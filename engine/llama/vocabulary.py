"""What a model's file says without its weights: tokens, tokeniser, chat template, facts.

Tokenising is thread-safe. `Vocabulary.raw_vocabulary` has the tokens' bytes and the address of
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
from paddock.engine.system.records import Struct

from .library import LOG, DecodeFailed, LoadFailed, LogRecording, lib


def model_params(n_gpu_layers: int) -> Any:
    lib.llama_backend_init()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = n_gpu_layers
    if not n_gpu_layers:
        # Else it computes long prompts on a device, in buffers that are not planned.
        params.split_mode, params.main_gpu = lib.LLAMA_SPLIT_MODE_NONE, -1
    return params


class Vocabulary:
    def __init__(self, path: Path, parts: Sequence[str] = ()) -> None:
        """Raises `LoadFailed`: llama.cpp cannot read the file."""
        params = model_params(n_gpu_layers=0)
        params.vocab_only = True
        with LOG.recording() as recording:
            self._load([str(path), *parts], params, recording)
        self.buffers = recording.buffers()

    def _load(self, files: Sequence[str], params: Any, recording: LogRecording) -> None:
        if len(files) == 1:
            self.pointer = lib.llama_model_load_from_file(files[0].encode(), params)
        else:
            paths = (ctypes.c_char_p * len(files))(*(file.encode() for file in files))
            self.pointer = lib.llama_model_load_from_splits(paths, len(files), params)
        if not self.pointer:
            raise LoadFailed(recording.explain(f"llama.cpp cannot load {files[0]}"))
        self._vocab: Any = lib.llama_model_get_vocab(self.pointer)
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

    def raw_vocabulary(self) -> RawVocabulary:
        tokenise = ctypes.cast(lib._lib.llama_tokenize, ctypes.c_void_p).value
        assert tokenise is not None
        return RawVocabulary(list(self._raw_tokens()), int(self._vocab), tokenise)

    def _raw_tokens(self) -> Iterator[bytes]:
        room = 256
        buffer = ctypes.create_string_buffer(room)
        to_piece, attributes = lib.llama_token_to_piece, lib.llama_vocab_get_attr
        for token in range(self.n_vocab):
            n = to_piece(self._vocab, token, buffer, room, 0, True)
            piece = buffer.raw[:n] if n >= 0 else self.piece(token, shows_control=True)
            kind = attributes(self._vocab, token)
            is_tag = piece.startswith(b"<") and piece.endswith(b">")
            is_special = kind & lib.LLAMA_TOKEN_ATTR_CONTROL or (
                is_tag and kind & lib.LLAMA_TOKEN_ATTR_USER_DEFINED
            )
            yield SPECIAL_MARK + piece if is_special else piece


SPECIAL_MARK = b"\xff"
"""llguidance's prefix of tokens that no text can spell."""


class RawVocabulary(Struct, frozen=True):
    tokens: list[bytes]
    pointer: int
    tokenise: int
