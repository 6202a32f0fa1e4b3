import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.engine.errors import ModelBroken
from paddock.engine.gguf import read_header
from paddock.engine.model_file_parts import check_file
from tests.fakes.gguf import LLAMA, Value, write_gguf


def small(n_elements: int = 64, data_bytes: int = 256) -> bytes:
    """A whole GGUF file with two values and one float32 tensor."""

    def text(word: str) -> bytes:
        return struct.pack("<Q", len(word)) + word.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("llama.block_count") + struct.pack("<II", 4, 7)
    head += text("weights") + struct.pack("<IQIQ", 1, n_elements, 0, 0)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data_bytes


def fault(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ModelBroken) as caught:
        read_header(path)
    assert caught.value.path == str(path)
    return caught.value.why


def test_a_header_tells_what_the_model_is(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(small())
    header = read_header(path)
    assert (header.architecture, header.number("block_count"), header.n_tensors) == ("llama", 7, 1)


def test_short_arrays_are_kept_and_long_ones_are_read_on_request(tmp_path: Path) -> None:
    values: dict[str, Value] = {**LLAMA, "five": [1, 2, 3, 4, 5], "six": list("abcdef"), "none": []}
    path = write_gguf(tmp_path / "m.gguf", values)
    header = read_header(path)
    assert header.arrays == {"five": (1, 2, 3, 4, 5), "none": ()}
    assert header.array_lengths == {"five": 5, "six": 6, "none": 0}
    assert read_header(path, has_all_arrays=True).arrays["six"] == tuple("abcdef")


@pytest.mark.parametrize(
    ("tokens", "filling"),
    [
        (["<PRE>", "<SUF>", "<MID>", "x", "y", "z"], ("<PRE>", "<SUF>", "<MID>")),
        (["<fim_prefix>", "<fim_suffix>", "x", "y", "z", "w"], None),
        (["a <PRE>", "<SUF> b", "<MID>", "x", "y", "z"], None),
    ],
)
def test_tokens_for_filling_in_are_found_whole_or_not_at_all(
    tmp_path: Path, tokens: list[str], filling: tuple[str, str, str] | None
) -> None:
    path = write_gguf(tmp_path / "m.gguf", {**LLAMA, "tokenizer.ggml.tokens": tokens})
    assert read_header(path).fill_in_middle_tokens == filling


def test_arrays_within_arrays_without_end_are_refused(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    content = head + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100_000
    assert fault(tmp_path / "m.gguf", content) == "the file is corrupt: arrays within arrays"


def test_a_pipe_in_place_of_a_model_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "m.gguf"
    os.mkfifo(pipe)
    with pytest.raises(ModelBroken, match="it is a device or a pipe"):
        check_file(pipe, "./m.gguf")
    with pytest.raises(ModelBroken, match="it is a device or a pipe"):
        read_header(pipe)


def test_a_truncated_file_is_named_with_both_numbers(tmp_path: Path) -> None:
    why = fault(tmp_path / "m.gguf", small()[:-100])
    whole = len(small())
    assert why == (
        f"the file is truncated: tensor 'weights' ends at byte {whole}, "
        f"but the file has {whole - 100}"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "too short for a model (0 bytes)"),
        (b"<html>" + b" " * 50, "this is not a GGUF file"),
        (
            b"lmgg" + b" " * 50,
            "this is an old GGML file; llama.cpp reads only GGUF. Convert it or take a newer one "
            "(it begins with b'lmgg')",
        ),
        (
            b"version https://git-lfs" + b" " * 50,
            "this is a Git LFS pointer, not the model itself; fetch it with `git lfs pull` "
            "(it begins with b'vers')",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
            "GGUF version 9 is not one that is known (2 and 3)",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
            "the file is corrupt: its header has 1,152,921,504,606,846,976 tensors, and 65,536 are "
            "the most",
        ),
    ],
)
def test_what_is_no_model_is_said_plainly(tmp_path: Path, content: bytes, why: str) -> None:
    assert fault(tmp_path / "m.gguf", content) == why


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_anywhere_never_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(small())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(4, 150))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    try:
        read_header(path)
    except ModelBroken as error:
        assert error.why


def text(n_bytes: int) -> bytes:
    return struct.pack("<Q", n_bytes)


def header(n_tensors: int, n_values: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_values) + rest


def array(kind: int, n_items: int) -> bytes:
    return text(1) + b"a" + struct.pack("<IIQ", 9, kind, n_items)


_NO_TENSOR = text(0) + struct.pack("<IIQ", 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (header(700_000, 0, _NO_TENSOR * 700_000), "700,000 tensors, and 65,536 are the most"),
        (header(2**63, 0), "9,223,372,036,854,775,808 tensors, and 65,536 are the most"),
        (header(0, 700_000), "700,000 values, and 16,384 are the most"),
        (header(0, 1, text(2**60)), "a name of 1,152,921,504,606,846,976 bytes"),
        (header(0, 1, text(1) + b"a" + struct.pack("<I", 8) + text(2**30)),
         "texts of more than 64 MiB"),
        (header(0, 1, array(8, 2**40)), "arrays of more than 8,000,000 items"),
        (header(0, 1, array(9, 2**40)), "arrays of more than 8,000,000 items"),
        (header(1, 0, text(2**20) + b"a" * 2**20), "a name of 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_counts_that_no_model_has_are_refused_before_anything_is_read(
    tmp_path: Path, content: bytes, why: str
) -> None:
    message = fault(tmp_path / "m.gguf", content + b"\0" * 32)
    assert message == f"the file is corrupt: its header has {why}"
