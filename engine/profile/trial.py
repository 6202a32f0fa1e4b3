"""A model of one layer in any tensor format, written in milliseconds: what a format's kernels do.

Its text is nonsense. Every byte of its weights is the same, which stands for an ordinary number in
each format; the kernels take as long as over trained weights.
"""

from __future__ import annotations

import struct
from pathlib import Path

from paddock.engine.gguf import BLOCKS, TYPE_NAMES

# Large enough that the matrices and not the barriers between them take the time, small enough
# that a file is written and loaded in some 0.02 s. Rows are a multiple of 256, for k-quants.
N_EMBEDDING, N_INNER, N_HEADS, N_HEADS_KV, N_VOCAB = 1024, 2048, 16, 4, 64
N_CTX_TOKENS = 1024

_N_KV = N_EMBEDDING // N_HEADS * N_HEADS_KV
_MATRICES = (
    ("attn_q", N_EMBEDDING, N_EMBEDDING),
    ("attn_k", N_EMBEDDING, _N_KV),
    ("attn_v", N_EMBEDDING, _N_KV),
    ("attn_output", N_EMBEDDING, N_EMBEDDING),
    ("ffn_gate", N_EMBEDDING, N_INNER),
    ("ffn_up", N_EMBEDDING, N_INNER),
    ("ffn_down", N_INNER, N_EMBEDDING),
)
N_WEIGHTS = sum(n_in * n_out for _, n_in, n_out in _MATRICES)

_KINDS = {name: kind for kind, name in TYPE_NAMES.items()}
_F32 = 0
_ALIGNMENT = 32
# 0x2c2c is 0.07 as a half, the scale of most blocks; 0x3c3c3c3c is 0.01 as a float.
_FILLER, _FLOAT_FILLER = b"\x2c", b"\x3c"
# MXFP4's scale is an exponent alone: 0x7b is 0.06, where 0x2c would end in denormal numbers.
_FILLERS = {"F32": _FLOAT_FILLER, "BF16": _FLOAT_FILLER, "MXFP4": b"\x7b"}


def can_write(format_name: str) -> bool:
    """Tell whether a trial of this format can be made."""
    return format_name in _KINDS and _KINDS[format_name] in BLOCKS


def write(path: Path, format_name: str) -> None:
    """Write the trial model of a format."""
    tensors = _tensors(_KINDS[format_name])
    header = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(_facts())))
    for key, value in _facts().items():
        header += _string(key) + _value(value)
    at = 0
    for name, axes, kind in tensors:
        header += _string(name) + struct.pack("<I", len(axes))
        header += struct.pack(f"<{len(axes)}Q", *axes) + struct.pack("<IQ", kind, at)
        at += _padded(_n_bytes(axes, kind))
    with path.open("wb") as file:
        file.write(header.ljust(_padded(len(header)), b"\0"))
        for _, axes, kind in tensors:
            filler = _FILLERS.get(TYPE_NAMES[kind], _FILLER)
            file.write(filler * _padded(_n_bytes(axes, kind)))


def _tensors(kind: int) -> list[tuple[str, tuple[int, ...], int]]:
    """Name every tensor with its axes and type, in the file's order."""
    norms = ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")
    return [
        ("token_embd.weight", (N_EMBEDDING, N_VOCAB), kind),
        *((name, (N_EMBEDDING,), _F32) for name in norms),
        *((f"blk.0.{name}.weight", (n_in, n_out), kind) for name, n_in, n_out in _MATRICES),
    ]


def _facts() -> dict[str, str | int | float]:
    return {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": N_CTX_TOKENS,
        "llama.embedding_length": N_EMBEDDING,
        "llama.feed_forward_length": N_INNER,
        "llama.attention.head_count": N_HEADS,
        "llama.attention.head_count_kv": N_HEADS_KV,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": N_VOCAB,
        "tokenizer.ggml.model": "no_vocab",
    }


def _value(value: str | int | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    return struct.pack("<If", 6, value)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _n_bytes(axes: tuple[int, ...], kind: int) -> int:
    n_weights = 1
    for axis in axes:
        n_weights *= axis
    per_block, block_bytes = BLOCKS[kind]
    return n_weights // per_block * block_bytes


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
