"""Write a model or single tensors in another format, by llama.cpp's own quantiser."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .library import ggml_function, lib

# llama.cpp's numbers for whole files (`llama_ftype`), by the format that most tensors get.
_FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q2_K": 10,
    "Q3_K": 12,
    "Q4_K": 15,
    "Q5_K": 17,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "BF16": 32,
}
FORMATS = tuple(_FILE_TYPES)

# The same by the names of the mixtures that llama.cpp makes of them.
_MIXTURES = {
    "Q3_K_S": 11,
    "Q3_K_M": 12,
    "Q3_K_L": 13,
    "Q4_K_S": 14,
    "Q4_K_M": 15,
    "Q5_K_S": 16,
    "Q5_K_M": 17,
}


_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_Q8_0, _Q8_0_BLOCK, _Q8_0_BYTES = 8, 32, 34


class _Traits(ctypes.Structure):
    """ggml's `ggml_type_traits`."""

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
    """Write `source` to `target` in a format of `FORMATS` or a mixture; from quantised tensors too.

    Takes some seconds for each 10⁹ weights, and cannot be interrupted but by ending the process.

    Raises:
        QuantiseFailed: nothing usable was written.
    """
    lib.llama_backend_init()
    params = lib.llama_model_quantize_default_params()
    params.ftype = {**_FILE_TYPES, **_MIXTURES}[format_name]
    params.nthread = n_threads
    params.allow_requantize = True
    paths = (str(source).encode(), str(target).encode())
    if lib.llama_model_quantize(*paths, ctypes.byref(params)) != 0:
        raise QuantiseFailed(f"llama.cpp cannot write {source} as {format_name}")


def tensor_to_q8_0(raw: NDArray[np.uint8], kind: int) -> NDArray[np.uint8]:
    """Return the blocks of a tensor of ggml's type `kind` as those of Q8_0, flat.

    Each block of 32 weights is rounded to 127 even steps up to the largest one.
    """
    source, target = _traits(kind), _traits(_Q8_0)
    raw = np.ascontiguousarray(raw)
    n_weights = raw.size // source.type_size * source.blck_size
    values = np.empty(n_weights, np.float32)
    source.to_float(raw.ctypes.data, values.ctypes.data, n_weights)
    blocks = np.empty(n_weights // _Q8_0_BLOCK * _Q8_0_BYTES, np.uint8)
    target.from_float_ref(values.ctypes.data, blocks.ctypes.data, n_weights)
    return blocks


def _traits(kind: int) -> _Traits:
    found = ggml_function("ggml_get_type_traits", ctypes.POINTER(_Traits), ctypes.c_int)(kind)
    traits: _Traits = found.contents
    return traits
