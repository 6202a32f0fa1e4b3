"""llama.cpp's samplers, on the host."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits
from paddock.engine.request import Sampling

from .library import lib

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

_WIDEST_LOGITS = 87
"""Behind the likeliest by more, a probability has no normal float: of 2e6 tokens none is 0."""


class SamplerChain:
    """llama.cpp's samplers for one sequence, in llama.cpp's order.

    Penalties are applied to a row before (`sampling.logits`).
    """

    def __init__(self, sampling: Sampling) -> None:
        self._chain: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        add = lib.llama_sampler_chain_add
        if sampling.top_k > 0:
            add(self._chain, lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.typical_p < 1:
            add(self._chain, lib.llama_sampler_init_typical(sampling.typical_p, 1))
        add(self._chain, lib.llama_sampler_init_top_p(sampling.top_p, 1))
        add(self._chain, lib.llama_sampler_init_min_p(sampling.min_p, 1))
        add(self._chain, lib.llama_sampler_init_temp(sampling.temperature))
        add(self._chain, lib.llama_sampler_init_dist(sampling.seed & 0xFFFFFFFF))
        # The entropy of llama.cpp's `typical` is not a number if a probability is 0.
        self._widest = np.float32(_WIDEST_LOGITS if sampling.typical_p < 1 else np.inf)
        self._data = np.zeros(0, _TOKEN_DATA)
        self._array: Any = lib.llama_token_data_array()

    def pick(self, tokens: NDArray[np.intp], logits: Logits, *, are_sorted: bool) -> int:
        """Draw one of the tokens.

        `tokens` are at least one, with their `logits`; `are_sorted`: the likeliest comes first.
        Impossible tokens are left out; where all are, the first one is taken.
        """
        possible = logits > logits.max() - self._widest
        if not possible.any():
            return int(tokens[0])
        if not possible.all():
            tokens, logits = tokens[possible], logits[possible]
        n = len(tokens)
        if len(self._data) < n:
            self._data = np.zeros(n, _TOKEN_DATA)
            self._array.data = self._data.ctypes.data_as(lib.llama_token_data_p)
        self._data["id"][:n] = tokens
        self._data["logit"][:n] = logits
        array = self._array
        array.size = n
        array.selected = -1
        array.sorted = are_sorted
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(self._data["id"][array.selected])

    def pick_of_all(self, row: Logits) -> int:
        token = self.pick(np.arange(len(row)), row, are_sorted=False)
        # Not kept for every request: 1.8 MB at 151,936 tokens.
        self._data = np.zeros(0, _TOKEN_DATA)
        return token

    def close(self) -> None:
        if self._chain:
            lib.llama_sampler_free(self._chain)
            self._chain = None
