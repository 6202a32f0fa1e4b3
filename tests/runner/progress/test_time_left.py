import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from paddock.engine.request import Usage
from paddock.runner.progress.time_left import TimeLeft

READ_S = 0.001
"""Of a token of a prompt."""
WRITE_S, WRITE_EACH_S = 0.008, 0.0015
"""Of a step, and besides for each answer in it: as with a small model on two cores."""


@dataclass
class Job:
    """Items of some calls each, one after the other; lengths vary."""

    n_items: int
    n_calls: int
    n_slots: int
    spread: float
    answer_share: float
    n_parallel: int = 16
    knows_sizes: bool = True

    def lengths(self) -> list[int]:
        dice = random.Random(f"{self.n_items} {self.n_calls} {self.spread}")
        lengths = [int(800 * dice.lognormvariate(0, self.spread)) for _ in range(self.n_items)]
        return sorted(lengths, reverse=True) if self.knows_sizes else lengths


def simulated(job: Job) -> Iterator[tuple[float, float | None, int]]:
    """Yield the time, the estimate and the number of ended items whenever one ends."""
    now = 0.0
    left = TimeLeft(lambda: now)
    lengths = {f"{i}": n for i, n in enumerate(job.lengths())}
    left.expect(len(lengths), dict(lengths) if job.knows_sizes else {})
    todo, waiting, running = list(lengths), [], []  # type: ignore[var-annotated]
    calls_left = dict.fromkeys(lengths, job.n_calls)
    n_ended = 0

    def ask(key: str) -> None:
        calls_left[key] -= 1
        waiting.append((key, left.begin_call(key, 4 * lengths[key])))

    for key in todo[: job.n_parallel]:
        ask(key)
    del todo[: job.n_parallel]
    dice = random.Random(1)
    while waiting or running:
        while waiting and len(running) < job.n_slots:
            key, call = waiting.pop(0)
            now += READ_S * lengths[key]
            n_answer = max(1, int(job.answer_share * lengths[key] * dice.uniform(0.5, 1.5)))
            running.append((key, call, n_answer))
        now += WRITE_S + WRITE_EACH_S * len(running)
        for item in tuple(running):
            key, call, n_answer = item
            call.note_tokens(1)
            if call.n_tokens < n_answer:
                continue
            running.remove(item)
            left.answered(call, Usage(lengths[key], 0, n_answer))
            if calls_left[key]:
                ask(key)
                continue
            left.end(key)
            n_ended += 1
            yield now, left.seconds(), n_ended
            if todo:
                ask(todo.pop(0))


@pytest.mark.parametrize(
    "job",
    [
        Job(34, 1, 8, spread=0.0, answer_share=0.1),
        Job(34, 1, 8, spread=0.7, answer_share=0.1),
        Job(34, 1, 4, spread=0.7, answer_share=1.0),
        Job(15, 1, 8, spread=0.5, answer_share=0.1),
        Job(200, 1, 8, spread=0.7, answer_share=0.2),
        Job(40, 3, 8, spread=0.5, answer_share=0.2),
        Job(40, 1, 1, spread=0.5, answer_share=0.2, n_parallel=1),
        Job(40, 1, 64, spread=0.0, answer_share=0.2, n_parallel=128),
        Job(60, 1, 8, spread=0.5, answer_share=0.2, knows_sizes=False),
    ],
    ids=str,
)
def test_from_the_first_item_that_ended_the_estimate_is_within_a_factor_of_two(job: Job) -> None:
    seen = list(simulated(job))
    end = seen[-1][0]
    for now, estimate, n_ended in seen:
        if now > 0.75 * end:
            break
        assert estimate is not None
        assert 0.5 < estimate / (end - now) < 2, (n_ended, now, estimate, end - now)


def test_nothing_is_told_before_an_item_has_ended() -> None:
    left = TimeLeft(lambda: 0.0)
    left.expect(4, {})
    call = left.begin_call("a", 100)
    left.answered(call, Usage(30, 0, 3))
    assert left.seconds() is None
