"""Real models are measured within the time that is given."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from paddock.engine.arrays import Logits
from paddock.engine.llama.llama_context import Context
from paddock.engine.llama.llama_model import Model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.measure import (
    Bench,
    BenchClock,
    BenchOptions,
    MeasuringStopped,
    Unmeasured,
    drafts_keep_answers,
    measure_model,
)
from tests.calls import note_calls
from tests.fakes.one_layer import write_one_layer

ENOUGH_S = 240.0
"""All that is wanted is measured in it, on a busy machine too; on a quiet one in 10 s."""


def patient(seconds: float = ENOUGH_S) -> BenchClock:
    """Return a clock for a busy machine."""
    return BenchClock(seconds, 1, least_share=0.0)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Model]:
    """Yield a model of one layer."""
    path = tmp_path / "one-layer.gguf"
    write_one_layer(path, "Q8_0")
    model = Model(path)
    yield model
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
    tmp_path: Path, trial: Model
) -> None:
    path = path_of("smollm2:135m", tmp_path)
    model = Model(path)
    shape = BenchOptions(n_cells=4096, n_batch_tokens=256, n_threads=1)
    measured = measure_model(model, shape, patient(), depths=())
    assert measured.prefill[0].n_batch_tokens in (64, 32, 16)
    counts = [point.n_sequences for point in measured.decode if point.is_unified]
    assert counts[0] == 1
    assert {point.is_unified for point in measured.decode} == {True, False}
    assert 20_000 < measured.cell_bytes < 30_000, "30 layers of 3 heads of 64 keys and values"
    assert measured.copy_s is not None
    assert measured.agreement.drafts == rows_are_alike(model, shape)
    with pytest.raises(
        Unmeasured, match=r"^other programs used the processor: the threads got \d+%"
    ):
        measure_model(trial, shape, BenchClock(20.0, 1, least_share=2.0), depths=())
    model.close()


def test_a_measurement_ends_before_the_next_step_if_something_else_is_to_be_computed(
    trial: Model, monkeypatch: pytest.MonkeyPatch
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
            measure_model(trial, shape, clock, depths=(128,))
        assert (seen["step"], seen["made"] - seen["closed"]) == (n_most, 0)


def test_a_graphics_device_is_measured_with_long_prompts_and_many_sequences(trial: Model) -> None:
    shape = BenchOptions(n_cells=4096, n_batch_tokens=512, n_threads=1, is_gpu=True)
    measured = measure_model(trial, shape, patient(), depths=(128,))
    assert [point.n_batch_tokens for point in measured.prefill] == [64, 512]
    assert {point.is_unified for point in measured.decode} == {False}
    at_depth: dict[int, list[int]] = {64: [], 128: []}
    for point in measured.decode:
        at_depth[point.n_depth_tokens].append(point.n_sequences)
    assert at_depth[64][-1] >= 16
    assert at_depth[128][-1] >= 8
    assert measured.agreement.drafts is not None


def test_no_time_gives_no_profile(tmp_path: Path) -> None:
    path = path_of("smollm2:135m", tmp_path)
    model = Model(path)
    with pytest.raises(Unmeasured) as caught:
        measure_model(model, BenchOptions(4096, 256, 1), patient(0.0))
    assert str(caught.value) == "0 s are too short for this model on this machine"
    model.close()


def test_a_clock_that_counts_the_processor_does_not_count_waiting() -> None:
    clock = BenchClock(60.0, 1, counts_cpu=True)
    assert clock.time(lambda: time.sleep(0.02)) < 0.02
