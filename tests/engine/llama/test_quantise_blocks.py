"""Low-bit blocks become Q8_0 almost exactly, and are read as llama.cpp reads them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.llama.quantise import Lattice, lattice_to_q8_0


def values_of(lattice: Lattice) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    step, offset = lattice.step.astype(np.float64), lattice.offset.astype(np.float64)
    return offset[:, None] + step[:, None] * lattice.numbers


def values_of_q8_0(raw: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> object:
    blocks = raw.reshape(-1, 34)
    scale = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float64)
    return scale * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)


def lattice(n_blocks: int, most: int, seed: int = 0) -> Lattice:
    rng = np.random.default_rng(seed)
    step = rng.uniform(0.001, 0.02, n_blocks).astype(np.float16).astype(np.float32)
    offset = (-step * most * rng.uniform(0.3, 0.7, n_blocks)).astype(np.float16).astype(np.float32)
    return Lattice(step, offset, rng.integers(0, most + 1, (n_blocks, 32), np.uint8), most)


def even_steps(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """As a quantiser does that knows nothing but the values."""
    scale = np.abs(values).max(axis=1, keepdims=True) / 127
    rounded: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = scale * np.rint(values / scale)
    return rounded


def error(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], others: object) -> float:
    return float(np.sqrt(np.mean((values - np.asarray(others)) ** 2)))


@pytest.mark.parametrize(("most", "share"), [(15, 0.55), (31, 0.8)])
def test_blocks_with_an_offset_lose_less_than_by_even_steps(most: int, share: float) -> None:
    blocks = lattice(2000, most)
    lost = error(values_of(blocks), values_of_q8_0(lattice_to_q8_0(blocks)))
    assert lost < share * error(values_of(blocks), even_steps(values_of(blocks)))


@settings(max_examples=60, deadline=None)
@given(step=st.floats(0, 1, width=16), offset=st.floats(-4, 4, width=16), seed=st.integers(0, 9))
def test_no_block_is_worse_than_even_steps(step: float, offset: float, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 16, (1, 32), np.uint8)
    blocks = Lattice(np.array([step], np.float32), np.array([offset], np.float32), numbers, 15)
    values = values_of(blocks)
    most = max(abs(offset), abs(offset + 15 * step))
    lost = np.abs(values - np.asarray(values_of_q8_0(lattice_to_q8_0(blocks)))).max()
    # Half a step; a scale of so few bits as a half has may be off by a two-thousandth itself.
    assert lost <= most / 127 / 2 + most / 1024 + 1e-5
