import math

import pytest

from paddock.engine.errors import BadRequest
from paddock.engine.request import Sampling, resolve_sampling


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"temperature": math.nan}, "`temperature` must be a number from 0 to 100, not nan"),
        ({"temperature": "hot"}, "`temperature` must be a number from 0 to 100, not 'hot'"),
        ({"top_p": 2}, "`top_p` must be a number from 0 to 1, not 2"),
        ({"repeat_penalty": 0}, "`repeat_penalty` must be a number from 0.01 to 100, not 0"),
        ({"repeat_last_n": -2}, "`repeat_last_n` must be a whole number from -1 on, not -2"),
        ({"typical_p": -1}, "`typical_p` must be a number from 0 to 1, not -1"),
        ({"max_tokens": -3}, "`max_tokens` must be a whole number from -2 on, not -3"),
        ({"num_predict": 2.5}, "`max_tokens` must be a whole number from -2 on, not 2.5"),
        ({"stop": 3}, "`stop` must be a text or a list of at most 256 texts, not 3"),
        (
            {"stop": ["x"] * 257},
            "`stop` must be a text or a list of at most 256 texts, not [" + "'x', " * 19 + "'x'…",
        ),
        (
            {"logit_bias": {"x": 1}},
            "`logit_bias` must be numbers from -100 to 100 by token ids, not {'x': 1}",
        ),
        (
            {"logit_bias": {7: math.inf}},
            "`logit_bias` must be numbers from -100 to 100 by token ids, not {7: inf}",
        ),
        (
            {"temprature": 1},
            "there is no sampling value called 'temprature'. Did you mean `temperature`?",
        ),
        ({"guards_repetition": 1}, "`guards_repetition` must be true or false, not 1"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_in_plain_words(
    params: dict[str, object], text: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        resolve_sampling(params)
    assert str(caught.value) == text


def test_values_are_taken_as_other_clients_write_them() -> None:
    given = {"top_k": 40.0, "stop": "END", "logit_bias": {"12": -100}, "temperature": 1}
    assert resolve_sampling({"num_predict": -1.0}).max_tokens == -1
    assert resolve_sampling({"max_tokens": -2, "typical_p": 0.5}).typical_p == 0.5
    assert resolve_sampling(given) == Sampling(
        temperature=1.0, top_k=40, stop=("END",), logit_bias={12: -100.0}
    )
