import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.request import Priority
from paddock.engine.workers.batch_tiles import PACK_TOKENS, TILE, batch_size, n_tiles
from paddock.engine.workers.embed_queue import EmbedBatch, EmbedPiece, EmbedQueue

PRIORITIES: list[Priority] = ["interactive", "normal", "batch"]


def pieces(request_id: int, lengths: list[int]) -> list[EmbedPiece]:
    return [EmbedPiece(request_id, i, np.full(n, i, np.int32)) for i, n in enumerate(lengths)]


def drained(line: EmbedQueue) -> list[EmbedBatch]:
    batches = []
    while len(line):
        batches.append(line.next_batch())
    return batches


requests = st.lists(
    st.tuples(st.lists(st.integers(1, 512), max_size=30), st.sampled_from(PRIORITIES)), max_size=8
)


@given(requests, st.integers(1, 63))
def test_every_piece_is_computed_once_and_whole_within_the_budget(
    requests: list[tuple[list[int], Priority]], n_most: int
) -> None:
    line = EmbedQueue(n_most)
    for request_id, (lengths, priority) in enumerate(requests):
        line.add(pieces(request_id, lengths), priority)
    batches = drained(line)
    seen = sorted((p.request_id, p.number, len(p.tokens)) for b in batches for p in b.pieces)
    assert seen == [(r, i, n) for r, (ns, _) in enumerate(requests) for i, n in enumerate(ns)]
    for batch in batches:
        longest = max(n_tiles(len(piece.tokens)) for piece in batch.pieces)
        assert len(batch.pieces) <= n_most
        assert batch_size(list(batch.places)) <= max(PACK_TOKENS, longest * TILE)
        for piece, places in zip(batch.pieces, batch.places, strict=True):
            assert len(piece.tokens) == len(places)


def test_one_text_is_not_held_up_by_two_thousand() -> None:
    line = EmbedQueue(63)
    line.add(pieces(1, [50] * 2000), "normal")
    line.next_batch()
    line.add(pieces(2, [50]), "normal")
    line.add(pieces(3, [300]), "normal")
    next_two = line.next_batch(), line.next_batch()
    served = [{piece.request_id for piece in batch.pieces} for batch in next_two]
    assert 2 in served[0] and 3 in served[1]


def test_urgent_requests_go_first_and_yet_no_one_starves() -> None:
    line = EmbedQueue(63)
    line.add(pieces(1, [256] * 3), "batch")
    line.add(pieces(2, [256] * 40), "interactive")
    order = [batch.pieces[0].request_id for batch in drained(line)]
    assert order[0] == 2
    assert order.index(1) == 8, "after having been passed over eight times"


def test_what_no_one_waits_for_is_not_computed() -> None:
    line = EmbedQueue(63)
    line.add(pieces(1, [200] * 9), "normal")
    line.add(pieces(2, [200] * 2), "normal")
    line.next_batch()
    line.drop(1)
    assert {p.request_id for batch in drained(line) for p in batch.pieces} == {2}
    line.drop(7)
