"""Subprocess that writes and judges a tuned copy. Started by `tuner` as a module.

A process of its own, because what computes with an untried format may crash, and only its end
interrupts it. The copy must read and answer documents faster than the original, and predict the
same next tokens of a reference text.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
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
    CopyRefused,
    CopySpeeds,
    MeasuredModels,
    Weights,
    is_disturbed,
    measure_speeds,
    require_gain,
)
from .tuned_copies import OPENVINO, OPENVINO_BF16, TunedCopy, graph_file

# An IR that gains so much is kept unseen whether a copy for llama.cpp gains more: of SmolLM2-135M
# these gain 1.5 to 2.1, IRs 4.
_SURE_GAIN = 2.0


def main() -> None:
    """Write the copy and judge it; send a `CopyAnswer`."""
    order, send = take_order()
    library.route_llama_log()
    # Take the least priority, and be the first to go when the machine has no memory left
    lower_priority(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    copy_order = record_from(CopyOrder, order)
    try:
        answer = CopyAnswer(make_copy(copy_order))
    except (CopyRefused, LoadFailed) as error:
        answer = CopyAnswer(replace(copy_order.model, why_none=str(error)))
    except OSError as error:
        answer = CopyAnswer(not_now=str(error))
    send(asdict(answer))


def make_copy(order: CopyOrder) -> TunedCopy:
    """Write, measure, compare; return the record of the fastest copy.

    Raises:
        CopyRefused: none is worth it.
    """
    irs = list[Weights]()
    with closing(_CopyJudge(order)) as judge:
        try:
            if order.ir is not None:
                irs = _write_irs(order, order.ir)
                return judge.find_fastest(irs, _SURE_GAIN if order.names else LEAST_GAIN)
        except CopyRefused:
            if not order.names:
                raise
        source, names = Path(order.model.original_path), frozenset(order.names)
        write_widened(source, order.target, names, order.format, order.n_threads)
        copies = [Weights(order.target, format=order.format), *irs]
        return judge.find_fastest(copies, LEAST_GAIN)


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

    def find_fastest(self, copies: Sequence[Weights], least_gain: float) -> TunedCopy:
        """Return the record of the fastest copy that says the same.

        Raises:
            CopyRefused: there is none, for the reason of the fastest.
        """
        speeds = self._measure([self._source, *copies])
        before, refusals = speeds.pop(self._source), list[CopyRefused]()
        for copy, found in sorted(speeds.items(), key=lambda each: each[1].together_s):
            try:
                require_gain(before, found, least_gain)
                likeness = self._comparison.likeness_of(copy)
                likeness.require(is_embedder=self._shape.embeds)
            except CopyRefused as refusal:
                refusals.append(refusal)
                continue
            return replace(
                self._with_file(copy),
                format=copy.format,
                prompts_ratio=found.prompts / before.prompts,
                answers_ratio=found.answers / before.answers,
                agreement=likeness.agreement,
                is_embedder=self._shape.embeds,
            )
        raise refusals[0]

    def _measure(self, contenders: Sequence[Weights]) -> dict[Weights, CopySpeeds]:
        speeds = measure_speeds(contenders, self._shape, self._models)
        if is_disturbed(speeds.values()):
            # Beside other programs wall times of one file differ by a factor of 2, the processor's
            # seconds of one thread by a twentieth.
            speeds = measure_speeds([*speeds], self._shape, self._models, counts_cpu=True)
        return speeds

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


def _write_irs(order: CopyOrder, ir: Path) -> list[Weights]:
    """Write the IRs of each precision.

    Raises:
        CopyRefused: OpenVINO is not installed, or cannot read such a model.
    """
    source = Path(order.model.original_path)
    try:
        ir_writer = importlib.import_module("paddock.engine.openvino.ir_writer")
        ir_writer.write_ir(source, ir, graph_file(ir), order.n_threads)
        irs = [Weights(source, ir, OPENVINO)]
        if ir_writer.computes_bf16():
            in_bf16 = ir.with_stem(f"{ir.stem}-bf16")
            ir_writer.write_in_bf16(ir, in_bf16)
            irs.append(Weights(source, in_bf16, OPENVINO_BF16))
    except (LoadFailed, ImportError) as error:
        raise CopyRefused(str(error)) from error
    return irs


if __name__ == "__main__":
    run_and_exit(main)
