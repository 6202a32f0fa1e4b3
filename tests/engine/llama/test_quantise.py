"""A rewritten file is whole, in Q8_0, and says what the original said."""

from pathlib import Path

import numpy as np
import pytest

from paddock.engine.gguf import TYPE_NAMES, GgufHeader, read_header
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.quantise import BLOCK_READERS, quantise, write_widened
from tests.fakes.one_layer import write_one_layer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plain") / "plain.gguf"
    write_one_layer(file, "F32")
    _make_random(file)
    return file


@pytest.mark.parametrize("name", sorted(BLOCK_READERS))
def test_blocks_are_read_as_llama_cpp_reads_them(tmp_path: Path, plain: Path, name: str) -> None:
    """Two ways to the same numbers: ours to Q8_0, and llama.cpp's own of what it dequantises."""
    low, ours, theirs = (tmp_path / f"{n}.gguf" for n in ("low", "ours", "theirs"))
    quantise(plain, low, name, 1)
    write_widened(low, ours, _matrices(read_header(low), name), "Q8_0", 1)
    quantise(low, theirs, "F32", 1)
    for mine, exact in zip(read_header(ours).tensors, read_header(theirs).tensors, strict=True):
        assert mine.name == exact.name
        if TYPE_NAMES[mine.kind] != "Q8_0" or TYPE_NAMES[exact.kind] != "F32":
            continue
        values = _data(theirs, exact.name).view(np.float32)
        blocks = _data(ours, mine.name).reshape(-1, 34)
        scale = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
        mine_values = (scale * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)).reshape(-1)
        assert np.abs(values - mine_values).max() < np.abs(values).max() / 127


@pytest.mark.parametrize("wide", ["F16", "BF16"])
@pytest.mark.parametrize("name", ["Q4_1", "Q6_K"])
def test_a_wide_format_is_what_llama_cpp_makes_of_it(
    tmp_path: Path, plain: Path, name: str, wide: str
) -> None:
    low, ours, theirs = (tmp_path / f"{n}.gguf" for n in ("low", "ours", "theirs"))
    quantise(plain, low, name, 1)
    write_widened(low, ours, _matrices(read_header(low), name), wide, 2)
    quantise(low, theirs, wide, 1)
    for tensor in read_header(ours).tensors:
        if TYPE_NAMES[tensor.kind] == wide:
            assert _data(ours, tensor.name).tobytes() == _data(theirs, tensor.name).tobytes(), (
                tensor.name
            )
    assert {TYPE_NAMES[tensor.kind] for tensor in read_header(ours).tensors} >= {wide, "F32"}


def test_tensors_that_are_not_named_stay_bit_for_bit(tmp_path: Path) -> None:
    source, copy = tmp_path / "a.gguf", tmp_path / "b.gguf"
    write_one_layer(source, "Q4_1")
    names = {"blk.0.ffn_down.weight", "blk.0.attn_v.weight"}
    write_widened(source, copy, names, "Q8_0", 1)
    before, after = read_header(source), read_header(copy)
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert TYPE_NAMES[new.kind] == ("Q8_0" if new.name in names else TYPE_NAMES[old.kind])
        if new.name not in names:
            assert _data(source, old.name).tobytes() == _data(copy, new.name).tobytes()
    Model(copy).close()


def _matrices(header: GgufHeader, *kinds: str) -> frozenset[str]:
    return frozenset(
        tensor.name for tensor in header.tensors if TYPE_NAMES.get(tensor.kind) in kinds
    )


def _make_random(path: Path) -> None:
    """Put ordinary weights in place of the trial's."""
    header = read_header(path)
    rng = np.random.default_rng(5)
    data = np.memmap(path, np.uint8, "r+")
    for tensor in header.tensors:
        if len(tensor.axes) > 1:
            rows = np.tile(rng.normal(0, 0.02, (8, tensor.axes[0])), (tensor.axes[1] // 8, 1))
            start = header.data_at + tensor.offset
            data[start : start + tensor.n_bytes] = (
                rows.astype(np.float32).reshape(-1).view(np.uint8)
            )
    data.flush()


def _data(path: Path, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    header = read_header(path)
    tensor = next(tensor for tensor in header.tensors if tensor.name == name)
    start = header.data_at + tensor.offset
    return np.fromfile(path, np.uint8, tensor.n_bytes, offset=start)
