"""Real models are measured within the time that is given."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddock.engine.arrays import Logits
from paddock.engine.gguf import TYPE_NAMES, read_header
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.llama_context import Context
from paddock.engine.llama.llama_model import Model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile import measure
from paddock.engine.profile.measure import (
    AGREED_PIECES,
    MOST_ROWS,
    Bench,
    BenchClock,
    BenchOptions,
    MeasuringStopped,
    Unmeasured,
    drafts_keep_answers,
    measure_model,
)
from paddock.engine.profile.profile import Measurements, PrefillPoint
from paddock.engine.profile.trial_models import (
    TRIAL_WEIGHTS,
    can_write_trial_model,
    write_trial_model,
)
from tests.calls import note_calls

ENOUGH_S = 240.0
"""All that is wanted is measured in it, on a busy machine too; on a quiet one in 10 s."""
pytestmark = pytest.mark.may_take(600, "what is measured waits for a core of its own")


def patient(seconds: float = ENOUGH_S) -> BenchClock:
    """Return a clock for a busy machine."""
    return BenchClock(seconds, 1, least_share=0.0)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[tuple[Model, Path]]:
    """Yield a model of one layer, and its file."""
    path = tmp_path / "one-layer.gguf"
    write_trial_model(path, "Q8_0")
    model = Model(path)
    yield model, path
    model.close()


def path_of(ref: str, folder: Path) -> Path:
    return ModelFinder(Path("/nonexistent"), folder).locate(ref).path


def rows_are_alike(model: Model, shape: BenchOptions) -> bool:
    """Compare single tokens with small batches of them, apart from how the profile does it."""
    bench = Bench(model, shape, BenchClock(60.0, 1), 1)
    with bench.context:
        singly = [bench.rows(1) for _ in range(5)]
        bench.clear()
        together = bench.rows(5)
        bench.clear()
        in_a_full_step = bench.rows(49)[:5]
    expected = np.concatenate(singly)
    return bool((expected == together).all() and (expected == in_a_full_step).all())


def test_kernels_that_differ_by_the_size_of_a_batch_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(path_of("smollm2:135m", tmp_path))
    alone = Context.logits

    def coarser(context: Context, n_rows: int) -> Logits:
        """Return logits as a kernel for several rows might have added them."""
        logits = alone(context, n_rows)
        return logits if n_rows == 1 else logits * np.float32(1.000001)

    bench = Bench(model, BenchOptions(512, 256, 1), clock := BenchClock(60.0, 1), 1)
    with bench.context:
        is_exact = drafts_keep_answers(bench, clock)
        assert bench.n_tokens(0) == 0
        assert is_exact == rows_are_alike(model, BenchOptions(512, 256, 1))
        monkeypatch.setattr(Context, "logits", coarser)
        assert drafts_keep_answers(bench, clock) is False
    model.close()


def test_a_chat_model_is_measured_the_most_useful_first_and_a_busy_machine_is_refused(
    tmp_path: Path,
) -> None:
    path = path_of("smollm2:135m", tmp_path)
    model = Model(path)
    shape = BenchOptions(n_cells=4096, n_batch_tokens=256, n_threads=1)
    measured = measure_model(model, path, shape, patient(), depths=())
    assert measured.prefill[0].n_batch_tokens in (64, 32, 16)
    counts = [point.n_sequences for point in measured.decode if point.is_unified]
    assert counts[0] == 1
    assert {point.is_unified for point in measured.decode} == {True, False}
    assert 20_000 < measured.cell_bytes < 30_000, "30 layers of 3 heads of 64 keys and values"
    assert measured.copy_s is not None
    assert {format.format for format in measured.formats} == {"Q4_1", "Q8_0"}
    assert measured.weights[0].format == "Q4_1"
    assert measured.agreements[0].drafts == rows_are_alike(model, shape)
    with pytest.raises(
        Unmeasured, match=r"^other programs used the processor: the threads got \d+%"
    ) as caught:
        measure_model(model, path, shape, BenchClock(20.0, 1, least_share=2.0), depths=())
    # It does not depend on speed.
    assert [agreement.drafts for agreement in caught.value.agreements] == [
        measured.agreements[0].drafts
    ]
    model.close()


def test_a_prompt_and_decoding_are_measured_without_flash_attention_too(
    trial: tuple[Model, Path],
) -> None:
    shape = BenchOptions(n_cells=8 * 320, n_batch_tokens=256, n_threads=1)
    measured = measure_model(*trial, shape, patient(), depths=(128,))
    plain = [point for point in measured.decode if not point.is_flash]
    assert {(point.n_depth_tokens, point.n_sequences) for point in plain} == {
        (64, 1), (64, 8), (128, 1), (128, 8),
    }  # fmt: skip
    assert [point.n_batch_tokens for point in measured.prefill if not point.is_flash] == [64, 128]
    assert sorted(agreement.is_flash for agreement in measured.agreements) == [False, True]
    assert all(agreement.company is not None for agreement in measured.agreements)
    flash_shape = replace(shape, flash_attention="on")
    measured = measure_model(*trial, flash_shape, patient(), depths=(128,))
    assert all(point.is_flash for point in measured.decode), "it was asked for"


def test_of_two_measurements_of_the_same_the_quicker_counts() -> None:
    points = [PrefillPoint(64, 400.0), PrefillPoint(64, 300.0, is_flash=False)]
    again = [PrefillPoint(64, 350.0), PrefillPoint(64, 360.0, is_flash=False)]
    measured = Measurements(prefill=[*points])
    measured.repeat(Measurements(prefill=again))
    assert measured.prefill == [points[0], again[1]]
    assert not measured.is_disturbed


def test_two_measurements_of_the_same_that_differ_much_were_disturbed() -> None:
    measured = Measurements(prefill=[PrefillPoint(64, 400.0)])
    measured.repeat(Measurements(prefill=[PrefillPoint(64, 300.0), PrefillPoint(32, 10.0)]))
    assert measured.is_disturbed


def test_a_measurement_ends_before_the_next_step_if_something_else_is_to_be_computed(
    trial: tuple[Model, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counter[str]()
    note_calls(monkeypatch, Context, "decode", lambda *_: seen.update(["step"]))
    note_calls(monkeypatch, Context, "__init__", lambda *_: seen.update(["made"]))
    note_calls(monkeypatch, Context, "close", lambda *_: seen.update(["closed"]))
    shape = BenchOptions(n_cells=8 * 320, n_batch_tokens=256, n_threads=1)
    n_most = 0

    def should_stop() -> bool:
        return seen["step"] >= n_most

    for n_most in (0, 1, 5, 12, 60):
        seen.clear()
        clock = BenchClock(ENOUGH_S, 1, least_share=0.0, should_stop=should_stop)
        with pytest.raises(MeasuringStopped):
            measure_model(*trial, shape, clock, depths=(128,))
        assert (seen["step"], seen["made"] - seen["closed"]) == (n_most, 0)


def test_a_graphics_device_is_measured_with_long_prompts_and_many_sequences(
    trial: tuple[Model, Path],
) -> None:
    shape = BenchOptions(n_cells=4096, n_batch_tokens=512, n_threads=1, is_gpu=True)
    measured = measure_model(*trial, shape, patient(), depths=(128,))
    assert [point.n_batch_tokens for point in measured.prefill] == [64, 512]
    assert {point.is_unified for point in measured.decode} == {False}
    at_depth: dict[int, list[int]] = {64: [], 128: []}
    for point in measured.decode:
        at_depth[point.n_depth_tokens].append(point.n_sequences)
    assert at_depth[64][-1] >= 16
    assert at_depth[128][-1] >= 8
    assert all(point.is_flash for point in measured.decode)
    (agreement,) = measured.agreements
    assert agreement.drafts is not None


@pytest.mark.parametrize(("is_gpu", "n_batch"), [(False, 256), (True, 512), (False, 32)])
def test_logits_are_reserved_only_for_the_rows_that_a_measurement_reads(
    trial: tuple[Model, Path], monkeypatch: pytest.MonkeyPatch, is_gpu: bool, n_batch: int
) -> None:
    seen: set[tuple[int, int, int, int]] = set()

    def note(n_rows: int, context: Context, *_: object) -> None:
        options = context.options
        seen.add((n_rows, options.n_seq_max, options.n_rows_max, options.n_pass_tokens))

    note_calls(monkeypatch, Context, "decode", note)
    shape = BenchOptions(8 * 320, n_batch, 1, is_gpu=is_gpu, n_pass_tokens=128)
    measured = measure_model(*trial, shape, patient(), depths=(128,))
    assert all(agreement.company is not None for agreement in measured.agreements)
    of_model = [entry for entry in seen if entry[3] == 128]
    assert max(n_rows for n_rows, *_ in of_model) == sum(AGREED_PIECES)
    for n_rows, n_seq_max, n_rows_max, _ in of_model:
        assert n_rows <= n_rows_max == max(n_seq_max, MOST_ROWS)


def test_what_was_measured_before_memory_was_short_is_kept(
    trial: tuple[Model, Path], monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(*_: Any, **__: Any) -> None:
        raise LoadFailed("there is no memory for it")

    shape = BenchOptions(8 * 320, 256, 1, is_gpu=True)
    with monkeypatch.context() as within:
        within.setattr(Bench, "spread", fail)
        measured = measure_model(*trial, shape, patient(), depths=(128,))
    assert [point.n_batch_tokens for point in measured.prefill] == [64, 256]
    monkeypatch.setattr(measure, "Context", fail)
    with pytest.raises(Unmeasured, match=r"^llama\.cpp could not do it: there is no memory"):
        measure_model(*trial, shape, patient(), depths=(128,))


def test_an_embedding_model_is_measured_by_the_size_of_its_batches(tmp_path: Path) -> None:
    path = path_of("all-minilm", tmp_path)
    model = Model(path)
    shape = BenchOptions(n_cells=512, n_batch_tokens=512, n_threads=1, embeds=True)
    measured = measure_model(model, path, shape, patient(2.0))
    assert [point.n_batch_tokens for point in measured.prefill][:1] == [64]
    assert measured.decode == []
    model.close()


def test_no_time_gives_no_profile(tmp_path: Path) -> None:
    path = path_of("smollm2:135m", tmp_path)
    model = Model(path)
    with pytest.raises(Unmeasured) as caught:
        measure_model(model, path, BenchOptions(4096, 256, 1), patient(0.0))
    assert str(caught.value) == "0 s are too short for this model on this machine"
    model.close()


def test_a_clock_that_counts_the_processor_does_not_count_waiting() -> None:
    clock = BenchClock(60.0, 1, counts_cpu=True)
    assert clock.time(lambda: time.sleep(0.02)) < 0.02


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "F16", "BF16"])
def test_a_trial_is_a_whole_file_in_its_format(tmp_path: Path, name: str) -> None:
    file = tmp_path / "trial.gguf"
    write_trial_model(file, name)
    header = read_header(file)
    matrices = [
        tensor
        for tensor in header.tensors
        if len(tensor.axes) == 2 and tensor.name.startswith("blk.")
    ]
    assert {TYPE_NAMES[matrix.kind] for matrix in matrices} == {name}
    assert sum(matrix.n_weights for matrix in matrices) == TRIAL_WEIGHTS


def test_an_unknown_format_has_no_trial() -> None:
    assert can_write_trial_model("Q8_0")
    assert not can_write_trial_model("type 39")
