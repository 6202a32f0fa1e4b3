"""A model's tokens as llguidance wants them: their bytes, and llama.cpp's own tokeniser."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

from .library import lib
from .model import Model

SPECIAL = b"\xff"
"""What llguidance puts before tokens that no text can spell."""


@dataclass(frozen=True, slots=True)
class RawVocabulary:
    """Tokens in the order of their ids, and addresses within llama.cpp."""

    tokens: list[bytes]
    pointer: int
    tokenise: int
    """Address of `llama_tokenize`."""


def raw_vocabulary(model: Model) -> RawVocabulary:
    """Read a model's tokens: 0.1 s for 49,152."""
    pointer = model.vocabulary
    tokenise = ctypes.cast(lib._lib.llama_tokenize, ctypes.c_void_p).value
    assert tokenise is not None
    return RawVocabulary(list(_tokens(model)), int(pointer), tokenise)


def _tokens(model: Model) -> Iterator[bytes]:
    pointer = model.vocabulary
    room = 256
    buffer = ctypes.create_string_buffer(room)
    to_piece, attributes = lib.llama_token_to_piece, lib.llama_vocab_get_attr
    for token in range(model.n_vocab):
        n = to_piece(pointer, token, buffer, room, 0, True)
        piece = buffer.raw[:n] if n >= 0 else model.piece(token, shows_control=True)
        is_special = _is_special(attributes(pointer, token), piece)
        yield SPECIAL + piece if is_special else piece


def _is_special(attributes: int, piece: bytes) -> bool:
    if attributes & lib.LLAMA_TOKEN_ATTR_CONTROL:
        return True
    is_added = attributes & lib.LLAMA_TOKEN_ATTR_USER_DEFINED
    return bool(is_added) and piece.startswith(b"<") and piece.endswith(b">")
