"""llama.cpp's own samplers."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Any

from paddock.engine.request import Sampling

from .context import Context
from .library import lib


class SamplerChain:
    """llama.cpp's own samplers for one sequence, in llama.cpp's order."""

    def __init__(self, sampling: Sampling, recent: Items[int], n_vocab: int) -> None:
        self._chain: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        add = lib.llama_sampler_chain_add
        if sampling.has_penalties:
            add(self._chain, _penalties(sampling, len(recent), n_vocab))
        if sampling.top_k > 0:
            add(self._chain, lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.typical_p < 1:
            add(self._chain, lib.llama_sampler_init_typical(sampling.typical_p, 1))
        add(self._chain, lib.llama_sampler_init_top_p(sampling.top_p, 1))
        add(self._chain, lib.llama_sampler_init_min_p(sampling.min_p, 1))
        add(self._chain, lib.llama_sampler_init_temp(sampling.temperature))
        add(self._chain, lib.llama_sampler_init_dist(sampling.seed & 0xFFFFFFFF))
        for token in recent:
            lib.llama_sampler_accept(self._chain, token)

    def pick(self, context: Context, batch_index: int) -> int:
        """Sample after the token at `batch_index` of the last batch."""
        return int(lib.llama_sampler_sample(self._chain, context.pointer, batch_index))

    def accept(self, token: int) -> None:
        """Take note of a token that was chosen elsewhere."""
        lib.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the samplers."""
        if self._chain:
            lib.llama_sampler_free(self._chain)
            self._chain = None


def _penalties(sampling: Sampling, n_recent: int, n_vocab: int) -> Any:
    return lib.llama_sampler_init_penalties(
        n_vocab,
        n_recent if sampling.repeat_last_n < 0 else sampling.repeat_last_n,
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    )
