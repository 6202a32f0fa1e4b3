"""Turn blocks of low-bit weights into Q8_0, all but exactly. Pure NumPy.

Such a block holds whole numbers q and stands for M + D·q. llama.cpp's quantiser knows only the
values, and rounds them to 127 even steps up to the largest one. Here the steps are a whole part
of D, so that D·q is met exactly, and of the possible parts the one is taken that meets M best.
Measured with SmolLM2-135M from Q4_1, both computed in single precision: the next token is another
one at 4.2 of 100 places after llama.cpp's quantiser, at 1.4 after this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

PER_BLOCK, BLOCK_BYTES = 32, 34
_LARGEST = 127
# Finer steps than the largest number allows are out; so much coarser ones are tried too.
_COARSEST = 0.4


@dataclass(frozen=True, slots=True)
class Lattice:
    """Blocks of 32 weights: M + D·q."""

    step: F32
    """D, shape (n_blocks,)."""
    offset: F32
    """M, shape (n_blocks,)."""
    numbers: Bytes
    """q, shape (n_blocks, 32)."""
    most: int
    """The largest q that the format has."""


def to_q8_0(lattice: Lattice) -> Bytes:
    """Write blocks as Q8_0: a half for the scale and 32 signed bytes each, flat."""
    scale = _scales(lattice)
    divisor = np.where(scale == 0, 1, scale).astype(np.float32)[:, None]
    values = lattice.numbers * lattice.step[:, None]
    values += lattice.offset[:, None]
    values /= divisor
    blocks = np.empty((len(scale), BLOCK_BYTES), np.uint8)
    blocks[:, :2] = scale.astype(np.float16).view(np.uint8).reshape(-1, 2)
    whole = np.clip(np.rint(values), -_LARGEST, _LARGEST).astype(np.int8)
    blocks[:, 2:] = whole.view(np.uint8)
    return blocks.reshape(-1)


def _scales(lattice: Lattice) -> F32:
    """Choose each block's scale, as a half that is told in single precision."""
    step, low = lattice.step, lattice.offset
    high = low + lattice.most * step
    largest = np.maximum(np.abs(low), np.abs(high))
    best = _as_half((largest / _LARGEST).astype(np.float32))
    # With it, numbers lie anywhere between its steps. Blocks without steps keep it, and those
    # whose steps are finer than it can tell.
    best_error = np.where(step == 0, 0, best / 2).astype(np.float32)
    parts = np.floor(_LARGEST * np.abs(step) / np.where(largest == 0, 1, largest))
    n_tried = int(parts.max(initial=0) * (1 - _COARSEST)) + 1
    for less in range(n_tried):
        part = parts - less
        is_able = part >= np.maximum(1, parts * _COARSEST)
        scale = _as_half((np.abs(step) / np.where(is_able, part, 1)).astype(np.float32))
        error = np.where(is_able, _error(low, high, scale), np.inf)
        # A half may have been rounded down, so that the largest number would not fit.
        error = np.where(largest > scale * (_LARGEST + 0.5), np.inf, error)
        is_better = error < best_error
        best = np.where(is_better, scale, best)
        best_error = np.where(is_better, error, best_error)
    return best.astype(np.float32)


def _error(low: F32, high: F32, scale: F32) -> F32:
    """Tell how far the ends of the lattice come to lie from their places, at most.

    The scale is a whole part of the step, so the numbers between err by something between.
    """
    divisor = np.where(scale == 0, 1, scale)
    ends = [np.abs(end - scale * np.rint(end / divisor)) for end in (low, high)]
    answer: F32 = np.maximum(*ends).astype(np.float32)
    return answer


def _as_half(values: F32) -> F32:
    return values.astype(np.float16).astype(np.float32)


# What the formats hold


def _q4_0(raw: Bytes) -> Lattice:
    blocks = raw.reshape(-1, 18)
    step = _halves(blocks[:, :2])
    return Lattice(step, -8 * step, _nibbles(blocks[:, 2:]), 15)


def _q4_1(raw: Bytes) -> Lattice:
    blocks = raw.reshape(-1, 20)
    return Lattice(_halves(blocks[:, :2]), _halves(blocks[:, 2:4]), _nibbles(blocks[:, 4:]), 15)


def _q5_0(raw: Bytes) -> Lattice:
    blocks = raw.reshape(-1, 22)
    step = _halves(blocks[:, :2])
    numbers = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return Lattice(step, -16 * step, numbers, 31)


def _q5_1(raw: Bytes) -> Lattice:
    blocks = raw.reshape(-1, 24)
    numbers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return Lattice(_halves(blocks[:, :2]), _halves(blocks[:, 2:4]), numbers, 31)


def _q4_k(raw: Bytes) -> Lattice:
    """Eight blocks of 32 share two halves, and have a scale and a minimum of 6 bits each."""
    rows = raw.reshape(-1, 144)
    step, offset = _sixes(rows)
    pairs = rows[:, 16:].reshape(-1, 4, 1, 32)
    numbers = np.concatenate([pairs & 15, pairs >> 4], axis=2)
    return Lattice(step, offset, numbers.reshape(-1, 32), 15)


def _q5_k(raw: Bytes) -> Lattice:
    rows = raw.reshape(-1, 176)
    step, offset = _sixes(rows)
    pairs = rows[:, 48:].reshape(-1, 4, 1, 32)
    low = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)
    bits = rows[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8)[:, None]
    return Lattice(step, offset, (low | (bits & 1) << 4).reshape(-1, 32), 31)


def _halves(raw: Bytes) -> F32:
    return np.ascontiguousarray(raw).view(np.float16).reshape(-1).astype(np.float32)


def _nibbles(raw: Bytes) -> Bytes:
    """The first sixteen numbers are the lower halves of the bytes, the others the upper ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


def _fifth_bits(raw: Bytes) -> Bytes:
    bits = np.unpackbits(np.ascontiguousarray(raw), axis=1, bitorder="little")
    return (bits << 4).astype(np.uint8)


def _sixes(rows: Bytes) -> tuple[F32, F32]:
    """Unpack a k-quant's scales and minima: the upper bits of the last four lie in the first."""
    packed = rows[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6) << 4], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6) << 4], axis=1)
    step = _halves(rows[:, :2])[:, None] * scales
    offset = -_halves(rows[:, 2:4])[:, None] * minima
    return step.reshape(-1).astype(np.float32), offset.reshape(-1).astype(np.float32)


READERS: dict[str, Callable[[Bytes], Lattice]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
}
"""The formats whose blocks are known here, by name."""
