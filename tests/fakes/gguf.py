"""Write small GGUF files: any values, and float tensors of zeros or of random values."""

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from paddock.engine.gguf import read_header

Value = (
    str | int | float | bool | np.int32
    | Sequence[str] | Sequence[int] | Sequence[float] | Sequence[np.uint32]
)  # fmt: skip

_ALIGNMENT = 32
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
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(values))
    for key, value in values.items():
        head += _text(key) + _value(value)
    at, kinds = 0, dict.fromkeys(shapes, kind)
    for name, shape in shapes.items():
        if seed is not None and (len(shape) < 2 or "position" in name):
            kinds[name] = 0
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", kinds[name], at)
        at += _padded(_n_bytes(shape, kinds[name]))
    body = b"\0" * at
    if seed is not None:
        generator = np.random.default_rng(seed)
        body = b"".join(
            raw.ljust(_padded(len(raw)), b"\0")
            for raw in (_random(generator, name, shapes[name], kinds[name]) for name in shapes)
        )
    path.write_bytes(head.ljust(_padded(len(head)), b"\0") + body)
    return path


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
        head += _text("split.no") + struct.pack("<IH", 2, number)
        at, body = 0, bytearray()
        for one in tensors:
            head += _text(one.name) + struct.pack(f"<I{len(one.axes)}Q", len(one.axes), *one.axes)
            head += struct.pack("<IQ", one.kind, at)
            begin = header.data_at + one.offset
            body += data[begin : begin + one.n_bytes].ljust(_padded(one.n_bytes), b"\0")
            at = len(body)
        name = f"{path.stem}-{number + 1:05}-of-00002.gguf"
        file = path.with_name(name)
        file.write_bytes(head.ljust(_padded(len(head)), b"\0") + body)
        written.append(file)
    return written[0], written[1]


def _random(generator: np.random.Generator, name: str, shape: tuple[int, ...], kind: int) -> bytes:
    if name.endswith("norm.weight"):
        return np.ones(shape, np.float32).tobytes()
    values = generator.normal(0, shape[0] ** -0.5, math.prod(shape))
    values = -np.abs(values) - 0.5 if name.endswith("ssm_a") else values
    return values.astype("<f2" if kind == 1 else "<f4").tobytes()


def _n_bytes(shape: tuple[int, ...], kind: int) -> int:
    return math.prod(shape) * (2 if kind == 1 else 4)


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


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
