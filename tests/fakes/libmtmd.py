"""libmtmd's own helper on a fresh context: the reference for models that see."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.llama import library, vision
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model

_libmtmd: Any = vision.mtmd  # type: ignore[attr-defined]
# Flash attention on a processor adds up in 16 bits, so that the same cells in another order, as
# after a preemption, give log probabilities that differ by 0.02.
_OPTIONS = ContextOptions(
    n_ctx_tokens=4096, n_batch_tokens=512, n_seq_max=1, n_threads=1, flash_attention="off"
)


@dataclass(frozen=True, slots=True)
class Rating:
    n_prompt_tokens: int
    n_prompt_positions: int
    logprobs: NDArray[np.float64]
    """Natural log probability of each token of the answer."""
    best: NDArray[np.float64]
    """Those of the likeliest tokens."""


class Reference:
    """One model and its projector, read without anything of ours."""

    def __init__(self, model: Path, projector: Path) -> None:
        library.route_llama_log()
        _libmtmd.mtmd_helper_log_set(library.LOG_CALLBACK, None)
        self._model = Model(model)
        params = _libmtmd.mtmd_context_params_default()
        params.use_gpu = params.print_timings = params.warmup = False
        params.n_threads = 1
        path = str(projector).encode()
        self._sight = _libmtmd.mtmd_init_from_file(path, self._model.pointer, params)
        self._line_end = vision.line_end(projector)
        self._ratings: dict[tuple[str, tuple[bytes, ...], tuple[int, ...]], Rating] = {}

    def close(self) -> None:
        _libmtmd.mtmd_free(self._sight)
        self._model.close()

    def rate(self, prompt: str, images: Sequence[bytes], answer: Sequence[int]) -> Rating:
        """Read a prompt, with `<__media__>` in place of each image, and then an answer, once."""
        asked = prompt, tuple(images), tuple(answer)
        if asked not in self._ratings:
            self._ratings[asked] = self._rate(*asked)
        return self._ratings[asked]

    def _rate(self, prompt: str, images: Sequence[bytes], answer: Sequence[int]) -> Rating:
        chunks = _libmtmd.mtmd_input_chunks_init()
        try:
            with Context(self._model, _OPTIONS) as context:
                self._tokenise(chunks, prompt, images)
                end = ctypes.c_int32(0)
                for index in range(_libmtmd.mtmd_input_chunks_size(chunks)):
                    self._read(context, _libmtmd.mtmd_input_chunks_get(chunks, index), end)
                rows = [context.logits(1).astype(np.float64)]
                zero, one = np.zeros(1, np.int32), np.ones(1, np.int8)
                for number, token in enumerate(answer[:-1]):
                    tokens = np.array([token], np.int32)
                    context.decode(tokens, zero + end.value + number, zero, one)
                    rows.append(context.logits(1).astype(np.float64))
            n_prompt = _libmtmd.mtmd_helper_get_n_tokens(chunks)
        finally:
            _libmtmd.mtmd_input_chunks_free(chunks)
        logits = np.concatenate(rows)
        assert np.isfinite(logits).all()
        with np.errstate(invalid="ignore"):  # llama.cpp leaves that flag of the processor set
            every_logprob = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        own = every_logprob[np.arange(len(answer)), list(answer)]
        return Rating(n_prompt, end.value, own, every_logprob.max(axis=1))

    def _read(self, context: Context, chunk: Any, end: ctypes.c_int32) -> None:
        """Read a text or an image at the position `end`, which moves on."""
        pointers = self._sight, context.pointer, chunk
        moved = ctypes.byref(end)
        if _libmtmd.mtmd_input_chunk_get_type(chunk) == _libmtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            read = _libmtmd.mtmd_helper_eval_chunk_single
            status = read(*pointers, end.value, 0, 512, True, moved)
        else:
            status = _libmtmd.mtmd_encode_chunk(self._sight, chunk)
            rows = _libmtmd.mtmd_get_output_embd(self._sight)
            if self._line_end is not None:
                shape = _libmtmd.mtmd_input_chunk_get_n_tokens(chunk), len(self._line_end)
                values = np.ctypeslib.as_array(rows, shape)
                np.copyto(values, self._line_end, where=np.isnan(values))
            read = _libmtmd.mtmd_helper_decode_image_chunk
            no_call = _libmtmd.mtmd_helper_post_decode_callback()
            status = status or read(*pointers, rows, end.value, 0, 512, moved, no_call, None)
        if status != 0:
            raise RuntimeError("libmtmd cannot read this prompt")

    def _tokenise(self, chunks: Any, prompt: str, images: Sequence[bytes]) -> None:
        text = _libmtmd.mtmd_input_text()
        text.text, text.text_len = prompt.encode(), len(prompt.encode())
        text.add_special = text.parse_special = True
        bitmaps = []
        for image in images:
            buffer = (ctypes.c_uint8 * len(image)).from_buffer_copy(image)
            read = _libmtmd.mtmd_helper_bitmap_init_from_buf
            bitmaps.append(read(self._sight, buffer, len(image), False))
        table = (_libmtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
        tokenise = _libmtmd.mtmd_tokenize
        status = tokenise(self._sight, chunks, ctypes.byref(text), table, len(bitmaps))
        for bitmap in bitmaps:
            _libmtmd.mtmd_bitmap_free(bitmap)
        if status != 0:
            raise RuntimeError(f"libmtmd cannot tokenise this prompt ({status})")
