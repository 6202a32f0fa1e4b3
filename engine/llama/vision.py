"""Multimodal projector: an image becomes rows of embeddings, by libmtmd.

The rows are part of a sequence like tokens, and prompts that begin with the same image share its
cells. What differs between families is data of a piece: how wide its rows are (Qwen3-VL adds a part
for each of some layers, DeepStack), how many components a position has (time, row and column in
M-RoPE), how far the text after it goes on, and whether its rows see one another in both directions.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.gguf import TYPE_NAMES, read_header
from paddock.engine.system.images import opened_image

from .image_cache import ImagePiece, KeptImages, PromptPiece
from .library import LOG, LOG_CALLBACK, LoadFailed, lib
from .llama_weights import LlamaWeights

# isort: split
import llama_cpp.mtmd_cpp as mtmd  # after .library, which names the folder of libmtmd

# Threads meet half as often: beside answers, InternVL's parts come 1.09 to 1.14 times as fast as
# one by one (four at once: 1.09), alone 1.02 times. A cancelled request waits for both.
PARTS_AT_ONCE = 2


# In a progressive JPEG there are up to a dozen; each takes as long as the whole picture, however
# few bytes it has.
_MOST_SCANS = 200
_START_OF_SCAN = b"\xff\xda"
_STRIP_ROWS = 256
DAMAGED = "its picture cannot be decoded; the file is damaged or cut off"

Pixels = NDArray[np.uint8]


def _check_room(n_rows: int, n_most: int) -> None:
    if n_rows >= n_most:
        raise ValueError(f"it takes {n_rows} tokens, and the context has room for {max(0, n_most)}"
                         ": make it smaller, or the context longer")  # fmt: skip


def line_end(path: Path) -> Vectors | None:
    """Return the row of a projector's file that ends each line of Pixtral's images.

    libmtmd clears the memory that it is added to by a multiplication by 0, and 0 times what was
    left there may be no number.
    """
    header = read_header(path)
    for tensor in header.tensors:
        if (tensor.name, TYPE_NAMES.get(tensor.kind)) == ("v.token_embd.img_break", "F32"):
            place = header.data_at + tensor.offset
            return np.fromfile(path, np.float32, tensor.n_weights, offset=place)
    return None


class Projector:
    def __init__(
        self,
        model: LlamaWeights,
        path: Path,
        *,
        n_threads: int,
        n_pass_tokens: int,
        uses_gpu: bool = True,
        kept: KeptImages | None = None,
    ) -> None:
        """Load it.

        `n_pass_tokens`: the least size of a pass through the model; `kept`: rows for the next
        request with the same image.
        """
        self.on_part: Callable[[int], None] = lambda _: None
        """Called before parts of an image, with their number of rows; may raise to give up."""
        mtmd.mtmd_log_set(LOG_CALLBACK, None)
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = uses_gpu
        params.n_threads = n_threads
        params.print_timings = False
        params.warmup = False  # it would compute a whole image at once
        with LOG.recording() as recording:
            pointer = mtmd.mtmd_init_from_file(str(path).encode(), model.pointer, params)
        if not pointer:
            message = f"libmtmd cannot load the projector {path} for this model"
            raise LoadFailed(recording.explain(message))
        self._pointer: Any = pointer
        self._line_end = line_end(path)
        self._n_row = int(lib.llama_model_n_embd_inp(model.pointer))
        self._n_pass_tokens = n_pass_tokens
        self._kept = kept or KeptImages(0)
        self._n_components = 4 if mtmd.mtmd_decode_use_mrope(pointer) else 1
        if not mtmd.mtmd_support_vision(pointer):
            self.close()
            raise LoadFailed(f"the projector {path} is not for images")

    def close(self) -> None:
        if self._pointer:
            mtmd.mtmd_free(self._pointer)
            self._pointer = None

    def embed_image(
        self, image: bytes, n_most_rows: int = sys.maxsize, *, on_disk: bool = False
    ) -> tuple[PromptPiece, ...]:
        """Cut an image into pieces, and compute their embeddings, unless they are kept.

        `on_disk`: they may be kept on the disk, too. Returns the pieces with the tokens that the
        model wants around them. Uses the projector alone, not the context; not thread-safe.

        Raises:
            ValueError: the image cannot be decoded, or has more rows than `n_most_rows` or a pass.
        """
        digest = hashlib.sha256(image).hexdigest()
        pieces = self._kept.get(digest, on_disk=on_disk)
        if pieces is None:
            pieces = self._computed(image, digest, n_most_rows)
            self._kept.put(digest, pieces, on_disk=on_disk)
        rows = (each.rows if isinstance(each, ImagePiece) else each for each in pieces)
        _check_room(sum(map(len, rows)), n_most_rows)
        return pieces

    def _computed(self, image: bytes, digest: str, n_most_rows: int) -> tuple[PromptPiece, ...]:
        pixels = upright_pixels(image)
        height, width, _ = pixels.shape
        pointer = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(width, height, pointer)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            part = mtmd.mtmd_input_part()
            part.bitmap = bitmap
            parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
            if mtmd.mtmd_tokenize_from_parts(self._pointer, chunks, parts, 1, False) != 0:
                raise ValueError("this model cannot divide it; cut it nearer to a square")
            mtmd.mtmd_bitmap_free(bitmap)  # what is computed is made of it already
            bitmap = None
            n_chunks = mtmd.mtmd_input_chunks_size(chunks)
            every = [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(n_chunks)]
            n_rows = sum(mtmd.mtmd_input_chunk_get_n_tokens(chunk) for chunk in every)
            _check_room(n_rows, n_most_rows)
            rows = self._rows([chunk for chunk in every if not _is_text(chunk)])
            return tuple(self._piece(chunk, f"{digest}/{n}", rows) for n, chunk in enumerate(every))
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            if bitmap is not None:
                mtmd.mtmd_bitmap_free(bitmap)

    def _piece(self, chunk: Any, digest: str, all_rows: Iterator[Vectors]) -> PromptPiece:
        if _is_text(chunk):
            return _text_tokens(chunk)
        is_causal = not mtmd.mtmd_decode_use_non_causal(self._pointer, chunk)
        n_rows = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        if not is_causal and n_rows > self._n_pass_tokens:
            raise ValueError(f"this model reads an image in one pass, and its {n_rows} rows exceed "
                             f"the {self._n_pass_tokens} of `n_batch_tokens`")  # fmt: skip
        rows = next(all_rows)
        if self._line_end is not None:  # the first row ends no line
            np.copyto(rows, self._line_end, where=np.isnan(rows) & ~np.isnan(rows[0]))
        if not np.isfinite(rows).all():
            raise ValueError("its projector computes what is no number for it")
        n_positions = mtmd.mtmd_input_chunk_get_n_pos(chunk)
        found = np.empty((n_rows, 4), np.int32)
        pointer = found.ctypes.data_as(ctypes.POINTER(mtmd.mtmd_decoder_pos))
        image = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        mtmd.mtmd_helper_image_get_decoder_pos(image, 0, pointer)
        time, column, row, reserved = found.T
        positions = np.stack([time, row, column, reserved])[: self._n_components]
        return ImagePiece(digest, rows, positions, n_positions, is_causal)

    def _rows(self, parts: Sequence[Any]) -> Iterator[Vectors]:
        """Compute an image's parts in order, and yield the rows of each.

        Of some families, such as InternVL, libmtmd computes several at once, with the same result.
        """
        n_done = 0
        while n_done < len(parts):
            batch = mtmd.mtmd_batch_init(self._pointer)
            try:
                next_parts = parts[n_done : n_done + PARTS_AT_ONCE]
                together = [
                    part for part in next_parts if not mtmd.mtmd_batch_add_chunk(batch, part)
                ]
                sizes = [mtmd.mtmd_input_chunk_get_n_tokens(part) for part in together]
                self.on_part(sum(sizes))
                # In a thread that ends, and OpenMP's threads with it: while more of these live than
                # there are cores, none waits awake for others. A token took 12 ms instead of 7 on
                # two cores.
                with ThreadPoolExecutor(1) as alone:
                    status = alone.submit(mtmd.mtmd_batch_encode, batch).result()
                if not together or status != 0:
                    raise ValueError("libmtmd could not compute this image")
                for part, n_rows in zip(together, sizes, strict=True):
                    rows = mtmd.mtmd_batch_get_output_embd(batch, part)
                    yield np.ctypeslib.as_array(rows, (n_rows, self._n_row)).copy()
            finally:
                mtmd.mtmd_batch_free(batch)
            n_done += len(together)


def upright_pixels(data: bytes) -> Pixels:
    """Return an image's first picture in RGB, upright, and on white where it is transparent.

    The array's shape is (height, width, 3).

    Raises:
        ValueError: it is damaged.
    """
    if data[:2] == b"\xff\xd8" and data.count(_START_OF_SCAN) > _MOST_SCANS:
        raise ValueError(DAMAGED)
    try:
        with opened_image(data) as image:
            image.load()
            with suppress(Exception):  # a damaged note of a camera turns nothing
                ImageOps.exif_transpose(image, in_place=True)
            return _rgb_pixels(image)
    except Exception as error:  # its decoders raise what they like
        raise ValueError(DAMAGED) from error


def _rgb_pixels(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):  # grey of 16 bits
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        shown = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(shown, mask=shown.getchannel("A"))
    else:
        opaque = image if image.mode == "RGB" else image.convert("RGB")
    pixels = np.empty((opaque.height, opaque.width, 3), np.uint8)
    for at in range(0, len(pixels), _STRIP_ROWS):  # all at once is a copy more
        end = min(at + _STRIP_ROWS, len(pixels))
        pixels[at:end] = np.asarray(opaque.crop((0, at, opaque.width, end)))
    return pixels


def _is_text(chunk: Any) -> bool:
    kind: int = mtmd.mtmd_input_chunk_get_type(chunk)
    return kind == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT


def _text_tokens(chunk: Any) -> Tokens:
    n_tokens = ctypes.c_size_t(0)
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n_tokens))
    if not tokens or not n_tokens.value:
        return np.empty(0, np.int32)
    found: Tokens = np.ctypeslib.as_array(tokens, (n_tokens.value,)).astype(np.int32)
    if found.min() < 0:
        raise ValueError("the model lacks a token that its projector puts around images: they do "
                         "not belong together")  # fmt: skip
    return found
