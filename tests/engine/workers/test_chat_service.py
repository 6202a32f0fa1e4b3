"""What a worker says goes out in few frames, and in time."""

import pytest

from paddock.engine.decoding.running_request import StepOutput
from paddock.engine.workers.chat_service import OutputBuffer


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
