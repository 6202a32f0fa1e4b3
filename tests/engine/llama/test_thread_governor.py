from pathlib import Path

import pytest

from paddock.engine.llama import llama_weights
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.llama.thread_governor import ThreadGovernor
from tests.fakes import tiny


@pytest.mark.parametrize(("n_gpu_layers", "is_governed"), [(0, True), (1, False)])
def test_the_threads_of_a_model_on_the_processor_are_governed_in_every_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_gpu_layers: int, is_governed: bool
) -> None:
    monkeypatch.setattr(llama_weights, "supports_gpu", lambda: True)
    model = Model(tiny.llama(tmp_path / "x.gguf"), ModelOptions(n_gpu_layers=n_gpu_layers))
    with Context(model, ContextOptions(256, 64, 1, 2)) as context:
        assert bool(context._governors) == is_governed
    model.close()


@pytest.mark.parametrize(
    ("n_threads", "steps", "expected"),
    [
        (2, [(0.3, 0.45)], [1]),  # threads that do not run are let go at once
        (8, [(0.25, 0.25 * 7.6)] * 50, [8] * 50),
        (2, [(0.05, 0.05)] * 4, [2, 2, 2, 1]),  # short decodes are judged together
    ],
)
def test_threads_that_do_not_run_are_let_go(
    n_threads: int, steps: list[tuple[float, float]], expected: list[int]
) -> None:
    governor = ThreadGovernor(n_threads)
    assert [governor.observe(*step) for step in steps] == expected


def test_a_program_that_slows_steps_by_less_than_fewer_threads_would_takes_none_away() -> None:
    governor = ThreadGovernor(2)
    for _ in range(10):
        governor.observe(0.05, 0.099)
    seen = {governor.observe(0.0625, 0.1) for _ in range(50)}
    assert seen == {2}, "a fifth of the processor is used by others"
    assert governor.observe(0.4, 0.6) == 1, "a stall: half as quick with one thread would be 0.1"


def test_steps_of_another_size_are_compared_with_their_own_kind() -> None:
    governor = ThreadGovernor(2)
    for _ in range(4):
        governor.observe(0.05, 0.099, 1)
        governor.observe(0.6, 1.19, 512)
    assert governor.observe(0.75, 1.2, 512) == 2
    assert governor.observe(0.75, 1.1, 1) == 1


def test_when_all_threads_are_tried_again_they_are_compared_with_what_fewer_took() -> None:
    governor = ThreadGovernor(2)
    assert governor.observe(0.3, 0.45) == 1
    while governor.observe(0.08, 0.08) == 1:
        pass
    assert {governor.observe(0.06, 0.096) for _ in range(20)} == {2}, "0.08 s with one"
    assert governor.observe(0.2, 0.25) == 1


def test_all_threads_are_tried_again_after_a_pause_that_grows() -> None:
    governor = ThreadGovernor(2)
    tried_after_s = []
    for _ in range(5):
        assert governor.observe(0.5, 0.6) == 1
        waited_s = 0.0
        while governor.observe(0.25, 0.25) == 1:
            waited_s += 0.25
        tried_after_s.append(round(waited_s))
    assert tried_after_s == [0, 1, 1, 2, 3]


def test_a_stall_of_a_moment_is_soon_over() -> None:
    governor = ThreadGovernor(2)
    assert governor.observe(0.2, 0.22) == 1
    waited_s = 0.0
    while governor.observe(0.05, 0.05) == 1:
        waited_s += 0.05
    assert waited_s < 0.5


def test_a_stall_that_is_over_when_it_is_judged_takes_no_thread_away() -> None:
    governor = ThreadGovernor(2)
    assert [governor.observe(*step) for step in [(0.15, 0.16), (0.06, 0.119)]] == [2, 2]
    assert [governor.observe(*step) for step in [(0.15, 0.16), (0.06, 0.07)]] == [2, 1]
