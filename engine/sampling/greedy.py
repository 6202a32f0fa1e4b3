"""Pick the next token from a row of logits where arg-max is enough. Pure NumPy.

Sampled rows go through llama.cpp's own sampler chain (`native.SamplerChain`). Greedy rows need
none: an arg-max over the row, after the penalties of llama.cpp's `llama_sampler_penalties`
(src/llama-sampler.cpp) have been applied to the few tokens that they concern.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Items

import numpy as np

from paddock.engine.arrays import Logits
from paddock.engine.request import Sampling


def window(sampling: Sampling, prompt: Items[int], answer: Items[int]) -> list[int]:
    """Give the tokens that penalties look back at: the last `repeat_last_n`, -1 for all."""
    n = sampling.repeat_last_n
    if n < 0:
        return [*prompt, *answer]
    recent = list(answer[-n:])
    missing = n - len(recent)
    return [*prompt[len(prompt) - missing :], *recent] if missing > 0 else recent


def pick_greedy(row: Logits, sampling: Sampling, recent: Items[int]) -> int:
    """Take the most likely token.

    Args:
        row: shape (n_vocab,), changed in place where penalties apply.
        sampling: its penalties are used.
        recent: what `window` gave; may be empty without penalties.
    """
    if recent and sampling.has_penalties:
        penalise(row, sampling, recent)
    return int(row.argmax())


def penalise(row: Logits, sampling: Sampling, recent: Items[int]) -> None:
    """Lower the logits of recent tokens in place.

    >>> row = np.array([2.0, -2.0, 1.0], np.float32)
    >>> penalise(row, Sampling(repeat_penalty=2.0, presence_penalty=0.5), [0, 1, 1])
    >>> row.tolist()
    [0.5, -4.5, 1.0]
    """
    counted = Counter(recent)
    tokens = np.fromiter(counted, np.intp, len(counted))
    counts = np.fromiter(counted.values(), np.float32, len(counted))
    values = row[tokens]
    penalty = np.float32(sampling.repeat_penalty)
    values = np.where(values <= 0, values * penalty, values / penalty)
    values -= counts * np.float32(sampling.frequency_penalty)
    row[tokens] = values - np.float32(sampling.presence_penalty)
