"""A projector beside a model: images become embeddings in a sequence's KV cache, by libmtmd.

`look` only cuts and scales an image and may run in any thread; `show` computes, in the thread
that owns the context. An image takes as many positions as its piece says, and models whose
attention needs more than one position for a token (M-RoPE) take more cells than positions.
"""

from __future__ import annotations

import ctypes
import hashlib
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import llama_cpp.mtmd_cpp as mtmd
import numpy as np

from paddock.engine.arrays import Tokens

from .context import Context
from .faults import DecodeFailed, LoadFailed
from .library import LOG_CALLBACK
from .model import Model


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ImagePiece:
    """A part of a prompt that is no text."""

    digest: str
    """sha256 of the file: equal images may share what was computed of them."""
    n_tokens: int
    """Cells of the KV cache."""
    n_positions: int
    handle: Any = field(repr=False)
    """libmtmd's chunk; freed with this object."""


PromptPiece = Tokens | ImagePiece


class Projector:
    """One projector file, loaded for one model."""

    def __init__(self, model: Model, path: Path, *, n_threads: int, uses_gpu: bool = True) -> None:
        mtmd.mtmd_log_set(LOG_CALLBACK, None)
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = uses_gpu
        params.n_threads = n_threads
        params.print_timings = False
        params.warmup = False  # it would compute a whole image at once
        pointer = mtmd.mtmd_init_from_file(str(path).encode(), model.pointer, params)
        if not pointer:
            raise LoadFailed(f"libmtmd cannot load the projector {path} for this model")
        self._pointer: Any = pointer
        if not mtmd.mtmd_support_vision(pointer):
            self.close()
            raise LoadFailed(f"the projector {path} is not for images")

    def close(self) -> None:
        """Free the projector; pieces must not be shown after it."""
        if self._pointer:
            mtmd.mtmd_free(self._pointer)
            self._pointer = None

    @property
    def needs_more_cells(self) -> bool:
        """Whether an image takes more cells than positions (M-RoPE)."""
        return bool(mtmd.mtmd_decode_use_mrope(self._pointer))

    def look(self, image: bytes) -> list[PromptPiece]:
        """Cut an image as the model wants it; gives its pieces with the tokens around them.

        Raises:
            ValueError: libmtmd cannot decode the image.
        """
        bitmap = self._bitmap(image)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            part = mtmd.mtmd_input_part()
            part.bitmap = bitmap
            parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
            if mtmd.mtmd_tokenize_from_parts(self._pointer, chunks, parts, 1, False) != 0:
                raise ValueError("libmtmd cannot cut this image")
            digest = hashlib.sha256(image).hexdigest()
            n_chunks = mtmd.mtmd_input_chunks_size(chunks)
            return [
                _piece(mtmd.mtmd_input_chunks_get(chunks, index), f"{digest}/{index}")
                for index in range(n_chunks)
            ]
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def _bitmap(self, image: bytes) -> Any:
        buffer = (ctypes.c_uint8 * len(image)).from_buffer_copy(image)
        bitmap = mtmd.mtmd_helper_bitmap_init_from_buf(self._pointer, buffer, len(image), False)
        if not bitmap:
            raise ValueError("libmtmd cannot decode this image")
        return bitmap

    def show(self, context: Context, piece: ImagePiece, position: int, seq_id: int) -> int:
        """Compute an image into a sequence; gives the position behind it.

        Args:
            context: of the model that this projector was loaded for.
            piece: one that `look` gave.
            position: where the image begins; everything before it is in the cache already.
            seq_id: whose cells it gets.

        Raises:
            DecodeFailed: nothing is known of the sequence's cells any more; they must go.
        """
        after = lib.llama_pos(0)
        status = mtmd.mtmd_helper_eval_chunk_single(
            self._pointer,
            context.pointer,
            piece.handle,
            position,
            seq_id,
            context.options.n_batch_tokens,
            False,
            ctypes.byref(after),
        )
        if status != 0:
            raise DecodeFailed(f"libmtmd could not compute an image (status {status})")
        return int(after.value)


def _piece(chunk: Any, digest: str) -> PromptPiece:
    if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
        n_tokens = ctypes.c_size_t(0)
        tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n_tokens))
        if not tokens or not n_tokens.value:
            return np.empty(0, np.int32)
        return np.ctypeslib.as_array(tokens, (n_tokens.value,)).astype(np.int32)
    own = mtmd.mtmd_input_chunk_copy(chunk)
    piece = ImagePiece(
        digest,
        mtmd.mtmd_input_chunk_get_n_tokens(chunk),
        mtmd.mtmd_input_chunk_get_n_pos(chunk),
        own,
    )
    weakref.finalize(piece, mtmd.mtmd_input_chunk_free, own)
    return piece
