"""Write LoRA adapters of rank 1 as GGUF files, small enough for a test."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_STRING, _FLOAT, _F32 = 8, 6, 0
_ALIGNMENT = 32


def write_adapter(
    path: Path, tensor: str, n_in: int, n_out: int, *, strength: float, architecture: str = "llama"
) -> Path:
    """Write an adapter that adds a random matrix of rank 1 to one tensor; 0 adds nothing."""
    random = np.random.default_rng(7)
    first = random.standard_normal((1, n_in)).astype(np.float32)
    second = (strength * random.standard_normal((n_out, 1))).astype(np.float32)
    keys = b"".join(
        (
            _text_key("general.type", "adapter"),
            _text_key("general.architecture", architecture),
            _text_key("adapter.type", "lora"),
            _string("adapter.lora.alpha") + struct.pack("<If", _FLOAT, 1.0),
        )
    )
    tensors = {f"{tensor}.lora_a": first, f"{tensor}.lora_b": second}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 4) + keys + _infos(tensors)
    body = b"".join(_padded(matrix.tobytes()) for matrix in tensors.values())
    path.write_bytes(_padded(head) + body)
    return path


def _infos(tensors: dict[str, NDArray[np.float32]]) -> bytes:
    infos, offset = b"", 0
    for name, matrix in tensors.items():
        n_rows, n_columns = matrix.shape  # GGUF names the fastest dimension first
        infos += _string(name) + struct.pack("<IQQIQ", 2, n_columns, n_rows, _F32, offset)
        offset += len(_padded(matrix.tobytes()))
    return infos


def _text_key(key: str, value: str) -> bytes:
    return _string(key) + struct.pack("<I", _STRING) + _string(value)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % _ALIGNMENT)
