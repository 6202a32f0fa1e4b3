from __future__ import annotations

import numpy as np
import pytest

from paddock.engine.request import Sampling, reserved_tokens, resolve_sampling
from paddock.engine.sampling.greedy import pick_greedy, window


def test_the_most_likely_token_is_taken_without_temperature() -> None:
    row = np.array([0.1, 3.0, 2.9], np.float32)
    assert pick_greedy(row, Sampling(), []) == 1


def test_a_token_said_lately_counts_less() -> None:
    row = np.array([0.1, 3.0, 2.9], np.float32)
    assert pick_greedy(row, Sampling(repeat_penalty=1.1), [1]) == 2


def test_the_window_looks_back_over_the_prompt_too() -> None:
    sampling = Sampling(repeat_last_n=4)
    assert window(sampling, [1, 2, 3], [4, 5]) == [2, 3, 4, 5]
    assert window(sampling, [1], [2]) == [1, 2]
    assert window(sampling, [1], [2, 3, 4, 5, 6]) == [3, 4, 5, 6]
    assert window(Sampling(repeat_last_n=-1), [1, 2], [3]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("sampling", "greedy", "penalised"),
    [
        (Sampling(), True, False),
        (Sampling(temperature=0.7), False, False),
        (Sampling(temperature=0.7, top_k=1), True, False),
        (Sampling(repeat_penalty=1.1), True, True),
        (Sampling(repeat_penalty=1.1, repeat_last_n=0), True, False),
    ],
)
def test_what_needs_the_sampler_chain_is_known(
    sampling: Sampling, greedy: bool, penalised: bool
) -> None:
    assert sampling.is_greedy is greedy
    assert sampling.has_penalties is penalised


def test_the_request_goes_before_the_model_and_both_before_the_defaults() -> None:
    sampling = resolve_sampling(
        {"temperature": 0.5, "stop": "END", "seed": None}, {"temperature": 1.0, "seed": 7}
    )
    assert (sampling.temperature, sampling.seed, sampling.stop) == (0.5, 7, ("END",))
    assert sampling.top_k == Sampling().top_k


def test_a_quarter_of_the_context_is_kept_for_the_answer_but_at_most_1024() -> None:
    assert [reserved_tokens(None, n) for n in (1000, 4096, 100_000)] == [250, 1024, 1024]
    assert reserved_tokens(33, 1000) == 33
