"""What a worker says goes out in few frames, and in time."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.engine.chat.prompt_builder import PromptBuilder
from paddock.engine.decoding.running_request import StepOutput
from paddock.engine.llama.llama_model import Model, ModelOptions
from paddock.engine.profile.profile import Agreement, Profile
from paddock.engine.workers.chat_service import ChatService, OutputBuffer
from paddock.engine.workers.worker_protocol import WorkerOptions
from tests.fakes import tiny


def frames_of(steps: list[StepOutput]) -> list[list[float]]:
    """Return the ages of the turns in each frame."""
    held, now, frames = OutputBuffer(), 0.0, []
    for step in steps:
        now += step.step_s
        if turns := held.add(step, now):
            frames.append([round(turn["age_s"], 3) for turn in turns])
    return frames


def test_quick_tokens_of_a_chat_go_out_as_often_as_a_screen_shows_them() -> None:
    frames = frames_of([StepOutput(step_s=0.008, is_read=True)] * 9)
    assert frames == [[0.016, 0.008, 0.0]] * 3


def test_tokens_of_jobs_wait_for_one_another_a_little_longer() -> None:
    frames = frames_of([StepOutput(step_s=0.008)] * 50)
    assert [len(ages) for ages in frames] == [25, 25]


@pytest.mark.parametrize("is_read", [True, False])
def test_where_steps_are_slow_each_is_told_at_once(is_read: bool) -> None:
    assert frames_of([StepOutput(step_s=0.21, is_read=is_read)] * 3) == [[0.0]] * 3


def test_what_is_waited_for_takes_along_what_was_held() -> None:
    steps = [
        StepOutput(step_s=0.008),
        StepOutput(step_s=0.008, is_urgent=True),
        StepOutput(step_s=0.008),
    ]
    assert frames_of(steps) == [[0.008, 0.0]]


def test_the_memory_of_a_head_that_guesses_ahead_counts_from_the_start(tmp_path: Path) -> None:
    path = tiny.alphabet(tmp_path / "alphabet.gguf")
    plain = WorkerOptions(str(path), "chat", 1024, 4096, 4, 256, 1)
    guessing = replace(plain, has_mtp=True)
    with closing(Model(path, ModelOptions(n_gpu_layers=0, loads_mtp=True))) as model:

        def cell_bytes(load: WorkerOptions, *, drafts: bool | None = None) -> int:
            profile = Profile("", "cpu1", "", 0.0, agreement=Agreement(drafts=drafts))
            service = ChatService(model, PromptBuilder(model), load, profile, sent.append)
            memory = service.memory()
            assert service._draft_model is None or load.has_mtp
            service._cache.close()
            if service._draft_model is not None:
                service._draft_model.close()
            return int(memory["cell_bytes"][0])

        sent: list[Any] = []
        without = cell_bytes(plain)
        assert cell_bytes(guessing) == pytest.approx(1.5 * without), "two layers, and one"
        assert cell_bytes(guessing, drafts=False) == without, "it would not be used"


def test_an_unexpected_error_after_compiling_is_answered_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny.alphabet(tmp_path / "alphabet.gguf")
    load = WorkerOptions(str(path), "chat", 1024, 4096, 4, 256, 1)
    sent: list[Any] = []
    posted: list[Any] = []

    def decode_request(request_id: int, *_: object) -> int:
        if request_id == 1:
            raise RuntimeError("a defect")
        return request_id

    with closing(Model(path, ModelOptions(n_gpu_layers=0))) as model:
        service = ChatService(model, PromptBuilder(model), load, None, sent.append)
        service._cache.close()
        monkeypatch.setattr(service, "_decode_request", decode_request)
        monkeypatch.setattr(service._loop, "post", posted.append)
        key: Any = "a schema"
        waiting: Any = [(number, None, None) for number in (1, 2)]
        service._compiling[key] = waiting
        service._finish_compiling(key, SimpleNamespace(new=lambda: None))  # type: ignore[arg-type]
    assert [(frame["event"], frame["id"]) for frame in sent] == [("refused", 1)]
    assert "the log says why" in str(sent[0])
    assert "RuntimeError: a defect" in capsys.readouterr().err
    assert posted == [2]
