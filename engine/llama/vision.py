"""Multimodal projector: an image becomes rows of embeddings, by libmtmd.

The rows are part of a sequence like tokens, so that the scheduler may cut them anywhere, and
prompts that begin with the same image share its cells. That holds for models that read images in
order. Models with non-causal attention over an image, or two-dimensional positions, are refused.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paddock.engine.arrays import Tokens, Vectors

from .library import LOG, LOG_CALLBACK, LoadFailed, lib
from .llama_model import Model

# isort: split
import llama_cpp.mtmd_cpp as mtmd  # after .library, which names the folder of libmtmd


@dataclass(frozen=True, slots=True, eq=False)
class ImagePiece:
    """A part of a prompt that is an image."""

    digest: str
    """sha256 of the file, and the part's index in it: equal parts have equal rows."""
    rows: Vectors = field(repr=False)
    """Shape (n, n_embedding), float32; each row has a position and a cell of its own."""


PromptPiece = Tokens | ImagePiece


class Projector:
    """One projector file, loaded for one model."""

    def __init__(
        self,
        model: Model,
        path: Path,
        *,
        n_threads: int,
        uses_gpu: bool = True,
    ) -> None:
        self.on_part: Callable[[int], None] = lambda _: None
        """Called before each part of an image, with its number of rows; may raise to give up."""
        mtmd.mtmd_log_set(LOG_CALLBACK, None)
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = uses_gpu
        params.n_threads = n_threads
        params.print_timings = False
        params.warmup = False  # it would compute a whole image at once
        with LOG.recording() as said:
            pointer = mtmd.mtmd_init_from_file(str(path).encode(), model.pointer, params)
        if not pointer:
            words = f"libmtmd cannot load the projector {path} for this model"
            raise LoadFailed(said.explain(words))
        self._pointer: Any = pointer
        self._n_row = int(lib.llama_model_n_embd_inp(model.pointer))
        if not mtmd.mtmd_support_vision(pointer):
            self.close()
            raise LoadFailed(f"the projector {path} is not for images")

    def close(self) -> None:
        if self._pointer:
            mtmd.mtmd_free(self._pointer)
            self._pointer = None

    def look(self, image: bytes) -> list[PromptPiece]:
        """Cut an image into pieces, and compute their embeddings.

        Returns the pieces with the tokens that the model wants around them. Uses the projector
        alone, not the context; not thread-safe.

        Raises:
            ValueError: the image cannot be decoded, or this kind of model is not supported.
        """
        if mtmd.mtmd_decode_use_mrope(self._pointer):
            raise ValueError("models that count an image's positions in two dimensions (M-RoPE) "
                             "are not served with images")  # fmt: skip
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
                self._piece(mtmd.mtmd_input_chunks_get(chunks, index), f"{digest}/{index}")
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

    def _piece(self, chunk: Any, digest: str) -> PromptPiece:
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            return _text_tokens(chunk)
        if mtmd.mtmd_decode_use_non_causal(self._pointer, chunk):
            raise ValueError("models that look at an image as a whole (non-causal attention) "
                             "are not served with images")  # fmt: skip
        n_rows = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        self.on_part(n_rows)
        if mtmd.mtmd_encode_chunk(self._pointer, chunk) != 0:
            raise ValueError("libmtmd could not compute this image")
        shape = (n_rows, self._n_row)
        rows = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._pointer), shape)
        return ImagePiece(digest, rows.copy())


def _text_tokens(chunk: Any) -> Tokens:
    n_tokens = ctypes.c_size_t(0)
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n_tokens))
    if not tokens or not n_tokens.value:
        return np.empty(0, np.int32)
    return np.ctypeslib.as_array(tokens, (n_tokens.value,)).astype(np.int32)
