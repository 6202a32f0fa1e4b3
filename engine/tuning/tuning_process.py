"""Subprocess that writes and judges a tuned copy. Started by `tuner` as a module.

A process of its own, because what computes with an untried format may crash, and only its end
interrupts it. The copy must read and answer documents faster than the original, and predict the
same next tokens of a reference text.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from paddock.engine.gguf import read_header
from paddock.engine.llama import library
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.quantise import write_widened
from paddock.engine.profile.measure import BenchOptions
from paddock.engine.system.files import sha256_of, sync_file
from paddock.engine.system.frame_processes import take_order
from paddock.engine.system.processes import lower_priority, run_and_exit
from paddock.engine.system.records import asdict, record_from, replace
from paddock.engine.workers.fallbacks import with_fallback
from paddock.engine.workers.worker_protocol import WorkerOptions

from .copy_comparison import CopyComparison
from .copy_order import CopyAnswer, CopyOrder
from .copy_trials import (
    LEAST_GAIN,
    CopySpeeds,
    MeasuredModels,
    Weights,
    is_disturbed,
    measure_speeds,
    why_too_slow,
)
from .tuned_copies import OPENVINO, OPENVINO_BF16, TunedCopy, graph_file

# An IR that gains so much is kept unseen whether a copy for llama.cpp gains more: of SmolLM2-135M
# these gain 1.5 to 2.1, IRs 4.
_SURE_GAIN = 2.0


def main() -> None:
    """Write the copy and judge it; send a `CopyAnswer`."""
    order, send = take_order()
    library.quiet_logs()
    # Take the least priority, and be the first to go when the machine has no memory left
    lower_priority(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    copy_order = record_from(CopyOrder, order)
    try:
        answer = CopyAnswer(make_copy(copy_order))
    except LoadFailed as error:
        answer = CopyAnswer(replace(copy_order.model, why_none=str(error)))
    except OSError as error:
        answer = CopyAnswer(not_now=str(error))
    send(asdict(answer))


def make_copy(order: CopyOrder) -> TunedCopy:
    """Write, measure, compare; return the record of the fastest copy, or of why there is none."""
    irs, why_none = _write_irs(order)
    made = replace(order.model, why_none=why_none)
    with closing(_CopyJudge(order)) as judge:
        if irs:
            made = judge.find_fastest(irs, _SURE_GAIN if order.names else LEAST_GAIN)
        if order.names and (made.why_none or not irs):
            source, names = Path(order.model.original_path), frozenset(order.names)
            write_widened(source, order.target, names, order.format, order.n_threads)
            copies = {order.format: Weights(order.target), **irs}
            made = judge.find_fastest(copies, LEAST_GAIN)
    return made


class _CopyJudge:
    """Measures copies of a model and compares them with it; what it loads stays until it closes."""

    def __init__(self, order: CopyOrder) -> None:
        self._model = order.model
        self._source = Weights(Path(order.model.original_path))
        path = order.model.original_path
        load = with_fallback(
            WorkerOptions(path, "chat", 0, 0, 1, 0, order.n_threads), order.fallback
        )
        self._shape = BenchOptions(
            0, 0, load.n_threads, load.flash_attention,
            embeds=read_header(self._source.path).role == "embed",
            uses_extra_buffers=load.uses_extra_buffers,
        )  # fmt: skip
        self._models = MeasuredModels()
        self._comparison = CopyComparison(self._source, order.texts, self._shape, self._models)
        self.close = self._models.close

    def find_fastest(self, copies: Mapping[str, Weights], least_gain: float) -> TunedCopy:
        """Return the record of the fastest copy that says the same; or why the fastest is none."""
        speeds, whys_unmeasured = self._measure({"": self._source, **copies})
        before = speeds.pop("", None)
        if before is None or not speeds:
            return replace(self._model, why_none=whys_unmeasured[0])
        whys = []
        for format_name, found in sorted(speeds.items(), key=lambda each: each[1].together_s):
            if why := why_too_slow(before, found, least_gain):
                whys.append(why)
                continue
            likeness = self._comparison.likeness_of(copies[format_name])
            if why := likeness.why_too_different(is_embedder=self._shape.embeds):
                whys.append(why)
                continue
            return replace(
                self._with_file(copies[format_name]),
                format=format_name,
                prompts_ratio=found.prompts / before.prompts,
                answers_ratio=found.answers / before.answers,
                agreement=likeness.agreement,
                is_embedder=self._shape.embeds,
            )
        return replace(self._model, why_none=whys[0])

    def _measure(
        self, contenders: Mapping[str, Weights]
    ) -> tuple[dict[str, CopySpeeds], list[str]]:
        speeds, whys = measure_speeds(contenders, self._shape, self._models)
        if not is_disturbed(speeds.values()):
            return speeds, whys
        # Beside other programs wall times of one file differ by a factor of 2, the processor's
        # seconds of one thread by a twentieth.
        measured = {name: contenders[name] for name in speeds}
        speeds, lost = measure_speeds(measured, self._shape, self._models, counts_cpu=True)
        return speeds, whys + lost

    def _with_file(self, copy: Weights) -> TunedCopy:
        """Return the record with the copy's file, which is on the disk by then."""
        sync_file(copy.file)
        digest, n_bytes = sha256_of(copy.file), copy.file.stat().st_size
        if copy.ir is not None:
            graph = graph_file(copy.ir)
            sync_file(graph)
            # One file of weights is computed in more than one precision, which the graph tells
            digest = hashlib.sha256(f"{digest} {sha256_of(graph)}".encode()).hexdigest()
        return replace(self._model, path=str(copy.file), digest=digest, size_bytes=n_bytes)


def _write_irs(order: CopyOrder) -> tuple[dict[str, Weights], str]:
    """Return the IRs by their precisions, or why there is none, if one was ordered."""
    ir, source = order.ir, Path(order.model.original_path)
    if ir is None:
        return {}, ""
    try:
        writer = importlib.import_module("paddock.engine.openvino.ir_writer")
        writer.write_ir(source, ir, graph_file(ir), order.n_threads)
        irs = {OPENVINO: Weights(source, ir)}
        if writer.computes_bf16():
            in_bf16 = ir.with_stem(f"{ir.stem}-bf16")
            writer.write_in_bf16(ir, in_bf16)
            irs[OPENVINO_BF16] = Weights(source, in_bf16)
    except (LoadFailed, ImportError) as error:
        return {}, str(error)
    return irs, ""


if __name__ == "__main__":
    run_and_exit(main)
