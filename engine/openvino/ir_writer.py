"""Write a model of GGUF as an OpenVINO IR, which `paged_model` or `encoder_model` computes.

openvino-genai 2026.4.1 reads GGUF files of some architectures. It rounds the minimum of each block
of Q4_1 and of k-quants to a whole step, which makes SmolLM2-135M's perplexity 51.7 (42.1 by its
weights); of Q8_0, Q4_0 and 16 bits it keeps every value. So other formats become Q8_0 first.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import openvino_genai  # type: ignore[import-untyped]
from openvino import opset13 as ops
from openvino.utils import replace_node  # type: ignore[import-untyped]

from paddock.engine.gguf import TYPE_NAMES, read_header
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.quantise import BLOCK_READERS, QuantiseFailed, quantise, write_widened

from .encoder_model import write_encoder
from .paged_batch import PRECISION

_KEPT = frozenset(["F32", "F16", "Q8_0", "Q4_0"])
_GRAPH, _WEIGHTS = "openvino_model.xml", "openvino_model.bin"
# Weights that are counted from 0: the type of those with a sign, and what turns one into the other.
_SIGNED = {"u8": (openvino.Type.i8, 0x80), "u4": (openvino.Type.i4, 0x88)}


def write_ir(source: Path, weights: Path, graph: Path, n_threads: int) -> None:
    """Write `source` as two files.

    Raises:
        LoadFailed: OpenVINO cannot read such a model.
        OSError: the files cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=weights.parent, prefix=".ir.") as folder:
        model = Path(folder) / "model.gguf"
        if read_header(source).role == "embed":
            kinds = _matrices(source)
            narrow = {name for name in kinds if kinds[name] not in ("F16", "F32")}
            write_widened(source, model, narrow, "F16", n_threads)
            write_encoder(model, weights, graph)
            return
        _write_readable(source, model, n_threads)
        try:
            openvino_genai.LLMPipeline(str(model), "CPU", enable_save_ov_model=True)
            read = openvino.Core().read_model(model.parent / _GRAPH, model.parent / _WEIGHTS)
            _sign_weights(read)
            _join_projections(read)
        except (RuntimeError, ValueError, IndexError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise LoadFailed(f"OpenVINO cannot read such a model: {why}") from error
        _write_model(read, weights, graph)


def computes_bf16() -> bool:
    """Return whether this processor multiplies BF16 itself."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def write_in_bf16(ir: Path, target: Path) -> None:
    """Write an IR again, to be computed in BF16.

    In an IR that is not, OpenVINO rounds activations to 8 bits, as llama.cpp does; which is nearer
    to sums of 32 bits hangs on the processor, so both are measured. The five likeliest next tokens
    of SmolLM2-135M, by its weights in F16: median and p95 of the differences of their log
    probabilities are 0.053 and 0.208 in llama.cpp, 0.056 and 0.217 with OpenVINO, 0.034 and 0.134
    in BF16 (2026.4.1, AMX). With AVX512_BF16 alone the perplexity is 1.0075 times that of 32 bits
    in BF16, 1.0036 without, 1.0035 by the file in llama.cpp (2,048 tokens).

    Raises:
        OSError: the files cannot be written.
    """
    model = openvino.Core().read_model(ir.with_suffix(".xml"), ir)
    model.set_rt_info("bf16", PRECISION)
    _write_model(model, target, target.with_suffix(".xml"))


def _write_model(model: openvino.Model, weights: Path, graph: Path) -> None:
    try:
        openvino.serialize(model, graph, weights)
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _sign_weights(model: openvino.Model) -> None:
    """Write weights with a sign where their zero is the middle: OpenVINO then subtracts none.

    With `_join_projections`, SmolLM2-135M in BF16 behind 640 tokens on 2 cores of an EPYC: a token
    alone takes 0.89 of the time, of 8 and 16 sequences 0.90 and 0.93, a prompt the same.
    """
    for node in model.get_ordered_ops():
        weights = _followed(node, "Subtract", "Convert", "Constant")
        zeros = weights and _followed(node.input_value(1).get_node(), "Convert", "Constant")
        name = weights[-1].get_element_type().get_type_name() if weights and zeros else ""
        kind, middle = _SIGNED.get(name, (None, 0))
        if kind is not None and (zeros[-1].data == middle).all():
            signed = _packed(weights[-1].data ^ middle, weights[-1].get_output_shape(0), kind)
            replace_node(node, ops.convert(signed, node.get_output_element_type(0)))


def _join_projections(model: openvino.Model) -> None:
    """Make one product of an attention's query, key and value: each has its own cost.

    Gate and up stay two: OpenVINO computes the activation within the first, and prompts would take
    1.07 of the time.
    """
    by_input = defaultdict(list)
    for node in model.get_ordered_ops():
        found = node.get_type_name() == "MatMul" and _followed(
            node.input_value(1).get_node(), "Convert", "Reshape", "Multiply", "Convert", "Constant"
        )
        if found and (factor := _followed(found[2].input_value(1).get_node(), "Constant")):
            source, kind = node.input_value(0), found[-1].get_element_type().get_type_name()
            key = source.get_node().get_friendly_name(), source.get_index(), kind
            by_input[key].append((node, found[-1], factor[0]))
    for joined in (found for found in by_input.values() if len(found) == 3):
        products, weights, scales = zip(*joined, strict=True)
        lengths = np.array([each.shape[0] for each in scales])
        shape = [int(lengths.sum()), *weights[0].shape[1:]]
        data = np.concatenate([each.data.reshape(-1) for each in weights])
        factors = ops.constant(np.concatenate([each.data for each in scales]))
        whole = ops.convert(_packed(data, shape, weights[0].get_element_type()), "f16")
        matrix = ops.reshape(ops.multiply(whole, factors), np.array([shape[0], -1]), False)
        product = ops.matmul(products[0].input_value(0), ops.convert(matrix, "f32"), False, True)
        parts = ops.variadic_split(product, np.array(-1), lengths)
        for before, after in zip(products, parts.outputs(), strict=True):
            replace_node(before, [after])
    model.validate_nodes_and_infer_types()


def _followed(node: Any, *kinds: str) -> list[Any]:
    """Return a node and the first inputs before it if they are of these kinds, else nothing."""
    nodes = [node]
    while nodes[-1].get_type_name() == kinds[len(nodes) - 1]:
        if len(nodes) == len(kinds):
            return nodes
        nodes.append(nodes[-1].input_value(0).get_node())
    return []


def _packed(data: Any, shape: Any, kind: openvino.Type) -> Any:
    tensor = openvino.Tensor(data.reshape(-1).view(np.uint8), openvino.Shape(shape), kind)
    return openvino.op.Constant(tensor, shared_memory=False)


def _write_readable(source: Path, target: Path, n_threads: int) -> None:
    """Write the model in formats of which every value is kept; a link where it has these."""
    kinds = _matrices(source)
    others = {name for name, kind in kinds.items() if kind not in _KEPT}
    if not others:
        target.symlink_to(source.absolute())
    elif {kinds[name] for name in others} <= BLOCK_READERS.keys():
        write_widened(source, target, others, "Q8_0", n_threads)
    else:
        try:
            quantise(source, target, "Q8_0", n_threads)
        except QuantiseFailed as error:
            raise LoadFailed(str(error)) from error


def _matrices(source: Path) -> dict[str, str]:
    """Return the type of each matrix by its name."""
    return {
        tensor.name: TYPE_NAMES.get(tensor.kind, "")
        for tensor in read_header(source).tensors
        if len(tensor.axes) > 1
    }
