"""Write a model of GGUF in OpenVINO's form, which `paged_model` or `encoder_model` computes.

openvino-genai 2026.4.1 reads GGUF files of some architectures. It rounds the minimum of each block
of Q4_1 and of k-quants to a whole step, which makes SmolLM2-135M's perplexity 51.7 (42.1 by its
weights); of Q8_0, Q4_0 and 16 bits it keeps every value. So other formats become Q8_0 first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import openvino  # type: ignore[import-untyped]
import openvino_genai  # type: ignore[import-untyped]

from paddock.engine.gguf import TYPE_NAMES, read_header
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.quantise import BLOCK_READERS, QuantiseFailed, quantise, write_widened

from .encoder_model import write_encoder
from .paged_context import PRECISION

_KEPT = frozenset(["F32", "F16", "Q8_0", "Q4_0"])
_GRAPH, _WEIGHTS = "openvino_model.xml", "openvino_model.bin"


def write_form(source: Path, weights: Path, graph: Path, n_threads: int) -> None:
    """Write `source` as two files.

    Raises:
        LoadFailed: OpenVINO cannot read such a model.
        OSError: the files cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=weights.parent, prefix=".form.") as folder:
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
        except RuntimeError as error:
            why = str(error).strip().splitlines()[-1]
            raise LoadFailed(f"OpenVINO cannot read such a model: {why}") from error
        (model.parent / _WEIGHTS).replace(weights)
        (model.parent / _GRAPH).replace(graph)


def computes_bf16() -> bool:
    """Return whether this processor multiplies BF16 itself."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def write_in_bf16(form: Path, target: Path) -> None:
    """Write a form again, to be computed in BF16.

    In a form that is not, OpenVINO rounds activations to 8 bits, as llama.cpp does; which is nearer
    to sums of 32 bits hangs on the processor, so both are measured. The five likeliest next tokens
    of SmolLM2-135M, by its weights in F16: median and p95 of the differences of their log
    probabilities are 0.053 and 0.208 in llama.cpp, 0.056 and 0.217 with OpenVINO, 0.034 and 0.134
    in BF16 (2026.4.1, AMX). With AVX512_BF16 alone the perplexity is 1.0075 times that of 32 bits
    in BF16, 1.0036 without, 1.0035 by the file in llama.cpp (2,048 tokens).

    Raises:
        OSError: the files cannot be written.
    """
    model = openvino.Core().read_model(form.with_suffix(".xml"), form)
    model.set_rt_info("bf16", PRECISION)
    try:
        openvino.serialize(model, target.with_suffix(".xml"), target)
    except RuntimeError as error:
        raise OSError(str(error)) from error


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
