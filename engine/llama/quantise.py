"""Write a model or single tensors in another format.

`quantise` is llama.cpp's own quantiser. `write_widened` writes low-bit tensors almost exactly as
Q8_0, F16 or BF16, all others byte for byte. A block of Q4_1 or Q5_1 holds whole numbers q and
stands for M + D·q.
llama.cpp knows only the values, and rounds them to 127 even steps up to the largest one. Here the
steps are a whole fraction of D, so that D·q is met exactly; of the possible fractions the one that
meets M best is used. Measured with SmolLM2-135M from Q4_1, both computed in single precision: the
next token differs at 4.2 of 100 places after llama.cpp's quantiser, at 1.4 after this one. In F16
each value is rounded by itself, to 11 bits.

Started as a module by `models.model_creation`, it quantises in a process of its own, since only the
end of its process stops llama.cpp's quantiser, some of whose errors call `abort()`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from paddock.engine.gguf import (
    FILE_TYPES,
    TYPE_BLOCKS,
    TYPE_NAMES,
    GgufTensor,
    padded,
    read_header,
    tensor_table,
)
from paddock.engine.system.frame_processes import take_order
from paddock.engine.system.processes import lower_priority, run_and_exit
from paddock.engine.system.records import Struct, replace

from .library import ggml_function, lib, route_llama_log

# llama.cpp's numbers for whole files (`llama_ftype`); "Q4_K" alone is the medium mixture.
_FILE_TYPES = {name: kind for kind, name in FILE_TYPES.items()} | {
    "Q3_K": 12, "Q4_K": 15, "Q5_K": 17
}  # fmt: skip

_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_F16, _BF16, _Q8_0, _Q8_0_BLOCK, _Q8_0_BYTES = 1, 30, 8, 32, 34


class _Traits(ctypes.Structure):
    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _TO_FLOAT),
        ("from_float_ref", _TO_FLOAT),
    )


class QuantiseFailed(Exception):
    """llama.cpp could not write the copy; the reason is on stderr."""


def quantise(source: Path, target: Path, format_name: str, n_threads: int) -> None:
    """Write `source`, which may be quantised, to `target` in another format.

    Takes some seconds for each 10⁹ weights; only the end of the process interrupts it.

    Raises:
        QuantiseFailed: nothing usable was written.
    """
    lib.llama_backend_init()
    params = lib.llama_model_quantize_default_params()
    params.ftype = _FILE_TYPES[format_name]
    params.nthread = n_threads
    params.allow_requantize = True
    paths = (str(source).encode(), str(target).encode())
    if lib.llama_model_quantize(*paths, ctypes.byref(params)) != 0:
        raise QuantiseFailed(f"llama.cpp cannot write {source} as {format_name}")


def _values(raw: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
    find_traits = ggml_function("ggml_get_type_traits", ctypes.POINTER(_Traits), ctypes.c_int)
    source: _Traits = find_traits(kind).contents
    raw = np.ascontiguousarray(raw)
    n_weights = raw.size // source.type_size * source.blck_size
    values = np.empty(n_weights, np.float32)
    source.to_float(raw.ctypes.data, values.ctypes.data, n_weights)
    return values


Float32Array = NDArray[np.float32]
BlockBytes = NDArray[np.uint8]

_LARGEST_STEP = 127
# Steps may be this much coarser than the largest number allows.
_COARSEST = 0.4


class Lattice(Struct, frozen=True):
    """Blocks of 32 weights: M + D·q."""

    step: Float32Array
    """D, shape (n_blocks,)."""
    offset: Float32Array
    """M, shape (n_blocks,)."""
    numbers: BlockBytes
    """q, shape (n_blocks, 32)."""
    most: int
    """The largest q that the format has."""


def lattice_to_q8_0(lattice: Lattice) -> BlockBytes:
    """Write blocks as Q8_0: a half for the scale and 32 signed bytes each, flat."""
    # Each block's best scale: a half, as single precision
    step, low = lattice.step, lattice.offset
    high = low + lattice.most * step
    largest = np.maximum(np.abs(low), np.abs(high))
    best = _as_half((largest / _LARGEST_STEP).astype(np.float32))
    # With this scale, values lie anywhere between its steps. Blocks without steps keep it, and
    # those with finer steps than it has.
    best_error = np.where(step == 0, 0, best / 2).astype(np.float32)
    parts = np.floor(_LARGEST_STEP * np.abs(step) / np.where(largest == 0, 1, largest))
    n_tried = int(parts.max(initial=0) * (1 - _COARSEST)) + 1
    for less in range(n_tried):
        part = parts - less
        is_able = part >= np.maximum(1, parts * _COARSEST)
        scale = _as_half((np.abs(step) / np.where(is_able, part, 1)).astype(np.float32))
        error = np.where(is_able, _lattice_error(low, high, scale), np.inf)
        # A half may have been rounded down, so that the largest number would not fit.
        error = np.where(largest > scale * (_LARGEST_STEP + 0.5), np.inf, error)
        is_better = error < best_error
        best = np.where(is_better, scale, best)
        best_error = np.where(is_better, error, best_error)
    scale = best.astype(np.float32)
    divisor = np.where(scale == 0, 1, scale).astype(np.float32)[:, None]
    values = lattice.numbers * lattice.step[:, None]
    values += lattice.offset[:, None]
    values /= divisor
    blocks = np.empty((len(scale), _Q8_0_BYTES), np.uint8)
    blocks[:, :2] = scale.astype(np.float16).view(np.uint8).reshape(-1, 2)
    whole = np.clip(np.rint(values), -_LARGEST_STEP, _LARGEST_STEP).astype(np.int8)
    blocks[:, 2:] = whole.view(np.uint8)
    return blocks.reshape(-1)


def _lattice_error(low: Float32Array, high: Float32Array, scale: Float32Array) -> Float32Array:
    """Return the largest error at the ends of each lattice.

    The scale is a whole fraction of the step, so the errors of the values between lie between.
    """
    divisor = np.where(scale == 0, 1, scale)
    ends = [np.abs(end - scale * np.rint(end / divisor)) for end in (low, high)]
    answer: Float32Array = np.maximum(*ends).astype(np.float32)
    return answer


def _as_half(values: Float32Array) -> Float32Array:
    return values.astype(np.float16).astype(np.float32)


# The formats


def _q4_1(raw: BlockBytes) -> Lattice:
    blocks = raw.reshape(-1, 20)
    return Lattice(_halves(blocks[:, :2]), _halves(blocks[:, 2:4]), _nibbles(blocks[:, 4:]), 15)


def _q5_1(raw: BlockBytes) -> Lattice:
    blocks = raw.reshape(-1, 24)
    fifths = np.unpackbits(np.ascontiguousarray(blocks[:, 4:8]), axis=1, bitorder="little")
    numbers = _nibbles(blocks[:, 8:]) | (fifths << 4).astype(np.uint8)
    return Lattice(_halves(blocks[:, :2]), _halves(blocks[:, 2:4]), numbers, 31)


def _halves(raw: BlockBytes) -> Float32Array:
    return np.ascontiguousarray(raw).view(np.float16).reshape(-1).astype(np.float32)


def _nibbles(raw: BlockBytes) -> BlockBytes:
    """Unpack 4-bit numbers: first the lower halves of all bytes, then the upper ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


BLOCK_READERS: dict[str, Callable[[BlockBytes], Lattice]] = {"Q4_1": _q4_1, "Q5_1": _q5_1}
"""Readers of the formats that are converted to Q8_0."""

# Weights that are converted at a time: some 30 MB of working memory for each thread.
_PIECE_WEIGHTS = 1 << 20


def is_low_bit(tensor: GgufTensor) -> bool:
    """Return whether a tensor is a matrix of fewer bits than Q8_0, in blocks that fit its own."""
    per_block, block_bytes = TYPE_BLOCKS.get(tensor.kind, (1, 0))
    has_few_bits = per_block > 1 and block_bytes * _Q8_0_BLOCK < per_block * _Q8_0_BYTES
    return has_few_bits and len(tensor.axes) > 1 and tensor.axes[0] % _Q8_0_BLOCK == 0


def write_widened(
    source: Path, target: Path, names: Collection[str], format_name: str, n_threads: int
) -> None:
    """Write `source` to `target` with the tensors of these names in Q8_0, F16 or BF16.

    To Q8_0 only those of `BLOCK_READERS`; about a minute for each 10⁹ weights and thread.

    Raises:
        ModelBroken: the source is not a whole GGUF file.
        OSError: the target cannot be written.
    """
    header = read_header(source)
    kind = {"Q8_0": _Q8_0, "F16": _F16, "BF16": _BF16}[format_name]
    tensors = [
        replace(tensor, kind=kind) if tensor.name in names else tensor for tensor in header.tensors
    ]
    with (
        source.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        target.open("wb") as out,
        ThreadPoolExecutor(n_threads) as threads,
    ):
        head = bytearray(data[: header.tensors_at])
        if not any(map(is_low_bit, tensors)):
            # Set the file's type for other tools, if the file has that value
            key = b"general.file_type" + struct.pack("<I", 4)
            at = head.find(key)
            if at >= 0:
                struct.pack_into("<I", head, at + len(key), _FILE_TYPES[format_name])
        head += tensor_table(tensors, header.alignment)
        out.write(bytes(head).ljust(padded(len(head), header.alignment), b"\0"))
        for tensor in header.tensors:
            start = header.data_at + tensor.offset
            if tensor.name in names:
                widened = partial(_widened, data, tensor.kind, kind)
                for written in threads.map(widened, *_pieces(start, tensor)):
                    out.write(written.data)
            else:
                _copy(data, start, tensor.n_bytes, out)
            out.write(b"\0" * (padded(out.tell(), header.alignment) - out.tell()))


def _copy(data: mmap.mmap, start: int, n_bytes: int, out: BinaryIO) -> None:
    for at in range(start, start + n_bytes, _PIECE_WEIGHTS):
        out.write(data[at : min(at + _PIECE_WEIGHTS, start + n_bytes)])


def _pieces(start: int, tensor: GgufTensor) -> tuple[Sequence[int], Sequence[int]]:
    """Return where the pieces of a tensor's data begin and end."""
    n_bytes = tensor.n_bytes
    piece = n_bytes * _PIECE_WEIGHTS // max(_PIECE_WEIGHTS, tensor.n_weights)
    # Pieces end with the blocks of 256 weights that k-quants have.
    block = n_bytes * 256 // tensor.n_weights if tensor.n_weights % 256 == 0 else n_bytes
    step = max(block, piece // block * block)
    starts = range(start, start + n_bytes, step)
    return starts, [min(at + step, start + n_bytes) for at in starts]


def _widened(data: mmap.mmap, kind: int, target: int, start: int, end: int) -> BlockBytes:
    raw = np.frombuffer(data[start:end], np.uint8)
    if target == _F16:
        return _values(raw, kind).astype(np.float16).view(np.uint8)
    if target == _BF16:
        # The upper halves of the numbers, rounded to the nearest, a half to even
        bits = _values(raw, kind).view(np.uint32)
        bf16 = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
        return bf16.view(np.uint8)
    return lattice_to_q8_0(BLOCK_READERS[TYPE_NAMES[kind]](raw))


def main() -> None:
    """Quantise as the order says, and send why that failed; an empty text: it did not."""
    order, send = take_order()
    route_llama_log()
    lower_priority(5)  # running requests have priority
    n_threads = order["n_threads"] or os.cpu_count() or 1
    why = ""
    try:
        quantise(Path(order["source"]), Path(order["target"]), order["format"], n_threads)
    except (QuantiseFailed, OSError) as error:
        why = str(error)
    send({"why": why})


if __name__ == "__main__":
    run_and_exit(main)
