"""A model as an OpenVINO IR, compiled for this processor: one pass over a batch, cells in blocks.

`ir_writer.write_ir` wrote it from a GGUF file. Attention is made paged when it is loaded, since
OpenVINO 2026.4 writes the paged operation but cannot read it back; and the rows whose logits are
wanted are gathered before the last projection, which is a quarter of a small model's work.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
from numpy.typing import NDArray
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation  # type: ignore[import-untyped]

from paddock.engine.arrays import Logits
from paddock.engine.llama.library import LoadFailed
from paddock.engine.system.hardware import give_back_pages

from .paged_batch import PRECISION, PagedBatch

WANTED = "wanted_rows"
# The inputs of a pass; an IR that has more was made by a version that is not known.
_OPTIONAL = frozenset(["max_context_len"])
_INPUTS = frozenset([
    "input_ids", "position_ids", "past_lens", "subsequence_begins", "block_indices",
    "block_indices_begins", WANTED, *_OPTIONAL,
])  # fmt: skip


class PagedModel:
    def __init__(self, ir: Path, n_threads: int) -> None:
        self._tensor_of = openvino.Tensor
        core = openvino.Core()
        try:
            model = core.read_model(ir.with_suffix(".xml"), ir)
            paged_attention_transformation(model)
            _gather_wanted_rows(model)
            self._compiled = core.compile_model(model, "CPU", compile_settings(model, n_threads))
        except RuntimeError as error:
            raise LoadFailed(f"OpenVINO cannot use {ir}: {error}") from error
        names = [port.get_any_name() for port in self._compiled.inputs]
        self._caches = [p for p in self._compiled.inputs if "_cache." in p.get_any_name()]
        self._inputs = {n: name for n, name in enumerate(names) if "_cache." not in name}
        inputs = set(self._inputs.values())
        if not self._caches or not _INPUTS - _OPTIONAL <= inputs <= _INPUTS:
            raise LoadFailed(f"OpenVINO asks for other inputs than known: {sorted(inputs)}")
        shape = self._caches[0].get_partial_shape()
        self.n_block_cells = int(shape[2].get_length())
        self._request = self._compiled.create_infer_request()
        self._used: list[NDArray[Any]] = []
        # The first pass lays the weights out for this processor; the file's pages were read for it
        self.use_caches(self.new_caches(1))
        token, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
        ends = np.arange(2, dtype=np.int32)
        try:
            self.compute(PagedBatch(token, zero, zero, ends, zero, ends, zero.astype(np.int64)))
        except RuntimeError as error:
            raise LoadFailed(f"OpenVINO cannot compute {ir}: {error}") from error
        give_back_pages(ir)

    def new_caches(self, n_blocks: int) -> list[NDArray[Any]]:
        """Return cells for so many blocks, an array for each cache; memory is taken as it is used.

        Shape of each is (n_blocks, n_heads, cells of a block, size of a head). All lie in one piece
        of memory, from a page's beginning on: in large pages, and no vector in two cache lines,
        a token of 8 and 16 sequences behind 640 takes 0.96 and 0.95 of the time.
        """
        empty = []
        for port in self._caches:
            axes = [n_blocks, *(axis.get_length() for axis in list(port.get_partial_shape())[1:])]
            kind = np.dtype(port.get_element_type().to_dtype())
            empty.append(np.broadcast_to(kind.type(), [int(axis) for axis in axes]))
        ends = np.cumsum([cache.nbytes for cache in empty])
        memory = np.zeros(int(ends[-1]) + mmap.PAGESIZE, np.uint8)
        memory = memory[-memory.ctypes.data % mmap.PAGESIZE :][: ends[-1]]
        return [
            part.view(cache.dtype).reshape(cache.shape)
            for part, cache in zip(np.split(memory, ends[:-1]), empty, strict=True)
        ]

    def use_caches(self, caches: list[NDArray[Any]]) -> None:
        if caches is self._used:
            return
        self._used = caches
        for port, cache in zip(self._caches, caches, strict=True):
            # By its type: numpy has no BF16, and its cells are held as other ones of 16 bits
            cells = self._tensor_of(cache, openvino.Shape(cache.shape), port.get_element_type())
            self._request.set_tensor(port, cells)

    def compute(self, batch: PagedBatch) -> Logits:
        """Run one pass; return the wanted rows' logits, valid until the next pass.

        Shape is (n_wanted, n_vocab). Raises RuntimeError where OpenVINO cannot compute.
        """
        lengths = batch.n_before + np.diff(batch.begins)
        values = {
            "input_ids": batch.tokens.astype(np.int64),
            "position_ids": batch.positions.astype(np.int64),
            "past_lens": batch.n_before,
            "subsequence_begins": batch.begins,
            "block_indices": batch.blocks,
            "block_indices_begins": batch.block_begins,
            "max_context_len": np.array(lengths.max(), np.int32),
            WANTED: batch.output_rows,
        }
        for place, name in self._inputs.items():
            self._request.set_input_tensor(place, self._tensor_of(values[name]))
        # In a thread of OpenVINO's own: it sets up AMX tiles, which llama.cpp does once a thread
        self._request.start_async()
        self._request.wait()
        logits: Logits = self._request.get_output_tensor(0).data
        return logits.reshape(len(batch.output_rows), logits.shape[-1])


def compile_settings(model: Any, n_threads: int) -> dict[str, Any]:
    is_told = model.has_rt_info(PRECISION)
    precision = model.get_rt_info(PRECISION).astype(str) if is_told else "f32"
    return {
        "INFERENCE_PRECISION_HINT": precision,
        # Of BF16 keys and values nothing is lost, and eight sequences take a fifth less than by F16
        "KV_CACHE_PRECISION": precision if precision == "bf16" else "f16",
        "INFERENCE_NUM_THREADS": n_threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


def _gather_wanted_rows(model: Any) -> None:
    """Have the last projection compute the rows that a new input names."""
    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    rows = ops.parameter([-1], np.int64, name=WANTED)
    rows.output(0).set_names({WANTED})
    gathered = ops.gather(node.input_value(0), rows, ops.constant(np.int64(0)))
    node.input(0).replace_source_output(gathered.output(0))
    model.add_parameters([rows])
    model.validate_nodes_and_infer_types()
