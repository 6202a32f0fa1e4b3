"""llama.cpp's samplers: on the host for one sequence, on the device for all of a context."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.request import Sampling

from .library import lib

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


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
        self._data = np.zeros(0, _TOKEN_DATA)
        self._array: Any = lib.llama_token_data_array()

    def pick(self, tokens: NDArray[np.intp], logits: Logits, *, are_sorted: bool) -> int:
        """Draw one of the tokens.

        `tokens` are at least one, with their `logits`; `are_sorted`: the likeliest comes first.
        """
        n = len(tokens)
        if len(self._data) < n:
            self._data = np.zeros(n, _TOKEN_DATA)
            self._array.data = self._data.ctypes.data_as(lib.llama_token_data_p)
        self._data["id"][:n] = tokens
        self._data["logit"][:n] = logits
        array = self._array
        array.size, array.selected, array.sorted = n, -1, are_sorted
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


class DeviceChoice:
    """Choice within the forward pass: each row returns its likeliest tokens with their logits.

    Every sequence id has a chain of its own, and at most one row in a step. Greedy answers get
    theirs so too: with its greedy sampler llama.cpp copies whole rows beside the token. Draws stay
    on the host: on the device the same seed would draw other tokens, so an answer would depend on
    what else runs.
    """

    def __init__(self, context: Any, n_seq_ids: int, n_candidates: int) -> None:
        """Set a chain for each sequence id; the next decode reserves its graph again."""
        self._context = context
        self._chains: list[Any] = []
        self.n_candidates = n_candidates
        self.is_possible = True
        for seq_id in range(n_seq_ids):
            chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(n_candidates))
            self._chains.append(chain)
            is_set = lib.llama_set_sampler(context, seq_id, chain)
            # llama.cpp marks samplers that the device can compute by a plus.
            name = lib.llama_sampler_name(lib.llama_sampler_chain_get(chain, 0))
            if not is_set or not name.startswith(b"+"):
                self.is_possible = False
                break

    def candidates(self, wanted: NDArray[np.intp]) -> tuple[Tokens, Logits] | None:
        """Return the likeliest tokens after these places of the last batch, in any order.

        llama.cpp keeps their rows at equal distances, in the batch's order: the first and the last
        say where all are. Asking for each takes 20 µs.
        """
        ends = int(wanted[0]), int(wanted[-1])
        counts = {
            count(self._context, place)
            for place in ends
            for count in (
                lib.llama_get_sampled_candidates_count_ith, lib.llama_get_sampled_logits_count_ith
            )
        }  # fmt: skip
        n = counts.pop()
        if counts or not n:
            return None
        found = []
        for get, kind in (
            (lib.llama_get_sampled_candidates_ith, np.int32),
            (lib.llama_get_sampled_logits_ith, np.float32),
        ):
            first, last = (ctypes.addressof(get(self._context, place).contents) for place in ends)
            distance, odd = divmod(last - first, max(1, len(wanted) - 1))
            if odd:
                return None
            memory = (ctypes.c_char * (last - first + 4 * n)).from_address(first)
            found.append(np.ndarray((len(wanted), n), kind, memory, strides=(distance, 4)))
        return found[0], found[1]

    def close(self) -> None:
        """Take the chains away from the context, which must be open still, and free them."""
        for seq_id, chain in enumerate(self._chains):
            lib.llama_set_sampler(self._context, seq_id, None)
            lib.llama_sampler_free(chain)
        self._chains.clear()
