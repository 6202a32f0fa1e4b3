from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.decoding.embedding import PACK_TOKENS, packed


@given(st.lists(st.integers(1, 512), max_size=60), st.integers(1, 64))
def test_every_text_is_packed_once_and_whole(lengths: list[int], n_seq_max: int) -> None:
    batches = packed(lengths, 512, n_seq_max)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= n_seq_max
        n_tokens = sum(lengths[index] for index in batch)
        assert n_tokens <= max(PACK_TOKENS, lengths[batch[0]]) <= 512
