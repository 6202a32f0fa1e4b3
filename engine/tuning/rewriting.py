"""Write a GGUF file with some of its low-bit tensors in Q8_0; all others stay byte for byte."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from paddock.engine.gguf import BLOCKS, TYPE_NAMES, Header, Tensor, read_header
from paddock.engine.native import quantise

from .blocks import BLOCK_BYTES, PER_BLOCK, READERS, Bytes, to_q8_0

_Q8_0 = next(kind for kind, name in TYPE_NAMES.items() if name == "Q8_0")
_FILE_TYPE_Q8_0 = 7
_ALIGNMENT = 32
# So many weights at a time: some 30 MB of working memory for each thread.
_PIECE = 1 << 20


def can_widen(tensor: Tensor) -> bool:
    """Return whether a tensor is a matrix of fewer bits than Q8_0."""
    per_block, block_bytes = BLOCKS.get(tensor.kind, (1, 0))
    is_low_bit = per_block > 1 and block_bytes * PER_BLOCK < per_block * BLOCK_BYTES
    return is_low_bit and len(tensor.axes) > 1 and tensor.axes[0] % PER_BLOCK == 0


def low_bit(header: Header) -> frozenset[str]:
    """Return the names of all tensors that `widen` can change."""
    return frozenset(one.name for one in header.tensors if can_widen(one))


def rest(header: Header) -> tuple[Tensor, ...]:
    """Return the matrices that are neither Q8_0 nor can be made so here."""
    matrices = (one for one in header.tensors if len(one.axes) > 1)
    return tuple(one for one in matrices if one.kind != _Q8_0 and not can_widen(one))


def widen(source: Path, target: Path, names: Collection[str], n_threads: int) -> None:
    """Write `source` to `target` with the tensors of these names in Q8_0.

    Takes about a minute for each 10⁹ weights and thread.

    Raises:
        ModelBroken: the source is not a whole GGUF file.
        OSError: the target cannot be written.
    """
    header = read_header(source)
    wanted = [_widened(one) if one.name in names else one for one in header.tensors]
    with (
        source.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        target.open("wb") as out,
        ThreadPoolExecutor(n_threads) as threads,
    ):
        out.write(_head(data[: header.tensors_at], wanted, header))
        for tensor in header.tensors:
            start = header.data_at + tensor.offset
            if tensor.name in names:
                _write_widened(data, start, tensor, out, threads)
            else:
                _copy(data, start, tensor.n_bytes, out)
            out.write(b"\0" * (_padded(out.tell(), header) - out.tell()))


def _widened(tensor: Tensor) -> Tensor:
    return Tensor(tensor.name, _Q8_0, tensor.axes)


def _head(values: bytes, tensors: list[Tensor], header: Header) -> bytes:
    """Give all that stands before the tensors' data, padded."""
    head = bytearray(values)
    if not any(map(can_widen, tensors)):
        _say_file_type(head)
    at = 0
    for tensor in tensors:
        name = tensor.name.encode()
        head += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.axes))
        head += struct.pack(f"<{len(tensor.axes)}Q", *tensor.axes)
        head += struct.pack("<IQ", tensor.kind, at)
        at += _padded(tensor.n_bytes, header)
    return bytes(head).ljust(_padded(len(head), header), b"\0")


def _say_file_type(head: bytearray) -> None:
    """Set the value by which tools name the file's format; a file may lack it."""
    key = b"general.file_type" + struct.pack("<I", 4)
    at = head.find(key)
    if at >= 0:
        struct.pack_into("<I", head, at + len(key), _FILE_TYPE_Q8_0)


def _padded(n_bytes: int, header: Header) -> int:
    step = header.values.get("general.alignment", _ALIGNMENT)
    assert isinstance(step, int)
    return -(-n_bytes // step) * step


def _copy(data: mmap.mmap, start: int, n_bytes: int, out: BinaryIO) -> None:
    for at in range(start, start + n_bytes, _PIECE):
        out.write(data[at : min(at + _PIECE, start + n_bytes)])


def _write_widened(
    data: mmap.mmap, start: int, tensor: Tensor, out: BinaryIO, threads: ThreadPoolExecutor
) -> None:
    n_bytes = tensor.n_bytes
    piece = n_bytes * _PIECE // max(_PIECE, tensor.n_weights)
    # Pieces end with the blocks of 256 weights that k-quants have.
    block = n_bytes * 256 // tensor.n_weights if tensor.n_weights % 256 == 0 else n_bytes
    step = max(block, piece // block * block)
    widened = partial(_widened_piece, data, tensor.kind)
    starts = range(start, start + n_bytes, step)
    ends = (min(at + step, start + n_bytes) for at in starts)
    for written in threads.map(widened, starts, ends):
        out.write(written.data)


def _widened_piece(data: mmap.mmap, kind: int, start: int, end: int) -> Bytes:
    """Return a piece in Q8_0: exactly where its blocks are known here, else by ggml's rounding."""
    raw = np.frombuffer(data[start:end], np.uint8)
    reader = READERS.get(TYPE_NAMES.get(kind, ""))
    return to_q8_0(reader(raw)) if reader is not None else quantise.to_q8_0(raw, kind)
