"""BERT as an OpenVINO IR: its graph, written from a GGUF file's weights, and its computation.

openvino-genai 2026.4 reads no encoder of GGUF, so the graph is made here of OpenVINO's operations,
as llama.cpp's src/models/bert.cpp computes it. Texts of a batch are padded; which tokens are seen,
and what each counts in its text's vector, are inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
from numpy.typing import NDArray
from openvino import opset13 as ops

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.gguf import TYPE_NAMES, GgufHeader, read_header
from paddock.engine.llama.library import LoadFailed
from paddock.engine.system.hardware import give_back_pages

from .paged_model import compile_settings

_FIRST_POOLING, _MEAN_POOLING = 2, 1  # llama.cpp's numbers; without one it is the mean
_TOKENS, _POSITIONS, _SEES, _SHARES = "tokens", "positions", "sees", "shares"


class EncoderModel:
    def __init__(self, ir: Path, n_threads: int, *, pools_first: bool) -> None:
        self.pools_first = pools_first
        self._tensor_of = openvino.Tensor
        core = openvino.Core()
        try:
            model = core.read_model(ir.with_suffix(".xml"), ir)
            compiled = core.compile_model(model, "CPU", compile_settings(model, n_threads))
        except RuntimeError as error:
            raise LoadFailed(f"OpenVINO cannot use {ir}: {error}") from error
        self._request = compiled.create_infer_request()
        token, counts = np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)
        try:
            self.compute(token, 0 * counts, counts)  # as in `paged_model`: it lays the weights out
        except RuntimeError as error:
            raise LoadFailed(f"OpenVINO cannot compute {ir}: {error}") from error
        give_back_pages(ir)

    def compute(self, tokens: Tokens, sees: Vectors, shares: Vectors) -> Vectors:
        """Return one vector for each text, shape (n_texts, n_embedding).

        Args:
            tokens: of each text, padded, shape (n_texts, n), like the other ones.
            sees: 0 where a token is there and is seen, else minus infinity.
            shares: what each token counts in its text's vector.

        Raises RuntimeError where OpenVINO cannot compute.
        """
        positions = np.arange(tokens.shape[1], dtype=np.int32)
        values = {_TOKENS: tokens, _POSITIONS: positions, _SEES: sees, _SHARES: shares}
        for name, value in values.items():
            self._request.set_tensor(name, self._tensor_of(value))
        # In a thread of OpenVINO's own: it sets up AMX tiles, which llama.cpp does once a thread
        self._request.start_async()
        self._request.wait()
        vectors: Vectors = self._request.get_output_tensor(0).data.copy()
        return vectors


def pools_first(path: Path) -> bool:
    return read_header(path).number("pooling_type") == _FIRST_POOLING


def write_encoder(source: Path, weights: Path, graph: Path) -> None:
    """Write a file whose matrices have 16 or 32 bits as OpenVINO's two files.

    Raises:
        LoadFailed: it is no plain BERT.
        OSError: the files cannot be written.
    """
    header = read_header(source)
    pooling = header.number("pooling_type") or _MEAN_POOLING
    if pooling not in (_FIRST_POOLING, _MEAN_POOLING):
        raise LoadFailed(f"an IR pools by mean or first token, not by type {pooling}")
    tensors = {}
    data = np.memmap(source, np.uint8, "r")
    for tensor in header.tensors:
        kind = {"F32": np.float32, "F16": np.float16}[TYPE_NAMES[tensor.kind]]
        start = header.data_at + tensor.offset
        values = data[start : start + tensor.n_bytes].view(kind)
        tensors[tensor.name] = values.reshape(tensor.axes[::-1])
    try:
        built = _Bert(tensors, header).model()
    except KeyError as error:
        raise LoadFailed(f"it is no plain BERT: {error.args[0]} is missing") from error
    if tensors:
        raise LoadFailed(f"it is no plain BERT: it has {min(tensors)}")
    try:
        openvino.serialize(built, graph, weights)
    except RuntimeError as error:
        raise OSError(str(error)) from error


class _Bert:
    """Takes tensors by their names in GGUF, each once."""

    def __init__(self, tensors: dict[str, NDArray[Any]], header: GgufHeader) -> None:
        self._tensors = tensors
        self._n_blocks = header.number("block_count")
        self._n_heads = header.number("attention.head_count")
        self._epsilon = float(header.values[f"{header.architecture}.attention.layer_norm_epsilon"])

    def model(self) -> openvino.Model:
        tokens = ops.parameter([-1, -1], np.int32, name=_TOKENS)
        positions = ops.parameter([-1], np.int32, name=_POSITIONS)
        sees, shares = (ops.parameter([-1, -1], np.float32, name=n) for n in (_SEES, _SHARES))
        state = ops.add(
            ops.gather(self._values("token_embd.weight"), tokens, np.int32(0)),
            ops.gather(self._values("position_embd.weight"), positions, np.int32(0)),
        )
        if "token_types.weight" in self._tensors:  # a text alone is of the first type
            types = self._tensors.pop("token_types.weight")
            state = ops.add(state, ops.constant(np.asarray(types[0], np.float32)))
        state = self._normed(state, "token_embd_norm")
        for block in range(self._n_blocks):
            place = f"blk.{block}."
            attended = self._attended(state, place, sees)
            state = self._normed(ops.add(state, attended), f"{place}attn_output_norm")
            inner = ops.gelu(self._projected(state, f"{place}ffn_up"), "erf")
            outer = self._projected(inner, f"{place}ffn_down")
            state = self._normed(ops.add(state, outer), f"{place}layer_output_norm")
        pooled = ops.squeeze(
            ops.matmul(ops.unsqueeze(shares, np.array([1])), state, False, False), np.array([1])
        )
        return openvino.Model([pooled], [tokens, positions, sees, shares], "bert")

    def _attended(self, state: Any, place: str, sees: Any) -> Any:
        by_head = np.array([0, 2, 1, 3])
        apart = np.array([0, 0, self._n_heads, -1])
        heads = [
            ops.transpose(
                ops.reshape(self._projected(state, f"{place}attn_{name}"), apart, True), by_head
            )
            for name in "qkv"
        ]
        seen = ops.scaled_dot_product_attention(*heads, ops.unsqueeze(sees, np.array([1, 2])))
        joined = ops.reshape(ops.transpose(seen, by_head), np.array([0, 0, -1]), True)
        return self._projected(joined, f"{place}attn_output")

    def _projected(self, state: Any, name: str) -> Any:
        product = ops.matmul(state, self._values(f"{name}.weight"), False, True)
        return ops.add(product, self._values(f"{name}.bias"))

    def _normed(self, state: Any, name: str) -> Any:
        normal = ops.mvn(state, np.array([-1]), True, self._epsilon, "inside_sqrt")
        scaled = ops.multiply(normal, self._values(f"{name}.weight"))
        return ops.add(scaled, self._values(f"{name}.bias"))

    def _values(self, name: str) -> Any:
        return ops.convert(ops.constant(np.ascontiguousarray(self._tensors.pop(name))), "f32")
