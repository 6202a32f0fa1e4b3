import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.workers.batch_tiles import BLOCK, TILE, BatchTiles, batch_size, n_tiles


def laid(lengths: list[int], n_most: int) -> tuple[list[int], list[list[int]]]:
    """Return the lengths that found room, and their places."""
    tiles = BatchTiles(n_most)
    kept = [n for n in lengths if tiles.place(n)]
    return kept, [place.tolist() for place in tiles.places()]


def lanes_of_sums(places: list[int], width: int) -> list[list[int]]:
    """Return the tokens that a processor of so many lanes adds up at once, by tile."""
    groups: dict[int, list[int]] = {}
    for token, place in enumerate(places):
        groups.setdefault(place // width, []).append(token)
    return [groups[key] for key in sorted(groups)]


@given(st.lists(st.integers(1, 600), max_size=40), st.integers(1, 16))
def test_no_place_is_given_twice_and_the_batch_keeps_its_size(
    lengths: list[int], n_most: int
) -> None:
    kept, places = laid(lengths, n_most)
    assert [len(place) for place in places] == kept
    flat = [place for positions in places for place in positions]
    assert len(flat) == len(set(flat))
    size = batch_size([np.array(place, np.int32) for place in places])
    assert TILE <= size <= max(TILE, n_most * TILE) and size % BLOCK == 0
    assert all(place < size for place in flat)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_every_text_is_added_up_as_it_would_be_alone(lengths: list[int]) -> None:
    kept, places = laid(lengths, 24)
    for n, together in zip(kept, places, strict=True):
        (alone,) = laid([n], n_tiles(n))[1]
        assert together == sorted(together), "tokens keep their order"
        for width in (TILE, 16, 8, 4):
            assert lanes_of_sums(together, width) == lanes_of_sums(alone, width)


@given(st.integers(1, 2000))
def test_a_text_alone_takes_no_more_tiles_than_it_must(n: int) -> None:
    kept, places = laid([n], n_tiles(n))
    assert kept == [n]
    assert places == [list(range(n))]


def test_tails_share_blocks() -> None:
    assert laid([21, 21, 21], 1)[0] == [21, 21], "a whole block and two units each"
    assert laid([12, 4, 12, 4, 12, 4, 12, 4], 1)[0] == [12, 4] * 4
    assert laid([16, 8, 8, 20, 12], 1)[0] == [16, 8, 8, 20, 12]
