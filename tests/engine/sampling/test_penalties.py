import numpy as np
import pytest

from paddock.engine.request import Sampling, reserved_tokens, resolve_sampling
from paddock.engine.sampling.penalties import Penalties


def lowered(penalties: Penalties, n_vocab: int = 8) -> list[int]:
    row = np.ones(n_vocab, np.float32)
    penalties.apply(row)
    return np.flatnonzero(row < 1).tolist()


def penalties_after(sampling: Sampling, prompt: list[int], answer: list[int]) -> Penalties:
    penalties = Penalties(sampling, np.array(prompt, np.int32))
    for token in answer:
        penalties.add(token)
    return penalties


def test_the_window_looks_back_over_the_prompt_too() -> None:
    four = Sampling(repeat_last_n=4, presence_penalty=0.5)
    assert lowered(penalties_after(four, [1, 2, 3], [4, 5])) == [2, 3, 4, 5]
    assert lowered(penalties_after(four, [1], [2])) == [1, 2]
    assert lowered(penalties_after(four, [1], [2, 3, 4, 5, 6])) == [3, 4, 5, 6]
    assert lowered(penalties_after(four, [7, 1], [2, 7, 2, 7, 2])) == [2, 7]


def test_without_a_window_the_whole_prompt_and_answer_count() -> None:
    everything = Sampling(repeat_last_n=-1, frequency_penalty=0.5)
    penalties = penalties_after(everything, [0, 1], [2, 1, 2, *range(3, 200), 2])
    assert lowered(penalties, 300) == list(range(200))
    row = np.zeros(300, np.float32)
    penalties.apply(row)
    assert row[:4].tolist() == [-0.5, -1.0, -1.5, -0.5]


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
