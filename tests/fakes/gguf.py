"""Write small GGUF files: any values, and float tensors of zeros or of random values."""

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from paddock.engine.gguf import GgufTensor, padded, read_header, tensor_table

Value = (
    str | int | float | bool | np.int32
    | Sequence[str] | Sequence[int] | Sequence[float] | Sequence[np.uint32]
)  # fmt: skip

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
LLAMA: Mapping[str, Value] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
}


def write_gguf(
    path: Path,
    values: Mapping[str, Value] = LLAMA,
    axes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    kind: int = 0,
    seed: int | None = None,
) -> Path:
    """Write a file of these values and of one tensor for each name in `axes`.

    `kind` is the number of its type: 0 float32, 1 float16. With a seed the tensors are random:
    norms are ones, `ssm_a` is negative, all else is scaled to keep activations small; vectors and
    positions are float32, whatever the kind.
    """
    shapes = {"token_embd.weight": (64, 8)} if axes is None else axes
    tensors = [
        GgufTensor(name, 0 if seed is not None and _is_float32(name, shape) else kind, shape)
        for name, shape in shapes.items()
    ]
    head = gguf_head(values, len(tensors)) + tensor_table(tensors)
    generator = None if seed is None else np.random.default_rng(seed)
    weights = ((b"" if generator is None else _random(generator, one), one) for one in tensors)
    body = b"".join(raw.ljust(padded(one.n_bytes), b"\0") for raw, one in weights)
    path.write_bytes(head.ljust(padded(len(head)), b"\0") + body)
    return path


def gguf_head(values: Mapping[str, Value], n_tensors: int) -> bytes:
    """Return the beginning of a file: all but its table of tensors."""
    head = b"GGUF" + struct.pack("<IQQ", 3, n_tensors, len(values))
    return head + b"".join(_text(key) + _value(value) for key, value in values.items())


def split_gguf(source: Path, path: Path) -> tuple[Path, Path]:
    """Write a model as two files named after `path`, as llama.cpp's `llama-gguf-split` does."""
    header, data = read_header(source), source.read_bytes()
    half = (len(header.tensors) + 1) // 2
    n_values = struct.unpack_from("<Q", data, 16)[0]
    own = b"".join(
        _text(f"split.{key}") + struct.pack(form, kind, value)
        for key, form, kind, value in (
            ("count", "<IH", 2, 2), ("tensors.count", "<Ii", _I32, len(header.tensors)),
        )
    )  # fmt: skip
    written = []
    for number, tensors in enumerate((header.tensors[:half], header.tensors[half:])):
        values = b"" if number else data[24 : header.tensors_at]
        n_all = 3 + (0 if number else n_values)
        head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), n_all) + values + own
        head += _text("split.no") + struct.pack("<IH", 2, number) + tensor_table(tensors)
        body = b"".join(
            data[begin : begin + one.n_bytes].ljust(padded(one.n_bytes), b"\0")
            for one in tensors
            for begin in [header.data_at + one.offset]
        )
        name = f"{path.stem}-{number + 1:05}-of-00002.gguf"
        file = path.with_name(name)
        file.write_bytes(head.ljust(padded(len(head)), b"\0") + body)
        written.append(file)
    return written[0], written[1]


def _is_float32(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) < 2 or "position" in name


def _random(generator: np.random.Generator, tensor: GgufTensor) -> bytes:
    if tensor.name.endswith("norm.weight"):
        return np.ones(tensor.axes, np.float32).tobytes()
    values = generator.normal(0, tensor.axes[0] ** -0.5, math.prod(tensor.axes))
    values = -np.abs(values) - 0.5 if tensor.name.endswith("ssm_a") else values
    return values.astype("<f2" if tensor.kind == 1 else "<f4").tobytes()


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, np.int32):
        return struct.pack("<Ii", _I32, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    kind = {str: _STRING, float: _F32, np.uint32: _U32}.get(type(value[0]) if value else int, _I32)
    items = (
        _text(one) if isinstance(one, str) else struct.pack("<f" if kind == _F32 else "<I", one)
        for one in value
    )
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(items)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
