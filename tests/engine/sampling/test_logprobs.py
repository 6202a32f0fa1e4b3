from __future__ import annotations

import math

import numpy as np
import pytest

from paddock.engine.sampling.logits import RowLogprobs

PIECES = [b"a", b"\xc3", b"bc", b""]


def test_they_are_the_models_own() -> None:
    row = np.array([1.0, 3.0, 2.0, -np.inf], np.float32)
    likely = RowLogprobs(row, 2, PIECES.__getitem__)
    told = likely.of(2)
    norm = math.log(sum(math.exp(x) for x in (1, 3, 2)))
    assert (told.token, told.raw) == ("bc", b"bc")
    assert told.logprob == pytest.approx(2 - norm, abs=1e-5)
    assert [(token, raw) for token, _, raw in told.top] == [("\ufffd", b"\xc3"), ("bc", b"bc")]
    assert told.top[0][1] == pytest.approx(3 - norm, abs=1e-5)


def test_none_beside_it_are_told_where_none_were_asked() -> None:
    assert RowLogprobs(np.zeros(4, np.float32), 0, PIECES.__getitem__).of(0).top == ()


def test_large_logits_do_not_overflow() -> None:
    row = np.array([3e4, 3e4, 0.0, 0.0], np.float32)
    told = RowLogprobs(row, 1, PIECES.__getitem__).of(0)
    assert told.logprob == pytest.approx(math.log(0.5), abs=1e-4)
