"""Penalties on tokens that an answer has already, as in llama.cpp's `llama_sampler_penalties`.

llama.cpp looks up every token of the vocabulary (0.5 ms at 151,936 tokens); here only recent ones
are touched, and counts are updated token by token. Pure NumPy.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.request import Sampling


class Penalties:
    """Lower the logits of one answer's recent tokens.

    >>> row = np.array([2.0, -2.0, 1.0], np.float32)
    >>> sampling = Sampling(repeat_penalty=2.0, presence_penalty=0.5)
    >>> Penalties(sampling, np.array([0, 1, 1], np.int32)).apply(row)
    >>> row.tolist()
    [0.5, -4.5, 1.0]
    """

    def __init__(self, sampling: Sampling, prompt: Tokens) -> None:
        """Start after `prompt`; the last `repeat_last_n` tokens count, -1 for all."""
        n = sampling.repeat_last_n
        recent = prompt if n < 0 else prompt[len(prompt) - min(n, len(prompt)) :]
        self._n_window = n
        self._window = deque(recent.tolist()) if n >= 0 else None
        self._repeat = np.float32(sampling.repeat_penalty)
        self._frequency = np.float32(sampling.frequency_penalty)
        self._presence = np.float32(sampling.presence_penalty)
        tokens, counts = np.unique(recent, return_counts=True)
        self._tokens = tokens.astype(np.intp)
        self._counts = counts.astype(np.float32)
        self._places = {token: place for place, token in enumerate(tokens.tolist())}

    def add(self, token: int) -> None:
        place = self._places.get(token)
        if place is None:
            place = self._places[token] = len(self._places)
            if place == len(self._tokens):
                self._tokens = np.resize(self._tokens, 2 * place + 64)
                self._counts = np.resize(self._counts, 2 * place + 64)
            self._tokens[place], self._counts[place] = token, 0
        self._counts[place] += 1
        if self._window is not None:
            self._window.append(token)
            if len(self._window) > self._n_window:
                self._drop(self._window.popleft())

    def _drop(self, token: int) -> None:
        place = self._places[token]
        self._counts[place] -= 1
        if self._counts[place]:
            return
        del self._places[token]
        last = len(self._places)
        if place != last:
            moved = int(self._tokens[last])
            self._tokens[place], self._counts[place] = moved, self._counts[last]
            self._places[moved] = place

    def apply(self, row: Logits) -> None:
        n = len(self._places)
        if not n:
            return
        tokens = self._tokens[:n]
        values = row[tokens]
        values = np.where(values <= 0, values * self._repeat, values / self._repeat)
        if self._frequency or self._presence:
            values -= self._counts[:n] * self._frequency + self._presence
        row[tokens] = values
